"""The statements that store and find what the reports of the pipeline are made from: stages, assignments, deals."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import asyncpg

from services.attribution.journeys.queries import member_columns
from shared.contacts import CONTACTS
from shared.db import Connection
from shared.events import (
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    DealChanged,
    LeadAssigned,
    StageChanged,
)
from shared.identity import Member
from shared.ids import ConversionId, DealId, LeadId, RepId

Answer = AssignmentAccepted | AssignmentRejected | AssignmentExpired
People = Mapping[LeadId, Sequence[Member]]

PUT_STAGES = """
INSERT INTO stage_changes AS known (lead_id, revision, stage, at, received_at, event_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[])
ON CONFLICT (lead_id, revision) DO UPDATE SET
    stage = excluded.stage, at = excluded.at, received_at = excluded.received_at, event_id = excluded.event_id
WHERE (known.received_at, known.event_id) < (excluded.received_at, excluded.event_id)
"""
PUT_ASSIGNMENTS = """
INSERT INTO assignments AS known (assignment_id, lead_id, rep_id, revision, assigned_at, due_at, teams)
SELECT * FROM jsonb_to_recordset($1) AS told (
    assignment_id text, lead_id text, rep_id text, revision bigint, assigned_at timestamptz, due_at timestamptz,
    teams text[])
ON CONFLICT (assignment_id) DO UPDATE SET
    lead_id = excluded.lead_id, rep_id = excluded.rep_id, revision = excluded.revision,
    assigned_at = excluded.assigned_at, due_at = excluded.due_at, teams = excluded.teams
WHERE known.revision IS NULL OR known.revision < excluded.revision
RETURNING old.lead_id AS old_lead_id, new.lead_id
"""
# The assignment's row is locked, made up if need be, so that an answer and its assignment cannot miss each other.
PUT_ANSWERS = {
    kind: f"""
    INSERT INTO assignments AS known (assignment_id, {column}) SELECT * FROM unnest($1::text[], $2::timestamptz[])
    ON CONFLICT (assignment_id) DO UPDATE SET {column} = least(known.{column}, excluded.{column})
    RETURNING lead_id
    """
    for kind, column in (
        (AssignmentAccepted, "accepted_at"),
        (AssignmentRejected, "rejected_at"),
        (AssignmentExpired, "expired_at"),
    )
}
STEP_COLUMNS = """
deal_id, revision, at, status, stage, probability, value_minor, currency, recurring_minor, rep_id, teams, opened_at,
closed_at, pipeline_stages, event_id, begins
"""
PUT_STEPS = f"""
INSERT INTO deal_steps AS known ({STEP_COLUMNS})
SELECT {STEP_COLUMNS} FROM jsonb_to_recordset($1) AS told (
    deal_id text, revision bigint, at timestamptz, status text, stage text, probability integer, value_minor bigint,
    currency text, recurring_minor bigint, rep_id text, teams text[], opened_at timestamptz, closed_at timestamptz,
    pipeline_stages text[], event_id text, begins bigint)
ON CONFLICT (deal_id, revision) DO NOTHING
"""
OWE = "INSERT INTO people_owed SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING"
TAKE_OWED = """
DELETE FROM people_owed WHERE lead_id = ANY(ARRAY(
    SELECT lead_id FROM people_owed WHERE $1::text IS NULL OR lead_id > $1 ORDER BY lead_id LIMIT $2
)) RETURNING lead_id
"""
FORGIVE = "DELETE FROM people_owed WHERE lead_id = ANY($1)"
COUNTED_FOR = "SELECT DISTINCT person_id FROM marks WHERE ref = ANY($1) AND ref <> ''"
FOLLOWED = "SELECT person_id FROM circumstances WHERE person_id = ANY($1)"
# Of most touches, those of visitors of whom nothing is counted, three looks into indexes tell it.
PERHAPS_FOLLOWED = """
SELECT told.lead_id FROM unnest($1::text[], $2::timestamptz[]) AS told (lead_id, at)
WHERE (
    EXISTS (SELECT 1 FROM circumstances WHERE person_id = told.lead_id)
    OR EXISTS (SELECT 1 FROM identity_aliases AS alias WHERE alias.lead_id = told.lead_id AND alias.active)
    OR EXISTS (SELECT 1 FROM identity_links WHERE anonymous_lead_id = told.lead_id)
)
"""
# Of a browser that several people used, each touch may be the first of one of them.
PERHAPS_FIRST = f"""
{PERHAPS_FOLLOWED} AND (
    NOT EXISTS (
        SELECT 1 FROM touches
        WHERE touches.lead_id = told.lead_id AND touches.occurred_at < told.at AND NOT touches.automated
    )
    OR (SELECT count(*) FROM identity_links WHERE anonymous_lead_id = told.lead_id) > 1
)
"""
LINKED_AT = "SELECT anonymous_lead_id, at FROM identity_links WHERE anonymous_lead_id = ANY($1)"
MEMBERS = (
    "FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS member (person_id, id, since, until)"
)
WHILE_MEMBER = "(member.since IS NULL OR {at} >= member.since) AND (member.until IS NULL OR {at} < member.until)"
FIRST_ENTERED = f"""
SELECT member.person_id, change.stage, min(change.at) AS at {MEMBERS}
JOIN stage_changes AS change ON change.lead_id = member.id AND {WHILE_MEMBER.format(at="change.at")}
GROUP BY member.person_id, change.stage
"""
ASSIGNED = f"""
SELECT member.person_id, assigned.* {MEMBERS}
JOIN assignments AS assigned ON assigned.lead_id = member.id AND {WHILE_MEMBER.format(at="assigned.assigned_at")}
"""
ASSIGNED_IN_ORDER = f"{ASSIGNED} ORDER BY assigned.assigned_at, assigned.revision, assigned.assignment_id"
CONTACTED = f"""
SELECT member.person_id, touch.occurred_at AS at {MEMBERS}
JOIN touches AS touch ON touch.lead_id = member.id AND {WHILE_MEMBER.format(at="touch.occurred_at")}
WHERE NOT touch.automated AND touch.type IN ({", ".join(f"'{kind}'" for kind in CONTACTS)})
"""
FIRST_TOUCHES = f"""
SELECT DISTINCT ON (member.person_id) member.person_id, first.channel, first.source, first.campaign {MEMBERS}
JOIN LATERAL (
    SELECT * FROM touches AS touch
    WHERE touch.lead_id = member.id AND NOT touch.automated AND {WHILE_MEMBER.format(at="touch.occurred_at")}
    ORDER BY touch.occurred_at, touch.touch_id, touch.origin LIMIT 1
) AS first ON true
ORDER BY member.person_id, first.occurred_at, first.touch_id, first.origin
"""
ERASED = f"SELECT DISTINCT member.person_id {MEMBERS} JOIN leads ON leads.lead_id = member.id WHERE leads.erased"
DEAL_STEPS = f"""
SELECT member.person_id, step.* {MEMBERS}
JOIN deals ON deals.lead_id = member.id AND {WHILE_MEMBER.format(at="deals.opened_at")}
JOIN deal_steps AS step ON step.deal_id = deals.deal_id
ORDER BY step.revision
"""


async def put_stages(connection: Connection, events: Sequence[StageChanged]) -> None:
    """Store changes of stage, one per lead and revision; of two the one received last stays."""
    await connection.execute(
        PUT_STAGES,
        [event.lead_id for event in events],
        [event.revision for event in events],
        [event.stage for event in events],
        [event.occurred_at for event in events],
        [event.received_at for event in events],
        [event.event_id for event in events],
    )


async def put_assignments(connection: Connection, events: Sequence[LeadAssigned]) -> set[LeadId]:
    """Store who was given which lead, the highest revision winning; answers the leads for which that changed."""
    told = [
        {
            "assignment_id": event.assignment_id,
            "lead_id": event.lead_id,
            "rep_id": event.rep_id,
            "revision": event.revision,
            "assigned_at": event.occurred_at,
            "due_at": event.due_at,
            "teams": event.teams,
        }
        for event in events
    ]
    rows = await connection.fetch(PUT_ASSIGNMENTS, told)
    return {lead_id for row in rows for lead_id in row.values() if lead_id is not None}


async def assigned_reps(connection: Connection, people: People) -> dict[LeadId, list[tuple[datetime, RepId]]]:
    """The reps that persons were given to, and when, in order of time."""
    found = await rows_of(connection, ASSIGNED_IN_ORDER, people)
    return {person: [(row["assigned_at"], row["rep_id"]) for row in rows] for person, rows in found.items()}


async def put_answers(connection: Connection, events: Sequence[Answer]) -> set[LeadId]:
    """Store how reps answered, the earliest of each kind counting; answers the leads that are known of them."""
    first = {event.assignment_id: event for event in sorted(events, key=lambda e: e.occurred_at, reverse=True)}
    ids = sorted(first)
    rows = await connection.fetch(PUT_ANSWERS[type(events[0])], ids, [first[each].occurred_at for each in ids])
    return {row["lead_id"] for row in rows if row["lead_id"] is not None}


async def put_steps(connection: Connection, events: Sequence[DealChanged]) -> None:
    """Store changes of deals, one per deal and revision."""
    told = [
        {
            **event.model_dump(include={"deal_id", "revision", "status", "stage", "probability", "value_minor"}),
            **event.model_dump(include={"currency", "rep_id", "teams", "opened_at", "closed_at", "pipeline_stages"}),
            "begins": event.begins,
            "at": event.occurred_at,
            "recurring_minor": event.recurring_minor or 0,
            "event_id": event.event_id,
        }
        for event in events
    ]
    await connection.execute(PUT_STEPS, told)


async def counted_for(connection: Connection, refs: Iterable[DealId | ConversionId]) -> set[LeadId]:
    """The persons for whom these deals or conversions count so far."""
    return {row["person_id"] for row in await connection.fetch(COUNTED_FOR, sorted(set(refs)))}


async def owe(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    """Remember that the persons behind these ids are to be counted later."""
    await connection.execute(OWE, sorted(lead_ids))


async def take_owed(connection: Connection, after: LeadId | None, limit: int) -> set[LeadId]:
    """The next ids whose persons are to be counted, which the caller does."""
    return {row["lead_id"] for row in await connection.fetch(TAKE_OWED, after, limit)}


async def forgive(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    """Whoever is behind these ids has been counted."""
    await connection.execute(FORGIVE, sorted(lead_ids))


async def followed_among(connection: Connection, persons: Iterable[LeadId]) -> set[LeadId]:
    """Those persons of whom anything is counted."""
    return {row["person_id"] for row in await connection.fetch(FOLLOWED, sorted(set(persons)))}


async def perhaps_followed(connection: Connection, facts: Mapping[LeadId, datetime], *, first: bool) -> set[LeadId]:
    """Those ids of whose persons something may be counted; `first`: whose facts may also be the first of a person."""
    statement = PERHAPS_FIRST if first else PERHAPS_FOLLOWED
    rows = await connection.fetch(statement, list(facts), list(facts.values()))
    return {row["lead_id"] for row in rows}


async def linked_at(connection: Connection, lead_ids: Iterable[LeadId]) -> list[tuple[LeadId, datetime]]:
    """When these ids, if they are anonymous ones, were tied to people."""
    rows = await connection.fetch(LINKED_AT, sorted(set(lead_ids)))
    return [(row["anonymous_lead_id"], row["at"]) for row in rows]


async def rows_of(connection: Connection, statement: str, people: People) -> dict[LeadId, list[asyncpg.Record]]:
    """What one of the statements over members tells of each person."""
    found: dict[LeadId, list[asyncpg.Record]] = {}
    for row in await connection.fetch(statement, *member_columns(people)):
        found.setdefault(row["person_id"], []).append(row)
    return found
