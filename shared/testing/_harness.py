"""One service in this process: its API without a socket, its handlers through the real batch transaction.

`deliver` hands facts to the service as a consumer's batch would, without Kafka; `harness(..., kafka=True)` runs the
real consumers, relay and timers as well.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import asyncpg
import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.clock import Clock
from shared.db import API_LOG, Database
from shared.events import EVENT_OF, TOPIC_OF, Event, with_position
from shared.kafka._batch import Batch, Processor  # noqa: TID251  # the harness stands in for the consumer
from shared.kafka._records import Decoded  # noqa: TID251  # the same
from shared.outbox import Relay
from shared.secrets import Secrets
from shared.service import (
    Consuming,
    Runtime,
    ServiceCode,
    build_runtime,
    make_processor,
    projection_version,
    run_timer,
)
from shared.settings import Settings
from shared.web import SCOPES, create_app, create_token, edged

E = TypeVar("E", bound=Event)


def make_settings(database_url: str, kafka: str = "127.0.0.1:1", prefix: str = "test.", **overrides: Any) -> Settings:
    """Settings for a test: short leases, few partitions, a fixed secret."""
    values: dict[str, Any] = {
        "database_url": database_url,
        "kafka_bootstrap_servers": kafka,
        "topic_prefix": prefix,
        "topic_partitions": 2,
        "secret": "5e" * 32,
        "lease_seconds": 2.0,
        "watermark_every": timedelta(milliseconds=300),
        "database_pool_size": 5,
        "idle_in_transaction_timeout": timedelta(minutes=1),  # a machine that is busy is not a process that is frozen
    }
    return Settings(**{**values, **overrides})


def token(settings: Settings, *scopes: str) -> str:
    """A bearer token; without scopes, for all of them."""
    secrets = Secrets(settings.secret.get_secret_value())
    return create_token(secrets, list(scopes or SCOPES), timedelta(hours=1), datetime.now(UTC))


@dataclass(frozen=True)
class Harness:
    """A service under test."""

    code: ServiceCode
    settings: Settings
    runtime: Runtime
    consumer_runtime: Runtime
    client: httpx.AsyncClient
    _offsets: "count[int]"
    _writers: "list[asyncpg.Connection[asyncpg.Record]]"

    async def deliver(self, *events: Event) -> None:
        """Carry out facts as one batch of the consumer does: inbox, handlers, parking, derived facts, one commit."""
        processor = await self._processor()
        batch = Batch([self._decoded(event) for event in events])
        self._writers[:] = [writer for writer in self._writers if not writer.is_closed()]
        writer = self._writers.pop() if self._writers else await self.consumer_runtime.database.connect(plan_once=True)
        try:
            await processor.process(writer, batch)
        except BaseException:
            writer.terminate()
            raise
        self._writers.append(writer)

    async def discard_parked(self, event: Event) -> bool:
        """Give up a parked fact and carry out what waited behind it, as `throughline parked discard` does."""
        async with self.consumer_runtime.database.reading() as connection:
            await connection.execute("DELETE FROM parked_events WHERE event_id = $1", event.event_id)
        return await (await self._processor()).retry(event.key)

    async def _processor(self) -> Processor:
        async with self.consumer_runtime.database.reading() as connection:
            version = await projection_version(connection)
        return make_processor(self.code, self.consumer_runtime, version)

    async def told(self, kind: type[E]) -> list[E]:
        """The facts of a kind in this service's event log, in order."""
        statement = "SELECT value, position FROM event_log WHERE type = $1 AND value IS NOT NULL ORDER BY log, position"
        async with self.runtime.database.reading() as connection:
            rows = await connection.fetch(statement, kind.ce_type)
        return [EVENT_OF[kind.ce_type].decode(row["value"]) for row in rows]  # type: ignore[misc]  # of that kind

    async def parked(self) -> list[dict[str, Any]]:
        """What is parked, in order."""
        async with self.runtime.database.reading() as connection:
            return [dict(row) for row in await connection.fetch("SELECT * FROM parked_events ORDER BY id")]

    async def run_timers(self) -> None:
        """Run each of the service's timers once."""
        for timer in self.code.timers(self.consumer_runtime):
            await timer.run()

    def _decoded(self, event: Event) -> Decoded:
        value = with_position(event.encode(), event.position)
        offset = next(self._offsets)
        return Decoded(TOPIC_OF[type(event)], 0, offset, event.key.encode(), value, event.ce_type, (), event)


@asynccontextmanager
async def harness(
    code: ServiceCode, settings: Settings, *, clock: Clock | None = None, kafka: bool = False
) -> AsyncIterator[Harness]:
    """A service for the length of a block; its schema must be migrated, and with `kafka` the topics made."""
    async with AsyncExitStack() as stack:
        runtime = build_runtime(code.name, settings, log=API_LOG, clock=clock)
        consumer_runtime = build_runtime(code.name, settings, clock=clock)
        for each in (runtime, consumer_runtime):
            stack.push_async_callback(_close, each.database)
        app = _AppWhenAsked(
            lambda: edged(create_app(code.name, settings, runtime.secrets, code.routers(runtime)), settings)
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app),
                base_url=f"http://throughline.test/{code.name}",
                headers={"authorization": f"Bearer {token(settings)}"},
                timeout=30,
            )
        )
        duties = [asyncio.create_task(runtime.log.run(), name="event-log")]
        consuming = Consuming(code, consumer_runtime)
        writers: list[asyncpg.Connection[asyncpg.Record]] = []
        if kafka:
            relay = Relay(settings, consumer_runtime.database, consumer_runtime.clock, code.name)
            duties += [asyncio.create_task(relay.run()), asyncio.create_task(consuming.run())]
            if consuming.keys_consumer is not None:
                duties.append(asyncio.create_task(consuming.keys_consumer.run()))
            duties += [
                asyncio.create_task(run_timer(timer, asyncio.Event())) for timer in code.timers(consumer_runtime)
            ]
        try:
            yield Harness(code, settings, runtime, consumer_runtime, client, count(), writers)
        finally:
            for writer in writers:
                writer.terminate()
            await consuming.stop()
            await runtime.log.stop()
            for task in duties[1:]:
                task.cancel()
            await asyncio.wait(duties, timeout=10)
            for task in duties:
                task.cancel()


class _AppWhenAsked:
    """The service's HTTP face, made at the first request: half of what a test without one would cost."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)


async def _close(database: Database) -> None:
    await database.close()
