"""Fold what sales made of leads."""

from collections.abc import Sequence
from typing import assert_never

from services.scoring.parts import Parts
from services.scoring.people.handlers import reconsider_sales
from services.scoring.sales import queries
from shared.db import Tx
from shared.events import AssignmentAccepted, AssignmentExpired, AssignmentRejected, DealChanged, LeadAssigned


async def on_assigned(events: Sequence[LeadAssigned], tx: Tx, *, parts: Parts) -> None:
    """Keep who is responsible."""
    known = await queries.save_assignments(tx.connection, events)
    await reconsider_sales(tx, parts, known | {event.lead_id for event in events})


async def on_assignment_settled(
    events: Sequence[AssignmentAccepted | AssignmentRejected | AssignmentExpired], tx: Tx, *, parts: Parts
) -> None:
    """Keep what became of assignments."""
    concerned = {event.lead_id for event in events}
    for event in events:
        settled = (event.assignment_id, event.lead_id, _state_after(event), event.occurred_at)
        if (known := await queries.settle_assignment(tx.connection, *settled)) is not None:
            concerned.add(known)
    await reconsider_sales(tx, parts, concerned)


async def on_deals(events: Sequence[DealChanged], tx: Tx, *, parts: Parts) -> None:
    """Keep how deals stand."""
    await queries.save_deals(tx.connection, events)
    await reconsider_sales(tx, parts, [event.lead_id for event in events])


def _state_after(event: AssignmentAccepted | AssignmentRejected | AssignmentExpired) -> str:
    match event:
        case AssignmentAccepted():
            return "accepted"
        case AssignmentRejected():
            return "rejected"
        case AssignmentExpired():
            return "expired"
        case _:
            assert_never(event)
