"""One batch is one transaction: positions, inbox, handlers, derived facts, commit.

Positions come first: the row lock makes a zombie wait, and the comparison with the position it expects makes it give
up. Then the inbox tells which facts are fresh, and runs of facts of one kind go to their handlers. Where one fails, the
batch is done over with savepoints, and what can never succeed is found and parked with its lead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby

import asyncpg

from shared.db import COPIED_FROM, TRANSIENT, Connection, Database, Tx, append_rows, one
from shared.errors import Rejected, Unavailable
from shared.events import EVENT_OF, TOPIC_OF, Event, decoder
from shared.faults import failpoint
from shared.kafka._guard import Guard
from shared.kafka._positions import Fenced, move_positions, put_watermarks
from shared.kafka._records import Decoded, Letter, Watermark, decode
from shared.kafka._routes import Route
from shared.personal import newest_fact_ms
from shared.telemetry import counter, describe, log, set_trace, span

PROCESSED = counter("throughline_events_processed_total", "Facts by what became of them", ["type", "outcome"])
PARKED = counter("throughline_consumer_parked_total", "Facts parked because they can never succeed", ["slug"])

TAKE_IN = """
WITH taken AS (
    INSERT INTO inbox (day, version, event_id) SELECT * FROM unnest($1::date[], $2::smallint[], $3::text[])
    ON CONFLICT DO NOTHING RETURNING event_id
)
SELECT version, ARRAY(SELECT event_id FROM taken) AS fresh,
       ARRAY(SELECT DISTINCT key FROM parked_events WHERE consumer = $4 AND key = ANY($5)) AS parked,
       CASE WHEN $6 THEN set_config('synchronous_commit', 'off', true) END
FROM projections
"""
PARKED_KEYS = "SELECT DISTINCT key FROM parked_events WHERE consumer = $1 AND key = ANY($2)"
AWAIT_RETRIES = """
SELECT key FROM parked_events
WHERE id IN (SELECT min(id) FROM parked_events WHERE consumer = $1 AND key = ANY($2) GROUP BY key)
ORDER BY id FOR KEY SHARE
"""
PARK = """
INSERT INTO parked_events (consumer, key, topic, partition, "offset", event_id, type, value, slug, error, attempts)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING
"""
BURY = """
INSERT INTO dead_letters (consumer, topic, partition, "offset", key, headers, value, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
"""
LETTER = "SELECT * FROM dead_letters WHERE consumer = $1 AND id = $2"
READ_LETTER = "DELETE FROM dead_letters WHERE id = $1"
PARKED_OF_KEY = """
SELECT id, type, value, folded, slug FROM parked_events WHERE consumer = $1 AND key = $2 ORDER BY id LIMIT $3 FOR UPDATE
"""
STILL_PARKED = "UPDATE parked_events SET slug = $2, error = $3, attempts = attempts + 1 WHERE id = $1"
UNPARK = "DELETE FROM parked_events WHERE id = ANY($1)"
WAITING_SLUG = "parked/waits-behind-parked"
RETRIED_TOGETHER = 200
"""Facts of a lead that are tried again in one transaction: new ones of that lead, and all that came with them, wait."""


class Superseded(Fenced):
    """Another version of the projection was swapped in."""


class _HandlerFailed(Exception):
    """A handler failed while the batch was tried without savepoints."""


@dataclass(slots=True)
class Span:
    """How far a batch goes in a partition, and from where it expects to start."""

    expected: int
    next_offset: int
    last_event_id: str | None
    last_timestamp_ms: int


@dataclass(slots=True)
class Batch:
    """What is to be done in one transaction."""

    records: list[Decoded] = field(default_factory=list)
    spans: dict[tuple[str, int], Span] = field(default_factory=dict)
    watermarks: dict[tuple[str, int, str], Watermark] = field(default_factory=dict)


class Processor:
    """Carries out batches for one consumer of one service."""

    def __init__(  # noqa: PLR0913  # what a consumer is made of
        self,
        database: Database,
        consumer: str,
        routes: Sequence[Route],
        *,
        version: int,
        topic_order: Sequence[str],
        guard: Guard,
        serving: bool = True,
    ) -> None:
        self._database = database
        self._consumer = consumer
        self._version = version
        self._guard = guard
        self.serving = serving
        self._handlers: dict[type[Event], list[Route]] = {}
        for route in routes:
            self._handlers.setdefault(route.event_type, []).append(route)
        self.kinds = frozenset(kind.ce_type for kind in self._handlers)
        self._choosy = {
            kind: [route.only for route in its if route.only is not None]
            for kind, its in self._handlers.items()
            if all(route.only is not None for route in its)
        }
        self._awaited = {kind for kind, its in self._handlers.items() if any(route.awaited for route in its)}
        self._order = {topic: index for index, topic in enumerate(topic_order)}
        self._outcomes = Counter[tuple[str, str]]()

    async def process(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch) -> None:
        """Carry out a batch and commit.

        Raises Fenced, PartitionStopped, Unavailable, or a transient database error: then nothing is done.
        """
        try:
            tx = await self._attempt(connection, batch, careful=False)
        except _HandlerFailed:  # rare enough not to pay for savepoints each time
            tx = await self._attempt(connection, batch, careful=True)
        failpoint("after_tx_before_kafka_commit")
        if tx.rows:
            await self._database.wake_relay(connection, self._database.log, calm=tx.is_calm)

    async def _attempt(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch, *, careful: bool) -> Tx:
        """The transaction of a batch; `careful` finds the facts that fail, otherwise _HandlerFailed is raised."""
        self._guard.begin()
        self._outcomes.clear()
        newest_fact_ms.set(lambda: max((record.timestamp_ms for record in batch.records), default=0))
        async with connection.transaction():
            await move_positions(connection, self._consumer, batch)
            if broken := [record for record in batch.records if record.error]:
                self._guard.unreadable(batch.records)
            tx = Tx(connection, muted=self._database.muted)
            await self._handle(tx, *await self._take_in(connection, batch), careful)
            await self._bury(connection, broken)
            if self.serving:  # a rebuild is ahead of what serves, which others ask how far it is
                await put_watermarks(connection, batch)
            failpoint("before_consumer_commit")
            if tx.rows:
                await append_rows(connection, self._database.namespace, self._database.log, tx.rows)
        self._guard.settle()
        for labels, number in self._outcomes.items():
            PROCESSED.labels(*labels).inc(number)
        return tx

    def awaits(self, record: Decoded) -> bool:
        """Whether a handler wants it as soon as may be."""
        return type(record.event) in self._awaited and self._concerns(record)

    def _concerns(self, record: Decoded) -> bool:
        """Whether a handler wants it."""
        event = record.event
        if event is None or (kind := type(event)) not in self._handlers:
            return False
        return kind not in self._choosy or any(only(event) for only in self._choosy[kind])

    async def retry(self, key: str) -> bool:
        """Try the parked facts of a key again, in order. True when none is left."""
        while True:
            async with self._database.transaction() as tx:
                rows = await tx.connection.fetch(PARKED_OF_KEY, self._consumer, key, RETRIED_TOGETHER)
                if not rows and not await tx.connection.fetch(PARKED_KEYS, self._consumer, [key]):
                    return True  # else somebody else had tried those
                for _, run in groupby(rows, key=lambda row: (row["type"], row["folded"], row["slug"])):
                    if not await self._retry(tx, list(run)):
                        return False

    async def _retry(self, tx: Tx, rows: Sequence[asyncpg.Record]) -> bool:
        """Try facts of one kind again, where that fails half by half up to the one at fault. Whether all went well."""
        mark = tx.mark()
        try:
            async with tx.connection.transaction():
                kind = EVENT_OF[rows[0]["type"]]
                events = [decoder(kind)(row["value"]) for row in rows]
                for route in self._handlers[kind]:
                    if route.decides or not rows[0]["folded"]:
                        await route.handle(events, tx)
                await tx.make_up()
        except (Unavailable, *TRANSIENT):
            raise
        except Exception as exc:  # noqa: BLE001  # written down beside the fact
            tx.take_back(mark)
            if len(rows) > 1:
                half = len(rows) // 2
                return await self._retry(tx, rows[:half]) and await self._retry(tx, rows[half:])
            slug, error = _fault(exc)
            await tx.connection.execute(STILL_PARKED, rows[0]["id"], slug, error)
            return False
        await tx.connection.execute(UNPARK, [row["id"] for row in rows])
        return True

    async def read_letter(self, letter_id: int) -> bool:
        """Read a dead letter again, and carry it out if it is a fact by now. Whether it is none any more."""
        connection = await self._database.connect()
        try:
            row = await connection.fetchrow(LETTER, self._consumer, letter_id)
            if row is None:
                return True
            record = decode(row["topic"], Letter(dict(row)), self.kinds)
            if record.error:
                return False
            await self.process(connection, Batch([record]))
            await connection.execute(READ_LETTER, letter_id)
        finally:
            await connection.close()
        return True

    async def _take_in(self, connection: Connection, batch: Batch) -> tuple[list[Decoded], set[str]]:
        """The records that were never processed before, and which of their leads have parked facts."""
        first = self._concerning(batch)
        rows = [(first[event_id].event.received_at.date(), self._version, event_id) for event_id in sorted(first)]  # type: ignore[union-attr]  # all hold facts
        copied = len(rows) >= COPIED_FROM and await self._copied(connection, rows)
        columns = zip(*rows, strict=True) if rows and not copied else ((), (), ())
        keys = sorted({_key(record) for record in first.values()})
        idle = not first and not any(record.error for record in batch.records)  # if that is lost it is read again
        found = await one(connection, TAKE_IN, *columns, self._consumer, keys, idle)
        if self.serving and found["version"] != self._version:  # only the lock of the positions keeps out a swap
            raise Superseded(f"version {self._version} of the projection does not serve any more")
        fresh = first.keys() if copied else set(found["fresh"])
        ordered = [record for event_id, record in first.items() if event_id in fresh]
        self._outcomes.update((first[event_id].ce_type, "duplicate") for event_id in first.keys() - fresh)
        if len({record.topic for record in ordered}) > 1:
            ordered.sort(key=lambda record: self._order.get(record.topic, 0))
        return ordered, await self._parked(connection, keys) if found["parked"] else set()

    def _concerning(self, batch: Batch) -> dict[str, Decoded]:
        """The records that a handler wants, by event id."""
        first: dict[str, Decoded] = {}
        for record in batch.records:
            if self._concerns(record):
                first.setdefault(record.event.event_id, record)  # type: ignore[union-attr]  # it holds a fact
        return first

    async def _copied(self, connection: Connection, rows: Sequence[tuple[date, int, str]]) -> bool:
        """Whether the inbox took all rows by COPY, the fast way for many; not where one is there already."""
        try:
            async with connection.transaction():
                await connection.copy_records_to_table("inbox", records=rows, columns=("day", "version", "event_id"))
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def _handle(self, tx: Tx, fresh: Sequence[Decoded], parked: set[str], careful: bool) -> None:
        for _, run in groupby(fresh, key=lambda record: type(record.event)):
            parked |= await self._run(tx, await self._not_waiting(tx, list(run), parked), careful)
        if careful:
            return  # done after each run, to find the facts at fault
        set_trace(None)
        tx.trace_causes(lambda: _traces(fresh))
        try:
            await tx.make_up()
        except (Unavailable, *TRANSIENT):
            raise
        except Exception as exc:
            raise _HandlerFailed from exc

    async def _not_waiting(self, tx: Tx, run: list[Decoded], parked: set[str]) -> list[Decoded]:
        """Those of a run that are free to go; those that wait behind a parked fact of their lead join it."""
        if not parked or not type(run[0].event).waits_behind_parked:  # type: ignore[union-attr]  # fresh ones hold facts
            return run
        for record in run:
            if _key(record) in parked:
                await self._park(tx.connection, record, WAITING_SLUG, "waits behind a parked fact of its lead", 0)
        return [record for record in run if _key(record) not in parked]

    async def _run(self, tx: Tx, run: list[Decoded], careful: bool) -> set[str]:
        """Hand a run of one kind to its handlers; where that fails, half by half. Answers the keys parked."""
        if not run:
            return set()
        mark = tx.mark()
        try:
            if careful:
                async with tx.connection.transaction():
                    await self._call(tx, run)
                    await tx.make_up()
            else:
                await self._call(tx, run)
        except (Unavailable, *TRANSIENT):
            raise
        except Exception as exc:  # the one that is at fault is found, and parked with its trace
            if not careful:
                raise _HandlerFailed from exc
            tx.take_back(mark)
            if len(run) == 1:
                return {await self._refuse(tx.connection, run[0], exc)}
            half = len(run) // 2
            parked = await self._run(tx, run[:half], careful)
            return parked | await self._run(tx, await self._not_waiting(tx, run[half:], parked), careful)
        self._outcomes[run[0].ce_type, "applied"] += len(run)
        self._guard.applied((record.topic, record.partition) for record in run)
        return set()

    async def _call(self, tx: Tx, run: Sequence[Decoded]) -> None:
        kind = type(run[0].event)
        many = len(run) > 1
        with span(f"{run[0].ce_type} process", "consumer", (record.trace for record in run), batch=many) as here:
            tx.trace_causes((lambda: _traces(run)) if many else dict)
            set_trace(None if many else here or run[0].trace)
            events = [record.event for record in run]
            for route in self._handlers[kind]:  # type: ignore[index]  # fresh records hold facts
                tx.caused_by(None)
                await route.handle(events, tx)

    async def _refuse(self, connection: Connection, record: Decoded, exc: Exception) -> str:
        self._guard.refused((record.topic, record.partition))
        slug, error = _fault(exc)
        event_id = record.event and record.event.event_id
        log.error("fact_parked", event_id=event_id, type=record.ce_type, slug=slug, fault=describe(exc))
        await self._park(connection, record, slug, error, 1)
        PARKED.labels(slug).inc()
        return _key(record)

    async def _parked(self, connection: Connection, keys: Sequence[str]) -> set[str]:
        """Which of these keys have parked facts; waits for those that are being tried again.

        The first fact of each is held, so that nothing joins behind facts that are carried out meanwhile.
        """
        while True:
            held = {row["key"] for row in await connection.fetch(AWAIT_RETRIES, self._consumer, keys)}
            parked = {row["key"] for row in await connection.fetch(PARKED_KEYS, self._consumer, keys)}
            if parked <= held:
                return parked

    async def _park(self, connection: Connection, record: Decoded, slug: str, error: str, attempts: int) -> None:
        assert record.event is not None
        await connection.execute(
            PARK,
            self._consumer,
            _key(record),
            record.topic,
            record.partition,
            record.offset,
            record.event.event_id,
            record.ce_type,
            record.value,
            slug,
            error,
            attempts,
        )
        self._outcomes[record.ce_type, "parked"] += 1

    async def _bury(self, connection: Connection, broken: Iterable[Decoded]) -> None:
        for record in broken:
            headers = [[ascii(name)[1:-1], value and value[:1000].hex()] for name, value in record.headers[:100]]
            await connection.execute(
                BURY,
                self._consumer,
                record.topic,
                record.partition,
                record.offset,
                record.key,
                headers,
                record.value,
                record.error,
            )
            self._outcomes["unreadable", "dead"] += 1
            log.error("dead_letter", topic=record.topic, partition=record.partition, offset=record.offset)


def topics_of(routes: Iterable[Route]) -> list[str]:
    """The topics that a table of routes needs, in the table's order."""
    return list(dict.fromkeys(TOPIC_OF[route.event_type] for route in routes))


def _traces(run: Iterable[Decoded]) -> dict[str, str | None]:
    facts = [(record.event, record.trace) for record in run if record.event is not None]
    return {event.lead_id: trace for event, trace in facts} | {event.event_id: trace for event, trace in facts}


def _fault(exc: Exception) -> tuple[str, str]:
    if isinstance(exc, Rejected):
        return exc.slug, exc.detail.replace("\x00", "\\x00")
    return f"bug/{type(exc).__name__}", describe(exc)[:2_000]


def _key(record: Decoded) -> str:
    assert record.event is not None
    return record.event.key
