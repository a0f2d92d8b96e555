"""Build a projection anew from the log beside the one that serves, then swap the two.

The new one folds what the log holds and takes no decision. It is swapped in when it has caught up, and only at
positions that the serving one has reached too: so no decision is skipped, and those between are met by their own keys.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import psycopg
from aiokafka import TopicPartition
from psycopg import sql

from shared.db import Connection, projection_sql
from shared.kafka import probe, topics_of
from shared.service._consuming import make_consumer, positions_name, projection_version
from shared.service._runtime import ServiceCode, build_runtime
from shared.settings import Settings

BEHIND_SERVING = """
SELECT count(*) FROM consumer_positions AS built JOIN consumer_positions AS serving USING (topic, partition)
WHERE built.consumer = $1 AND serving.consumer = $2 AND serving.next_offset < built.next_offset
"""
LOCK_SERVING = "SELECT 1 FROM consumer_positions WHERE consumer = $1 ORDER BY topic, partition FOR UPDATE"
SWAP = "UPDATE projections SET version = $1, built_at = clock_timestamp() WHERE version = $2 RETURNING version"
FORGET = "DELETE FROM consumer_positions WHERE consumer = $1"
FORGET_INBOX = "DELETE FROM inbox WHERE version = $1"
HASH = "SELECT md5(coalesce(string_agg(md5(row::text), '' ORDER BY md5(row::text)), '')) FROM {schema}.{table} AS row"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"

Progress = Callable[[str], None]


async def rebuild(code: ServiceCode, settings: Settings, progress: Progress) -> dict[str, bool]:
    """Rebuild a service's projection and swap it in. Answers, per table, whether it equals the one before.

    Interrupted, it leaves the serving projection as it was; started again it begins anew.
    """
    url = settings.database_url.get_secret_value()
    runtime = build_runtime(code.name, settings, projection="build", muted=True)
    try:
        async with runtime.database.reading() as connection:
            serving = await projection_version(connection)
            await connection.execute(FORGET, positions_name(code.name, serving + 1))
            await connection.execute(FORGET_INBOX, serving + 1)
        await asyncio.to_thread(_fresh_schema, url, code.name)
        version = serving + 1
        group = f"{code.name}.rebuild{version}"
        consumer = make_consumer(code, runtime, version, group=group, folds_only=True)
        task = asyncio.create_task(consumer.run())
        try:
            while True:
                ends = await _ends(code, settings)
                while not await consumer.caught_up(ends):
                    if task.done():
                        task.result()
                    await asyncio.sleep(0.1)
                progress(f"{code.name}: {sum(ends.values())} records read")
                if ends == await _ends(code, settings):
                    break
        finally:
            await consumer.stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await task
        return await _swap(code, runtime.database.reading, serving, progress)
    finally:
        await runtime.database.close()


def _fresh_schema(url: str, service: str) -> None:
    """An empty schema with the projection's tables; what an interrupted rebuild left is dropped."""
    build = sql.Identifier(f"{service}_build")
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {}, {} CASCADE").format(build, sql.Identifier(f"{service}_old")))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(build))
        connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(build))
        connection.execute(projection_sql(service).encode())


async def _ends(code: ServiceCode, settings: Settings) -> dict[TopicPartition, int]:
    routes = [route for route in code.routes(build_runtime(code.name, settings)) if not route.decides]
    places = [
        TopicPartition(settings.topic_prefix + topic, partition)
        for topic in topics_of(routes)
        for partition in range(settings.topic_partitions)
    ]
    async with probe(settings.kafka_bootstrap_servers) as kafka:
        return await kafka.ends(places)


async def _swap(
    code: ServiceCode,
    reading: Callable[[], AbstractAsyncContextManager[Connection]],
    serving: int,
    progress: Progress,
) -> dict[str, bool]:
    names = positions_name(code.name, serving + 1), positions_name(code.name, serving)
    while True:
        async with reading() as connection, connection.transaction():
            await connection.execute(LOCK_SERVING, names[1])
            if not await connection.fetchval(BEHIND_SERVING, *names):
                equal = await _compare(connection, code.name)
                if await connection.fetchval(SWAP, serving + 1, serving) is None:
                    raise RuntimeError("another rebuild was swapped in meanwhile; nothing was changed")
                await connection.execute(f"ALTER SCHEMA {code.name}_projection RENAME TO {code.name}_old")
                await connection.execute(f"ALTER SCHEMA {code.name}_build RENAME TO {code.name}_projection")
                return equal
        progress(f"{code.name}: waits for the serving projection to reach the same place")
        await asyncio.sleep(0.2)


async def _compare(connection: Connection, service: str) -> dict[str, bool]:
    equal = {}
    for row in await connection.fetch(TABLES, f"{service}_build"):
        table = row["tablename"]
        hashes = [
            await connection.fetchval(HASH.format(schema=f"{service}_{which}", table=table))
            for which in ("build", "projection")
        ]
        equal[table] = hashes[0] == hashes[1]
    return equal
