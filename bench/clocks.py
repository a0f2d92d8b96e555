"""Clocks of assignments: due steps taken a second, all that follows from them written, while a million wait."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from bench.stack import Servers, filling, settings_of
from services.routing.sla.handlers import AT_ONCE, take_steps
from shared.service import build_runtime

WAITING = 1_000_000
DUE = 20_000
PER_SECOND_GOAL = 2_000
REPS = 50
# Reminders due now, and as many clocks behind them that are due over the next days.
FILL = """
INSERT INTO reps (rep_id, name, email, territories, skills, teams, weight, time_zone, time_off, created_at, updated_at)
SELECT 'rep' || n, 'Rep', 'rep' || n || '@bench.example', '{{}}', '{{}}', '{{}}', 100, 'UTC', '[]', now(), now()
FROM generate_series(0, {reps} - 1) AS n;
INSERT INTO assignments (assignment_id, lead_id, person_id, revision, rep_id, queue, strategy, state, assigned_at,
    due_at, touch_due_at, rules_version, trace)
SELECT 'a' || n, 'lead' || n, 'lead' || n, 1, 'rep' || n % {reps}, 'everybody', 'round_robin', 'accepted',
    now() - interval '30 minutes', now(), now() + interval '30 minutes', 1, '[]'
FROM generate_series(1, {every}) AS n;
INSERT INTO given_days SELECT rep_id, (assigned_at AT TIME ZONE 'UTC')::date, count(*) FROM assignments GROUP BY 1, 2;
INSERT INTO clocks (assignment_id, clock, started_at, minutes, steps, act, due_at)
SELECT 'a' || n, 'touch', now() - interval '30 minutes', 60,
    '[{{"at": 50, "act": "remind", "notify": ["rep"]}}, {{"at": 100, "act": "breach", "notify": ["rep", "owner"]}}]',
    'remind', now() + CASE WHEN n <= {due} THEN interval '0' ELSE interval '1 hour' + n * interval '0.2 s' END
FROM generate_series(1, {every}) AS n
"""


@dataclass(frozen=True)
class Figures:
    """Steps taken a second, the claim, the next due time, the notice and the commit included."""

    per_second: float


def measure(made: Servers) -> Figures:
    """Take all steps that are due, in batches as the worker does."""
    database_url = made.fresh_database()
    statement = FILL.format(reps=REPS, every=WAITING + DUE, due=DUE)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path TO routing")
        with filling(connection, "assignments", "clocks"):
            connection.execute(statement.encode())
    return asyncio.run(_taken(made.environment(database_url, "clocks.")))


async def _taken(environment: dict[str, str]) -> Figures:
    runtime = build_runtime("routing", settings_of(environment))
    taken, at = 0, datetime.now(UTC) + timedelta(seconds=1)
    try:
        began = time.perf_counter()
        while True:
            async with runtime.database.transaction() as tx:
                some = await take_steps(tx, at, AT_ONCE)
            taken += some
            if some < AT_ONCE:
                break
        took = time.perf_counter() - began
        async with runtime.database.reading() as connection:
            told = await connection.fetchval("SELECT count(*) FROM notices")
    finally:
        await runtime.database.close()
    if (taken, told) != (DUE, DUE):
        raise RuntimeError(f"{DUE} steps were due, {taken} were taken and {told} notices written")
    return Figures(taken / took)
