"""What batches cost: what concerns no handler waits for what does, and plans do not outlive what was planned for."""

import asyncio
from typing import Any

import asyncpg
import pytest
from aiokafka import ConsumerRecord, TopicPartition

from shared.clock import SystemClock
from shared.db import Database
from shared.kafka import Consumer
from shared.outbox._relay import MOVE  # noqa: TID251  # the statement itself is explained
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import runtime_of

ONE, OTHER, THIRD = (TopicPartition("test.touches", number) for number in range(3))
OF_CONCERN = b"of concern"


class Noting:
    """The partitions of each batch that was carried out; of concern are records of one key."""

    serving = True
    kinds: frozenset[str] = frozenset({"throughline.touch.recorded.v1"})

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def awaits(self, record: Any) -> bool:
        return bool(record.key == OF_CONCERN)

    async def process(self, connection: "asyncpg.Connection[asyncpg.Record]", batch: Any) -> None:
        self.batches.append([partition for _, partition in batch.spans])


SOME = 2_000
"""Rows of a table that is as quickly read whole as a hundred keys are looked up in it, in the planner's eyes."""


class Growing(Noting):
    """Looks keys up in a table that has grown by the second batch. `plans`: how, each time."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[str] = []

    def awaits(self, record: Any) -> bool:
        return True

    async def process(self, connection: "asyncpg.Connection[asyncpg.Record]", batch: Any) -> None:
        if not self.batches:
            await connection.execute("""
                CREATE TABLE growing (id integer PRIMARY KEY, word char(500)) WITH (autovacuum_enabled = false);
                PREPARE look_up (json) AS
                SELECT word FROM growing JOIN json_to_recordset($1) AS asked (id integer) USING (id);
            """)
        plan = await connection.fetch("EXPLAIN EXECUTE look_up('[]')")
        self.plans.append("\n".join(row[0] for row in plan))
        await connection.execute(
            "INSERT INTO growing SELECT number, 'word' FROM generate_series(1, 50000) AS number ON CONFLICT DO NOTHING"
        )
        await super().process(connection, batch)


class TakesLong(Noting):
    """Takes too long for PostgreSQL over batches of more than one partition."""

    async def process(self, connection: "asyncpg.Connection[asyncpg.Record]", batch: Any) -> None:
        if len(batch.spans) > 1:
            await connection.execute("SET idle_in_transaction_session_timeout = 1")
            await connection.execute("BEGIN")
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            await closed.wait()
            await connection.execute("COMMIT")
        await super().process(connection, batch)


def tombstone(place: TopicPartition, key: bytes) -> "ConsumerRecord[bytes, None]":
    headers = (("ce_type", b"throughline.touch.recorded.v1"),)
    return ConsumerRecord(place.topic, place.partition, 0, 0, 0, key, None, None, 3, 0, headers)


def consumer_of(settings: Settings, noting: Noting) -> Consumer:
    database = Database(settings.database_url.get_secret_value(), "capture")
    consumer = Consumer(
        settings, database, SystemClock(), group="capture", topics=["touches"], positions="capture.v1", processor=noting
    )
    for place in (ONE, OTHER, THIRD):
        consumer._places.set(place, 0)
    return consumer


def let_in(consumer: Consumer, place: TopicPartition, key: bytes) -> None:
    consumer._let_in(place, [tombstone(place, key)])
    consumer._arrived.set()


async def carried_out(consumer: Consumer, noting: Noting, wanted: list[list[int]], *, stop: bool = True) -> None:
    async def are() -> bool:
        return noting.batches == wanted

    try:
        await eventually(are)
    finally:
        if stop:
            await consumer.stop()


async def test_what_concerns_nobody_waits_for_what_does(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.kafka._consumer.IDLE_S", 3_600)
    noting = Noting()
    consumer = consumer_of(settings, noting)
    writing = asyncio.create_task(consumer._write())
    for place, key in ((ONE, b"idle"), (OTHER, b"idle"), (THIRD, OF_CONCERN)):
        let_in(consumer, place, key)
        for _ in range(10):  # the writer runs up to where it waits
            await asyncio.sleep(0)
    await carried_out(consumer, noting, [[0, 1, 2]])
    await writing


async def test_what_concerns_nobody_is_moved_past_though_nothing_else_comes(settings: Settings) -> None:
    noting = Noting()
    consumer = consumer_of(settings, noting)
    writing = asyncio.create_task(consumer._write())
    let_in(consumer, ONE, b"idle")
    await carried_out(consumer, noting, [[0]])
    await writing


async def test_what_concerns_nobody_does_not_pile_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.kafka._consumer.IDLE_S", 3_600)
    noting = Noting()
    consumer = consumer_of(settings.model_copy(update={"consumer_batch": 2}), noting)
    writing = asyncio.create_task(consumer._write())
    for place in (ONE, OTHER):
        let_in(consumer, place, b"idle")
    await carried_out(consumer, noting, [[0, 1]])
    await writing


async def test_what_was_planned_for_an_empty_table_is_planned_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db._kept.FIRST_PLANS_S", 0)
    growing = Growing()
    consumer = consumer_of(settings, growing)
    writing = asyncio.create_task(consumer._write())
    let_in(consumer, ONE, OF_CONCERN)
    await carried_out(consumer, growing, [[0]], stop=False)
    let_in(consumer, OTHER, OF_CONCERN)
    await carried_out(consumer, growing, [[0], [1]])
    await writing
    empty, grown = growing.plans
    assert "Index Cond" not in empty
    assert "Index Cond" in grown


async def test_a_consumer_looks_keys_up_in_a_table_that_is_small_yet(settings: Settings) -> None:
    connection = await Database(settings.database_url.get_secret_value(), "capture").connect(plan_once=True)
    try:
        await connection.execute("CREATE TABLE small (id integer PRIMARY KEY, word char(200))")
        await connection.execute("INSERT INTO small SELECT n, 'word' FROM generate_series(1, $1::integer) AS n", SOME)
        await connection.execute("ANALYZE small")
        asked = "SELECT word FROM small JOIN json_to_recordset('[]') AS asked (id integer) USING (id)"
        plan = await connection.fetch(f"EXPLAIN {asked}")
    finally:
        await connection.close()
    assert "Index Cond" in "\n".join(row[0] for row in plan)


async def test_a_batch_that_takes_too_long_is_carried_out_by_halves(settings: Settings) -> None:
    noting = TakesLong()
    consumer = consumer_of(settings, noting)
    for place in (ONE, OTHER, THIRD):
        let_in(consumer, place, OF_CONCERN)
    writing = asyncio.create_task(consumer._write())
    await carried_out(consumer, noting, [[0], [1], [2]])
    await writing


async def test_moving_a_cursor_reads_no_more_of_a_log_that_was_empty_when_it_was_planned(settings: Settings) -> None:
    explained = """EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE move (
        'relay', 'nobody', 1, '{0}', '{0}', '{20000}', '{20000}', '{}', '{}', '{}', '{}', '{}')"""
    async with runtime_of(settings) as runtime:
        connection = await runtime.database.connect(plan_once=True)
        try:
            await connection.execute(f"PREPARE move AS {MOVE}")
            await connection.execute("INSERT INTO leases VALUES ('relay', 'nobody', 1, clock_timestamp())")
            await connection.execute(explained)
            await connection.execute("""
                INSERT INTO event_log (log, position, event_id, topic, key, type, subject, occurred_at)
                SELECT 0, number, number, '', '', '', '', '' FROM generate_series(1, 20000) AS number
            """)
            plan = await connection.fetchval(explained)
            assert await connection.fetchval("SELECT position FROM relay_cursors WHERE log = 0") == 20000
        finally:
            await connection.close()
    assert plan[0]["Plan"]["Shared Hit Blocks"] < 100
