"""From the event log to Kafka: read behind the cursor, produce, then move the cursor.

A crash between producing and moving publishes a page twice; consumers know. Any producer error means a new producer,
since an idempotent producer that lost a batch can never send again. While caught up a record leaves at once; behind,
pages are read ahead and several are under way.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from shared.clock import Clock
from shared.db import TRANSIENT, Connection, Database
from shared.errors import Unavailable
from shared.events import TOPICS, WATERMARK_TYPE, with_position
from shared.faults import failpoint
from shared.kafka import probe
from shared.outbox._lease import HOLDS, Lease, LeaseLost, while_held
from shared.settings import Settings
from shared.telemetry import counter, gauge, log

PUBLISHED = counter("throughline_outbox_published_total", "Records published to Kafka", ["topic"])
PUBLISH_ERRORS = counter("throughline_outbox_publish_errors_total", "Producers thrown away", ["error"])
REPUBLISHED = counter("throughline_outbox_republished_total", "Rows published again because Kafka lost them")
POSITION = gauge("throughline_outbox_position", "The cursor of each log", ["log"])

PAGE = 1_000
PAGES_UNDER_WAY = 4
BATCH_BYTES = 262_144
PRODUCE_TIMEOUT_S = 15.0
CHECK_EVERY_S = 30.0
LOGS = (0, 1)
READ = """
SELECT position, event_id, topic, key, type, subject, occurred_at, traceparent, value
FROM event_log WHERE log = $1 AND position > $2 ORDER BY position LIMIT $3
"""
CURSOR = "SELECT position FROM relay_cursors WHERE log = $1"
MOVE = "UPDATE relay_cursors SET position = $2 WHERE log = $1 AND position <= $2"
REWIND = "UPDATE relay_cursors SET position = least(position, $2) WHERE log = $1"
MARKS = 'SELECT topic, partition, "offset", event_id FROM relay_marks'
PUT_MARKS = """
INSERT INTO relay_marks AS known (topic, partition, "offset", event_id)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[])
ON CONFLICT (topic, partition) DO UPDATE SET "offset" = excluded."offset", event_id = excluded.event_id
"""
CLEAR_MARKS = "DELETE FROM relay_marks WHERE topic = $1 AND partition = $2"
FIRST_BEFORE = """
SELECT coalesce(min(position) - 1, 0) FROM event_log WHERE log = $1
"""


class BrokerAway(Exception):
    """Kafka did not take or confirm records; the producer is of no use any more."""


@dataclass(slots=True)
class _Page:
    log: int
    last: int
    sent: list[tuple[str, int, str, "asyncio.Future[RecordMetadata]"]]


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key: CRC-32 modulo their number, as librdkafka's `consistent` partitioner."""
    return zlib.crc32(key.encode()) % partitions


class Relay:
    """Publishes one service's event logs. Of several, the one that holds the lease works."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, service: str) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._service = service
        self._source = f"/throughline/{service}".encode()
        self._writes = [topic.name for topic in TOPICS if service in topic.writers]
        self._lease = Lease(database, "relay", settings.lease_seconds)
        self._woken = asyncio.Event()
        self._checked = False
        self._marks: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        """Relay for ever, whenever the lease can be had."""
        await while_held(self._lease, self._serve)

    async def _serve(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                try:
                    await self._publish_until_error()
                except (BrokerAway, KafkaError, Unavailable, *TRANSIENT) as exc:
                    PUBLISH_ERRORS.labels(type(exc).__name__).inc()
                    log.warning("relay_backs_off", error=type(exc).__name__)
                    self._checked = False
                    await asyncio.sleep(0.5)
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        """Be woken by commits; reading every 250 ms is only the fallback."""
        while True:
            with suppress(*TRANSIENT):
                connection = await self._database.connect()
                try:
                    await connection.add_listener(self._database.channel, lambda *_: self._woken.set())
                    while not connection.is_closed():
                        await asyncio.sleep(1)
                finally:
                    connection.terminate()
            await asyncio.sleep(1)

    async def _publish_until_error(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka_bootstrap_servers,
            client_id=f"throughline-{self._service}-relay",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            linger_ms=0,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            metadata_max_age_ms=30_000,
        )
        try:
            async with asyncio.timeout(15):
                await producer.start()
            if not self._checked:
                await self._check_tails()
                self._checked = True
            async with self._database.reading() as connection:
                cursors = {which: int(await connection.fetchval(CURSOR, which)) for which in LOGS}
            watermark_due = 0.0
            loop = asyncio.get_running_loop()
            check_due = loop.time() + CHECK_EVERY_S
            while True:
                self._woken.clear()
                read_at = self._clock.now()
                for which in LOGS:
                    cursors[which] = await self._drain(producer, which, cursors[which])
                if loop.time() >= watermark_due:
                    await self._watermarks(producer, read_at.isoformat())
                    watermark_due = loop.time() + self._settings.watermark_every.total_seconds()
                if loop.time() >= check_due:
                    if await self._check_tails():
                        return
                    check_due = loop.time() + CHECK_EVERY_S
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        await self._woken.wait()
        except TimeoutError as exc:
            raise BrokerAway("Kafka did not answer in time") from exc
        finally:
            stopping = asyncio.create_task(producer.stop())
            await asyncio.wait([stopping], timeout=3)
            stopping.cancel()

    async def _drain(self, producer: AIOKafkaProducer, which: int, cursor: int) -> int:
        """Publish all there is behind the cursor; up to four pages are under way while the next is read."""
        under_way: deque[_Page] = deque()
        reading: asyncio.Task[list[asyncpg.Record]] | None = asyncio.create_task(self._page(which, cursor))
        try:
            while reading is not None or under_way:
                while reading is not None and len(under_way) < PAGES_UNDER_WAY:
                    rows = await reading
                    reading = None
                    if not rows:
                        break
                    last = int(rows[-1]["position"])
                    if len(rows) == PAGE:
                        reading = asyncio.create_task(self._page(which, last))
                    under_way.append(_Page(which, last, await self._send(producer, rows)))
                if under_way:
                    page = under_way.popleft()
                    await self._confirm(page)
                    cursor = page.last
            return cursor
        finally:
            if reading is not None:
                reading.cancel()

    async def _page(self, which: int, after: int) -> list[asyncpg.Record]:
        async with self._database.reading() as connection:
            return await connection.fetch(READ, which, after, PAGE)

    async def _send(
        self, producer: AIOKafkaProducer, rows: Sequence[asyncpg.Record]
    ) -> list[tuple[str, int, str, "asyncio.Future[RecordMetadata]"]]:
        """Hand a page to the producer, a batch for each partition, in order."""
        prefix = self._settings.topic_prefix
        partitions = self._settings.topic_partitions
        now_ms = int(self._clock.now().timestamp() * 1000)
        batches: dict[tuple[str, int], list[asyncpg.Record]] = {}
        for row in rows:
            batches.setdefault((row["topic"], partition_of(row["key"], partitions)), []).append(row)
        sent = []
        async with asyncio.timeout(PRODUCE_TIMEOUT_S):
            for (topic, partition), records in batches.items():
                batch = producer.create_batch()
                first = records[0]["event_id"]
                for row in records:
                    record = self._record(row)
                    if batch.append(timestamp=now_ms, **record) is None:
                        future = await producer.send_batch(batch, prefix + topic, partition=partition)
                        sent.append((topic, partition, first, future))
                        batch = producer.create_batch()
                        batch.append(timestamp=now_ms, **record)
                        first = row["event_id"]
                future = await producer.send_batch(batch, prefix + topic, partition=partition)
                sent.append((topic, partition, first, future))
                PUBLISHED.labels(topic).inc(len(records))
        return sent

    def _record(self, row: asyncpg.Record) -> dict[str, object]:
        value = row["value"]
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", row["event_id"].encode()),
            ("ce_type", row["type"].encode()),
            ("ce_source", self._source),
            ("ce_time", row["occurred_at"].encode()),
            ("ce_subject", row["subject"].encode()),
            ("ce_dataschema", f"urn:throughline:{row['type']}".encode()),
            ("content-type", b"application/json"),
        ]
        if row["traceparent"]:
            headers.append(("traceparent", row["traceparent"].encode()))
        return {
            "key": row["key"].encode(),
            "value": None if value is None else with_position(value, row["position"]),
            "headers": headers,
        }

    async def _confirm(self, page: _Page) -> None:
        """Wait until the broker has the page, then move the cursor, if the lease is still ours."""
        futures = [future for *_, future in page.sent]
        done, waiting = await asyncio.wait(futures, timeout=PRODUCE_TIMEOUT_S)
        if waiting:
            raise BrokerAway("Kafka did not confirm a page in time")
        for future in done:
            if future.exception() is not None:
                raise BrokerAway(type(future.exception()).__name__) from future.exception()
        failpoint("after_produce_before_cursor")
        marks: dict[tuple[str, int], tuple[int, str]] = {}
        for topic, partition, event_id, future in page.sent:
            offset = future.result().offset
            self._notice(topic, partition, offset)
            marks[topic, partition] = (offset, event_id)
        await self._move(page, marks)
        failpoint("after_cursor")

    def _notice(self, topic: str, partition: int, offset: int) -> None:
        """Offsets only grow; one that does not tells that the broker lost its tail."""
        if offset <= self._marks.get((topic, partition), -1):
            self._checked = False
            raise BrokerAway(f"{topic}/{partition} went back to offset {offset}")
        self._marks[topic, partition] = offset

    async def _move(self, page: _Page, marks: dict[tuple[str, int], tuple[int, str]]) -> None:
        async with self._database.transaction() as tx:
            held = await tx.connection.fetchval(HOLDS, self._lease.name, self._lease.owner, self._lease.epoch)
            if held is None:
                raise LeaseLost(self._lease.name)
            await tx.connection.execute(MOVE, page.log, page.last)
            keys = sorted(marks)
            await tx.connection.execute(
                PUT_MARKS,
                [topic for topic, _ in keys],
                [partition for _, partition in keys],
                [marks[key][0] for key in keys],
                [marks[key][1] for key in keys],
            )
        POSITION.labels(str(page.log)).set(page.last)

    async def _watermarks(self, producer: AIOKafkaProducer, read_at: str) -> None:
        """Tell every partition that all facts recorded before `read_at` are in it."""
        value = orjson.dumps({"source": self._service, "at": read_at})
        headers = [
            ("ce_type", WATERMARK_TYPE.encode()),
            ("ce_source", self._source),
            ("ce_id", f"watermark:{self._service}:{read_at}".encode()),
        ]
        futures = []
        async with asyncio.timeout(PRODUCE_TIMEOUT_S):
            for topic in self._writes:
                for partition in range(self._settings.topic_partitions):
                    future = await producer.send(
                        self._settings.topic_prefix + topic,
                        key=b"watermark:" + self._service.encode(),
                        value=value,
                        partition=partition,
                        headers=headers,
                    )
                    futures.append((topic, partition, future))
            await asyncio.gather(*(future for *_, future in futures))
        for topic, partition, future in futures:
            self._notice(topic, partition, future.result().offset)

    async def _check_tails(self) -> bool:
        """Compare the last record each partition acknowledged to us with what Kafka holds there now.

        Where it is gone the broker lost its tail, or the topic is a new one: everything still in the log is published
        again. The consumers' inboxes make what was not lost harmless. Answers whether that was so.
        """
        async with self._database.reading() as connection:
            marks = await connection.fetch(MARKS)
        self._marks = {(row["topic"], row["partition"]): row["offset"] for row in marks}
        if not marks:
            return False
        remembered = {
            TopicPartition(self._settings.topic_prefix + row["topic"], row["partition"]): (
                row["offset"],
                row["event_id"],
            )
            for row in marks
        }
        async with probe(self._settings.kafka_bootstrap_servers) as kafka:
            missing = await kafka.missing(remembered)
        if missing:
            await self._publish_again(sorted(missing))
        return bool(missing)

    async def _publish_again(self, lost: Sequence[TopicPartition]) -> None:
        log.error("kafka_lost_records", partitions=[f"{place.topic}/{place.partition}" for place in lost])
        async with self._database.transaction() as tx:
            for place in lost:
                topic = place.topic.removeprefix(self._settings.topic_prefix)
                await tx.connection.execute(CLEAR_MARKS, topic, place.partition)
            for which in LOGS:
                before = await self._cursor(tx.connection, which)
                start = int(await tx.connection.fetchval(FIRST_BEFORE, which))
                await tx.connection.execute(REWIND, which, start)
                REPUBLISHED.inc(max(before - start, 0))

    async def _cursor(self, connection: Connection, which: int) -> int:
        return int(await connection.fetchval(CURSOR, which))
