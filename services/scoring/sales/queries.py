"""Assignments and deals, as far as stages need them."""

from collections.abc import Sequence
from datetime import datetime

from shared.db import Connection
from shared.events import DealChanged, LeadAssigned
from shared.ids import AssignmentId, LeadId

ASSIGN = """
INSERT INTO assignments AS known (assignment_id, lead_id, revision, state)
SELECT *, 'offered' FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (assignment_id) DO UPDATE SET revision = excluded.revision
"""
SETTLE = """
INSERT INTO assignments AS known (assignment_id, lead_id, revision, state, settled_at) VALUES ($1, $2, 0, $3, $4)
ON CONFLICT (assignment_id) DO UPDATE SET state = excluded.state, settled_at = excluded.settled_at
WHERE known.settled_at IS NULL OR (known.settled_at, known.state) < (excluded.settled_at, excluded.state)
"""
SAVE_DEALS = """
INSERT INTO deals AS known (deal_id, lead_id, revision, status, opened_at, closed_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT (deal_id) DO UPDATE SET lead_id = excluded.lead_id, revision = excluded.revision, status = excluded.status,
    opened_at = excluded.opened_at, closed_at = excluded.closed_at
WHERE known.revision < excluded.revision
"""


async def save_assignments(connection: Connection, events: Sequence[LeadAssigned]) -> None:
    """Keep assignments; what became of one may have been told before."""
    ordered = sorted({event.assignment_id: event for event in events}.values(), key=lambda event: event.assignment_id)
    await connection.execute(
        ASSIGN,
        [event.assignment_id for event in ordered],
        [event.lead_id for event in ordered],
        [event.revision for event in ordered],
    )


async def settle_assignment(
    connection: Connection, assignment_id: AssignmentId, lead_id: LeadId, state: str, at: datetime
) -> None:
    """Keep what became of an assignment; the latest word counts."""
    await connection.execute(SETTLE, assignment_id, lead_id, state, at)


async def save_deals(connection: Connection, events: Sequence[DealChanged]) -> None:
    """Keep the highest revision of each deal."""
    newest: dict[str, DealChanged] = {}
    for event in sorted(events, key=lambda event: event.revision):
        newest[event.deal_id] = event
    ordered = [newest[deal_id] for deal_id in sorted(newest)]
    await connection.execute(
        SAVE_DEALS,
        [event.deal_id for event in ordered],
        [event.lead_id for event in ordered],
        [event.revision for event in ordered],
        [event.status for event in ordered],
        [event.opened_at for event in ordered],
        [event.closed_at for event in ordered],
    )
