"""An ordinary Kafka consumer group whose truth lies in PostgreSQL.

A reader task fetches and decodes while a writer task carries out batches, one transaction each. On assignment reading
starts at the stored position. Records of partitions that are not ours, or that do not go on from where we are, are
dropped: the client can return records before its listener has run.

Kafka may lose its tail behind our back and grow past our position again before we look. The writers of the topic
notice, and say so in their watermarks; whoever had read further goes back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from shared.clock import Clock
from shared.db import TRANSIENT, Database, KeptConnection
from shared.errors import Unavailable
from shared.kafka._batch import Batch, Superseded
from shared.kafka._clients import member_of, started
from shared.kafka._committing import Committer
from shared.kafka._guard import PartitionStopped
from shared.kafka._pending import Chunk, Pending, read_chunk
from shared.kafka._places import Places
from shared.kafka._positions import Fenced, go_back, known_repairs, starting_offsets
from shared.kafka._records import Decoded
from shared.kafka._watchdog import Watchdog
from shared.personal import KeysAwaited
from shared.settings import Settings
from shared.telemetry import counter, gauge, histogram, log

LAG_SECONDS = gauge("throughline_consumer_lag_seconds", "Seconds behind the source", ["group", "topic", "partition"])
BATCH_SECONDS = histogram("throughline_consumer_batch_seconds", "Time of a batch's transaction", ["group"])
BACKED_OFF = counter("throughline_consumer_backed_off_total", "Batches tried again", ["group", "error"])
FETCH_RECORDS = 500
TRIES_TOGETHER = 4
IDLE_S = 0.25
START_PATIENCE_S = 30
BATCH_PATIENCE_S = 15.0
KEYS_PATIENCE_S = 0.2


class BatchProcessor(Protocol):
    """Carries out batches; see `Processor`. `serving` is false for one that builds beside what serves.

    Facts of other `kinds` than these reach it unread. What it does not await may come along with what it does.
    """

    serving: bool
    kinds: frozenset[str]

    def awaits(self, record: Decoded) -> bool: ...

    async def process(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch) -> None: ...


class Consumer:
    """Reads topics for one group and hands batches to a processor, whose version fixes the stored positions' name.

    While facts flow, what comes within `gather` goes into one batch.
    """

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
        keys_arrived: asyncio.Event | None = None,
        gather: timedelta = timedelta(0),
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._group = group
        self._topics = [settings.topic_prefix + topic for topic in topics]
        self._positions = positions
        self._processor = processor
        self._keys_arrived = keys_arrived
        self._gather_ms = int(gather / timedelta(milliseconds=1))
        self._places = Places(settings.topic_prefix)
        self._repairs: dict[tuple[str, int, str], int] = {}
        self._pending = Pending(settings.consumer_batch, patient=bool(gather) or not processor.serving)
        self._arrived = asyncio.Event()
        self._drained = asyncio.Event()
        self._assigned = asyncio.Event()
        self._broken: BaseException | None = None
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._watchdog = Watchdog(
            settings, group, self._places.progress, serving=processor.serving, busy=lambda: not self._idle.is_set()
        )
        self._client: AIOKafkaConsumer | None = None
        self._finding: asyncio.Task[None] | None = None
        self._writer = KeptConnection(database)

    @property
    def assigned(self) -> bool:
        """Whether the group has given partitions (or none) to this member."""
        return self._assigned.is_set()

    @property
    def stopped_partitions(self) -> list[str]:
        """Partitions that were stopped because they refused too much."""
        return self._places.stopped

    async def run(self) -> None:
        """Consume until `stop`; rebuilds the client after any fault. Raises Superseded on a new projection."""
        while not self._stopping:
            try:
                await self._serve()
            except Superseded:
                raise
            except (Fenced, KafkaError, Unavailable, *TRANSIENT) as exc:
                BACKED_OFF.labels(self._group, type(exc).__name__).inc()
                log.warning("consumer_rebuilt", group=self._group, error=type(exc).__name__)
                self._watchdog.excuse()
                await asyncio.sleep(0.5 + random.random() / 2)  # noqa: S311  # jitter

    async def stop(self) -> None:
        """Finish the batch under way, commit, leave the group."""
        self._stopping = True
        self._arrived.set()
        self._drained.set()

    async def caught_up(self, ends: dict[TopicPartition, int]) -> bool:
        """Whether everything before these offsets has been carried out."""
        return self.assigned and all(self._places.carried.get(place, -1) >= end for place, end in ends.items())

    def carried_out(self, ends: dict[TopicPartition, int]) -> int:
        """How much of what is before these offsets has been carried out, counted from the beginning of the log."""
        return sum(min(self._places.carried.get(place, 0), end) for place, end in ends.items())

    async def _serve(self) -> None:
        self._places.clear()
        self._pending.clear()
        self._broken = None
        consumer = member_of(self._settings, self._group, self._gather_ms)
        committer = Committer(consumer, self._group, self._places.carried)
        consumer.subscribe(self._topics, listener=_Listener(self, consumer))
        self._client = consumer
        self._watchdog.unassigned()
        try:
            async with started(consumer, START_PATIENCE_S, stopped_within_s=5):
                await self._do_duties(consumer, committer)
        finally:
            self._client = None
            self._assigned.clear()
            self._find_no_more()
            if self._finding is not None:  # or it would go on behind a consumer that has ended, with a pool of its own
                await asyncio.wait([self._finding], timeout=5)
            committer.give_up()

    async def _do_duties(self, consumer: AIOKafkaConsumer, committer: Committer) -> None:
        """Read, write and watch until one of them is over."""
        writer = asyncio.create_task(self._write(), name=f"{self._group}-writer")
        duties = [writer]
        for name, duty in (
            ("reader", self._read(consumer)),
            ("committer", committer.run()),
            ("watchdog", self._watchdog.run()),
        ):
            duties.append(asyncio.create_task(duty, name=f"{self._group}-{name}"))
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.exception()) is not None:
                    raise error
            await asyncio.wait([writer], timeout=BATCH_PATIENCE_S)  # we are to stop: the batch under way is finished
        finally:
            self._find_no_more()
            for task in duties:
                task.cancel()
            await asyncio.wait(duties, timeout=5)
            if self._stopping:
                await committer.commit_within(2)
            self._client = None

    def take_over(self, client: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """New partitions: none of their records is let in until it is known where they go on.

        That is found beside the group's own work: as long as this lasts the group hears nothing of the member, and
        would give its partitions away again, and again, on a machine that is slow.
        """
        if self._client is None or client is not self._client:
            return
        client.pause(*places)
        self._find_no_more()
        self._finding = asyncio.create_task(self._go_on(client, places), name=f"{self._group}-finding")

    def _find_no_more(self) -> None:
        if self._finding is not None:
            self._finding.cancel()

    async def _go_on(self, client: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """Find where partitions go on, seek there, and only then let their records in."""
        try:
            offsets = await starting_offsets(self._settings, self._database, self._positions, places)
            self._repairs |= await known_repairs(self._database)
            for place, offset in offsets.items():
                self._set(place, offset)
            client.resume(*places)
        except Exception as exc:  # noqa: BLE001  # whoever reads has to hear of it, whatever it is
            self._broken = exc
            self._arrived.set()
            return
        self._watchdog.assigned()
        self._assigned.set()
        log.info("partitions_assigned", group=self._group, partitions=len(places))

    def _set(self, place: TopicPartition, offset: int) -> None:
        """Go on from an offset; what was read of the partition before is of no use."""
        assert self._client is not None
        self._client.seek(place, offset)
        self._places.set(place, offset)
        self._pending.drop({place})
        self._drained.set()

    async def release(self, client: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """Partitions that are given away: nothing new of them is begun, and what is under way is waited for."""
        if client is not self._client:
            return
        self._find_no_more()
        self._watchdog.unassigned()
        self.let_go(places)
        with suppress(TimeoutError):
            async with asyncio.timeout(BATCH_PATIENCE_S):
                await self._idle.wait()

    def let_go(self, places: Sequence[TopicPartition]) -> None:
        """Partitions that are not ours any more."""
        self._places.let_go(places)
        self._pending.drop(set(places))
        self._drained.set()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while not self._stopping:
            try:
                fetched = await consumer.getmany(timeout_ms=500, max_records=FETCH_RECORDS)
            except (NoOffsetForPartitionError, OffsetOutOfRangeError) as exc:
                if self._places.is_stale(exc):
                    continue
                raise
            if self._broken is not None:
                raise Unavailable("the stored positions could not be read") from self._broken
            for place, records in fetched.items():
                self._let_in(place, records)
            if self._pending:
                self._arrived.set()
            while self._pending.is_full and not self._stopping:
                self._drained.clear()
                await self._drained.wait()
            await asyncio.sleep(0)

    def _let_in(self, place: TopicPartition, records: Sequence[Any]) -> None:
        follows, records = self._places.read_on(place, records)
        if not records:
            return
        kinds, awaits = self._processor.kinds, self._processor.awaits
        self._pending.put(read_chunk(place, self._places.topic(place), records, follows, kinds, awaits))

    async def _write(self) -> None:
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._pending and not self._stopping:
                    await self._wait_for_awaited()
                    taken = self._pending.take()
                    self._drained.set()
                    await self._carry_out(taken)
                if self._stopping:
                    return
        finally:
            self._writer.hang_up()

    async def _wait_for_awaited(self) -> None:
        """Where nothing that came is awaited, wait a moment for what is: one transaction is of both."""
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                while not self._stopping and not self._pending.awaited:
                    await self._arrived.wait()
                    self._arrived.clear()

    async def _carry_out(self, taken: Sequence[Chunk]) -> None:
        """Try a batch until it is done, or nothing of it is ours any more.

        What does not go well together is tried by halves: PostgreSQL ends a transaction that takes too long.
        """
        attempt = 0
        while self._places.going_on(taken):
            try:
                connection = await self._writer.connected()
                if not (mine := self._places.going_on(taken)):  # they may be another's since
                    return
                if await self._repaired(mine):
                    continue
                batch = self._places.batch(mine)
                if self._keys_arrived is not None:
                    self._keys_arrived.clear()
                with BATCH_SECONDS.labels(self._group).time(), self._busy():
                    await self._processor.process(connection, batch)
                self._moved(batch)
                return
            except PartitionStopped as exc:
                self._stop_partition(exc)
            except (Unavailable, *TRANSIENT) as exc:
                BACKED_OFF.labels(self._group, type(exc).__name__).inc()
                if attempt in (5, 50) or attempt % 600 == 599:
                    log.warning("batch_waits", group=self._group, error=type(exc).__name__, detail=str(exc)[:200])
                if not isinstance(exc, Unavailable):
                    self._writer.hang_up()
                if isinstance(exc, asyncpg.LockNotAvailableError):
                    await self._database.end_frozen()
                self._watchdog.excuse()
                if self._stopping:
                    return
                await self._pause(exc, attempt)
                attempt += 1
                if attempt >= TRIES_TOGETHER and len(taken) > 1:
                    await self._carry_out(taken[: len(taken) // 2])
                    taken, attempt = taken[len(taken) // 2 :], 0

    async def _pause(self, fault: BaseException, attempt: int) -> None:
        """Wait before the next try: longer each time, or until keys arrive where keys were missed."""
        pause = min(0.01 * 2 ** min(attempt, 7), 1.0) * (0.5 + random.random())  # noqa: S311  # jitter
        if self._keys_arrived is None or not isinstance(fault, KeysAwaited):
            await asyncio.sleep(pause)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(pause, KEYS_PATIENCE_S)):
                await self._keys_arrived.wait()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    async def _repaired(self, chunks: Sequence[Chunk]) -> bool:
        """Go back where a source says that Kafka had lost records before where we are. Answers whether it was so."""
        went = False
        for chunk in chunks:
            for mark in chunk.watermarks:
                number, offset = mark.repair
                if number <= self._repairs.setdefault(mark.place, number):
                    continue
                expected = self._places.carried.get(chunk.place)
                if expected is not None and offset < expected:
                    await go_back(self._database, self._positions, mark, expected, keep=self._processor.serving)
                    self._set(chunk.place, offset)
                    went = True
                self._repairs[mark.place] = number
        return went

    def _moved(self, batch: Batch) -> None:
        self._places.moved(batch)
        for mark in batch.watermarks.values():
            lag = (self._clock.now() - mark.at).total_seconds()
            LAG_SECONDS.labels(self._group, mark.topic, str(mark.partition)).set(max(lag, 0.0))

    def _stop_partition(self, stop: PartitionStopped) -> None:
        self._places.stop(stop.topic, stop.partition)
        log.critical(
            "partition_stopped",
            group=self._group,
            topic=stop.topic,
            partition=stop.partition,
            remedy="too many facts were refused: look at the deploy, then start the consumer again",
        )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # untyped in aiokafka
    """Tells a consumer what its client was given. A client that was thrown away may still call; it is not heard."""

    def __init__(self, consumer: Consumer, client: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._client = client

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        await self._consumer.release(self._client, list(revoked))

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._consumer.take_over(self._client, sorted(assigned))
