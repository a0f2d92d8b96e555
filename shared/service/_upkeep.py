"""Housekeeping of a service's own tables, and the refusal to start with the wrong secret."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import asyncpg

from shared.clock import present
from shared.db import Connection, Database
from shared.identity import LeadIds
from shared.service._runtime import Runtime, Timer
from shared.telemetry import log

AHEAD = 3
SOON = timedelta(minutes=1)
PARTITIONS = """
SELECT child.relname FROM pg_inherits
JOIN pg_class AS child ON child.oid = inhrelid JOIN pg_class AS parent ON parent.oid = inhparent
JOIN pg_namespace AS space ON space.oid = parent.relnamespace
WHERE parent.relname = $1 AND space.nspname = $2
"""
UNPUBLISHED = """
SELECT EXISTS (
    SELECT 1 FROM {table} AS row JOIN relay_cursors AS cursor USING (log) WHERE row.position > cursor.position
)
"""
OVERDUE = {
    "event_log": """
DELETE FROM event_log_default AS row USING relay_cursors AS cursor
WHERE row.recorded_at < $1::date AND cursor.log = row.log AND row.position <= cursor.position
""",
    "inbox": "DELETE FROM inbox_default WHERE day < $1::date",
}
QUICKLY = "SET LOCAL lock_timeout = '500ms'"
FORGET_KEYS = "DELETE FROM idempotency_keys WHERE created_at < clock_timestamp() - interval '24 hours'"
FORGET_REVOKED = "DELETE FROM revoked_tokens WHERE expires_at < clock_timestamp() - interval '1 day'"
FINGERPRINT = """
INSERT INTO installation (name, value) VALUES ('identity_key', $1)
ON CONFLICT (name) DO UPDATE SET value = installation.value RETURNING value
"""


class WrongSecret(Exception):
    """This database was begun with another secret: its lead ids could not be made again with this one."""


async def check_secret(connection: Connection, ids: LeadIds) -> None:
    """Keep the fingerprint of the key that makes lead ids, or compare it. Raises WrongSecret."""
    if await connection.fetchval(FINGERPRINT, ids.fingerprint()) != ids.fingerprint():
        raise WrongSecret(
            "THROUGHLINE_SECRET is not the one this database was begun with; start with the old one, it lies in the "
            "data folder of the first start"
        )


async def ensure_partitions(connection: Connection, service: str, today: date) -> None:
    """Daily partitions of the event log and the inbox, some days ahead; rows of a missed day stay in the default."""
    for table in ("event_log", "inbox"):
        there = {row["relname"] for row in await connection.fetch(PARTITIONS, table, service)}
        for day in (today + timedelta(days=ahead) for ahead in range(-1, AHEAD + 1)):
            name = f"{table}_{day:%Y%m%d}"
            if name in there:
                continue
            statement = (
                f"CREATE TABLE IF NOT EXISTS {service}.{name} PARTITION OF {service}.{table} "
                f"FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
            )
            try:
                await _quickly(connection, statement)
            except asyncpg.CheckViolationError:
                log.warning("partition_skipped", table=table, day=str(day))


async def drop_old_partitions(connection: Connection, service: str, table: str, before: date) -> None:
    """Drop the partitions of days before this one, and such rows of the default one; of the log what is published."""
    for row in await connection.fetch(PARTITIONS, table, service):
        name = row["relname"]
        day = name.removeprefix(f"{table}_")
        if not day.isdigit() or datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date() >= before:
            continue
        if table == "event_log" and await connection.fetchval(UNPUBLISHED.format(table=f"{service}.{name}")):
            continue
        await _quickly(connection, f"DROP TABLE {service}.{name}")
        log.info("partition_dropped", table=table, day=day)
    await connection.execute(OVERDUE[table], before)


async def _quickly(connection: Connection, statement: str) -> None:
    """Make or drop a partition, or give up: while it waits for a lock, all who use the table wait behind it."""
    async with connection.transaction():
        await connection.execute(QUICKLY)
        await connection.execute(statement)


def upkeep(runtime: Runtime) -> Timer:
    """The timer that keeps a service's tables in shape."""

    async def run() -> timedelta | None:
        today = runtime.clock.now().date()
        settings = runtime.settings
        async with runtime.database.reading() as connection:
            await connection.execute(FORGET_KEYS)
            await connection.execute(FORGET_REVOKED)
            try:
                await ensure_partitions(connection, runtime.service, today)
                for table, days in (("event_log", settings.event_log_days), ("inbox", settings.inbox_days)):
                    await drop_old_partitions(connection, runtime.service, table, today - timedelta(days=days))
            except asyncpg.LockNotAvailableError:
                log.warning("partitions_postponed")
                return SOON
        return None

    return Timer("upkeep", run, timedelta(hours=1))


async def prepare(database: Database) -> None:
    """What a fresh schema needs before its first row: partitions."""
    async with database.reading() as connection:
        await ensure_partitions(connection, database.service, present.now().date())


def prepare_partitions(url: str, service: str) -> None:
    """`prepare` for a command that has no event loop."""

    async def run() -> None:
        database = Database(url, service, pool_size=1)
        try:
            await prepare(database)
        finally:
            await database.close()

    asyncio.run(run())
