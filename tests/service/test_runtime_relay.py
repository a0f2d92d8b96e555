"""From the event log to Kafka: all of it, in order, again after a loss, and by one relay at a time."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.clock import SystemClock
from shared.db import API_LOG
from shared.errors import Unavailable
from shared.events import TOPICS, Event, LeadScored, TouchRecorded
from shared.ids import EventId, LeadId
from shared.kafka import apply_topics, topic_drift
from shared.outbox import Relay
from shared.service import Runtime
from shared.settings import Settings
from shared.telemetry import new_trace, set_trace
from shared.testing import eventually
from tests.service.runtime_world import (
    SERVICE,
    beside,
    execute,
    fetch,
    lead_names,
    logged,
    process,
    runtime_of,
    touch,
    value,
)

WRITTEN = [topic.name for topic in TOPICS if SERVICE in topic.writers]


def relay_of(runtime: Runtime) -> Relay:
    return Relay(runtime.settings, runtime.database, SystemClock(), SERVICE)


async def records(settings: Settings, topic: str) -> list[Any]:
    """All that Kafka holds in a topic, watermarks among it."""
    places = [TopicPartition(settings.topic_prefix + topic, number) for number in range(settings.topic_partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list[Any] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found.extend(batch)
    finally:
        await consumer.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def headers(record: Any) -> dict[str, str]:
    return {name: content.decode() for name, content in record.headers}


async def published(settings: Settings, topic: str = "touches") -> list[str]:
    """The ids of the facts in a topic."""
    found = [headers(record)["ce_id"] for record in await records(settings, topic)]
    return [event_id for event_id in found if not event_id.startswith("watermark")]


async def caught_up(runtime: Runtime) -> None:
    """Wait until the relay has published all of both logs."""
    behind = """
    SELECT count(*) FROM event_log JOIN relay_cursors USING (log) WHERE event_log.position > relay_cursors.position
    """
    await eventually(lambda: _is_zero(runtime, behind))


async def _is_zero(runtime: Runtime, statement: str) -> bool:
    return bool(await value(runtime.database, statement) == 0)


def scored(lead: str) -> LeadScored:
    """A fact that nobody waits for."""
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    return LeadScored(
        event_id=EventId(f"scored-{lead}"),
        lead_id=LeadId(lead),
        occurred_at=at,
        received_at=at,
        revision=1,
        engagement=1.0,
        fit=0,
        total=1.0,
        grade="D",
        stage="lead",
        rules_version=1,
    )


async def tell(runtime: Runtime, *events: Event) -> None:
    async with runtime.database.transaction() as tx:
        tx.emit(*events)


async def test_everything_of_both_logs_is_published_in_order_by_lead(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as api, runtime_of(kafka_settings) as consumer:
        leads = lead_names(5)
        sent = [touch(lead) for _ in range(300) for lead in leads]
        await tell(api, *sent)
        derived = [touch(lead) for lead in leads]
        await tell(consumer, *derived)
        async with beside(relay_of(api).run()):
            await caught_up(api)
        found = await records(kafka_settings, "touches")
        facts = [record for record in found if headers(record)["ce_type"] == TouchRecorded.ce_type]
        assert {headers(record)["ce_id"] for record in facts} == {event.event_id for event in [*sent, *derived]}
        assert len(facts) == len(sent) + len(derived)
        for lead in leads:
            mine = [headers(record)["ce_id"] for record in facts if record.key.decode() == lead]
            assert [each for each in mine if each != derived[leads.index(lead)].event_id] == [
                event.event_id for event in sent if event.lead_id == lead
            ]


async def test_a_record_on_the_wire_is_a_cloudevent_with_its_key_trace_and_position(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        trace = new_trace()
        set_trace(trace)
        event = touch("ann", number=1)
        await tell(runtime, event)
        set_trace(None)
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
        record = next(each for each in await records(kafka_settings, "touches") if each.key == b"ann")
        assert headers(record) == {
            "ce_specversion": "1.0",
            "ce_id": event.event_id,
            "ce_type": "throughline.touch.recorded.v1",
            "ce_source": "/throughline/capture",
            "ce_time": "2026-11-25T12:00:00+00:00",
            "ce_subject": "ann",
            "ce_dataschema": "urn:throughline:throughline.touch.recorded.v1",
            "content-type": "application/json",
            "traceparent": trace,
        }
        position = await value(runtime.database, "SELECT position FROM event_log")
        assert TouchRecorded.decode(record.value) == event.model_copy(update={"position": position})
        assert json.loads(record.value)["position"] == position


async def test_a_destroyed_key_is_a_tombstone(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        async with runtime.database.transaction() as tx:
            await runtime.keys.destroy(tx, touch("gone").lead_id, datetime.now(UTC))
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
        (record,) = [each for each in await records(kafka_settings, "keys") if each.key == b"gone"]
        assert record.value is None
        assert headers(record)["ce_type"] == "throughline.key.created.v1"


async def test_every_partition_is_told_how_far_the_source_is(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        before = datetime.now(UTC)
        async with beside(relay_of(runtime).run()):
            await eventually(lambda: _marks_everywhere(kafka_settings, before))


async def _marks_everywhere(settings: Settings, after: datetime) -> bool:
    for topic in WRITTEN:
        marks = {
            record.partition: json.loads(record.value)
            for record in await records(settings, topic)
            if headers(record)["ce_type"] == "throughline.watermark.v1"
        }
        if len(marks) < settings.topic_partitions:
            return False
        assert all(mark["source"] == SERVICE for mark in marks.values())
        assert all(datetime.fromisoformat(mark["at"]) >= after for mark in marks.values())
    return True


async def test_a_fact_larger_than_a_batch_and_than_kafkas_own_limit_is_published(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        large = [touch(number=1, personal="x" * 300_000), touch(number=2, personal="x" * 2_800_000), touch(number=3)]
        await tell(runtime, *large)
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
        assert await published(kafka_settings) == [event.event_id for event in large]


async def test_a_long_backlog_of_one_log_does_not_hold_up_the_other(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as api, runtime_of(kafka_settings) as consumer:
        statement = """
        INSERT INTO event_log (log, position, event_id, topic, key, type, subject, occurred_at, value)
        SELECT 0, n, 'old-' || n, 'touches', 'ann', 'x', 'ann', '2026-01-01', '{"a":1}'
        FROM generate_series(1, 60000) AS n
        """
        await execute(api.database, statement)
        await tell(consumer, touch(number=1))
        async with beside(relay_of(api).run()):
            await caught_up(api)
        found = await published(kafka_settings)  # all of one person, and so in one partition
        assert found.index("touch-ann-1") < 60_000 / 2


async def test_a_cursor_that_is_set_back_publishes_again_while_the_relay_runs(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        await tell(runtime, touch(number=1), touch(number=2))
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
            await execute(runtime.database, "UPDATE relay_cursors SET position = 0")
            await eventually(lambda: _published_times(kafka_settings, 2))
            await caught_up(runtime)


async def test_watermarks_told_while_facts_flow_send_nothing_again(kafka_settings: Settings) -> None:
    often = kafka_settings.model_copy(update={"watermark_every": timedelta(milliseconds=10)})
    events = [touch(number=number) for number in range(600)]
    async with runtime_of(often, log=API_LOG) as runtime, beside(relay_of(runtime).run()):
        await eventually(lambda: _marked(often))
        await asyncio.gather(*(_tell_each(runtime, events[teller::4]) for teller in range(4)))
        await caught_up(runtime)
        assert sorted(await published(often)) == sorted(event.event_id for event in events)


async def _tell_each(runtime: Runtime, events: Sequence[Event]) -> None:
    for event in events:
        await tell(runtime, event)


async def test_what_follows_on_an_earlier_copy_of_the_log_is_published_though_the_relay_had_been_further(
    kafka_settings: Settings,
) -> None:
    rarely = kafka_settings.model_copy(update={"watermark_every": timedelta(hours=1)})
    async with runtime_of(rarely, log=API_LOG) as runtime:
        await tell(runtime, touch(number=1), touch(number=2), touch(number=3))
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
            await eventually(lambda: _marked(rarely))  # from then on the relay goes by what it remembers
            await tell(runtime, touch(number=0))
            await caught_up(runtime)
            await _cut_back(runtime, 1)
            await caught_up(runtime)
            assert set(await logged(runtime.database, API_LOG)) <= set(await published(rarely))


@pytest.mark.parametrize("held_before", ["it looks what else was sent", "it moves the cursor"])
async def test_pages_of_before_move_no_cursor_of_an_earlier_copy(kafka_settings: Settings, held_before: str) -> None:
    class Held(Relay):
        """A relay that takes its time between publishing and moving the cursor."""

        go = asyncio.Event()

        async def _confirm(self, *sent: Any) -> None:
            await super()._confirm(*sent)
            if held_before == "it looks what else was sent":
                await self.go.wait()

        async def _move(self, *pages: Any) -> None:
            await self.go.wait()
            await super()._move(*pages)

    rarely = kafka_settings.model_copy(update={"watermark_every": timedelta(hours=1)})
    async with runtime_of(rarely, log=API_LOG) as runtime:
        relay = Held(rarely, runtime.database, SystemClock(), SERVICE)
        relay.go.set()
        async with beside(relay.run()):
            await tell(runtime, touch(number=1))
            await caught_up(runtime)
            relay.go.clear()
            await tell(runtime, touch(number=2), touch(number=3))
            await eventually(lambda: _knows(rarely, 3))
            await _cut_back(runtime, 1)
            await eventually(lambda: _knows(rarely, 6))
            relay.go.set()
            await caught_up(runtime)
            assert set(await logged(runtime.database, API_LOG)) <= set(await published(rarely))


async def _cut_back(runtime: Runtime, position: int) -> None:
    """As after an earlier copy, which ended at this position, and some facts after that."""
    async with runtime.database.transaction() as tx:
        await tx.connection.execute("DELETE FROM event_log WHERE position > $1", position)
        await tx.connection.execute("UPDATE relay_cursors SET position = $1 WHERE log = $2", position, API_LOG)
        await tx.connection.execute("SELECT setval('event_log_position_0', $1)", position)
        tx.emit(*(touch(number=number) for number in range(4, 9)))


async def _knows(settings: Settings, facts: int) -> bool:
    return len(await published(settings)) >= facts


async def _marked(settings: Settings) -> bool:
    return len(await records(settings, "touches")) > len(await published(settings))


async def _published_times(settings: Settings, times: int) -> bool:
    found = await published(settings)
    return bool(found) and all(found.count(event_id) == times for event_id in found)


async def test_of_two_relays_one_works_and_the_other_takes_over_from_a_frozen_one(kafka_settings: Settings) -> None:
    """The frozen one wakes up with pages under way and finds that it is not its turn any more."""
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        async with process(kafka_settings, "worker") as first:
            await tell(runtime, touch(number=1))
            await caught_up(runtime)
            async with beside(relay_of(runtime).run()):
                owner = await value(runtime.database, "SELECT owner FROM leases WHERE name = 'relay'")
                assert f":{first.pid}:" in owner
                os.kill(first.pid, signal.SIGSTOP)
                await tell(runtime, touch(number=2))
                await caught_up(runtime)
                owner = await value(runtime.database, "SELECT owner FROM leases WHERE name = 'relay'")
                assert f":{os.getpid()}:" in owner
                os.kill(first.pid, signal.SIGCONT)
                await tell(runtime, touch(number=3))
                await caught_up(runtime)
                assert await value(runtime.database, "SELECT owner FROM leases WHERE name = 'relay'") == owner
        assert await published(kafka_settings) == ["touch-ann-1", "touch-ann-2", "touch-ann-3"]


@asynccontextmanager
async def admin_of(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def make_topics_anew(settings: Settings) -> None:
    """Delete the topics and make them again, empty."""
    names = {settings.topic_prefix + topic.name for topic in TOPICS}
    async with admin_of(settings) as admin:
        await admin.delete_topics(list(names))

        async def gone() -> bool:
            return not names & set(await admin.list_topics())

        await eventually(gone)  # else those that the broker has not forgotten yet would pass for new ones

        async def made() -> bool:
            try:
                await apply_topics(settings)
            except Unavailable:  # the deletion is still under way
                return False
            return not await topic_drift(settings)

        await eventually(made)


async def test_topics_made_anew_under_a_running_relay_are_filled_again(kafka_settings: Settings) -> None:
    async with runtime_of(kafka_settings, log=API_LOG) as runtime:
        await tell(runtime, *(touch("ann", number) for number in range(50)))
        async with beside(relay_of(runtime).run()):
            await caught_up(runtime)
            await make_topics_anew(kafka_settings)
            await tell(runtime, touch("ann", 50))
            await eventually(lambda: _holds(kafka_settings, {f"touch-ann-{number}" for number in range(51)}))
            repairs = await fetch(runtime.database, 'SELECT topic, number, "offset" FROM relay_repairs')
            assert ("touches", 1, 0) in [tuple(row) for row in repairs]


async def _holds(settings: Settings, event_ids: set[str]) -> bool:
    return event_ids <= set(await published(settings))
