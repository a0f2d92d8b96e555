"""The statements about runs: each is one version of a model, with the credits it gives.

A run is built by a walk through all conversions, serves, and is taken away once another serves in its place.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import asyncpg

from services.attribution.conversions.queries import Placed
from shared.db import Connection

RunState = Literal["building", "serving", "retiring"]

# Who credits and who changes which runs there are keep each other out, so that no conversion misses a run.
SHARE_RUNS = "SELECT pg_advisory_xact_lock_shared(hashtextextended('attribution/runs', 0))"
LOCK_RUNS = "SELECT pg_advisory_xact_lock(hashtextextended('attribution/runs', 0))"
# A large step may take long on a slow machine, and nobody waits for what it locks.
TAKE_TIME = """
SELECT set_config('idle_in_transaction_session_timeout', '60s', true), set_config('statement_timeout', '60s', true)
"""
COLUMNS = "run, model, version, splits, state, projection, after, done, total, started_at, walked_at, finished_at"
ALL = f"SELECT {COLUMNS} FROM model_runs ORDER BY run"
OF_MODEL = f"SELECT {COLUMNS} FROM model_runs WHERE model = $1 ORDER BY run"
SERVING = f"SELECT {COLUMNS} FROM model_runs WHERE model = $1 AND state = 'serving'"
BEGIN = """
INSERT INTO model_runs (model, version, splits, state, projection, total, finished_at)
SELECT $1, $2, $3, 'building', version, CASE WHEN $4 THEN (SELECT count(lead_id) FROM conversions) ELSE 0 END,
    CASE WHEN NOT $4 THEN clock_timestamp() END
FROM projections
"""
RETIRE = "UPDATE model_runs SET state = 'retiring', after = '' WHERE run = $1"
SERVE = "UPDATE model_runs SET state = 'serving' WHERE run = $1"
# Another projection may lack the credits of runs that began while it was built; and when no model looks as far back as
# one did that is gone, all paths become shorter.
WALK_AGAIN = """
UPDATE model_runs SET after = '', done = 0, projection = projections.version, finished_at = NULL,
    total = (SELECT count(lead_id) FROM conversions), started_at = clock_timestamp()
FROM projections WHERE state <> 'retiring' AND ($1 OR projection <> projections.version)
"""
WALKS = f"SELECT {COLUMNS} FROM model_runs WHERE state <> 'retiring' AND finished_at IS NULL ORDER BY run FOR UPDATE"
NEXT = """
SELECT conversion_id, lead_id, occurred_at FROM conversions
WHERE conversion_id > $1 AND lead_id IS NOT NULL ORDER BY conversion_id LIMIT $2
"""
# What lacks the credits of a run, or reaches further back than any run looks.
UNSETTLED = """
SELECT conversion_id, lead_id, conversions.occurred_at FROM conversions LEFT JOIN paths USING (conversion_id)
WHERE conversion_id > $1 AND lead_id IS NOT NULL AND (
    (SELECT count(*) FROM credits WHERE credits.conversion_id = conversions.conversion_id AND run = ANY($2::integer[]))
        < cardinality($2::integer[])
    OR paths.times[2] < paths.occurred_at - $3::interval)
ORDER BY conversion_id LIMIT $4
"""
ADVANCE = """
UPDATE model_runs SET after = $3, done = done + more, walked_at = clock_timestamp(),
    finished_at = CASE WHEN $4 THEN clock_timestamp() END
FROM unnest($1::integer[], $2::bigint[]) AS walked (of_run, more) WHERE run = of_run
"""
NEXT_CREDITED = "SELECT conversion_id FROM paths WHERE conversion_id > $1 ORDER BY conversion_id LIMIT $2"
TAKE_CREDITS = "DELETE FROM credits WHERE run = $1 AND conversion_id = ANY($2)"
SUMS = ("credit_sums", "channel_sums", "campaign_sums")
TAKE_SUMS = "DELETE FROM {table} WHERE run = $1"
FORGET = "DELETE FROM model_runs WHERE run = $1"
# A projection that was built meanwhile may hold what was taken away from the one that served.
TAKE_STRANGERS = "DELETE FROM {table} WHERE run <> ALL (SELECT run FROM model_runs)"
# The first element of every array stands for nobody, and ages come in the order of the path.
PATHS_SINCE = """
SELECT conversion_id, currency, value_minor, combos[2:] AS combos, lead_place - 2 AS lead, deal_place - 2 AS deal,
    ARRAY(
        SELECT (extract(epoch FROM paths.occurred_at - touched) * 1000000)::bigint
        FROM unnest(times[2:]) WITH ORDINALITY AS touch (touched, place) ORDER BY place
    ) AS ages_us
FROM paths WHERE occurred_at >= $1 ORDER BY occurred_at DESC, conversion_id LIMIT $2
"""
CHANNELS_OF = "SELECT combo_id, channel FROM combos WHERE combo_id = ANY($1)"
CREDITED_BY_CHANNEL = """
SELECT paths.currency, combos.channel, sum(part.units)::bigint AS units, sum(part.value_minor)::bigint AS value_minor
FROM unnest($1::text[]) AS wanted (conversion_id) JOIN paths USING (conversion_id) JOIN credits USING (conversion_id)
CROSS JOIN LATERAL unnest(paths.combos, credits.units, credits.value_minor) AS part (combo_id, units, value_minor)
JOIN combos USING (combo_id)
WHERE credits.run = $2 AND (part.units <> 0 OR part.value_minor <> 0) GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One version of a model, and how far the walk through all conversions has come for it (`after`)."""

    run: int
    model_id: str
    version: int
    splits: bool
    state: RunState
    projection: int
    after: str
    done: int
    total: int
    started_at: datetime
    walked_at: datetime | None
    finished_at: datetime | None

    @property
    def is_built(self) -> bool:
        """Whether all conversions are credited by it, and it does not answer yet."""
        return self.state == "building" and self.finished_at is not None

    @property
    def rate(self) -> float | None:
        """Conversions a second; None before the first step."""
        took = (self.walked_at or self.started_at) - self.started_at
        return self.done / took.total_seconds() if took > timedelta() else None

    @property
    def seconds_left(self) -> float | None:
        """How long the walk still takes at this rate."""
        return max(self.total - self.done, 0) / self.rate if self.rate else None


async def take_time(connection: Connection) -> None:
    """Let the transaction at hand take longer than those that others wait for."""
    await connection.execute(TAKE_TIME)


async def share_runs(connection: Connection) -> list[Run]:
    """All runs; until the end of the transaction nobody changes which there are."""
    await connection.execute(SHARE_RUNS)
    return await runs(connection)


async def lock_runs(connection: Connection) -> list[Run]:
    """All runs; until the end of the transaction nobody credits by them."""
    await connection.execute(LOCK_RUNS)
    return await runs(connection)


async def runs(connection: Connection) -> list[Run]:
    """All runs as they stand."""
    return [_run(row) for row in await connection.fetch(ALL)]


async def runs_of(connection: Connection, model_id: str) -> list[Run]:
    """The runs of one model."""
    return [_run(row) for row in await connection.fetch(OF_MODEL, model_id)]


async def serving(connection: Connection, model_id: str) -> Run | None:
    """The run of a model that answers."""
    row = await connection.fetchrow(SERVING, model_id)
    return _run(row) if row else None


async def begin_run(connection: Connection, model_id: str, version: int, *, splits: bool, walk: bool) -> None:
    """A version of a model is to be built; without a walk it is so at once."""
    await connection.execute(BEGIN, model_id, version, splits, walk)


async def retire(connection: Connection, run: int) -> None:
    """A run is to be taken away."""
    await connection.execute(RETIRE, run)


async def serve(connection: Connection, run: int) -> None:
    """A run that is built answers from now on."""
    await connection.execute(SERVE, run)


async def walk_again(connection: Connection, *, everything: bool) -> bool:
    """Let the walk begin anew for runs that were walked on another projection, with `everything` for all.

    Answers whether there are such.
    """
    return await connection.execute(WALK_AGAIN, everything) != "UPDATE 0"


async def take_strangers(connection: Connection) -> None:
    """Take away credits of runs that there are no more."""
    for table in ("credits", *SUMS):
        await connection.execute(TAKE_STRANGERS.format(table=table))


async def walks(connection: Connection) -> list[Run]:
    """The runs for which the walk is not finished, locked."""
    return [_run(row) for row in await connection.fetch(WALKS)]


async def conversions_after(connection: Connection, conversion_id: str, limit: int) -> list[Placed]:
    """The next conversions of the walk."""
    rows = await connection.fetch(NEXT, conversion_id, limit)
    return [Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows]


async def unsettled_after(
    connection: Connection, conversion_id: str, runs: Sequence[int], reach: timedelta | None, limit: int
) -> list[Placed]:
    """The next conversions that lack the credits of one of these runs, or whose path is longer than `reach`."""
    rows = await connection.fetch(UNSETTLED, conversion_id, runs, reach, limit)
    return [Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows]


async def advance(connection: Connection, done: Mapping[int, int], *, after: str, finished: bool) -> None:
    """Remember how far the walk has come: what it did for each run, and that they all stand behind `after`."""
    await connection.execute(ADVANCE, list(done), list(done.values()), after, finished)


async def take_credits(connection: Connection, run: Run, limit: int) -> bool:
    """Take away a run's credits of the next conversions; at the end its sums and itself. Answers whether it is gone."""
    rows = await connection.fetch(NEXT_CREDITED, run.after, limit)
    ids: Sequence[str] = [row["conversion_id"] for row in rows]
    await connection.execute(TAKE_CREDITS, run.run, ids)
    if len(ids) == limit:
        await advance(connection, {run.run: 0}, after=ids[-1], finished=False)
        return False
    for table in SUMS:
        await connection.execute(TAKE_SUMS.format(table=table), run.run)
    await connection.execute(FORGET, run.run)
    return True


def _run(row: asyncpg.Record) -> Run:
    return Run(*row.values())


async def paths_since(connection: Connection, since: datetime, limit: int) -> list[asyncpg.Record]:
    """The newest paths to conversions since then, in arrays of combos and of ages before the conversion."""
    rows: list[asyncpg.Record] = await connection.fetch(PATHS_SINCE, since, limit)
    return rows


async def channels_of(connection: Connection, combo_ids: Collection[int]) -> dict[int, str]:
    """The channels that combos count under."""
    return {row["combo_id"]: row["channel"] for row in await connection.fetch(CHANNELS_OF, list(combo_ids))}


async def credited_by_channel(connection: Connection, conversion_ids: Sequence[str], run: int) -> list[asyncpg.Record]:
    """What a run credits of these conversions, by currency and channel."""
    rows: list[asyncpg.Record] = await connection.fetch(CREDITED_BY_CHANNEL, conversion_ids, run)
    return rows
