"""What is kept of facts besides what follows from them: when they were received, and what they were before."""

from collections.abc import Sequence

from services.attribution.history import queries
from services.attribution.history.told import IdentityKind, IdentityTold
from shared.db import Tx
from shared.events import DealChanged, IdentityLinked, LeadCaptured, LeadErased, LeadMerged, LeadUnmerged
from shared.ids import LeadId

IdentityFact = IdentityLinked | LeadMerged | LeadUnmerged | LeadErased
IDENTITY_FACTS: tuple[type[IdentityFact], ...] = (IdentityLinked, LeadMerged, LeadUnmerged, LeadErased)


async def on_identity_told(events: Sequence[IdentityFact], tx: Tx) -> None:
    """Write down who turned out to be whom, and when that was received."""
    await queries.put_identity(tx.connection, [_row(event) for event in events])


async def on_profiles_told(events: Sequence[LeadCaptured], tx: Tx) -> None:
    """Write down each revision of profiles."""
    await queries.put_profiles(tx.connection, events)


async def on_deals_told(events: Sequence[DealChanged], tx: Tx) -> None:
    """Write down each revision of deals."""
    await queries.put_deals(tx.connection, events)


def _row(event: IdentityFact) -> IdentityTold:
    kind: IdentityKind
    lead_id: LeadId
    into_id: LeadId | None
    match event:
        case IdentityLinked():
            kind, lead_id, into_id = "linked", event.anonymous_lead_id, event.lead_id
        case LeadMerged():
            kind, lead_id, into_id = "merged", event.from_lead_id, event.lead_id
        case LeadUnmerged():
            kind, lead_id, into_id = "unmerged", event.from_lead_id, event.lead_id
        case LeadErased():
            kind, lead_id, into_id = "erased", event.lead_id, None
    return IdentityTold(event.event_id, kind, lead_id, into_id, event.occurred_at, event.received_at)
