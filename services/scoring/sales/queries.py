"""Assignments and deals, as far as stages need them."""

from collections.abc import Sequence
from datetime import datetime

from shared.db import Connection
from shared.events import DealChanged, LeadAssigned
from shared.ids import AssignmentId, LeadId

# An assignment that goes on after a merge is told anew, with the survivor's id and a higher revision, and by another
# partition. It stays its first lead's, who has it again once the merge is undone: `id_from` is the revision that
# `lead_id` was told with, 0 for what became of it, which always comes with the first one.
ASSIGN = """
INSERT INTO assignments AS known (assignment_id, lead_id, id_from, revision, state)
SELECT *, 'offered' FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
ON CONFLICT (assignment_id) DO UPDATE SET revision = greatest(known.revision, excluded.revision),
    lead_id = CASE WHEN excluded.id_from < known.id_from THEN excluded.lead_id ELSE known.lead_id END,
    id_from = least(known.id_from, excluded.id_from)
RETURNING old.lead_id
"""
SETTLE = """
INSERT INTO assignments AS known (assignment_id, lead_id, revision, state, settled_at) VALUES ($1, $2, 0, $3, $4)
ON CONFLICT (assignment_id) DO UPDATE SET lead_id = excluded.lead_id, id_from = 0,
    state = CASE WHEN (known.settled_at, known.state) >= (excluded.settled_at, excluded.state)
        THEN known.state ELSE excluded.state END,
    settled_at = greatest(known.settled_at, excluded.settled_at)
RETURNING old.lead_id
"""
SAVE_DEALS = """
INSERT INTO deals AS known (deal_id, lead_id, revision, status, opened_at, closed_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT (deal_id) DO UPDATE SET lead_id = excluded.lead_id, revision = excluded.revision, status = excluded.status,
    opened_at = excluded.opened_at, closed_at = excluded.closed_at
WHERE known.revision < excluded.revision
"""


async def save_assignments(connection: Connection, events: Sequence[LeadAssigned]) -> set[LeadId]:
    """Keep assignments; what became of one may have been told before. Answers the ids that they were known by."""
    highest: dict[AssignmentId, int] = {}
    first: dict[AssignmentId, LeadAssigned] = {}
    for event in sorted(events, key=lambda event: (event.assignment_id, event.revision)):
        highest[event.assignment_id] = event.revision
        first.setdefault(event.assignment_id, event)
    rows = await connection.fetch(
        ASSIGN,
        list(first),
        [event.lead_id for event in first.values()],
        [event.revision for event in first.values()],
        list(highest.values()),
    )
    return {LeadId(row["lead_id"]) for row in rows if row["lead_id"] is not None}


async def settle_assignment(
    connection: Connection, assignment_id: AssignmentId, lead_id: LeadId, state: str, at: datetime
) -> LeadId | None:
    """Keep what became of an assignment; the latest word counts. Answers the id that it was known by."""
    known: LeadId | None = await connection.fetchval(SETTLE, assignment_id, lead_id, state, at)
    return known


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
