"""The statement that finds leads that do not move."""

from datetime import datetime, timedelta

from services.routing.stuck.domain import Reason, Stuck
from shared.db import Connection
from shared.ids import RepId

PATIENCE = timedelta(minutes=1)
"""So long a lead may wait for its profile, or a clock for its turn, before it is stuck."""
# Each part ends after a page of its own; what is open to be claimed is not stuck.
STUCK = """
SELECT every.*, (
    SELECT c.due_at FROM clocks AS c WHERE c.assignment_id = every.assignment_id AND c.graces > 0
        AND c.clock = CASE reason WHEN 'offer_overdue' THEN 'accept' WHEN 'untouched' THEN 'touch' END
) AS grace_until FROM (
    (SELECT person_id AS lead_id, 'held' AS reason, reason AS detail, since, person_id AS place,
        NULL::text AS rep_id, NULL::text AS assignment_id
    FROM holds WHERE awaits IS NULL AND claimants IS NULL AND (since, 'held' || person_id) > ($2, $3)
    ORDER BY since, person_id LIMIT $4)
    UNION ALL
    (SELECT person_id, 'profile', reason, since, person_id, NULL, NULL
    FROM holds WHERE awaits IS NOT NULL AND since < $1 AND (since, 'profile' || person_id) > ($2, $3)
    ORDER BY since, person_id LIMIT $4)
    UNION ALL
    (SELECT person_id, 'offer_overdue', 'offered to a rep who has not answered in time', due_at, assignment_id,
        rep_id, assignment_id
    FROM assignments WHERE state = 'offered' AND ended_at IS NULL AND due_at < $1
        AND (due_at, 'offer_overdue' || assignment_id) > ($2, $3)
    ORDER BY due_at, assignment_id LIMIT $4)
    UNION ALL
    (SELECT person_id, 'untouched', 'accepted by a rep who was not in touch in time', touch_due_at, assignment_id,
        rep_id, assignment_id
    FROM assignments WHERE state = 'accepted' AND ended_at IS NULL AND touched_at IS NULL AND touch_due_at < $1
        AND (touch_due_at, 'untouched' || assignment_id) > ($2, $3)
    ORDER BY touch_due_at, assignment_id LIMIT $4)
    UNION ALL
    (SELECT person_id, 'owner_inactive', 'with a rep who is deactivated', r.updated_at, assignment_id,
        rep_id, assignment_id
    FROM reps AS r JOIN assignments USING (rep_id) WHERE NOT r.active AND ended_at IS NULL
        AND (r.updated_at, 'owner_inactive' || assignment_id) > ($2, $3)
    ORDER BY r.updated_at, assignment_id LIMIT $4)
    UNION ALL
    (SELECT key, 'parked', 'a fact about it cannot be carried out: ' || min(slug)
        || '; `throughline parked retry routing --lead ' || key || '` tries again', min(parked_at), key, NULL, NULL
    FROM parked_events JOIN projections ON consumer = 'routing.v' || version WHERE attempts > 0
    GROUP BY key HAVING (min(parked_at), 'parked' || key) > ($2, $3)
    ORDER BY min(parked_at), key LIMIT $4)
) AS every
WHERE $5::text IS NULL OR reason = $5 ORDER BY since, reason || place LIMIT $4
"""
RESTING = "SELECT rep_id FROM reps WHERE NOT active ORDER BY updated_at DESC LIMIT 1"


async def stuck(
    connection: Connection, at: datetime, after: tuple[datetime, str], reason: Reason | None, limit: int
) -> list[Stuck]:
    """Leads that do not move, after a place in the list, the longest first."""
    rows = await connection.fetch(STUCK, at - PATIENCE, *after, limit, reason)
    return [Stuck(**row) for row in rows]


async def resting_rep(connection: Connection) -> RepId | None:
    """The rep who was deactivated last."""
    rep_id: RepId | None = await connection.fetchval(RESTING)
    return rep_id
