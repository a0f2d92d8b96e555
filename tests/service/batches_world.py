"""A consumer of one partition that is fed by hand, batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from shared.db import Database, Tx
from shared.errors import Rejected
from shared.events import ConsentChanged, Event, TouchRecorded, with_position
from shared.ids import EventId, LeadId
from shared.kafka import Guard, Processor, Route, on_batch
from shared.kafka._batch import Batch, Span  # noqa: TID251  # a batch is made by hand here
from shared.kafka._records import decode  # noqa: TID251
from shared.service import Runtime
from shared.settings import Settings
from tests.service.runtime_world import (
    execute,
    fetch,
    runtime_of,
    scratch,
    touch,
    value,
    write_down,
)

CONSUMER = "capture.v1"
AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


CONSENT = ConsentChanged(
    event_id=EventId("consent-1"),
    lead_id=LeadId("bad"),
    occurred_at=AT,
    received_at=AT,
    channel="email",
    state="denied",
)


class NotThisOne(Rejected):
    """A fact that its handler refuses."""

    slug = "test/not-this-one"


def record(event: Event, offset: int, partition: int = 0, trace: str | None = None) -> Any:
    """A record as Kafka's client gives it."""
    headers: list[tuple[str, bytes | None]] = [
        ("ce_id", event.event_id.encode()),
        ("ce_type", event.ce_type.encode()),
    ]
    if trace:
        headers.append(("traceparent", trace.encode()))
    content = with_position(event.encode(), offset)
    return raw(offset, event.key.encode(), content, headers, partition)


def raw(offset: int, key: bytes | None, content: bytes | None, headers: Any = (), partition: int = 0) -> Any:
    return SimpleNamespace(
        partition=partition, offset=offset, key=key, value=content, headers=tuple(headers), timestamp=offset + 1
    )


@dataclass
class World:
    """A consumer of one partition, fed by hand."""

    runtime: Runtime
    guard: Guard
    next_offset: int = 0

    @property
    def database(self) -> Database:
        return self.runtime.database

    def processor(self, *routes: Route, version: int = 1, serving: bool = True) -> Processor:
        chosen = routes or (on_batch(TouchRecorded, write_down),)
        order = ["leads", "touches"]
        return Processor(
            self.database, CONSUMER, chosen, version=version, topic_order=order, guard=self.guard, serving=serving
        )

    def batch(self, *records: Any, topic: str = "touches", expected: int | None = None) -> Batch:
        start = self.next_offset if expected is None else expected
        end = records[-1].offset + 1 if records else start
        read = [decode(topic, each) for each in records]
        return Batch(read, {(topic, 0): Span(start, end, "last", 0)})

    def records(self, *events: Event) -> list[Any]:
        return [record(event, self.next_offset + number) for number, event in enumerate(events)]

    async def process(self, processor: Processor, batch: Batch) -> None:
        connection = await self.database.connect()
        try:
            await processor.process(connection, batch)
        finally:
            await connection.close()
        for span in batch.spans.values():
            self.next_offset = span.next_offset

    async def take(self, processor: Processor, *events: Event) -> None:
        """Carry out facts as the next batch."""
        await self.process(processor, self.batch(*self.records(*events)))

    async def position(self) -> int:
        return int(await value(self.database, "SELECT next_offset FROM consumer_positions"))

    async def parked(self) -> list[tuple[str, str]]:
        rows = await fetch(self.database, "SELECT event_id, slug FROM parked_events ORDER BY id")
        return [(row["event_id"], row["slug"]) for row in rows]


@asynccontextmanager
async def made_world(settings: Settings) -> AsyncIterator[World]:
    """A world with a consumer at the beginning of its partition."""
    async with runtime_of(settings) as runtime:
        await scratch(runtime.database)
        await execute(
            runtime.database,
            "INSERT INTO consumer_positions (consumer, topic, partition, next_offset) VALUES ($1, 'touches', 0, 0)",
            CONSUMER,
        )
        yield World(runtime, Guard(0.01, 50))


def refusing(poison: Collection[str] = ()) -> Callable[[Sequence[TouchRecorded], Tx], Awaitable[None]]:
    """A handler that does its work, tells a fact, and then refuses some."""

    async def handle(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await write_down(events, tx)
        tx.emit(*(touch("derived", event_id=f"from-{event.event_id}") for event in events))
        if any(event.event_id in poison for event in events):
            raise NotThisOne("no")

    return handle


async def done_or_waited_for(task: asyncio.Task[bool], database: Database) -> bool:
    return task.done() or bool(await someone_waits(database))


async def someone_waits(database: Database) -> bool:
    statement = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    return bool(await value(database, statement))
