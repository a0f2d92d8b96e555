"""Transactions and migrations: what is committed, what is refused, what may be tried again."""

import asyncio
import uuid
from datetime import UTC, datetime

import asyncpg
import pytest

from shared.db import Database, migrate, migrated, run_sql
from shared.errors import Unavailable
from shared.ids import new_id
from shared.settings import Settings
from shared.testing import eventually
from tests.conftest import DatabaseServer
from tests.service.runtime_world import execute, fetch, log_lock, logged, runtime_of, touch, value

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_facts_and_their_transaction_are_kept_together_or_not_at_all(settings: Settings) -> None:
    async with runtime_of(settings) as runtime:
        with pytest.raises(ZeroDivisionError):
            async with runtime.database.transaction() as tx:
                tx.emit(touch(number=1))
                raise ZeroDivisionError
        async with runtime.database.transaction() as tx:
            tx.emit(touch(number=2))
        assert await logged(runtime.database, runtime.database.log) == ["touch-ann-2"]


async def test_a_muted_transaction_tells_nothing(settings: Settings) -> None:
    async with runtime_of(settings, muted=True) as runtime:
        async with runtime.database.transaction() as tx:
            tx.emit(touch())
        assert await logged(runtime.database, runtime.database.log) == []


async def test_a_terminated_backend_is_unavailable_and_the_next_transaction_works(settings: Settings) -> None:
    async with runtime_of(settings) as runtime, runtime_of(settings) as other:
        with pytest.raises(Unavailable):
            async with runtime.database.transaction() as tx:
                pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
                await execute(other.database, "SELECT pg_terminate_backend($1)", pid)
                tx.emit(touch(number=1))
        async with runtime.database.transaction() as tx:
            tx.emit(touch(number=2))
        assert await logged(runtime.database, runtime.database.log) == ["touch-ann-2"]


async def test_an_idle_connection_that_was_cut_is_replaced(settings: Settings) -> None:
    async with runtime_of(settings) as runtime, runtime_of(settings) as other:
        await execute(runtime.database, "SELECT 1")
        for row in await fetch(other.database, BACKENDS):
            await execute(other.database, "SELECT pg_terminate_backend($1)", row["pid"])

        async def works() -> bool:
            try:
                return bool(await value(runtime.database, "SELECT true"))
            except Unavailable:
                return False

        assert await eventually(works)


async def test_postgresql_away_is_unavailable(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": type(settings.database_url)("postgresql://a:b@127.0.0.1:1/c")})
    async with runtime_of(away) as runtime:
        with pytest.raises(Unavailable):
            await execute(runtime.database, "SELECT 1")


async def test_an_argument_that_cannot_be_sent_is_a_bug_not_a_fault_that_passes(settings: Settings) -> None:
    async with runtime_of(settings) as runtime:
        with pytest.raises(asyncpg.DataError):
            await execute(runtime.database, "SELECT $1::integer", 2**40)


async def test_a_transaction_frozen_before_its_commit_is_freed(settings: Settings) -> None:
    impatient = settings.model_copy(update={"idle_in_transaction_timeout": settings.watermark_every})
    async with runtime_of(impatient, log=0) as runtime:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            async with log_lock(runtime.database) as frozen:
                async with runtime.database.transaction() as tx:
                    tx.emit(touch(number=1))
                await frozen.execute("SELECT 1")
        assert await logged(runtime.database) == ["touch-ann-1"]


def test_two_migrations_at_once_wait_for_each_other(database_server: DatabaseServer) -> None:
    url = database_server.make(f"migrated_twice_{new_id()[:8]}")
    assert not migrated("capture", url)

    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(migrate, "capture", url) for _ in range(3)))

    asyncio.run(both())
    assert migrated("capture", url)


async def test_colons_and_percent_signs_in_a_migration_mean_nothing(settings: Settings) -> None:
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import create_engine

    engine = create_engine("postgresql+psycopg://" + settings.database_url.get_secret_value().split("://", 1)[1])
    try:
        with engine.begin() as connection:
            run_sql(
                Operations(MigrationContext.configure(connection, opts={"version_table_schema": "capture"})),
                "CREATE TABLE odd (a text); INSERT INTO odd VALUES (':name %s %(x)s'::text), ('100%');",
            )
    finally:
        engine.dispose()
    database = Database(settings.database_url.get_secret_value(), "capture")
    try:
        rows = await fetch(database, "SELECT a FROM capture.odd ORDER BY a")
    finally:
        await database.close()
    assert [row["a"] for row in rows] == ["100%", ":name %s %(x)s"]


async def test_postgresqls_own_types_are_asked_for_once_and_those_of_a_database_by_each_connection(
    settings: Settings,
) -> None:
    given = "SELECT $1::date[], $2::timestamptz[], $3::smallint[], $4::boolean[], $5::jsonb[], $6::uuid[]"
    at = datetime(2026, 7, 1, tzinfo=UTC)
    arguments = ([at.date(), None], [at], [1, 2], [True], [{"a": [1]}], [uuid.UUID(int=7)])
    asked: list[list[str]] = []
    async with runtime_of(settings) as runtime:
        for made, row, own in (("a integer", "ROW(1)", (1,)), ("b text, c boolean", "ROW('x', true)", ("x", True))):
            connection = await runtime.database.connect()
            queries: list[str] = []
            connection.add_query_logger(lambda record: queries.append(record.query))  # noqa: B023  # closed below
            answer = await connection.fetchrow(given, *arguments)
            assert answer is not None and tuple(answer) == arguments
            asked.append([query for query in queries if "typeinfo_tree" in query])
            await connection.execute("DROP TYPE IF EXISTS of_this_database")
            await connection.execute(f"CREATE TYPE of_this_database AS ({made})")
            assert tuple(await connection.fetchval(f"SELECT {row}::of_this_database")) == own
            await connection.close()
    assert asked[1] == []
