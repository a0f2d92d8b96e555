"""What is kept of facts besides what follows from them: when they were received, and what they were before."""

from collections.abc import Sequence

from services.attribution.history import queries
from services.attribution.history.queries import IdentityRow
from shared.db import Tx
from shared.events import IdentityLinked, LeadCaptured, LeadErased, LeadMerged, LeadUnmerged

IdentityFact = IdentityLinked | LeadMerged | LeadUnmerged | LeadErased
IDENTITY_FACTS: tuple[type[IdentityFact], ...] = (IdentityLinked, LeadMerged, LeadUnmerged, LeadErased)


async def on_identity_told(events: Sequence[IdentityFact], tx: Tx) -> None:
    """Write down who turned out to be whom, and when that was received."""
    await queries.put_identity(tx.connection, [_row(event) for event in events])


async def on_profiles_told(events: Sequence[LeadCaptured], tx: Tx) -> None:
    """Write down each revision of profiles."""
    await queries.put_profiles(tx.connection, events)


def _row(event: IdentityFact) -> IdentityRow:
    match event:
        case IdentityLinked():
            return IdentityRow(
                event.event_id,
                "linked",
                event.anonymous_lead_id,
                event.lead_id,
                event.occurred_at,
                event.received_at,
            )
        case LeadErased():
            return IdentityRow(event.event_id, "erased", event.lead_id, None, event.occurred_at, event.received_at)
        case LeadMerged() | LeadUnmerged():
            kind = "merged" if isinstance(event, LeadMerged) else "unmerged"
            return IdentityRow(
                event.event_id, kind, event.from_lead_id, event.lead_id, event.occurred_at, event.received_at
            )
