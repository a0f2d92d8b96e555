"""The statements about who was given which lead."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.attribution.journeys.queries import member_columns
from shared.db import Connection
from shared.events import LeadAssigned
from shared.identity import Member
from shared.ids import LeadId, RepId

PUT_ASSIGNMENTS = """
INSERT INTO assignments AS known (assignment_id, lead_id, rep_id, revision, assigned_at, due_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT (assignment_id) DO UPDATE SET
    lead_id = excluded.lead_id, rep_id = excluded.rep_id, revision = excluded.revision,
    assigned_at = excluded.assigned_at, due_at = excluded.due_at
WHERE known.revision < excluded.revision
RETURNING old.lead_id AS old_lead_id, new.lead_id
"""
ASSIGNED = """
SELECT member.person_id, assigned.assigned_at, assigned.rep_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    AS member (person_id, lead_id, since, until)
JOIN assignments AS assigned ON assigned.lead_id = member.lead_id
    AND (member.since IS NULL OR assigned.assigned_at >= member.since)
    AND (member.until IS NULL OR assigned.assigned_at < member.until)
ORDER BY assigned.assigned_at, assigned.revision, assigned.assignment_id
"""


async def put_assignments(connection: Connection, events: Sequence[LeadAssigned]) -> set[LeadId]:
    """Store who was given which lead; answers the leads for which that changed."""
    rows = await connection.fetch(
        PUT_ASSIGNMENTS,
        [event.assignment_id for event in events],
        [event.lead_id for event in events],
        [event.rep_id for event in events],
        [event.revision for event in events],
        [event.occurred_at for event in events],
        [event.due_at for event in events],
    )
    return {lead_id for row in rows for lead_id in row.values() if lead_id is not None}


async def assigned_reps(
    connection: Connection, people: Mapping[LeadId, Sequence[Member]]
) -> dict[LeadId, list[tuple[datetime, RepId]]]:
    """The reps that persons were given to, and when, in order of time."""
    found: dict[LeadId, list[tuple[datetime, RepId]]] = {}
    for row in await connection.fetch(ASSIGNED, *member_columns(people)):
        found.setdefault(row["person_id"], []).append((row["assigned_at"], row["rep_id"]))
    return found
