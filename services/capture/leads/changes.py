"""What follows when the profile of a person is another one: it is told. However many persons, in a few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.capture.enrichment import queries as enrichments
from services.capture.enrichment.document import ENRICHMENT
from services.capture.leads.domain import Profile
from services.capture.leads.telling import Cause, captured_draft
from shared.db import Tx
from shared.events import IdentifierKind
from shared.ids import LeadId
from shared.service import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A person whose profile is another one now, by the lead that stands for them.

    `before` is None of a new person, and after a merge or unmerge by hand.
    """

    lead_id: LeadId
    made_from: IdentifierKind
    revision: int
    before: Profile | None
    profile: Profile
    captured_at: datetime
    cause: Cause


async def tell_changes(changes: Sequence[Change], tx: Tx, runtime: Runtime) -> None:
    """Tell the profiles as they stand, and have providers asked about them. The rows must be locked and saved."""
    drafts = [
        captured_draft(
            change.lead_id, change.made_from, change.revision, change.profile, change.captured_at, change.cause
        )
        for change in changes
    ]
    await runtime.keys.emit_drafts(tx, drafts)
    # What a provider said is no reason to ask again: whoever asked it goes on to those after it anyway.
    changed = [change.lead_id for change in changes if not change.cause.origin.startswith(ENRICHMENT)]
    if changed:
        await enrichments.schedule(tx.connection, changed, runtime.clock.now())
