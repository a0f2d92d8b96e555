"""Timers of scoring that are due: stages that end by decay alone, told a second, while many others wait their time.

Each due person is judged in full: the score is read, the stage ends, the fact is told, the next look planned. One
worker's loop does it, in this process; the more wait the larger are the tables and the index it claims from. Claims
alone are the same pages, taken off the plan by one who does nothing else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg

from bench.measures import Pair
from bench.stack import Servers, filling, settings_of
from services.scoring.engagement.domain import Engagement, Touch
from services.scoring.parts import make_parts, scoring_documents
from services.scoring.people.domain import nobody
from services.scoring.people.queries import make_people, save_engagement
from services.scoring.rules.document import rule_set, shipped_document
from services.scoring.stages import queries
from services.scoring.stages.due import settle_due
from services.scoring.stages.handlers import PAGE
from shared.ids import EventId, LeadId
from shared.service import Runtime, build_runtime

WAITING = 1_000_000
FEW = 1_000
DUE = 10_000
HOURS_S = 4 * 3600.0
MODEL = LeadId("model")
COLUMNS = """
SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
WHERE attrelid = 'scores'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'person_id'
"""
COPY = """
INSERT INTO scores (person_id, {columns}) SELECT $1::text || place, {columns}
FROM scores, generate_series(1, $2::integer) AS place WHERE person_id = $3
"""
STAND = """
INSERT INTO standings (person_id, stage, held, furthest, since, reason, revision, told_total, told_grade, due_at,
    due_below)
SELECT $1::text || place, 'mql', '{mql}', 'mql', $3::timestamptz, 'it asked', 1, 50, 'D',
    $4::timestamptz + make_interval(secs => place % 86400), 35
FROM generate_series(1, $2::integer) AS place
ON CONFLICT (person_id) DO UPDATE SET stage = 'mql', held = '{mql}', since = excluded.since, due_at = excluded.due_at,
    due_below = excluded.due_below, told_total = 50
"""
CLEAN = "VACUUM ANALYZE scores, standings, stage_changes"
LEFT = "SELECT count(*) FROM standings WHERE stage = 'mql' AND person_id LIKE 'due%'"
UNCLAIMED = "SELECT count(*) FROM standings WHERE due_at <= now()"
AGAIN = "TRUNCATE stage_changes"


def settled(servers: Servers, rounds: int, waiting: int = WAITING, due: int = DUE) -> list[Pair]:
    """Persons judged a second with many waiting, and with few, in turns."""
    return asyncio.run(_compared(servers, rounds, waiting, due, _judged))


def claimed(servers: Servers, rounds: int, waiting: int = WAITING, due: int = DUE) -> list[Pair]:
    """The same of claims alone."""
    return asyncio.run(_compared(servers, rounds, waiting, due, _claimed))


async def _compared(
    servers: Servers, rounds: int, waiting: int, due: int, act: Callable[[Runtime], Awaitable[None]]
) -> list[Pair]:
    runtimes = [
        build_runtime("scoring", settings_of(servers.environment(servers.fresh_database(), f"due{number}.")))
        for number in (waiting, FEW)
    ]
    try:
        for runtime, number in zip(runtimes, (waiting, FEW), strict=True):
            await _seed(runtime, number, due)
        pairs = []
        for _ in range(rounds):
            many, few = [await _rate(runtime, due, act) for runtime in runtimes]
            pairs.append(Pair(many, few))
        return pairs
    finally:
        for runtime in runtimes:
            await runtime.database.close()


async def _seed(runtime: Runtime, waiting: int, due: int) -> None:
    """A lead that asked for a demo 20 days ago, as often as some are due, and one of today as often as others wait."""
    rules = rule_set(1, shipped_document())
    now = datetime.now(UTC)
    for name, number, at in (("due", due, now - timedelta(days=20)), ("waits", waiting, now)):
        touch = Touch(EventId("demo"), at, "demo_requested", {"type": "demo_requested", "automated": False})
        engagement, _ = rules.engagement.fold(Engagement(), {}, [touch])
        async with runtime.database.transaction() as tx:
            await scoring_documents().active_version(tx.connection)
            await make_people(tx.connection, [MODEL], 1, rules.nobody)
            await save_engagement(tx.connection, [replace(nobody(MODEL, rules), engagement=engagement)])
            columns = await tx.connection.fetchval(COLUMNS)
        with psycopg.connect(runtime.database.url, autocommit=True) as beside:
            beside.execute("SET search_path TO scoring_projection, scoring")
            with filling(beside, "scores", "standings"):
                await _copy(runtime, COPY.format(columns=columns), name, number, MODEL)
                await _copy(runtime, STAND, name, number, at, at + timedelta(days=15))
        await _copy(runtime, "DELETE FROM scores WHERE person_id = $1", MODEL)


async def _copy(runtime: Runtime, statement: str, *arguments: object) -> None:
    async with runtime.database.reading() as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(statement, *arguments, timeout=HOURS_S)


async def _rate(runtime: Runtime, due: int, act: Callable[[Runtime], Awaitable[None]]) -> float:
    long_ago = datetime.now(UTC) - timedelta(days=20)
    async with runtime.database.reading() as connection:
        await connection.execute(AGAIN)
        await connection.execute(STAND, "due", due, long_ago, long_ago + timedelta(days=15))
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(CLEAN, timeout=HOURS_S)
    began = time.perf_counter()
    await act(runtime)
    return due / (time.perf_counter() - began)


async def _judged(runtime: Runtime) -> None:
    await settle_due(runtime.database, make_parts(runtime))
    async with runtime.database.reading() as connection:
        if left := await connection.fetchval(LEFT):
            raise RuntimeError(f"{left} of those that were due have not been judged")


async def _claimed(runtime: Runtime) -> None:
    parts = make_parts(runtime)
    more = True
    while more:
        async with runtime.database.transaction() as tx:
            taken = await queries.claim_due(tx.connection, await parts.present_in(tx), PAGE)
            await queries.schedule(tx.connection, [(person_id, None) for person_id in taken])
        more = len(taken) == PAGE
    async with runtime.database.reading() as connection:
        if left := await connection.fetchval(UNCLAIMED):
            raise RuntimeError(f"{left} of those that were due have not been claimed")
