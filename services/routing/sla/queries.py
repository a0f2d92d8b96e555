"""The statements about clocks, and about how fast reps were."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg
import orjson

from services.routing.assignments.domain import Assignment
from services.routing.sla.domain import Clock, Running, Step
from shared.db import Connection
from shared.ids import AssignmentId, LeadId, RepId

Interval = Literal["day", "week", "month"]
START = """
INSERT INTO clocks (assignment_id, clock, started_at, minutes, steps, act, due_at)
SELECT assignment_id, clock, started_at, minutes, steps::jsonb, act, due_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::text[], $6::text[], $7::timestamptz[])
    AS new (assignment_id, clock, started_at, minutes, steps, act, due_at)
ON CONFLICT (assignment_id, clock) DO NOTHING
"""
# What the rules saw is large, and not needed to know whether a clock still counts.
ASSIGNMENT = ", ".join(
    {"trace": "'[]'::jsonb AS trace", "inputs": "NULL::jsonb AS inputs"}.get(column.name, f"a.{column.name}")
    for column in fields(Assignment)
)
CLOCK = "c.clock, c.started_at, c.minutes, c.steps, c.due_at AS step_due_at, c.delay, c.graces"
# A rep who answers meanwhile is not in the way of these: `responses` has one row for a clock, whoever writes it first.
DUE = f"""
SELECT {CLOCK}, {ASSIGNMENT} FROM clocks AS c JOIN assignments AS a USING (assignment_id)
WHERE c.act <> 'reroute' AND c.due_at <= $1 ORDER BY c.due_at LIMIT $2 FOR UPDATE OF c SKIP LOCKED
"""
REROUTES_DUE = f"""
SELECT {CLOCK}, {ASSIGNMENT} FROM clocks AS c JOIN assignments AS a USING (assignment_id)
WHERE c.act = 'reroute' AND c.due_at <= $1 ORDER BY c.due_at LIMIT $2 FOR UPDATE SKIP LOCKED
"""
NEXT_DUE = """
SELECT least(
    (SELECT min(due_at) FROM clocks WHERE act <> 'reroute'), (SELECT min(due_at) FROM clocks WHERE act = 'reroute')
)
"""
STOP = """
DELETE FROM clocks AS c USING unnest($1::text[], $2::text[]) AS over (assignment_id, clock)
WHERE c.assignment_id = over.assignment_id AND c.clock = over.clock
"""
GO_ON = """
UPDATE clocks AS c
SET steps = next.steps::jsonb, act = next.act, due_at = next.due_at, delay = next.delay, graces = next.graces
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::interval[], $7::integer[])
    AS next (assignment_id, clock, steps, act, due_at, delay, graces)
WHERE c.assignment_id = next.assignment_id AND c.clock = next.clock
"""
RESUME = """
INSERT INTO clocks (assignment_id, clock, started_at, minutes, steps, act, due_at)
SELECT assignment_id, 'accept', assigned_at, 0, $2, 'reroute', due_at FROM assignments
WHERE assignment_id = $1 AND state = 'offered' AND ended_at IS NULL AND due_at IS NOT NULL
ON CONFLICT (assignment_id, clock) DO NOTHING
"""
BREACHED = """
INSERT INTO responses (assignment_id, clock, rep_id, assigned_at, due_at, kept)
SELECT *, false FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
ON CONFLICT (assignment_id, clock) DO NOTHING RETURNING assignment_id, clock
"""
BREACHES_TOLD = """
INSERT INTO responses (assignment_id, clock, rep_id, assigned_at, due_at, kept)
SELECT assignment_id, told.clock, a.rep_id, a.assigned_at, told.due_at, false
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS told (assignment_id, clock, due_at)
JOIN assignments AS a USING (assignment_id)
ON CONFLICT (assignment_id, clock) DO NOTHING
"""
# Of two contacts the earlier counts, whichever is heard of first.
ANSWERED = """
INSERT INTO responses AS known (assignment_id, clock, rep_id, assigned_at, due_at, took_s, worked_s, kept)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (assignment_id, clock) DO UPDATE
SET took_s = least(known.took_s, excluded.took_s), worked_s = least(known.worked_s, excluded.worked_s),
    kept = known.kept OR excluded.kept
"""
TOUCH = """
UPDATE assignments SET touched_at = $2
WHERE assignment_id = $1 AND assigned_at <= $2 AND (touched_at IS NULL OR touched_at > $2)
RETURNING assignment_id
"""
CURRENT_OF = """
SELECT assignment_id FROM assignments
WHERE person_id = ANY($1) AND ended_at IS NULL AND touched_at IS NULL ORDER BY assignment_id
"""
# Percentiles are of those that were answered, shares of those that had a limit and are settled.
FIGURES = """
count(*) FILTER (WHERE clock = '{clock}' AND took_s IS NOT NULL) AS {clock}_answered,
percentile_cont(0.5) WITHIN GROUP (ORDER BY took_s) FILTER (WHERE clock = '{clock}') AS {clock}_median_s,
percentile_cont(0.9) WITHIN GROUP (ORDER BY took_s) FILTER (WHERE clock = '{clock}') AS {clock}_p90_s,
percentile_cont(0.5) WITHIN GROUP (ORDER BY worked_s) FILTER (WHERE clock = '{clock}') AS {clock}_median_worked_s,
percentile_cont(0.9) WITHIN GROUP (ORDER BY worked_s) FILTER (WHERE clock = '{clock}') AS {clock}_p90_worked_s,
count(*) FILTER (WHERE clock = '{clock}' AND kept) AS {clock}_kept,
count(*) FILTER (WHERE clock = '{clock}' AND NOT kept) AS {clock}_breached
"""
BOTH = ", ".join(FIGURES.format(clock=clock) for clock in ("accept", "touch"))
SPEED = f"""
SELECT rep_id, CASE WHEN $4::text IS NOT NULL
    THEN date_trunc($4, assigned_at AT TIME ZONE $5) AT TIME ZONE $5 END AS period, {BOTH}
FROM responses WHERE assigned_at >= $1 AND assigned_at < $2 AND rep_id = ANY($3)
GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A clock whose step is due, locked, and the assignment it runs for; that too where the step re-routes."""

    running: Running
    assignment: Assignment


async def start(connection: Connection, clocks: Sequence[Running]) -> None:
    """Clocks begin to run; one that runs already goes on."""
    if clocks:
        await connection.execute(
            START,
            [one.assignment_id for one in clocks],
            [one.clock for one in clocks],
            [one.started_at for one in clocks],
            [one.minutes for one in clocks],
            [_written(one) for one in clocks],
            [one.steps[0].act for one in clocks],
            [one.due_at for one in clocks],
        )


def _written(clock: Running) -> str:
    return orjson.dumps([step.as_json() for step in clock.steps]).decode()


async def due(connection: Connection, at: datetime, limit: int, *, reroutes: bool) -> list[Due]:
    """Clocks whose step is due, those that re-route or the others; what somebody else has locked is left to them."""
    rows = await connection.fetch(REROUTES_DUE if reroutes else DUE, at, limit)
    return [_due(dict(row)) for row in rows]


def _due(row: dict[str, Any]) -> Due:
    running = Running(
        assignment_id=row["assignment_id"],
        clock=row.pop("clock"),
        started_at=row.pop("started_at"),
        minutes=row.pop("minutes"),
        steps=tuple(Step.of(step) for step in row.pop("steps")),
        due_at=row.pop("step_due_at"),
        delay=row.pop("delay"),
        graces=row.pop("graces"),
    )
    return Due(running, Assignment(**row))


async def next_due(connection: Connection) -> datetime | None:
    """When the next step is due."""
    moment: datetime | None = await connection.fetchval(NEXT_DUE)
    return moment


async def stop(connection: Connection, clocks: Sequence[Running]) -> None:
    """Clocks that are of no use any more."""
    if clocks:
        await connection.execute(STOP, [one.assignment_id for one in clocks], [one.clock for one in clocks])


async def go_on(connection: Connection, clocks: Sequence[Running]) -> None:
    """Clocks with other steps left, or due at other times."""
    if clocks:
        await connection.execute(
            GO_ON,
            [one.assignment_id for one in clocks],
            [one.clock for one in clocks],
            [_written(one) for one in clocks],
            [one.steps[0].act for one in clocks],
            [one.due_at for one in clocks],
            [one.delay for one in clocks],
            [one.graces for one in clocks],
        )


async def breached(
    connection: Connection, breaches: Sequence[tuple[AssignmentId, Clock, RepId, datetime, datetime]]
) -> set[tuple[AssignmentId, Clock]]:
    """Note clocks whose time is over, as (assignment, clock, rep, assigned at, due at). Answers those not known yet."""
    columns = [list(column) for column in zip(*breaches, strict=True)]
    return {(row["assignment_id"], row["clock"]) for row in await connection.fetch(BREACHED, *columns)}


async def breaches_told(connection: Connection, told: Sequence[tuple[AssignmentId, Clock, datetime]]) -> None:
    """Breaches that were published, as (assignment, clock, due at): news only after the database was restored."""
    await connection.execute(BREACHES_TOLD, *(list(column) for column in zip(*told, strict=True)))


async def answered(  # noqa: PLR0913  # what an answer is made of
    connection: Connection,
    assignment: Assignment,
    clock: Clock,
    due_at: datetime | None,
    took: timedelta,
    worked: timedelta,
    kept: bool | None,
) -> None:
    """Note how fast a rep accepted, or was in touch; `kept` is None where there was no limit."""
    await connection.execute(
        ANSWERED,
        assignment.assignment_id,
        clock,
        assignment.rep_id,
        assignment.assigned_at,
        due_at,
        int(took.total_seconds()),
        int(worked.total_seconds()),
        kept,
    )


async def touch(connection: Connection, assignment_id: AssignmentId, at: datetime) -> bool:
    """The rep was in touch; False when that was so earlier, or not since the assignment."""
    return await connection.fetchval(TOUCH, assignment_id, at) is not None


async def untouched_of(connection: Connection, person_ids: Sequence[LeadId]) -> list[AssignmentId]:
    """The current assignments of these persons whose rep was not in touch yet."""
    return [row["assignment_id"] for row in await connection.fetch(CURRENT_OF, person_ids)]


async def speed(  # noqa: PLR0913  # the filters of one report
    connection: Connection,
    since: datetime,
    until: datetime,
    rep_ids: Sequence[RepId],
    interval: Interval | None,
    zone: str,
) -> list[asyncpg.Record]:
    """How fast reps were with what they were given in a time, by rep and period."""
    return await connection.fetch(SPEED, since, until, rep_ids, interval, zone)


async def resume(connection: Connection, assignment_id: AssignmentId) -> None:
    """An offer that lives again has its time, as far as it is known: until `due_at`."""
    await connection.execute(RESUME, assignment_id, [Step(100, "reroute", ("rep",)).as_json()])
