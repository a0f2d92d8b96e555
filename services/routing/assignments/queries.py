"""The statements about assignments and turns."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from fractions import Fraction

import asyncpg

from services.routing.assignments.domain import Assignment, State
from services.routing.assignments.turns import FINEST
from shared.db import Connection
from shared.ids import AssignmentId, EventId, LeadId, RepId

COLUMNS = ", ".join(column.name for column in fields(Assignment))
PLACES = ", ".join(f"${index}" for index in range(1, len(fields(Assignment)) + 1))
LOCK_DISPATCHER = "SELECT 1 FROM dispatcher FOR UPDATE"
TURNS = "SELECT queue_id, rep_id, numerator, denominator FROM turns"
PUT_TURNS = """
INSERT INTO turns (queue_id, rep_id, numerator, denominator)
SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[])
ON CONFLICT (queue_id, rep_id) DO UPDATE SET numerator = excluded.numerator, denominator = excluded.denominator
"""
SITUATIONS = """
SELECT
    (SELECT assignment_id FROM assignments WHERE person_id = asked.person_id AND ended_at IS NULL) AS current_id,
    (SELECT rep_id FROM assignments
        WHERE person_id = asked.person_id AND state = 'accepted' AND end_reason IS DISTINCT FROM 'reassigned'
        ORDER BY revision DESC LIMIT 1) AS previous_owner,
    (SELECT rep_id FROM assignments
        WHERE company = asked.company AND person_id <> asked.person_id AND (state = 'accepted' OR ended_at IS NULL)
        ORDER BY assigned_at DESC LIMIT 1) AS account_owner,
    (SELECT coalesce(max(revision), 0) FROM assignments WHERE person_id = asked.person_id) AS revision,
    (SELECT coalesce(array_agg(rep_id), '{}') FROM assignments
        WHERE person_id = asked.person_id AND entry_id = asked.entry_id AND state IN ('rejected', 'expired')
    ) AS passed_by,
    EXISTS (SELECT 1 FROM assignments WHERE assignment_id = asked.assignment_id) AS decided
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
    AS asked (person_id, company, entry_id, assignment_id, place)
ORDER BY place
"""
CAUSED = "SELECT 1 FROM assignments WHERE assignment_id = $1"
ONE = f"SELECT {COLUMNS} FROM assignments WHERE assignment_id = $1"
LOCK_MANY = f"SELECT {COLUMNS} FROM assignments WHERE assignment_id = ANY($1) ORDER BY assignment_id FOR UPDATE"
CURRENT = f"SELECT {COLUMNS} FROM assignments WHERE person_id = $1 AND ended_at IS NULL"
LATEST = f"""
SELECT {COLUMNS} FROM assignments WHERE person_id = ANY($1) ORDER BY (ended_at IS NULL) DESC, revision DESC LIMIT 1
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
UPDATE assignments SET state = 'accepted', settled_at = $2
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
OVERDUE = f"""
SELECT {COLUMNS} FROM assignments WHERE state = 'offered' AND ended_at IS NULL AND due_at <= $1
ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
NEXT_DUE = "SELECT min(due_at) FROM assignments WHERE state = 'offered' AND ended_at IS NULL"
LIST = f"""
SELECT {COLUMNS} FROM assignments
WHERE (assigned_at, assignment_id) < ($1, $2)
    AND ($3::text[] IS NULL OR person_id = ANY($3)) AND ($4::text IS NULL OR rep_id = $4)
    AND ($5::text IS NULL OR state = $5) AND ($6::boolean IS NULL OR (ended_at IS NULL) = $6)
ORDER BY assigned_at DESC, assignment_id DESC LIMIT $7
"""
MADE_SINCE = f"""
SELECT {COLUMNS} FROM assignments WHERE assigned_at >= $1 AND cause_id = entry_id AND inputs IS NOT NULL
ORDER BY assigned_at, assignment_id LIMIT $2
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

    `offers` counts those since the lead came in that were passed by, `decided` says that the decision is taken.
    """

    current: Assignment | None
    previous_owner: RepId | None
    account_owner: RepId | None
    revision: int
    passed_by: frozenset[RepId]
    offers: int
    decided: bool


async def lock_dispatcher(connection: Connection) -> None:
    """Wait for the turn to give leads to reps; held until the transaction ends."""
    await connection.execute(LOCK_DISPATCHER)


async def all_credits(connection: Connection) -> dict[str, dict[RepId, Fraction]]:
    """What each member of each queue is owed."""
    credits: dict[str, dict[RepId, Fraction]] = defaultdict(dict)
    for row in await connection.fetch(TURNS):
        credits[row["queue_id"]][row["rep_id"]] = Fraction(row["numerator"], row["denominator"])
    return dict(credits)


async def put_credits(connection: Connection, queue: str, credits: Mapping[RepId, Fraction]) -> None:
    """The books of a queue after a turn; the dispatcher is locked."""
    reps = sorted(credits)
    assert all(credit.denominator <= FINEST for credit in credits.values())
    numerators = [credits[rep].numerator for rep in reps]
    await connection.execute(PUT_TURNS, queue, reps, numerators, [credits[rep].denominator for rep in reps])


async def situations(connection: Connection, asked: Sequence[Asked]) -> list[Situation]:
    """What was decided about persons before, in the same order; their current assignments are locked."""
    rows = await connection.fetch(
        SITUATIONS,
        [one.person_id for one in asked],
        [one.company for one in asked],
        [one.entry_id for one in asked],
        [one.assignment_id for one in asked],
    )
    current_ids = [row["current_id"] for row in rows if row["current_id"] is not None]
    locked = await connection.fetch(LOCK_MANY, current_ids) if current_ids else []
    current = {row["assignment_id"]: Assignment(**row) for row in locked if row["ended_at"] is None}
    return [
        Situation(
            current=current.get(row["current_id"]),
            previous_owner=row["previous_owner"],
            account_owner=row["account_owner"],
            revision=row["revision"],
            passed_by=frozenset(row["passed_by"]),
            offers=len(row["passed_by"]),
            decided=row["decided"],
        )
        for row in rows
    ]


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


async def overdue(connection: Connection, at: datetime, limit: int) -> list[Assignment]:
    """Offers whose time is over, locked; those that somebody else has locked are left to them."""
    return [Assignment(**row) for row in await connection.fetch(OVERDUE, at, limit)]


async def next_due(connection: Connection) -> datetime | None:
    """When the time of the next offer is over."""
    due: datetime | None = await connection.fetchval(NEXT_DUE)
    return due


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


async def made_since(connection: Connection, since: datetime, limit: int) -> list[Assignment]:
    """The first assignment of each entry since then, in order, where it is known what the rules saw."""
    return [Assignment(**row) for row in await connection.fetch(MADE_SINCE, since, limit)]


def _assignment(row: asyncpg.Record | None) -> Assignment | None:
    return None if row is None else Assignment(**row)
