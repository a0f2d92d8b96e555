"""From the event log to Kafka: read behind the cursor, produce, then move the cursor.

A crash between producing and moving publishes a page twice; consumers know. Any producer error means a new producer,
since an idempotent producer that lost a batch can never send again. While caught up a record leaves at once, and the
cursor follows beside it; behind, pages are read ahead and several are under way. Facts that nobody waits for leave
together while they flow: a page costs its readers much the same whether it holds one of them or twenty.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from shared.clock import Clock
from shared.db import API_LOG, CONSUMER_LOG, TRANSIENT, Database, KeptConnection, agreed_apart, noticed, one
from shared.errors import Unavailable
from shared.events import with_position
from shared.faults import failpoint
from shared.kafka import started
from shared.outbox._lease import Lease, LeaseLost, while_held
from shared.outbox._tails import LostTail, Mark, Place, Tails, columns
from shared.outbox._watermarks import Watermarks
from shared.settings import Settings
from shared.telemetry import counter, gauge, log, span

PUBLISHED = counter("throughline_outbox_published_total", "Records published to Kafka", ["topic"])
PUBLISH_ERRORS = counter("throughline_outbox_publish_errors_total", "Producers thrown away", ["error"])
POSITION = gauge("throughline_outbox_position", "The cursor of each log", ["log"])

PAGE = 1_000
PAGES_UNDER_WAY = 8
PAGES_A_MOVE = 8
BATCH_BYTES = 262_144
PRODUCE_TIMEOUT_S = 15.0
START_PATIENCE_S = 15
FALLBACK_S = 0.5
GATHER_S = 0.2
READ = """
(SELECT log, position, event_id, topic, key, type, subject, occurred_at, traceparent, value
 FROM event_log WHERE log = 0 AND position > $1 ORDER BY position LIMIT $3)
UNION ALL
(SELECT log, position, event_id, topic, key, type, subject, occurred_at, traceparent, value
 FROM event_log WHERE log = 1 AND position > $2 ORDER BY position LIMIT $4)
"""
CURSORS = "SELECT log, position FROM relay_cursors"
# Not waited for to be on disk: a cursor that is lost publishes again, as one does that was not moved. Whether the log
# holds what was published is looked at too, by the last row of each page: an earlier copy has the old cursor, and other
# facts on those positions. As an array, which no plan makes a join of: one that knows nothing of a young log yet reads
# all of it.
MOVE = """
WITH held AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) FROM leases
    WHERE name = $1 AND owner = $2 AND epoch = $3 FOR SHARE
), moved AS (
    UPDATE relay_cursors AS cursor SET position = sent.last
    FROM (
        SELECT log, min(before) AS before, max(last) AS last, bool_and(event_id = ANY (
            ARRAY(SELECT row.event_id FROM event_log AS row WHERE row.log = page.log AND row.position = page.last)
        )) AS in_log
        FROM unnest($4::smallint[], $5::bigint[], $6::bigint[], $7::text[]) AS page (log, before, last, event_id)
        GROUP BY log
    ) AS sent
    WHERE cursor.log = sent.log AND cursor.position = sent.before AND sent.in_log AND EXISTS (SELECT FROM held)
    RETURNING cursor.log
), marked AS (
    INSERT INTO relay_marks AS known (topic, partition, "offset", event_id, timestamp_ms)
    SELECT * FROM unnest($8::text[], $9::integer[], $10::bigint[], $11::text[], $12::bigint[])
    WHERE EXISTS (SELECT FROM held)
    ON CONFLICT (topic, partition) DO UPDATE
    SET "offset" = excluded."offset", event_id = excluded.event_id, timestamp_ms = excluded.timestamp_ms
)
SELECT EXISTS (SELECT FROM held) AS held, (SELECT count(*) FROM moved) AS moved
"""


class BrokerAway(Exception):
    """Kafka did not take or confirm records; the producer is of no use any more."""


class CursorSetBack(Exception):
    """The log is not as this relay left it: an operator moved a cursor, or the database is an earlier copy.

    What follows on the cursor may have positions that this relay believes to be behind it.
    """


@dataclass(slots=True)
class _Page:
    """What was read and sent together, the last row of each log in it, and the cursor before that."""

    befores: dict[int, int]
    lasts: dict[int, asyncpg.Record]
    sent: list["_Sent"]


@dataclass(slots=True)
class _Due:
    """A watermark that is due: all recorded before `read_at` has been sent, and the cursors stand so behind it."""

    read_at: datetime
    cursors: dict[int, int]


@dataclass(slots=True)
class _Sent:
    """What was handed to the producer as one batch, known by its first record."""

    place: Place
    event_id: str
    confirmed: "asyncio.Future[RecordMetadata]"


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
        self._lease = Lease(database, "relay", settings.lease_seconds)
        self._bell = database.bell
        self._tails = Tails(settings, database)
        self._mover = KeptConnection(database)
        self._vouched: deque[datetime] = deque()
        self._connections: list[object] = []

    async def run(self) -> None:
        """Relay for ever, whenever the lease can be had."""
        await while_held(self._lease, self._serve)

    async def _serve(self) -> None:
        listening = asyncio.create_task(self._listen())
        self._tails = Tails(self._settings, self._database)
        self._bell.is_heard = True
        try:
            while True:
                try:
                    await self._publish_until_error()
                except (LostTail, CursorSetBack) as exc:
                    log.warning("relay_begins_again", reason=str(exc))
                except (BrokerAway, KafkaError, Unavailable, *TRANSIENT) as exc:
                    PUBLISH_ERRORS.labels(type(exc).__name__).inc()
                    log.warning("relay_backs_off", error=type(exc).__name__)
                    await asyncio.sleep(0.5)
        finally:
            self._bell.is_heard = False
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self) -> None:
        """Be woken by commits of other processes; reading every half second is only the fallback."""
        while True:
            with suppress(*TRANSIENT):
                connection = await self._database.connect()
                closed = asyncio.Event()
                connection.add_termination_listener(lambda _, closed=closed: closed.set())
                try:
                    await connection.add_listener(self._database.channel, self._on_notice)
                    await closed.wait()
                finally:
                    connection.terminate()
            await asyncio.sleep(1)

    def _on_notice(self, *notice: object) -> None:
        which, calm = noticed(str(notice[-1]))
        self._bell.ring(which, calm=calm)

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
            async with started(producer, START_PATIENCE_S, stopped_within_s=3):
                await self._publish(producer)
        except TimeoutError as exc:
            raise BrokerAway("Kafka did not answer in time") from exc

    async def _publish(self, producer: AIOKafkaProducer) -> None:
        """Read and send, and beside that move the cursor behind what the broker has; until either fails."""
        await self._tails.recall()
        self._vouched.clear()
        sent: asyncio.Queue[_Page | _Due] = asyncio.Queue(PAGES_UNDER_WAY)
        duties = [asyncio.create_task(self._send_on(producer, sent)), asyncio.create_task(self._follow(producer, sent))]
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
            for duty in done:
                duty.result()
        finally:
            for duty in duties:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)  # the first fault has been told
            self._mover.hang_up()

    async def _send_on(self, producer: AIOKafkaProducer, sent: asyncio.Queue[_Page | _Due]) -> None:
        """Send whatever is behind the cursors, a page at a time; while pages are full, several are under way.

        What the API told goes on gathering while somebody waits for what consumers told, of which there is less.
        """
        cursors = await self._cursors()
        watermarks = Watermarks(self._settings, self._service)
        due_at = gathered_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            read_at = await agreed_apart(self._database, self._clock) if began >= due_at else None
            whole = read_at is not None or began >= gathered_at or self._bell.hurries(API_LOG)
            self._bell.fall_silent((API_LOG, CONSUMER_LOG) if whole else (CONSUMER_LOG,))
            rows = await self._page(cursors, whole=whole)
            lasts = {row["log"]: row for row in rows}
            if rows:
                with span("event_log publish", "producer", (row["traceparent"] for row in rows), batch=True):
                    page = _Page({which: cursors[which] for which in lasts}, lasts, await self._send(producer, rows))
                cursors |= {which: last["position"] for which, last in lasts.items()}
                await sent.put(page)
                if len(rows) >= PAGE:
                    continue
                await asyncio.wait([each.confirmed for each in page.sent], timeout=PRODUCE_TIMEOUT_S)
            if read_at is not None:
                await sent.put(_Due(read_at, dict(cursors)))
                due_at = began + watermarks.turn_s
            if self._vouched:
                told = await self._tell(producer, watermarks, self._vouched.popleft())
                await sent.put(_Page({}, {}, told))
            if whole:
                gathered_at = began + GATHER_S
            await self._wait(gathered_at)
            if loop.time() - began > self._settings.lease_seconds / 2 and not await self._lease.take():
                raise LeaseLost(self._lease.name)  # the process stood still, and another has the turn

    async def _wait(self, gathered_at: float) -> None:
        """Until there is something to send: what somebody waits for at once, all else not before `gathered_at`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FALLBACK_S):
                await self._bell.rung.wait()
            async with asyncio.timeout_at(gathered_at):
                await self._bell.hurried.wait()

    async def _follow(self, producer: AIOKafkaProducer, sent: asyncio.Queue[_Page | _Due]) -> None:
        """Move the cursor as pages are confirmed, once for some of those that were sent meanwhile.

        A watermark that is due is vouched for, and left to who sends: acknowledgements are looked at in that order.
        """
        while True:
            pages: list[_Page] = []
            item = await sent.get()
            while isinstance(item, _Page):
                await self._confirm(item.sent)
                pages.append(item)
                if sent.empty() or len(pages) == PAGES_A_MOVE:
                    break
                item = sent.get_nowait()
            if pages:
                failpoint("after_produce_before_cursor")
                marks = await self._acknowledged(producer, [each for page in pages for each in page.sent])
                await self._move(pages, marks)
                failpoint("after_cursor")
            if isinstance(item, _Due):
                if await self._cursors() != item.cursors:
                    raise CursorSetBack("a cursor was moved")
                self._vouched.append(item.read_at)
                self._bell.ring(CONSUMER_LOG, calm=True)

    async def _page(self, cursors: Mapping[int, int], *, whole: bool) -> list[asyncpg.Record]:
        """The next rows of both logs, each in its order; unless `whole` of the consumers' alone."""
        async with self._database.reading() as connection:
            return await connection.fetch(READ, cursors[API_LOG], cursors[CONSUMER_LOG], PAGE if whole else 0, PAGE)

    async def _cursors(self) -> dict[int, int]:
        """The stored cursors."""
        async with self._database.reading() as connection:
            return {row["log"]: row["position"] for row in await connection.fetch(CURSORS)}

    async def _send(self, producer: AIOKafkaProducer, rows: Sequence[asyncpg.Record]) -> list[_Sent]:
        """Hand a page to the producer, a batch for each partition, in order."""
        prefix = self._settings.topic_prefix
        partitions = self._settings.topic_partitions
        now_ms = int(self._clock.now().timestamp() * 1000)
        batches: dict[Place, list[asyncpg.Record]] = {}
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
                        sent.append(_sent((topic, partition), first, future))
                        batch = producer.create_batch()
                        batch.append(timestamp=now_ms, **record)
                        first = row["event_id"]
                future = await producer.send_batch(batch, prefix + topic, partition=partition)
                sent.append(_sent((topic, partition), first, future))
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
            ("ce_dataschema", f"urn:throughline:{row['type']}".encode()),
            ("content-type", b"application/json"),
        ]
        if row["subject"]:  # CloudEvents allows an absent subject, and no empty one
            headers.append(("ce_subject", row["subject"].encode()))
        if row["traceparent"]:
            headers.append(("traceparent", row["traceparent"].encode()))
        return {
            "key": row["key"].encode(),
            "value": None if value is None else with_position(value, row["position"]),
            "headers": headers,
        }

    async def _confirm(self, sent: Sequence[_Sent]) -> None:
        """Wait until the broker has it. Raises BrokerAway."""
        done, waiting = await asyncio.wait([each.confirmed for each in sent], timeout=PRODUCE_TIMEOUT_S)
        if waiting:
            raise BrokerAway("Kafka did not confirm in time what was sent")
        for future in done:
            if (error := future.exception()) is not None:
                raise BrokerAway(type(error).__name__) from error

    async def _acknowledged(self, producer: AIOKafkaProducer, sent: Sequence[_Sent]) -> dict[Place, Mark]:
        """The last acknowledgement of each partition. Raises LostTail where they do not follow on those before.

        A new connection may lead to a broker that was away, and that came back without the end of its log.
        """
        marks = [(each.place, _mark(each)) for each in sent]
        connections = list(producer.client._conns.values())  # noqa: SLF001  # the client tells nobody that it connected anew
        if connections != self._connections:
            await self._tails.check(dict(marks))
            self._connections = connections
        return self._tails.note(marks)

    async def _move(self, pages: Sequence[_Page], marks: Mapping[Place, Mark]) -> None:
        """Move the cursors and keep the marks, if the lease is still ours. Raises LeaseLost, CursorSetBack."""
        lease = (self._lease.name, self._lease.owner, self._lease.epoch)
        rows = [
            (which, page.befores[which], last["position"], last["event_id"])
            for page in pages
            for which, last in page.lasts.items()
        ]
        positions = {which: last for which, _, last, _ in rows}
        moves = zip(*rows, strict=True) if rows else ((), (), (), ())
        found = await one(await self._mover.connected(), MOVE, *lease, *moves, *columns(marks))
        if not found["held"]:
            raise LeaseLost(self._lease.name)
        if found["moved"] < len(positions):
            raise CursorSetBack("a cursor was moved, or the log is another, since a page was read")
        for which, position in positions.items():
            POSITION.labels(str(which)).set(position)

    async def _tell(self, producer: AIOKafkaProducer, watermarks: Watermarks, read_at: datetime) -> list[_Sent]:
        """Tell partitions that all facts recorded before `read_at` are in them."""
        event_id = watermarks.event_id(read_at)
        sent = []
        async with asyncio.timeout(PRODUCE_TIMEOUT_S):
            for (topic, partition), record in watermarks.next(read_at, self._tails):
                name = self._settings.topic_prefix + topic
                future = await producer.send(name, partition=partition, **record)
                sent.append(_sent((topic, partition), event_id, future))
        return sent


def _sent(place: Place, event_id: str, confirmed: "asyncio.Future[RecordMetadata]") -> _Sent:
    confirmed.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever gives up does not look
    return _Sent(place, event_id, confirmed)


def _mark(sent: _Sent) -> Mark:
    metadata = sent.confirmed.result()
    return Mark(metadata.offset, sent.event_id, metadata.timestamp or 0)
