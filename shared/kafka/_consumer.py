"""An ordinary Kafka consumer group whose truth lies in PostgreSQL.

A reader task fetches and decodes while a writer task carries out batches, one transaction each. On assignment reading
starts at the stored position. Records of partitions that are not ours, or that do not go on from where we are, are
dropped: the client can return records before its listener has run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError

from shared.clock import Clock
from shared.db import TRANSIENT, Database
from shared.errors import Unavailable
from shared.events import WATERMARK_TYPE
from shared.kafka._batch import Batch, Decoded, Fenced, PartitionStopped, Span, Watermark, decode
from shared.kafka._positions import lost_partitions, starting_offsets
from shared.settings import Settings
from shared.telemetry import counter, gauge, histogram, log

LAG_RECORDS = gauge("throughline_consumer_lag_records", "Records behind Kafka", ["group", "topic", "partition"])
LAG_SECONDS = gauge("throughline_consumer_lag_seconds", "Seconds behind the source", ["group", "topic", "partition"])
BATCH_SECONDS = histogram("throughline_consumer_batch_seconds", "Time of a batch's transaction", ["group"])
BACKED_OFF = counter("throughline_consumer_backed_off_total", "Batches tried again", ["group", "error"])
STUCK_EXIT = 70
FETCH_RECORDS = 500
VERIFY_EVERY_S = 15.0
PENDING_LIMIT = 4


_NOT_OURS = 2**63


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Records of one partition that were fetched together, read."""

    place: TopicPartition
    topic: str
    facts: list[Decoded]
    watermarks: list[Watermark]
    first: int
    last: int
    last_event_id: str | None
    last_timestamp_ms: int
    count: int


class BatchProcessor(Protocol):
    """Carries out batches; see `Processor`."""

    async def process(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch) -> None: ...


class Consumer:
    """Reads topics for one group and hands batches to a processor, whose version fixes the stored positions' name."""

    def __init__(  # noqa: PLR0913  # what a consumer is made of
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        *,
        group: str,
        topics: Sequence[str],
        positions: str,
        processor: BatchProcessor,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._group = group
        self._topics = [settings.topic_prefix + topic for topic in topics]
        self._positions = positions
        self._processor = processor
        self._expected: dict[TopicPartition, int] = {}
        self._reading: dict[TopicPartition, int] = {}
        self._stopped: set[TopicPartition] = set()
        self._pending: deque[_Chunk] = deque()
        self._pending_records = 0
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._assigned = asyncio.Event()
        self._broken: BaseException | None = None
        self._excused_until = 0.0
        self._stopping = False
        self._busy = False

    @property
    def assigned(self) -> bool:
        """Whether the group has given partitions (or none) to this member."""
        return self._assigned.is_set()

    @property
    def stopped_partitions(self) -> list[str]:
        """Partitions that were stopped because they refused too much."""
        return sorted(f"{place.topic}/{place.partition}" for place in self._stopped)

    async def run(self) -> None:
        """Consume until `stop`; rebuilds the client after any error of Kafka. Raises Fenced on a new projection."""
        while not self._stopping:
            try:
                await self._serve()
            except (KafkaError, Unavailable, TimeoutError, *TRANSIENT) as exc:
                BACKED_OFF.labels(self._group, type(exc).__name__).inc()
                log.warning("consumer_rebuilt", group=self._group, error=type(exc).__name__)
                self._excuse()
                await asyncio.sleep(0.5 + random.random() / 2)  # noqa: S311  # jitter

    async def stop(self) -> None:
        """Finish the batch under way, commit, leave the group."""
        self._stopping = True
        self._arrived.set()
        self._drained.set()

    async def caught_up(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether everything before these offsets has been carried out."""
        return self.assigned and all(self._expected.get(place, -1) >= end for place, end in ends.items())

    async def _serve(self) -> None:
        self._expected.clear()
        self._reading.clear()
        self._clear_pending()
        self._broken = None
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            client_id=f"throughline-{self._group}",
            group_id=self._settings.topic_prefix + self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_uncommitted",
            session_timeout_ms=int(self._settings.consumer_session_timeout.total_seconds() * 1000),
            heartbeat_interval_ms=int(self._settings.consumer_session_timeout.total_seconds() * 250),
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=600_000,
            max_partition_fetch_bytes=1_048_576,
            fetch_max_bytes=16_777_216,
            fetch_max_wait_ms=200,
            request_timeout_ms=30_000,
            metadata_max_age_ms=30_000,
        )
        consumer.subscribe(self._topics, listener=_Listener(self))
        async with asyncio.timeout(30):
            await consumer.start()
        duties = [
            asyncio.create_task(duty, name=f"{self._group}-{name}")
            for name, duty in (
                ("reader", self._read(consumer)),
                ("writer", self._write()),
                ("committer", self._commit_for_tools(consumer)),
                ("watchdog", self._watch(consumer)),
                ("verifier", self._verify()),
            )
        ]
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None:
                    raise error
        finally:
            for task in duties:
                task.cancel()
            await asyncio.wait(duties, timeout=5)
            if self._stopping:
                with suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(2):
                        await self._commit_once(consumer)
            leaving = asyncio.create_task(consumer.stop())
            await asyncio.wait([leaving], timeout=5)
            self._assigned.clear()

    async def take_over(self, places: Sequence[TopicPartition]) -> None:
        """New partitions: find where they go on, seek there, and only then let their records in."""
        try:
            offsets = await starting_offsets(self._settings, self._database, self._positions, places)
        except BaseException as exc:
            self._broken = exc
            self._arrived.set()
            raise
        assert self._client is not None
        for place, offset in offsets.items():
            self._client.seek(place, offset)
            self._expected[place] = offset
            self._reading[place] = offset
        self._assigned.set()
        log.info("partitions_assigned", group=self._group, partitions=len(places))

    def let_go(self, places: Sequence[TopicPartition]) -> None:
        """Partitions that are not ours any more."""
        gone = set(places)
        for place in gone:
            self._expected.pop(place, None)
            self._reading.pop(place, None)
        kept = [chunk for chunk in self._pending if chunk.place not in gone]
        self._clear_pending()
        for chunk in kept:
            self._put(chunk)
        self._drained.set()

    def _put(self, chunk: _Chunk) -> None:
        self._pending.append(chunk)
        self._pending_records += chunk.count

    def _clear_pending(self) -> None:
        self._pending.clear()
        self._pending_records = 0

    _client: AIOKafkaConsumer | None = None

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        self._client = consumer
        while not self._stopping:
            try:
                fetched = await consumer.getmany(timeout_ms=500, max_records=FETCH_RECORDS)
            except NoOffsetForPartitionError:
                continue  # raised for a new group before our own seek; the positions are PostgreSQL's
            if self._broken is not None:
                raise Unavailable("the stored positions could not be read") from self._broken
            for place, records in fetched.items():
                self._let_in(place, records)
            if self._pending:
                self._arrived.set()
            while self._pending_records > PENDING_LIMIT * self._settings.consumer_batch and not self._stopping:
                self._drained.clear()
                await self._drained.wait()
            await asyncio.sleep(0)

    def _let_in(self, place: TopicPartition, records: Sequence[Any]) -> None:
        reading = self._reading.get(place)
        if reading is None or place in self._stopped:
            return
        if records[0].offset < reading:
            records = [record for record in records if record.offset >= reading]
        if not records:
            return
        last = records[-1]
        self._reading[place] = last.offset + 1
        topic = place.topic.removeprefix(self._settings.topic_prefix)
        read = [decode(topic, record) for record in records]
        facts = [record for record in read if record.ce_type != WATERMARK_TYPE]
        marks: list[Watermark] = []
        if len(facts) != len(read):
            marks = [mark for record in records if (mark := _watermark(topic, record)) is not None]
        event_id = next((value.decode("utf-8", "replace") for name, value in last.headers if name == "ce_id"), None)
        self._put(
            _Chunk(place, topic, facts, marks, records[0].offset, last.offset, event_id, last.timestamp, len(read))
        )

    async def _write(self) -> None:
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._pending:
                    if self._stopping:
                        return
                    taken = self._take()
                    self._drained.set()
                    connection = await self._carry_out(connection, taken)
                if self._stopping:
                    return
        finally:
            if connection is not None:
                connection.terminate()

    def _take(self) -> list[_Chunk]:
        taken: list[_Chunk] = []
        records = 0
        while self._pending and records < self._settings.consumer_batch:
            chunk = self._pending.popleft()
            taken.append(chunk)
            records += chunk.count
        self._pending_records -= records
        return taken

    async def _carry_out(
        self, connection: asyncpg.Connection[asyncpg.Record] | None, taken: Sequence[_Chunk]
    ) -> asyncpg.Connection[asyncpg.Record] | None:
        """Try a batch until it is done, or nothing of it is ours any more."""
        attempt = 0
        while True:
            mine = [
                chunk
                for chunk in taken
                if chunk.first >= self._expected.get(chunk.place, _NOT_OURS) and chunk.place not in self._stopped
            ]
            if not mine:
                return connection
            batch = self._batch(mine)
            try:
                if connection is None or connection.is_closed():
                    connection = await self._database.connect()
                with BATCH_SECONDS.labels(self._group).time():
                    await self._processor.process(connection, batch)
            except PartitionStopped as exc:
                self._stop_partition(exc)
                continue
            except (Unavailable, *TRANSIENT) as exc:
                BACKED_OFF.labels(self._group, type(exc).__name__).inc()
                if attempt in (5, 50):
                    log.warning("batch_waits", group=self._group, error=type(exc).__name__, detail=str(exc)[:200])
                if connection is not None and not isinstance(exc, Unavailable):
                    connection.terminate()
                    connection = None
                self._excuse()
                if self._stopping:
                    return connection
                await asyncio.sleep(min(0.01 * 2 ** min(attempt, 7), 1.0) * (0.5 + random.random()))  # noqa: S311  # jitter
                attempt += 1
                continue
            self._moved(batch)
            return connection

    def _batch(self, chunks: Sequence[_Chunk]) -> Batch:
        batch = Batch()
        for chunk in chunks:
            key = (chunk.topic, chunk.place.partition)
            expected = batch.spans[key].expected if key in batch.spans else self._expected[chunk.place]
            batch.spans[key] = Span(expected, chunk.last + 1, chunk.last_event_id, chunk.last_timestamp_ms)
            batch.records.extend(chunk.facts)
            for mark in chunk.watermarks:
                batch.watermarks[mark.topic, mark.partition, mark.source] = mark
        return batch

    def _moved(self, batch: Batch) -> None:
        for (topic, partition), span in batch.spans.items():
            place = TopicPartition(self._settings.topic_prefix + topic, partition)
            if place in self._expected:
                self._expected[place] = span.next_offset
        for mark in batch.watermarks.values():
            lag = (self._clock.now() - mark.at).total_seconds()
            LAG_SECONDS.labels(self._group, mark.topic, str(mark.partition)).set(max(lag, 0.0))

    def _stop_partition(self, stop: PartitionStopped) -> None:
        place = TopicPartition(self._settings.topic_prefix + stop.topic, stop.partition)
        self._stopped.add(place)
        log.critical(
            "partition_stopped",
            group=self._group,
            topic=stop.topic,
            partition=stop.partition,
            remedy="too many facts were refused: look at the deploy, then start the consumer again",
        )

    async def _commit_for_tools(self, consumer: AIOKafkaConsumer) -> None:
        """Tell Kafka the positions too, so that lag tools and autoscalers work. Nothing rests on it."""
        while True:
            await asyncio.sleep(1)
            with suppress(KafkaError):
                await self._commit_once(consumer)
            for place, expected in self._expected.items():
                end = consumer.highwater(place)
                if end is not None:
                    labels = (self._group, place.topic, str(place.partition))
                    LAG_RECORDS.labels(*labels).set(max(end - expected, 0))

    async def _commit_once(self, consumer: AIOKafkaConsumer) -> None:
        offsets = {place: offset for place, offset in self._expected.items() if place in consumer.assignment()}
        if offsets:
            await consumer.commit(offsets)

    async def _verify(self) -> None:
        """Notice that Kafka lost records behind our back: a broker that comes back soon keeps its group's members."""
        while True:
            await asyncio.sleep(VERIFY_EVERY_S)
            lost = await lost_partitions(self._settings, self._database, self._positions, list(self._expected))
            if lost & self._expected.keys():
                raise Unavailable(f"Kafka lost records of {len(lost)} partitions")

    def _excuse(self) -> None:
        self._excused_until = asyncio.get_running_loop().time() + self._settings.consumer_stuck_after.total_seconds()

    async def _watch(self, consumer: AIOKafkaConsumer) -> None:
        """End the process when a partition with lag stands still although PostgreSQL and Kafka answer."""
        loop = asyncio.get_running_loop()
        limit = self._settings.consumer_stuck_after.total_seconds()
        since: dict[TopicPartition, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(min(limit / 6, 5))
            for place, expected in self._expected.items():
                before, at = since.get(place, (-1, loop.time()))
                behind = (consumer.highwater(place) or 0) > expected and place not in self._stopped
                if expected != before or not behind:
                    since[place] = (expected, loop.time())
                elif loop.time() - at > limit and loop.time() > self._excused_until:
                    if not await _answers(self._settings.kafka_bootstrap_servers):
                        self._excuse()
                        break
                    log.critical("partition_stuck", group=self._group, topic=place.topic, partition=place.partition)
                    os._exit(STUCK_EXIT)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # untyped in aiokafka
    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._consumer.let_go(revoked)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        await self._consumer.take_over(sorted(assigned))


def _watermark(topic: str, record: Any) -> Watermark | None:
    if not any(name == "ce_type" and value == WATERMARK_TYPE.encode() for name, value in record.headers):
        return None
    try:
        value = orjson.loads(record.value)
        return Watermark(topic, record.partition, value["source"], datetime.fromisoformat(value["at"]))
    except (ValueError, KeyError, TypeError):
        return None


async def _answers(bootstrap_servers: str) -> bool:
    host, _, port = bootstrap_servers.split(",")[0].rpartition(":")
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
