"""Reports over HTTP at growing sizes: histories are put into the projection, the worker does the rest.

A person is a lead with the touches of one journey; a converting one has a conversion in the same instant as its last
touch. Journeys end evenly over a year, so that every size fills the same days. What the worker does after a migration
credits them by every model, in steps as large as those of a rebuild, and counts their sequences.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import numpy as np

from bench.journeys import CHANNELS, Integers, Journeys, journeys
from bench.stack import Servers, role, settings_of, token
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import STEP_ALONE, walk_models
from services.attribution.remainders.handlers import count_remainders, keep_remainders
from shared.db import Connection
from shared.service import build_runtime

SIZES = (10_000, 100_000, 1_000_000)
TIMES = 25
MILLISECONDS_GOAL = 20
GROWTH_GOAL = 1.15
FILTERED_GOAL = 1_000
END = datetime(2026, 11, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
AT_ONCE = 20_000
SEED_TIMEOUT_S = 600
SPENT_ON = 4
"""Channels with a cost every day."""
COUNTRIES = 8
CAMPAIGNS = 5
"""Of each channel."""
_INSTANT = timedelta.resolution
_CHANNEL = f"(ARRAY[{', '.join(repr(name) for name in CHANNELS)}])[channel]"
SEED_TOUCHES = f"""
INSERT INTO touches (origin, touch_id, position, lead_id, occurred_at, received_at, type, channel, channel_rule,
    campaign, automated, given_channel)
SELECT 'api', 'touch' || lpad(place::text, 9, '0'), place, 'lead' || lpad(person::text, 7, '0'), at, at, 'page_view',
    {_CHANNEL}, 'caller', {_CHANNEL} || ' ' || place % {CAMPAIGNS}, false, {_CHANNEL}
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS touch (place, person, ago, channel)
CROSS JOIN LATERAL (SELECT timestamptz '{END}' + ago * interval '1 microsecond' AS at) AS happened
"""
SEED_LEADS = f"""
INSERT INTO leads (lead_id, revision, captured_at, country)
SELECT 'lead' || lpad(person::text, 7, '0'), 1, timestamptz '{END}' + ago * interval '1 microsecond',
    'country ' || person % {COUNTRIES}
FROM unnest($1::bigint[], $2::bigint[]) AS lead (person, ago)
"""
SEED_CONVERSIONS = f"""
INSERT INTO conversions (conversion_id, position, origin, external_id, lead_id, type, value_minor, currency,
    occurred_at, received_at)
SELECT 'conversion' || lpad(person::text, 7, '0'), person, 'api', 'order' || person,
    'lead' || lpad(person::text, 7, '0'), 'purchase', value, 'EUR', at, at
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS conversion (person, ago, value)
CROSS JOIN LATERAL (SELECT timestamptz '{END}' + ago * interval '1 microsecond' AS at) AS happened
"""
SEED_COSTS = """
INSERT INTO costs (day, channel, campaign, currency, origin, position, received_at, amount_minor)
SELECT $1::date - ago, channel, '', 'EUR', 'api', ago, now(), 10000
FROM generate_series(1, 365) AS ago, unnest($2::text[]) AS channel
"""
DONE = """
SELECT (SELECT count(*) = 0 FROM attribution.model_runs WHERE state <> 'serving' OR finished_at IS NULL)
    AND (SELECT count(*) = 0 FROM attribution.path_turns)
    AND EXISTS (SELECT FROM attribution.channel_totals JOIN attribution.path_moves USING (projection, moves))
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
    """The median milliseconds of each report at one size, computed and as it stands after; the seconds that crediting
    everything took.
    """

    people: int
    milliseconds: dict[str, float]
    standing: dict[str, float]
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
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_carry_out, (_credit, _count), (environment, environment)))
    with role("attribution", ["worker"], environment):  # what is kept of models that take long
        await _finished(connection)
    seconds = time.perf_counter() - began
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    with role("attribution", ["api"], environment) as port:
        base = f"http://127.0.0.1:{port}/attribution/v1/reports/"
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token()}"}, timeout=60) as client:
            found = {name: _median_ms(client, path, anew=True) for name, path in (UNFILTERED | FILTERED).items()}
            standing = {name: _median_ms(client, path, anew=False) for name, path in (UNFILTERED | FILTERED).items()}
    return Answered(people, found, standing, seconds)


async def _finished(connection: Connection) -> None:
    while True:
        if await connection.fetchval(DONE):
            return
        await asyncio.sleep(0.5)


def _carry_out(duty: Callable[[dict[str, str]], Coroutine[Any, Any, None]], environment: dict[str, str]) -> None:
    asyncio.run(duty(environment))


def _median_ms(client: httpx.Client, path: str, *, anew: bool) -> float:
    """With `anew` each is asked for at an address where nothing stands."""
    taken = []
    for number in range(TIMES):
        headers = {"host": f"times-{number}.example"} if anew else {}
        began = time.perf_counter()
        client.get(path, headers=headers).raise_for_status()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def _seed(connection: Connection, of: Journeys) -> None:
    people = len(of.converted)
    for start in range(0, people, AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, people))
        ended = (some - people) * (YEAR // _INSTANT // people)  # microseconds; multiplied first they would overflow
        places = np.arange(of.starts[some[0]], of.starts[some[-1] + 1])
        owners = np.repeat(some, np.diff(of.starts[some[0] : some[-1] + 2]))
        times = ended[owners - start] - of.ages_us[places]
        await _fill(connection, SEED_TOUCHES, places, owners, times, of.channels[places] + 1)
        known = times[(of.starts[some] + of.starts[some + 1]) // 2 - places[0]]
        await _fill(connection, SEED_LEADS, some, known)
        buyers = some[of.converted[some]]
        await _fill(connection, SEED_CONVERSIONS, buyers, ended[buyers - start], of.values[buyers])
    await connection.execute(SEED_COSTS, END.date(), CHANNELS[:SPENT_ON])
    await connection.execute("INSERT INTO converting_leads SELECT lead_id FROM conversions ON CONFLICT DO NOTHING")
    await connection.execute(WALK_AGAIN)
    await connection.execute("VACUUM ANALYZE")


async def _fill(connection: Connection, statement: str, *columns: Integers) -> None:
    """Rows out of numbers: the server makes the texts."""
    await connection.execute(statement, *(column.tolist() for column in columns), timeout=SEED_TIMEOUT_S)


async def _credit(environment: dict[str, str]) -> None:
    """The walk of all models through all conversions, in steps as large as those of a rebuild."""
    database, catalogue = build_runtime("attribution", settings_of(environment)).database, Catalogue()
    while await walk_models(database, catalogue, STEP_ALONE) is not None:
        pass
    await database.close()


async def _count(environment: dict[str, str]) -> None:
    """What is left of everybody's journeys."""
    database = build_runtime("attribution", settings_of(environment)).database
    await keep_remainders(database)
    while await count_remainders(database) is not None:
        pass
    await database.close()


def slower(found: Sequence[Answered]) -> Iterator[tuple[str, list[float], float]]:
    """Of each unfiltered report its medians from the smallest to the largest size, and how much it grew."""
    for name in UNFILTERED:
        medians = [answered.milliseconds[name] for answered in found]
        yield name, medians, medians[-1] / medians[0]
