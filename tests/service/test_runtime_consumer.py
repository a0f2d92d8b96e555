"""Consumer groups on a real Kafka: members come and go, faults pass, and each fact is applied once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import OffsetAndMetadata

from shared.clock import SystemClock
from shared.db import Database, Tx
from shared.errors import Unavailable
from shared.events import TouchRecorded
from shared.kafka import on_batch
from shared.kafka._watchdog import Watchdog  # noqa: TID251  # to ask it without a consumer
from shared.outbox import Relay
from shared.outbox._relay import partition_of  # noqa: TID251  # to aim at a partition
from shared.service import Consuming, Runtime, ServiceCode
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import (
    SERVICE,
    applied,
    beside,
    code,
    execute,
    fetch,
    lead_names,
    process,
    runtime_of,
    scratch,
    touch,
    value,
    write_down,
)
from tests.service.test_runtime_relay import caught_up


@asynccontextmanager
async def consuming(settings: Settings, service: ServiceCode | None = None) -> AsyncIterator[Consuming]:
    """A member of the service's group."""
    async with runtime_of(settings) as runtime:
        member = Consuming(service or code(), runtime)
        async with beside(member.run()) as tasks:
            try:
                yield member
            finally:
                await member.stop()
                await asyncio.wait(tasks, timeout=20)


@asynccontextmanager
async def world(settings: Settings) -> AsyncIterator[Runtime]:
    """The service's relay, and the table that its handlers write to."""
    async with runtime_of(settings) as runtime:
        await scratch(runtime.database)
        async with beside(Relay(settings, runtime.database, SystemClock(), SERVICE).run()):
            yield runtime


async def tell(runtime: Runtime, events: Iterable[TouchRecorded]) -> list[str]:
    told = list(events)
    async with runtime.database.transaction() as tx:
        tx.emit(*told)
    return [event.event_id for event in told]


async def all_applied(runtime: Runtime, event_ids: Iterable[str], within: float = 30.0) -> None:
    expected = sorted(event_ids)

    async def are() -> bool:
        assert sorted(await applied(runtime.database)) == expected
        return True

    await eventually(are, within=within)


async def test_members_that_join_and_leave_lose_nothing_and_repeat_nothing(kafka_settings: Settings) -> None:
    leads = lead_names(40)
    async with world(kafka_settings) as runtime:
        told: list[str] = []
        async with consuming(kafka_settings) as first:
            await eventually(lambda: first.consumer is not None and first.consumer.assigned)
            told += await tell(runtime, (touch(lead) for lead in leads))
            async with consuming(kafka_settings) as second:
                told += await tell(runtime, (touch(lead) for lead in leads))
                await eventually(lambda: second.consumer is not None and second.consumer.assigned)
                told += await tell(runtime, (touch(lead) for lead in leads))
            told += await tell(runtime, (touch(lead) for lead in leads))
            await all_applied(runtime, told)


async def test_a_frozen_member_wakes_up_after_another_took_over(kafka_settings: Settings) -> None:
    leads = lead_names(20)
    async with world(kafka_settings) as runtime, process(kafka_settings, "consumer") as frozen:
        told = await tell(runtime, (touch(lead) for lead in leads))
        await all_applied(runtime, told)
        os.kill(frozen.pid, signal.SIGSTOP)
        async with consuming(kafka_settings):
            told += await tell(runtime, (touch(lead) for lead in leads))
            await all_applied(runtime, told)
            os.kill(frozen.pid, signal.SIGCONT)
            told += await tell(runtime, (touch(lead) for lead in leads))
            await all_applied(runtime, told)
        assert frozen.returncode is None


async def test_the_group_in_kafka_is_told_the_positions_for_its_tools(kafka_settings: Settings) -> None:
    async with world(kafka_settings) as runtime:
        async with consuming(kafka_settings):
            told = await tell(runtime, [touch("ann")])
            await all_applied(runtime, told)
        stored = await fetch(
            runtime.database,
            "SELECT partition, next_offset FROM consumer_positions WHERE consumer = 'capture.v1' AND topic = 'touches'",
        )
        tool = AIOKafkaConsumer(
            bootstrap_servers=kafka_settings.kafka_bootstrap_servers,
            group_id=kafka_settings.topic_prefix + SERVICE,
            enable_auto_commit=False,
        )
        await tool.start()
        try:
            for row in stored:
                place = TopicPartition(kafka_settings.topic_prefix + "touches", row["partition"])
                assert await tool.committed(place) == row["next_offset"]
        finally:
            await tool.stop()


async def test_what_kafka_was_told_does_not_count_only_what_postgresql_holds(kafka_settings: Settings) -> None:
    async with world(kafka_settings) as runtime:
        told = await tell(runtime, (touch(lead) for lead in lead_names(10)))
        tool = AIOKafkaConsumer(
            bootstrap_servers=kafka_settings.kafka_bootstrap_servers,
            group_id=kafka_settings.topic_prefix + SERVICE,
            enable_auto_commit=False,
        )
        await tool.start()
        places = [TopicPartition(kafka_settings.topic_prefix + "touches", number) for number in range(2)]
        tool.assign(places)
        await tool.commit({place: OffsetAndMetadata(10_000, "") for place in places})
        await tool.stop()
        async with consuming(kafka_settings):
            await all_applied(runtime, told)


async def test_a_dependency_that_is_away_is_waited_for_and_nothing_is_parked(kafka_settings: Settings) -> None:
    tries = 0

    async def third_time(events: Sequence[Any], tx: Tx) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("not yet")
        await write_down(events, tx)

    async with world(kafka_settings) as runtime, consuming(kafka_settings, code(on_batch(TouchRecorded, third_time))):
        told = await tell(runtime, [touch("ann")])
        await all_applied(runtime, told)
        assert await value(runtime.database, "SELECT count(*) FROM parked_events") == 0


async def test_a_terminated_backend_in_the_middle_of_a_batch_is_survived(kafka_settings: Settings) -> None:
    cut = 0

    async def cut_twice(events: Sequence[Any], tx: Tx) -> None:
        nonlocal cut
        await write_down(events, tx)
        if cut < 2:
            cut += 1
            pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
            async with runtime_of(kafka_settings) as other:
                await execute(other.database, "SELECT pg_terminate_backend($1)", pid)
            await tx.connection.fetchval("SELECT 1")

    async with world(kafka_settings) as runtime, consuming(kafka_settings, code(on_batch(TouchRecorded, cut_twice))):
        told = await tell(runtime, (touch(lead) for lead in lead_names(10)))
        await all_applied(runtime, told)
        assert cut == 2


async def test_a_stop_finishes_the_batch_under_way(kafka_settings: Settings) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[Any], tx: Tx) -> None:
        await write_down(events, tx)
        entered.set()
        await leave.wait()

    async with world(kafka_settings) as runtime:
        async with consuming(kafka_settings, code(on_batch(TouchRecorded, slow))) as member:
            told = await tell(runtime, [touch("ann")])
            await entered.wait()
            await member.stop()
            asyncio.get_running_loop().call_later(1.5, leave.set)  # longer than the reader needs to end
        assert await applied(runtime.database) == told


async def test_poison_in_the_stream_holds_up_nobody_else(kafka_settings: Settings) -> None:
    async with world(kafka_settings) as runtime, consuming(kafka_settings):
        producer = AIOKafkaProducer(bootstrap_servers=kafka_settings.kafka_bootstrap_servers)
        await producer.start()
        try:
            topic = kafka_settings.topic_prefix + "touches"
            for number in range(kafka_settings.topic_partitions):
                await producer.send(topic, b"\xff\xfe", key=b"\xff", partition=number)
                await producer.send(topic, None, key=b"x", partition=number, headers=[("ce_type", b"\xff")])
                await producer.send(topic, b"{}", partition=number, headers=[("ce_id", b"\x00\xff"), ("ce_type", b"")])
                await producer.send(topic, b"{", partition=number, headers=[("ce_type", b"throughline.watermark.v1")])
            await producer.flush()
        finally:
            await producer.stop()
        told = await tell(runtime, (touch(lead) for lead in lead_names(10)))
        await all_applied(runtime, told)
        await eventually(lambda: _count_is(runtime.database, "SELECT count(*) FROM dead_letters", 6))


async def _count_is(database: Database, statement: str, expected: int) -> bool:
    return bool(await value(database, statement) == expected)


async def test_a_stopped_partition_is_told_and_the_others_go_on(kafka_settings: Settings) -> None:
    async def broken(events: Sequence[Any], tx: Tx) -> None:
        if any(event.lead_id.startswith("bad") for event in events):
            raise AttributeError("a broken deploy")
        await write_down(events, tx)

    leads = lead_names(10)
    bad = [lead for lead in (f"bad-{number}" for number in range(200)) if partition_of(lead, 2) == 1][:60]
    async with world(kafka_settings) as runtime:
        async with consuming(kafka_settings, code(on_batch(TouchRecorded, broken))) as member:
            refused = await tell(runtime, (touch(lead) for lead in bad))
            await eventually(lambda: member.consumer is not None and member.consumer.stopped_partitions)
            fault = await member.fault()
            assert fault == f"stopped partitions: {kafka_settings.topic_prefix}touches/1"
            told = await tell(runtime, (touch(lead) for lead in leads))

            async def others_go_on() -> bool:
                done = set(await applied(runtime.database))
                return bool(done) and done <= set(told)

            await eventually(others_go_on)
            assert await value(runtime.database, "SELECT count(*) FROM parked_events") == 0
        async with consuming(kafka_settings):  # the deploy is mended
            await all_applied(runtime, [*told, *refused])


async def test_a_process_whose_handler_hangs_ends_itself(kafka_settings: Settings) -> None:
    impatient = kafka_settings.model_copy(update={"consumer_stuck_after": timedelta(seconds=1)})
    async with world(kafka_settings) as runtime, process(impatient, "consumer") as stuck:
        await tell(runtime, [touch("ann", type="never_ends")])
        async with asyncio.timeout(45):
            assert await stuck.wait() == 70


async def test_one_that_builds_gets_another_client_but_not_amid_a_batch(kafka_settings: Settings) -> None:
    impatient = kafka_settings.model_copy(update={"consumer_stuck_after": timedelta(milliseconds=100)})
    stands = {TopicPartition(kafka_settings.topic_prefix + "touches", number): 0 for number in range(2)}
    busy, asked = True, asyncio.Event()

    def is_busy() -> bool:
        asked.set()
        return busy

    async with world(kafka_settings) as runtime:
        await tell(runtime, [touch("ann", 1)])
        await caught_up(runtime)
        watching = asyncio.create_task(Watchdog(impatient, "b", lambda: stands, serving=False, busy=is_busy).run())
        await asked.wait()
        assert not watching.done()
        busy = False
        with pytest.raises(Unavailable, match="stands still"):
            await watching


async def test_records_that_kafka_dropped_before_they_were_read_are_passed_over_loudly(
    kafka_settings: Settings,
) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.records_to_delete import RecordsToDelete

    async with world(kafka_settings) as runtime:
        async with consuming(kafka_settings):
            await all_applied(runtime, await tell(runtime, [touch("ann", 1)]))
        lost = await tell(runtime, [touch("ann", 2)])
        await caught_up(runtime)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_settings.kafka_bootstrap_servers)
        await admin.start()
        try:
            places = [TopicPartition(kafka_settings.topic_prefix + "touches", number) for number in range(2)]
            await admin.delete_records({place: RecordsToDelete(-1) for place in places})
        finally:
            await admin.close()
        async with consuming(kafka_settings):
            after = await tell(runtime, [touch("ann", 3)])
            await all_applied(runtime, ["touch-ann-1", *after])
            assert lost[0] not in await applied(runtime.database)


def test_the_clients_batches_hold_at_least_one_record_of_any_size() -> None:
    """The relay rests on it: a record that a fresh batch refused would be lost."""
    builder = DefaultRecordBatchBuilder(
        2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1_000
    )
    assert builder.append(0, 0, b"key", b"x" * 100_000, []) is not None
    assert builder.append(1, 0, b"key", b"x", []) is None
