"""Runs whose time has come: claimed by turns of their sequences, held, moved on. By the database's clock.

A sequence with a million due runs takes no more of a batch than one with ten, as long as both have some.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.nurture.enrolments.domain import Run
from services.nurture.enrolments.queries import RUN, as_run
from services.nurture.sequences.walking import Move
from shared.db import Connection

# One probe of the index for each sequence that has runs under way, however many those are.
_FIRST_DUE = """
WITH RECURSIVE under_way AS (
    (SELECT sequence_id FROM enrolments WHERE active ORDER BY sequence_id LIMIT 1)
    UNION ALL
    SELECT (SELECT further.sequence_id FROM enrolments AS further
            WHERE further.active AND further.sequence_id > under_way.sequence_id ORDER BY further.sequence_id LIMIT 1)
    FROM under_way WHERE under_way.sequence_id IS NOT NULL
), first_due AS (
    SELECT sequence_id, (
        SELECT run.due_at FROM enrolments AS run
        WHERE run.active AND run.sequence_id = under_way.sequence_id ORDER BY run.due_at LIMIT 1
    ) AS due_at
    FROM under_way WHERE sequence_id IS NOT NULL
)
"""
# The time of the statement, since an index cannot be searched by a clock that moves on meanwhile.
CLAIM_DUE = f"""
{_FIRST_DUE}, turns AS (
    SELECT sequence_id, greatest(1, $3 / count(*) OVER ()) AS share FROM first_due
    WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT $3
), taken AS MATERIALIZED (
    SELECT due.enrolment_id AS taken_id FROM turns CROSS JOIN LATERAL (
        SELECT run.enrolment_id FROM enrolments AS run
        WHERE run.active AND run.sequence_id = turns.sequence_id AND run.due_at <= statement_timestamp()
        ORDER BY run.due_at LIMIT turns.share FOR UPDATE SKIP LOCKED
    ) AS due
)
UPDATE enrolments SET claim = $1, due_at = clock_timestamp() + $2,
    meant_for = CASE WHEN hold IS NULL AND claim IS NULL THEN due_at ELSE coalesce(meant_for, due_at) END
WHERE enrolment_id = ANY(ARRAY(SELECT taken_id FROM taken))
RETURNING {RUN}, meant_for
"""
LOCK_CLAIMED = f"""
SELECT {RUN}, coalesce(meant_for, due_at) AS meant_for FROM enrolments
WHERE enrolment_id = ANY($1) AND active AND claim = $2 ORDER BY enrolment_id FOR UPDATE
"""
RUNS_BEFORE = f"""
SELECT {RUN}, coalesce(meant_for, due_at) AS meant_for
FROM enrolments JOIN unnest($1::text[], $2::text[]) AS given (run_id, before_id)
    ON enrolment_id = run_id AND enrolments.step_id = before_id
WHERE active ORDER BY enrolment_id FOR UPDATE OF enrolments
"""
LET_GO = """
UPDATE enrolments SET claim = NULL, due_at = meant_for WHERE enrolment_id = ANY($1) AND active AND claim = $2
"""
NEXT_DUE = f"{_FIRST_DUE} SELECT min(due_at) - clock_timestamp() FROM first_due"
MOVE = """
UPDATE enrolments AS run SET step_id = given.step_id, due_at = given.due_at, visits = given.visits,
    waits_at = given.waits_at, waiting_since = given.waiting_since, variants = run.variants || given.drawn, hold = NULL,
    claim = NULL
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::jsonb[], $5::text[], $6::timestamptz[], $7::jsonb[])
    AS given (enrolment_id, step_id, due_at, visits, waits_at, waiting_since, drawn)
WHERE run.enrolment_id = given.enrolment_id AND run.active
"""
STAND_BEFORE = "UPDATE enrolments SET step_id = $2 WHERE enrolment_id = $1 AND active"
HOLD = """
UPDATE enrolments SET due_at = clock_timestamp() + $2, hold = $3, claim = NULL WHERE enrolment_id = $1 AND active
"""
WAIT = """
UPDATE enrolments SET hold = $2, claim = NULL,
    holds = CASE WHEN hold = $2 THEN holds + 1 ELSE 0 END,
    due_at = clock_timestamp() + make_interval(secs => CASE WHEN hold = $2 THEN 2 ^ least(holds, 6) ELSE 1 END)
WHERE enrolment_id = $1 AND active
"""
HOLD_UNTIL = "UPDATE enrolments SET due_at = $2, hold = $3, claim = NULL WHERE enrolment_id = $1 AND active"
RELEASE_HELD = "UPDATE enrolments SET due_at = clock_timestamp() WHERE active AND hold = $1"


@dataclass(frozen=True, slots=True)
class Due:
    """A run whose next step is due: where it stands, since when, and how often each step was visited."""

    run: Run
    step_id: str
    visits: dict[str, int]
    since: datetime

    def visit(self, step_id: str) -> int:
        """The number of the visit that begins now."""
        return self.visits.get(step_id, 0) + 1


@dataclass(frozen=True, slots=True)
class Moved:
    """A run that is to stand before another step."""

    enrolment_id: str
    place: Move
    visits: dict[str, int]

    @property
    def visits_then(self) -> dict[str, int]:
        """How often each step was visited, with the goal that was reached on the way."""
        reached = self.place.reached
        return self.visits if reached is None else self.visits | {reached: self.visits.get(reached, 0) + 1}


async def claim_due(connection: Connection, claim: str, lasting: timedelta, limit: int) -> list[Due]:
    """Take runs that are due, as many of each sequence, of each those due longest.

    Others see them again only when the claim has run out.
    """
    return [_due(row) for row in await connection.fetch(CLAIM_DUE, claim, lasting, limit)]


async def lock_claimed(connection: Connection, enrolment_ids: Sequence[str], claim: str) -> list[Due]:
    """Runs again, locked; without those that are over or were taken by another."""
    return [_due(row) for row in await connection.fetch(LOCK_CLAIMED, enrolment_ids, claim)]


async def runs_before(connection: Connection, places: Sequence[tuple[str, str]]) -> list[Due]:
    """Of these runs those that are active and stand before the step beside their id, locked."""
    rows = await connection.fetch(RUNS_BEFORE, [run for run, _ in places], [step for _, step in places])
    return [_due(row) for row in rows]


async def let_go(connection: Connection, enrolment_ids: Sequence[str], claim: str) -> None:
    """Give back claims that nothing was done with: the runs are due as they were."""
    await connection.execute(LET_GO, enrolment_ids, claim)


async def next_due(connection: Connection) -> timedelta | None:
    """How long until the next run is due; negative when one is."""
    left: timedelta | None = await connection.fetchval(NEXT_DUE)
    return left


async def move_runs(connection: Connection, moved: Sequence[Moved]) -> None:
    """Put runs before other steps."""
    if moved:
        rows = sorted(moved, key=lambda one: one.enrolment_id)
        await connection.execute(
            MOVE,
            [row.enrolment_id for row in rows],
            [row.place.step_id for row in rows],
            [row.place.due_at for row in rows],
            [row.visits_then for row in rows],
            [row.place.waits_at for row in rows],
            [row.place.since for row in rows],
            [dict([row.place.variant]) if row.place.variant is not None else {} for row in rows],
        )


async def stand_before(connection: Connection, enrolment_id: str, step_id: str) -> None:
    """Put a run before the message that branches have led it to, due as it is."""
    await connection.execute(STAND_BEFORE, enrolment_id, step_id)


async def hold_run(connection: Connection, enrolment_id: str, pause: timedelta, why: str) -> None:
    """Let a run wait for a time, saying why."""
    await connection.execute(HOLD, enrolment_id, pause, why)


async def hold_run_until(connection: Connection, enrolment_id: str, until: datetime, why: str) -> None:
    """Let a run wait until a time, saying why."""
    await connection.execute(HOLD_UNTIL, enrolment_id, until, why)


async def wait_longer(connection: Connection, enrolment_id: str, why: str) -> None:
    """Let a run wait a second, then longer and longer up to a minute, saying why."""
    await connection.execute(WAIT, enrolment_id, why)


async def release_held(connection: Connection, why: str) -> None:
    """Make the runs that waited for this reason due: it is gone."""
    await connection.execute(RELEASE_HELD, why)


def _due(row: asyncpg.Record) -> Due:
    visits: dict[str, Any] = row["visits"]
    return Due(as_run(row), row["step_id"], visits, row["meant_for"])
