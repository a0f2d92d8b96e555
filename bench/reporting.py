"""Reports over HTTP at growing sizes: histories are put into the projection, the worker does the rest.

A person is a lead with the touches of one journey; a converting one has a conversion in the same instant as its last
touch. The worker credits them by every model and counts their sequences, as it does after a migration.
"""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import numpy as np

from bench.journeys import CHANNELS, Journeys, journeys
from bench.stack import Servers, role, settings_of, token
from shared.db import Connection

SIZES = (10_000, 100_000, 1_000_000)
TIMES = 25
MILLISECONDS_GOAL = 20
GROWTH_GOAL = 1.15
FILTERED_GOAL = 1_000
END = datetime(2026, 11, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
AT_ONCE = 20_000
DONE = """
SELECT (SELECT count(*) = 0 FROM attribution.model_runs WHERE state <> 'serving' OR finished_at IS NULL)
    AND (SELECT count(*) > 0 FROM attribution.path_moves) AND (SELECT count(*) = 0 FROM attribution.path_turns)
"""
# The walk through all conversions, as after a migration.
WALK_AGAIN = "UPDATE model_runs SET after = '', done = 0, finished_at = NULL"
MODELS = (
    "first_touch",
    "last_touch",
    "linear",
    "time_decay",
    "last_non_direct",
    "position_based",
    "w_shaped",
    "full_path",
    "j_shaped",
    "inverse_j",
    "u_shaped_lead",
    "participation",
    "markov",
    "shapley",
)
UNFILTERED = {
    **{f"attribution, {model}": f"attribution?model={model}" for model in MODELS},
    "compare, six models": "compare?models=first_touch,last_touch,linear,time_decay,markov,shapley",
    "roi": "roi?model=linear",
    "assisted": "assisted",
    "participation": "participation",
    "paths": "paths",
    "path-length": "path-length",
    "time-lag": "time-lag",
}
FILTERED = {
    "attribution, two dimensions": "attribution?model=linear&dimension=channel,country",
    "attribution in Berlin's days": "attribution?model=linear&tz=Europe/Berlin&from=2026-01-02&to=2026-10-03",
    "attribution, filter": "attribution?model=linear&filter=value_minor%20%3E%2050000",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """The median milliseconds of each report at one size, and the seconds that crediting everything took."""

    people: int
    milliseconds: dict[str, float]
    seconds: float


def measure(servers: Servers, sizes: Sequence[int] = SIZES) -> list[Answered]:
    """Each size in a database of its own."""
    return [asyncio.run(_measure(servers, people)) for people in sizes]


async def _measure(servers: Servers, people: int) -> Answered:
    environment = servers.environment(servers.fresh_database(), f"reports{people}.")
    connection = await asyncpg.connect(settings_of(environment).database_url.get_secret_value())
    await connection.execute("SET search_path TO attribution_projection, attribution")
    await _seed(connection, journeys(people))
    began = time.perf_counter()
    with role("attribution", ["worker"], environment):
        await _finished(connection)
    seconds = time.perf_counter() - began
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    with role("attribution", ["api"], environment) as port:
        base = f"http://127.0.0.1:{port}/attribution/v1/reports/"
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token()}"}, timeout=60) as client:
            found = {name: _median_ms(client, path) for name, path in (UNFILTERED | FILTERED).items()}
    return Answered(people, found, seconds)


async def _finished(connection: Connection) -> None:
    while True:
        if await connection.fetchval(DONE):
            return
        await asyncio.sleep(0.5)


def _median_ms(client: httpx.Client, path: str) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        client.get(path).raise_for_status()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def _seed(connection: Connection, of: Journeys) -> None:
    for start in range(0, len(of.converted), AT_ONCE):
        some = range(start, min(start + AT_ONCE, len(of.converted)))
        leads, touches, conversions = zip(*(_rows(of, person) for person in some), strict=True)
        await _copy(connection, "leads", leads)
        await _copy(connection, "touches", [touch for theirs in touches for touch in theirs])
        await _copy(connection, "conversions", [one for one in conversions if one is not None])
    await connection.execute("INSERT INTO converting_leads SELECT lead_id FROM conversions ON CONFLICT DO NOTHING")
    await connection.execute(WALK_AGAIN)
    await connection.execute("ANALYZE")


async def _copy(connection: Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        records = [tuple(row.values()) for row in rows]
        await connection.copy_records_to_table(table, records=records, columns=list(rows[0]))


def _rows(of: Journeys, person: int) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any] | None]:
    """The rows of a person; their journeys end evenly over a year."""
    ended = END - YEAR * (((person * 7919) % 100_003) / 100_003)
    lead_id = f"lead{person:07}"
    places = range(int(of.starts[person]), int(of.starts[person + 1]))
    touches = [_touch(of, lead_id, place, ended) for place in places]
    lead = {"lead_id": lead_id, "revision": 1, "captured_at": touches[len(touches) // 2]["occurred_at"]}
    if not of.converted[person]:
        return lead, touches, None
    conversion = {
        "conversion_id": f"conversion{person:07}",
        "position": person,
        "origin": "api",
        "external_id": f"order{person}",
        "lead_id": lead_id,
        "type": "purchase",
        "value_minor": int(of.values[person]),
        "currency": "EUR",
        "occurred_at": ended,
        "received_at": ended,
    }
    return lead, touches, conversion


def _touch(of: Journeys, lead_id: str, place: int, ended: datetime) -> dict[str, Any]:
    at = ended - timedelta(microseconds=int(of.ages_us[place]))
    return {
        "origin": "api",
        "touch_id": f"touch{place:09}",
        "position": place,
        "lead_id": lead_id,
        "occurred_at": at,
        "received_at": at,
        "type": "page_view",
        "channel": CHANNELS[of.channels[place]],
        "channel_rule": "caller",
        "automated": False,
    }


def slower(found: Sequence[Answered]) -> Iterator[tuple[str, list[float], float]]:
    """Of each unfiltered report its medians from the smallest to the largest size, and how much it grew."""
    for name in UNFILTERED:
        medians = [answered.milliseconds[name] for answered in found]
        yield name, medians, medians[-1] / medians[0]


def total_ms(answered: Answered, names: Sequence[str]) -> float:
    """The sum of some medians."""
    return float(np.sum([answered.milliseconds[name] for name in names]))
