"""Two rebuilds of one service: they take turns, whatever becomes of the connection that says whose turn it is."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from shared.service import RebuildRefused, Runtime, rebuild
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.runtime_world import all_read, value
from tests.service.scoring_world import NOW, World, random_history
from throughline.services import service_code

CODE = service_code("scoring")
WHOSE_TURN = """
SELECT count(*) FROM pg_locks JOIN pg_database AS here ON here.oid = pg_locks.database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
  AND (classid::bigint << 32 | objid::bigint) = hashtextextended('rebuild/scoring', 0)
"""
END_TURN = WHOSE_TURN.replace("count(*)", "pg_terminate_backend(pid)")
SERVES = "SELECT version FROM projections"


@asynccontextmanager
async def scored(settings: Settings) -> AsyncIterator[Runtime]:
    """A service that has carried out some facts."""
    clock = FrozenClock(NOW)
    async with harness(CODE, settings, clock=clock, kafka=True) as service:
        facts = await random_history(World(service, clock), random.Random(14), 20)
        async with service.runtime.database.transaction() as tx:
            tx.emit(*facts)
        await all_read(service, facts)
        yield service.runtime


def silent(_line: str) -> None:
    """Nobody is told how far a rebuild is."""


async def test_a_rebuild_says_how_far_it_is_and_leaves_nothing_behind(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_AGAIN_S", "NEAR_S"):  # how far it is, is said at once, and again when all is read
        monkeypatch.setattr(f"shared.service._rebuild.{name}", 0)
    read: list[tuple[int, int]] = []

    def look(line: str) -> None:
        if found := re.fullmatch(r"scoring: (\d+) of (\d+) records read", line):
            read.append((int(found[1]), int(found[2])))
            name = "NEAR_S" if read[-1][0] == read[-1][1] else "LOOK_AGAIN_S"
            monkeypatch.setattr(f"shared.service._rebuild.{name}", 3_600)

    async with scored(kafka_settings) as runtime:
        version = await value(runtime.database, SERVES)
        equal = await rebuild(CODE, kafka_settings, look)
        assert all(equal.values()), equal
        assert await value(runtime.database, "SELECT to_regnamespace('scoring_old')") is None
        groups = await groups_of(kafka_settings)
    assert read[0][0] < read[0][1]
    assert read[-1][0] == read[-1][1]
    assert f"scoring.rebuild{version + 1}" not in groups
    assert "scoring" in groups


async def test_who_still_reads_what_served_before_keeps_no_rebuild_from_its_end(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.service._rebuild.OLD_READERS_S", 1)
    told: list[str] = []
    async with scored(kafka_settings) as runtime:
        async with runtime.database.reading() as connection, connection.transaction():
            await connection.fetch("SELECT 1 FROM scoring_projection.profiles LIMIT 1")
            equal = await rebuild(CODE, kafka_settings, told.append)
        assert all(equal.values()), equal
        assert "the projection before is still read" in told[-1]
        await rebuild(CODE, kafka_settings, silent)
        assert await value(runtime.database, "SELECT to_regnamespace('scoring_old')") is None


async def groups_of(settings: Settings) -> set[str]:
    """The consumer groups that the broker knows of, without the prefix of the installation."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        return {name.removeprefix(settings.topic_prefix) for name, *_ in await admin.list_consumer_groups()}
    finally:
        await admin.close()


async def test_who_comes_second_is_refused(kafka_settings: Settings) -> None:
    refused: list[str] = []

    async def come_second(_runtime: Runtime) -> None:
        if not refused:  # asked for more than once, and each time the turn is waited for
            with pytest.raises(RebuildRefused, match="another rebuild of scoring is running") as told:
                await rebuild(CODE, kafka_settings, silent)
            refused.append(told.value.detail)

    async with scored(kafka_settings):
        equal = await rebuild(replace(CODE, settle=come_second), kafka_settings, silent)
        assert (all(equal.values()), len(refused)) == (True, 1), equal


@pytest.mark.parametrize("ends_first", [True, False])
async def test_who_lost_the_turn_to_another_swaps_nothing_in(kafka_settings: Settings, ends_first: bool) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(_runtime: Runtime) -> None:
        begun.set()
        await go.wait()

    async def be_overtaken(runtime: Runtime) -> None:
        if begun.is_set():
            return
        await value(runtime.database, END_TURN)
        others.append(asyncio.create_task(rebuild(replace(CODE, settle=wait), kafka_settings, silent)))
        await begun.wait()
        if ends_first:
            go.set()
            await others[0]

    others: list[asyncio.Task[dict[str, bool]]] = []
    async with scored(kafka_settings) as runtime:
        version = await value(runtime.database, SERVES)
        with pytest.raises(RebuildRefused, match="meanwhile"):
            await rebuild(replace(CODE, settle=be_overtaken), kafka_settings, silent)
        go.set()
        equal = await others[0]
        assert all(equal.values()), equal
        assert await value(runtime.database, SERVES) == version + 1


async def test_a_turn_that_the_server_gave_up_is_taken_again(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.service._rebuild.NEAR_S", 0)  # what is read is looked at again, however soon
    held = []

    def look(_line: str) -> None:
        with psycopg.connect(kafka_settings.database_url.get_secret_value()) as connection:
            held.append(connection.execute(WHOSE_TURN).fetchone())
            if len(held) == 1:
                connection.execute(END_TURN)
            else:
                monkeypatch.setattr("shared.service._rebuild.NEAR_S", 3_600)

    async with scored(kafka_settings):
        equal = await rebuild(CODE, kafka_settings, look)
        assert all(equal.values()), equal
    assert held[:2] == [(1,), (1,)]
