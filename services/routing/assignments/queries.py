"""The statements about assignments."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import asyncpg

from services.routing.assignments.domain import Assignment, PastLead, State
from shared.db import Connection
from shared.ids import AssignmentId, EventId, LeadId, RepId

COLUMNS = ", ".join(column.name for column in fields(Assignment))
PLACES = ", ".join(f"${index}" for index in range(1, len(fields(Assignment)) + 1))
# Of leads that were merged revisions say nothing about which came later; when they ended does.
LATEST_FIRST = "coalesce(ended_at, 'infinity') DESC, revision DESC"
SITUATIONS = f"""
SELECT
    (SELECT assignment_id FROM assignments WHERE person_id = asked.person_id AND ended_at IS NULL) AS current_id,
    (SELECT rep_id FROM assignments
        WHERE person_id = asked.person_id AND state = 'accepted'
            AND (end_reason IS NULL OR end_reason NOT IN ('reassigned', 'untouched'))
        ORDER BY {LATEST_FIRST} LIMIT 1) AS previous_owner,
    (SELECT greatest(assigned_at, settled_at, ended_at) FROM assignments
        WHERE person_id = asked.person_id AND state = 'accepted' AND end_reason IS DISTINCT FROM 'reassigned'
        ORDER BY {LATEST_FIRST} LIMIT 1) AS previous_at,
    (SELECT rep_id FROM assignments
        WHERE company = asked.company AND person_id <> asked.person_id AND (state = 'accepted' OR ended_at IS NULL)
        ORDER BY assigned_at DESC LIMIT 1) AS account_owner,
    (SELECT coalesce(max(revision), 0) FROM assignments WHERE person_id = asked.person_id) AS revision,
    (SELECT coalesce(array_agg(rep_id), '{{}}') FROM assignments
        WHERE person_id = asked.person_id AND entry_id = asked.entry_id
            AND (state IN ('rejected', 'expired') OR end_reason = 'untouched')
    ) AS passed_by,
    EXISTS (SELECT 1 FROM assignments WHERE assignment_id = asked.assignment_id) AS decided
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
    AS asked (person_id, company, entry_id, assignment_id, place)
ORDER BY place
"""
CAUSED = "SELECT 1 FROM assignments WHERE assignment_id = $1"
ONE = f"SELECT {COLUMNS} FROM assignments WHERE assignment_id = $1"
MANY = f"SELECT {COLUMNS} FROM assignments WHERE assignment_id = ANY($1) ORDER BY assignment_id"
LOCK_MANY = f"{MANY} FOR UPDATE"
CURRENT = f"SELECT {COLUMNS} FROM assignments WHERE person_id = $1 AND ended_at IS NULL"
LATEST = f"""
SELECT {COLUMNS} FROM assignments WHERE person_id = ANY($1)
ORDER BY {LATEST_FIRST} LIMIT 1
"""
OF_PERSONS = f"""
SELECT {COLUMNS} FROM assignments WHERE person_id = ANY($1) OR lead_id = ANY($1) ORDER BY assignment_id
"""
KNOWN = "SELECT assignment_id, rep_id, state FROM assignments WHERE assignment_id = ANY($1)"
INSERT = f"""
WITH made AS (
    INSERT INTO assignments ({COLUMNS}) VALUES ({PLACES}) ON CONFLICT (assignment_id) DO NOTHING
    RETURNING rep_id, assigned_at, ended_at
), counted AS (
    UPDATE reps SET open_leads = open_leads + 1, last_assigned_at = greatest(last_assigned_at, made.assigned_at)
    FROM made WHERE reps.rep_id = made.rep_id AND made.ended_at IS NULL
)
SELECT 1 FROM made
"""
ACCEPT = f"""
UPDATE assignments SET state = 'accepted', settled_at = $2, accepted_at = $2
WHERE assignment_id = $1 AND state = 'offered' AND ended_at IS NULL RETURNING {COLUMNS}
"""
END = f"""
WITH ended AS (
    UPDATE assignments SET
        state = coalesce($3, state), settled_at = CASE WHEN $3 IS NULL THEN settled_at ELSE $4 END,
        reason = coalesce($5, reason), ended_at = $4, end_reason = $6
    WHERE assignment_id = $1 AND state = ANY($2) AND ended_at IS NULL RETURNING {COLUMNS}
), counted AS (
    UPDATE reps SET open_leads = greatest(open_leads - 1, 0) FROM ended WHERE reps.rep_id = ended.rep_id
)
SELECT {COLUMNS} FROM ended
"""
SETTLE_REPLACED = """
UPDATE assignments SET
    state = $2, settled_at = $3, reason = coalesce($4, reason),
    end_reason = CASE WHEN $2 = 'accepted' THEN end_reason ELSE $2 END
WHERE assignment_id = $1 AND end_reason = $5
"""
KEEP_EARLY_ANSWER = """
INSERT INTO early_answers (assignment_id, state, at, reason) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
TAKE_EARLY_ANSWERS = "DELETE FROM early_answers WHERE assignment_id = $1 RETURNING state, at, reason"
REOPEN = """
WITH reopened AS (
    UPDATE assignments SET ended_at = NULL, end_reason = NULL
    WHERE assignment_id = $1 AND ended_at IS NOT NULL RETURNING rep_id
)
UPDATE reps SET open_leads = open_leads + 1 FROM reopened WHERE reps.rep_id = reopened.rep_id
"""
MOVE = "UPDATE assignments SET person_id = $2 WHERE assignment_id = $1"
SET_LEAD = "UPDATE assignments SET lead_id = $2 WHERE assignment_id = $1"
RAISE_REVISION = "UPDATE assignments SET revision = greatest(revision, $2) WHERE assignment_id = $1"
REPLACE_REP = """
WITH before AS (
    SELECT rep_id FROM assignments WHERE assignment_id = $1
), changed AS (
    UPDATE assignments SET rep_id = $2, queue = $3, strategy = $4, due_at = $5, trace = $6, rules_version = $7
    WHERE assignment_id = $1 RETURNING ended_at
)
UPDATE reps SET open_leads = open_leads + CASE reps.rep_id WHEN $2 THEN 1 ELSE -1 END
FROM before, changed WHERE changed.ended_at IS NULL AND reps.rep_id IN ($2, before.rep_id)
"""
FORGET_INPUTS = """
UPDATE assignments SET inputs = NULL, sealed = NULL, sealed_for = NULL, company = NULL
WHERE lead_id = $1 OR person_id = $1 OR sealed_for = $1
"""
LIST = f"""
SELECT {COLUMNS} FROM assignments
WHERE (assigned_at, assignment_id) < ($1, $2)
    AND ($3::text[] IS NULL OR person_id = ANY($3)) AND ($4::text IS NULL OR rep_id = $4)
    AND ($5::text IS NULL OR state = $5) AND ($6::boolean IS NULL OR (ended_at IS NULL) = $6)
ORDER BY assigned_at DESC, assignment_id DESC LIMIT $7
"""
# The first assignment of each entry, where it is known what the rules saw, and until when the entry kept a rep busy.
MADE_AFTER = """
SELECT assignment_id, lead_id, person_id, assigned_at, company, inputs, sealed, sealed_for,
    coalesce((SELECT number FROM decisions AS one WHERE one.assignment_id = made.assignment_id), 0) AS number,
    (
        SELECT nullif(max(coalesce(of_entry.ended_at, 'infinity')), 'infinity') FROM assignments AS of_entry
        WHERE of_entry.person_id = made.person_id AND of_entry.entry_id = made.entry_id
    ) AS done_at,
    EXISTS (
        SELECT 1 FROM assignments AS later
        WHERE later.person_id = made.person_id AND later.revision > made.revision AND later.cause_id = later.entry_id
    ) AS returns
FROM assignments AS made
WHERE (assigned_at, assignment_id) > ($1, $2) AND cause_id = entry_id AND inputs IS NOT NULL
ORDER BY assigned_at, assignment_id LIMIT $3
"""
ANSWERS_SINCE = """
SELECT rep_id, assigned_at, CASE WHEN state <> 'expired' THEN settled_at END AS answered_at
FROM unnest($1::text[]) AS member (id)
CROSS JOIN LATERAL (
    SELECT * FROM assignments
    WHERE rep_id = member.id AND assigned_at >= $2 AND state <> 'offered' ORDER BY assigned_at DESC LIMIT $3
) AS latest
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Of whom a situation is asked: `assignment_id` is that of the decision to come."""

    person_id: LeadId
    company: str | None
    entry_id: EventId | None
    assignment_id: AssignmentId | None


@dataclass(frozen=True, slots=True)
class Situation:
    """What was decided about a person before: the current assignment, and who has a claim on the lead.

    `offers` counts those since the lead came in that were passed by, `decided` says that the decision is taken, and
    `previous_at` when the previous owner last took the lead or had done with it.
    """

    current: Assignment | None
    previous_owner: RepId | None
    previous_at: datetime | None
    account_owner: RepId | None
    revision: int
    passed_by: frozenset[RepId]
    offers: int
    decided: bool


async def situations(connection: Connection, asked: Sequence[Asked], *, locked: bool = True) -> list[Situation]:
    """What was decided about persons before, in the same order; with `locked` nobody changes what is current."""
    rows = await connection.fetch(
        SITUATIONS,
        [one.person_id for one in asked],
        [one.company for one in asked],
        [one.entry_id for one in asked],
        [one.assignment_id for one in asked],
    )
    current_ids = [row["current_id"] for row in rows if row["current_id"] is not None]
    found = await connection.fetch(LOCK_MANY if locked else MANY, current_ids) if current_ids else []
    current = {row["assignment_id"]: Assignment(**row) for row in found if row["ended_at"] is None}
    return [
        Situation(
            current=current.get(row["current_id"]),
            previous_owner=row["previous_owner"],
            previous_at=row["previous_at"],
            account_owner=row["account_owner"],
            revision=row["revision"],
            passed_by=frozenset(row["passed_by"]),
            offers=len(row["passed_by"]),
            decided=row["decided"],
        )
        for row in rows
    ]


async def locked(connection: Connection, ids: Sequence[AssignmentId]) -> list[Assignment]:
    """These assignments, which nobody else changes until the transaction ends."""
    return [Assignment(**row) for row in await connection.fetch(LOCK_MANY, ids)]


async def exists(connection: Connection, assignment_id: AssignmentId) -> bool:
    """Whether this decision was taken already."""
    return await connection.fetchval(CAUSED, assignment_id) is not None


async def one(connection: Connection, assignment_id: AssignmentId) -> Assignment | None:
    """An assignment."""
    return _assignment(await connection.fetchrow(ONE, assignment_id))


async def current(connection: Connection, person_id: LeadId) -> Assignment | None:
    """The assignment of the rep who is responsible for a person now."""
    return _assignment(await connection.fetchrow(CURRENT, person_id))


async def latest(connection: Connection, ids: Sequence[LeadId]) -> Assignment | None:
    """The current assignment of the person with these ids, else the last one."""
    return _assignment(await connection.fetchrow(LATEST, ids))


async def of_persons(connection: Connection, ids: Sequence[LeadId]) -> list[Assignment]:
    """Every assignment that was made for, or belongs to, any of these ids."""
    return [Assignment(**row) for row in await connection.fetch(OF_PERSONS, ids)]


async def known(connection: Connection, ids: Sequence[AssignmentId]) -> dict[AssignmentId, asyncpg.Record]:
    """Rep and state of those of the assignments that are known."""
    return {row["assignment_id"]: row for row in await connection.fetch(KNOWN, ids)}


async def insert(connection: Connection, assignments: Sequence[Assignment]) -> None:
    """New assignments, counted for their reps; a decision that was taken already is not taken again."""
    names = [column.name for column in fields(Assignment)]
    await connection.executemany(INSERT, [[getattr(one, name) for name in names] for one in assignments])


async def accept(connection: Connection, assignment_id: AssignmentId, at: datetime) -> Assignment | None:
    """Accept an offer; None when it is none any more."""
    return _assignment(await connection.fetchrow(ACCEPT, assignment_id, at))


async def end(  # noqa: PLR0913  # what an end is made of
    connection: Connection,
    assignment_id: AssignmentId,
    at: datetime,
    end_reason: str,
    *,
    states: Sequence[State] = ("offered", "accepted"),
    state: State | None = None,
    reason: str | None = None,
) -> Assignment | None:
    """End a current assignment that is in one of these states, perhaps in another state; None when it is not."""
    return _assignment(await connection.fetchrow(END, assignment_id, list(states), state, at, reason, end_reason))


async def settle_replaced(  # noqa: PLR0913  # what an answer is made of
    connection: Connection, assignment_id: AssignmentId, state: State, at: datetime, reason: str | None, replaced: str
) -> None:
    """What became of an assignment that ended for this reason, without anybody knowing then."""
    await connection.execute(SETTLE_REPLACED, assignment_id, state, at, reason, replaced)


async def keep_early_answer(
    connection: Connection, assignment_id: AssignmentId, state: State, at: datetime, reason: str | None
) -> None:
    """What became of an assignment that is not known yet."""
    await connection.execute(KEEP_EARLY_ANSWER, assignment_id, state, at, reason)


async def take_early_answers(connection: Connection, assignment_id: AssignmentId) -> list[asyncpg.Record]:
    """What was heard of an assignment before it was known; in the order it happened."""
    rows = await connection.fetch(TAKE_EARLY_ANSWERS, assignment_id)
    return sorted(rows, key=lambda row: (row["at"], row["state"]))


async def reopen(connection: Connection, assignment_id: AssignmentId) -> None:
    """Make an ended assignment current again."""
    await connection.execute(REOPEN, assignment_id)


async def move(connection: Connection, assignment_id: AssignmentId, person_id: LeadId) -> None:
    """An assignment belongs to another person now."""
    await connection.execute(MOVE, assignment_id, person_id)


async def set_lead(connection: Connection, assignment_id: AssignmentId, lead_id: LeadId) -> None:
    """The id that an assignment was made with."""
    await connection.execute(SET_LEAD, assignment_id, lead_id)


async def raise_revision(connection: Connection, assignment_id: AssignmentId, revision: int) -> None:
    """An assignment is told anew."""
    await connection.execute(RAISE_REVISION, assignment_id, revision)


async def replace_rep(connection: Connection, assignment: Assignment) -> None:
    """The rep of an assignment is another one than was stored."""
    await connection.execute(
        REPLACE_REP,
        assignment.assignment_id,
        assignment.rep_id,
        assignment.queue,
        assignment.strategy,
        assignment.due_at,
        list(assignment.trace),
        assignment.rules_version,
    )


async def forget_inputs(connection: Connection, lead_id: LeadId) -> None:
    """Forget what the rules saw of an erased person."""
    await connection.execute(FORGET_INPUTS, lead_id)


async def listed(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    before: tuple[datetime, str],
    ids: Sequence[LeadId] | None,
    rep_id: str | None,
    state: State | None,
    is_current: bool | None,
    limit: int,
) -> list[Assignment]:
    """Assignments before a place in the list, the newest first."""
    rows = await connection.fetch(LIST, *before, ids, rep_id, state, is_current, limit)
    return [Assignment(**row) for row in rows]


async def made_after(connection: Connection, place: tuple[datetime, str], limit: int) -> list[PastLead]:
    """Leads that came in after a place, by time and then by id, as they were seen then, sealed."""
    return [PastLead(**row) for row in await connection.fetch(MADE_AFTER, *place, limit)]


async def answers_since(
    connection: Connection, rep_ids: Sequence[RepId], since: datetime, most: int
) -> list[tuple[RepId, datetime, datetime | None]]:
    """The latest answers of each rep: whose, when asked, when answered (None: never)."""
    return [tuple(row) for row in await connection.fetch(ANSWERS_SINCE, rep_ids, since, most)]


def _assignment(row: asyncpg.Record | None) -> Assignment | None:
    return None if row is None else Assignment(**row)
