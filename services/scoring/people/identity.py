"""Follow merges, unmerges and links: the persons concerned are made anew from the facts that are now theirs."""

from services.scoring.parts import Parts
from services.scoring.people.handlers import make_anew_everywhere
from services.scoring.stages.queries import mark_unsettled
from shared.db import Tx
from shared.events import IdentityLinked, LeadMerged, LeadUnmerged
from shared.ids import LeadId


async def on_identity_changed(
    event: IdentityLinked | LeadMerged | LeadUnmerged, tx: Tx, affected: set[LeadId], *, parts: Parts
) -> None:
    """Facts went from some persons to others."""
    concerned = affected | {event.lead_id}
    if isinstance(event, IdentityLinked):
        concerned.add(event.anonymous_lead_id)
    else:
        concerned.add(event.from_lead_id)
    await make_anew_everywhere(tx, parts, concerned)
    await mark_unsettled(tx.connection, concerned)
