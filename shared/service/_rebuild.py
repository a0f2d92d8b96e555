"""Build a projection anew from the log beside the one that serves, then swap the two.

The new one folds what the log holds and takes no decision. It is swapped in when it has caught up, and only at
positions that the serving one has reached too: so no decision is skipped, and those between are met by their own keys.
What a worker would still derive from the facts is settled before, in both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.db import TRANSIENT, Connection, Database, projection_sql
from shared.errors import Unavailable
from shared.faults import failpoint
from shared.ids import new_id
from shared.kafka import Consumer, forget_group, probe, topics_of
from shared.service._consuming import make_consumer, positions_name
from shared.service._runtime import Runtime, ServiceCode, build_runtime
from shared.settings import Settings

BEHIND_SERVING = """
SELECT count(*) FROM consumer_positions AS built JOIN consumer_positions AS serving USING (topic, partition)
WHERE built.consumer = $1 AND serving.consumer = $2 AND serving.next_offset < built.next_offset
"""
READ_MORE = """
SELECT coalesce(sum(serving.next_offset - built.next_offset), 0)::bigint
FROM consumer_positions AS built JOIN consumer_positions AS serving USING (topic, partition)
WHERE built.consumer = $1 AND serving.consumer = $2
"""
LOCK_SERVING = "SELECT 1 FROM consumer_positions WHERE consumer = $1 ORDER BY topic, partition FOR UPDATE"
SWAP = "UPDATE projections SET version = $1, built_at = clock_timestamp() WHERE version = $2 RETURNING version"
FORGET = """
WITH positions AS (DELETE FROM consumer_positions WHERE consumer = $1),
     parked AS (DELETE FROM parked_events WHERE consumer = $1),
     dead AS (DELETE FROM dead_letters WHERE consumer = $1)
DELETE FROM inbox WHERE version = $2
"""
# Topics from which only decisions follow were not read again.
CARRY_POSITIONS = """
INSERT INTO consumer_positions (consumer, topic, partition, next_offset, last_event_id, last_timestamp_ms)
SELECT $1, topic, partition, next_offset, last_event_id, last_timestamp_ms FROM consumer_positions WHERE consumer = $2
ON CONFLICT DO NOTHING
"""
# What is parked and could be folded now still owes its decisions; what could not is parked anew.
CARRY_PARKED = """
WITH again AS (
    DELETE FROM parked_events AS before USING parked_events AS built
    WHERE before.consumer = $2 AND built.consumer = $1 AND built.event_id = before.event_id RETURNING before.id
)
UPDATE parked_events SET consumer = $1, folded = true WHERE consumer = $2 AND id NOT IN (SELECT id FROM again)
"""
WITHOUT_HASTE = (
    "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
)
# Waited for as long as any lock: PostgreSQL notices a moment later that a rebuild was killed.
ALONE = "SELECT pg_advisory_lock(hashtextextended('rebuild/' || $1, 0))"
SERVING = "SELECT version FROM projections FOR UPDATE"
BUILDER = "SELECT obj_description(to_regnamespace($1), 'pg_namespace')"
CONTENT = "SELECT count(*), sum(hashtextextended(row::text, 0)::numeric) FROM {schema}.{table} AS row"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
NEAR_S = 2.0
LOOK_AGAIN_S = 20.0
OLD_READERS_S = 60
PATIENCE_S = 600.0
LONG_S = 24 * 3600.0

Progress = Callable[[str], None]
T = TypeVar("T")


class RebuildRefused(Unavailable):
    """The projection cannot be rebuilt now; the one that serves is as it was."""


class _Turn:
    """The right to rebuild a service. It ends with the connection that holds it, so it is looked at now and then."""

    def __init__(self, database: Database, service: str) -> None:
        self.builder = new_id()
        self._database = database
        self._service = service
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def take(self) -> Connection:
        """Raises RebuildRefused when another has it; TRANSIENT or OSError when the server does not answer."""
        self._connection = await self._database.connect()
        try:
            await self._connection.execute(ALONE, self._service)
        except asyncpg.LockNotAvailableError:
            raise RebuildRefused(f"another rebuild of {self._service} is running; wait for its end") from None
        return self._connection

    async def keep(self) -> None:
        """Have it still, or again where the server was away. Raises RebuildRefused when another has begun since."""

        async def kept() -> None:
            try:
                await self.check(self._connection or await self.take(), "build")
            except (OSError, *TRANSIENT):
                self.give_back()
                raise

        await _waiting(kept, (OSError, *TRANSIENT), "PostgreSQL", "", self._service)

    async def check(self, connection: Connection, which: str) -> None:
        """Raises RebuildRefused where what is built in a schema is another's."""
        if await connection.fetchval(BUILDER, f"{self._service}_{which}") != self.builder:
            raise RebuildRefused(f"another rebuild of {self._service} began meanwhile; wait for its end")

    def give_back(self) -> None:
        """Let another rebuild."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def rebuild(code: ServiceCode, settings: Settings, progress: Progress) -> dict[str, bool]:
    """Rebuild a service's projection and swap it in. Answers, per table, whether it equals the one before.

    Interrupted, it leaves the serving projection as it was; started again it begins anew. Of a service that folds
    nothing, nothing is rebuilt. Raises RebuildRefused.
    """
    runtime = build_runtime(code.name, settings, projection="build", muted=True)
    if not _places(code, runtime):
        progress(f"{code.name}: has no projection, so there is nothing to rebuild")
        return {}
    serves = build_runtime(code.name, settings)
    turn = _Turn(runtime.database, code.name)
    try:
        await turn.take()
        serving = await _begin(code.name, runtime.database, turn.builder)
        await _fold(code, runtime, turn, serving + 1, progress)

        async def settle() -> None:
            if code.settle is not None:
                for each in (serves, runtime):
                    await code.settle(each)

        await settle()  # most of it while the serving projection goes on
        equal = await _swap(code, runtime.database, turn, serving, settle, progress)
        await _drop_old(code.name, runtime.database, progress)
        return equal
    finally:
        turn.give_back()
        for each in (runtime, serves):
            await each.database.close()


async def _fold(code: ServiceCode, runtime: Runtime, turn: _Turn, version: int, progress: Progress) -> None:
    """Read the log until little is left of it."""
    loop = asyncio.get_running_loop()
    group = f"{code.name}.rebuild{version}"
    consumer = make_consumer(code, runtime, version, group=group, folds_only=True)
    places = _places(code, runtime)
    task = asyncio.create_task(consumer.run())
    try:
        began = -NEAR_S
        while loop.time() - began >= NEAR_S:
            began = loop.time()
            await turn.keep()
            ends = await _ends(code, runtime, places, progress)
            with suppress(TimeoutError):  # then the end is asked for again: Kafka may be away, or have lost its tail
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await _until_read(consumer, task, ends)
            progress(f"{code.name}: {consumer.carried_out(ends)} of {sum(ends.values())} records read")
    finally:
        await consumer.stop()
        await asyncio.wait([task], timeout=20)
        task.cancel()
        await asyncio.wait([task])
        await forget_group(runtime.settings, group)


async def _ends(
    code: ServiceCode, runtime: Runtime, places: Sequence[TopicPartition], progress: Progress
) -> dict[TopicPartition, int]:
    """Where the log ends. A broker that is away is waited for. Raises RebuildRefused when it stays away."""
    bootstrap = runtime.settings.kafka_bootstrap_servers

    async def ends() -> dict[TopicPartition, int]:
        async with probe(bootstrap) as kafka:
            return await kafka.ends(places)

    return await _waiting(ends, (KafkaError, OSError), "Kafka", f" at {bootstrap}", code.name, progress)


async def _waiting(  # noqa: PLR0913  # whom for, and who is told
    ask: Callable[[], Awaitable[T]],
    away: tuple[type[Exception], ...],
    server: str,
    place: str,
    service: str,
    progress: Progress | None = None,
) -> T:
    """What a server answers, once it is back. Raises RebuildRefused when it stays away."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    told = False
    while True:
        try:
            return await ask()
        except away as exc:
            if loop.time() > deadline:
                raise RebuildRefused(
                    f"{server}{place} does not answer; what serves is as it was: "
                    f"once {server} is back, run `throughline rebuild {service}` again"
                ) from exc
        if progress is not None and not told:
            progress(f"{service}: waits for {server}{place}, which does not answer")
            told = True
        await asyncio.sleep(1)


async def _until_read(consumer: Consumer, task: "asyncio.Task[None]", ends: dict[TopicPartition, int]) -> None:
    while not await consumer.caught_up(ends):
        if task.done():
            task.result()
        if consumer.stopped_partitions:
            raise RebuildRefused(f"too much is refused in {', '.join(consumer.stopped_partitions)}")
        await asyncio.sleep(0.1)


def _places(code: ServiceCode, runtime: Runtime) -> list[TopicPartition]:
    return [
        TopicPartition(runtime.settings.topic_prefix + topic, partition)
        for topic in topics_of(route for route in code.routes(runtime) if not route.decides)
        for partition in range(runtime.settings.topic_partitions)
    ]


async def _begin(service: str, database: Database, builder: str) -> int:
    """An empty schema with the projection's tables; what an interrupted rebuild left is dropped.

    Answers which version serves: none is swapped in beside this.
    """
    async with database.reading() as connection, connection.transaction():
        await connection.execute(WITHOUT_HASTE)
        serving = int(await connection.fetchval(SERVING))
        await connection.execute(FORGET, positions_name(service, serving + 1), serving + 1)
        await connection.execute(f"DROP SCHEMA IF EXISTS {service}_build, {service}_old CASCADE")
        await connection.execute(f"CREATE SCHEMA {service}_build")
        await connection.execute(f"COMMENT ON SCHEMA {service}_build IS '{builder}'")
        await connection.execute(f"SET LOCAL search_path TO {service}_build")
        await connection.execute(projection_sql(service))
    return serving


async def _swap(  # noqa: PLR0913  # what is swapped, and who says so
    code: ServiceCode,
    database: Database,
    turn: _Turn,
    serving: int,
    settle: Callable[[], Awaitable[None]],
    progress: Progress,
) -> dict[str, bool]:
    """Swap when the serving projection has been wherever the new one has, so that no decision is left out."""
    built, before = positions_name(code.name, serving + 1), positions_name(code.name, serving)
    told = False
    while True:
        async with database.reading() as connection, connection.transaction():
            await connection.execute(WITHOUT_HASTE)
            await connection.execute(LOCK_SERVING, before)
            if not await connection.fetchval(BEHIND_SERVING, built, before):
                await settle()  # nothing is folded any more
                equal = await _compare(connection, code.name)
                if not all(equal.values()) and (more := await connection.fetchval(READ_MORE, built, before)):
                    progress(f"{code.name}: {more} records came meanwhile; what is different may be so by these alone")
                if await connection.fetchval(SWAP, serving + 1, serving) is None:
                    raise RebuildRefused("another projection was swapped in meanwhile")
                await connection.execute(CARRY_POSITIONS, built, before)
                await connection.execute(CARRY_PARKED, built, before)
                await connection.execute(f"ALTER SCHEMA {code.name}_projection RENAME TO {code.name}_old")
                await connection.execute(f"ALTER SCHEMA {code.name}_build RENAME TO {code.name}_projection")
                await turn.check(connection, "projection")
                failpoint("before_swap_commit")
                return equal
        if not told:
            progress(f"{code.name}: waits for the serving projection to reach the same place; its consumer has to run")
            told = True
        await asyncio.sleep(0.2)


async def _drop_old(service: str, database: Database, progress: Progress) -> None:
    """What served before goes. Whoever still reads it is waited for, a while; else the next rebuild drops it."""
    try:
        async with database.reading() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{OLD_READERS_S}s'; SET LOCAL statement_timeout = 0")
            await connection.execute(f"DROP SCHEMA IF EXISTS {service}_old CASCADE")
    except Unavailable:
        progress(f"{service}: the projection before is still read; it stays as {service}_old until the next rebuild")


async def _compare(connection: Connection, service: str) -> dict[str, bool]:
    equal = {}
    for row in await connection.fetch(TABLES, f"{service}_build"):
        table = row["tablename"]
        built, before = [
            await connection.fetchrow(CONTENT.format(schema=f"{service}_{which}", table=table), timeout=LONG_S)
            for which in ("build", "projection")
        ]
        equal[table] = built == before
    return equal
