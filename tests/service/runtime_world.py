"""A service for the tests of the runtime: capture's schema, and routes that write down what they were given."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

from deploy.embedded import ports
from deploy.embedded.kafka import KafkaNode
from shared.db import Connection, Database, Tx
from shared.events import Event, TouchRecorded
from shared.ids import EventId, LeadId, TouchId, new_id
from shared.kafka import Route, on_batch
from shared.personal import Draft
from shared.service import Runtime, ServiceCode, build_runtime, free_port
from shared.settings import Settings
from shared.testing import Harness, eventually

SERVICE = "capture"
APPLIED = "CREATE TABLE {schema}.applied (id bigint GENERATED ALWAYS AS IDENTITY, event_id text, lead_id text, of text)"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
_numbers = count(1)

Handler = Callable[[Sequence[Any], Tx], Awaitable[None]]


def touch(lead: str = "ann", number: int | None = None, **fields: Any) -> TouchRecorded:
    """A touch of a lead; the same number makes the same fact."""
    chosen = next(_numbers) if number is None else number
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    event_id = EventId(fields.pop("event_id", f"touch-{lead}-{chosen}"))
    return TouchRecorded(
        event_id=event_id,
        lead_id=LeadId(lead),
        occurred_at=at,
        received_at=at,
        touch_id=TouchId(event_id),
        type=fields.pop("type", "page_view"),
        **fields,
    )


def drafts(*events: Event) -> list[Draft]:
    """Facts without personal parts, as they are submitted."""
    return [Draft(event) for event in events]


async def write_down(events: Sequence[Event], tx: Tx) -> None:
    """What a fold is here: a row a fact, however often it comes."""
    rows = [(event.event_id, event.lead_id, type(event).__name__) for event in events]
    await tx.connection.executemany("INSERT INTO applied (event_id, lead_id, of) VALUES ($1, $2, $3)", rows)


def code(*routes: Route, name: str = SERVICE) -> ServiceCode:
    """A service that reacts by these routes; by default it writes touches down."""
    chosen = routes or (on_batch(TouchRecorded, write_down),)
    return ServiceCode(name, lambda _runtime: (), lambda _runtime: chosen, lambda _runtime: ())


@asynccontextmanager
async def runtime_of(settings: Settings, **options: Any) -> AsyncIterator[Runtime]:
    """The parts of one role."""
    runtime = build_runtime(SERVICE, settings, **options)
    try:
        yield runtime
    finally:
        await runtime.database.close()


async def scratch(database: Database) -> None:
    """The table that `write_down` writes to."""
    await execute(database, APPLIED.format(schema=f"{database.service}_projection"))


async def execute(database: Database, statement: str, *arguments: Any) -> None:
    """Run a statement on its own."""
    async with database.reading() as connection:
        await connection.execute(statement, *arguments)


async def fetch(database: Database, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of a statement."""
    async with database.reading() as connection:
        return await connection.fetch(statement, *arguments)


async def value(database: Database, statement: str, *arguments: Any) -> Any:
    """The single value of a statement."""
    async with database.reading() as connection:
        return await connection.fetchval(statement, *arguments)


async def applied(database: Database) -> list[str]:
    """The ids of the facts written down, as often and in the order as they were."""
    return [row["event_id"] for row in await fetch(database, "SELECT event_id FROM applied ORDER BY id")]


async def logged(database: Database, log: int = 0) -> list[str]:
    """The ids in an event log, in order."""
    rows = await fetch(database, "SELECT event_id FROM event_log WHERE log = $1 ORDER BY position", log)
    return [row["event_id"] for row in rows]


@asynccontextmanager
async def log_lock(database: Database, log: int = 0) -> AsyncIterator[Connection]:
    """Hold an event log's lock, as a transaction does that stands still before its commit."""
    connection = await database.connect()
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", database.namespace, log)
            yield connection
    finally:
        await connection.close()


async def anybody_waits(database: Database) -> bool:
    """Whether any transaction waits for another."""
    return bool(await value(database, WAITING))


async def waiting_for_lock(database: Database) -> list[int]:
    """The backends that wait for an event log's lock."""
    rows = await fetch(
        database,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND classid::bigint::bit(32)::integer = $1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        database.namespace,
    )
    return [row["pid"] for row in rows]


def own_broker(settings: Settings, folder: Path, topic_prefix: str) -> tuple[KafkaNode, Settings]:
    """A broker of a test's own, to be started, and the settings that lead to it."""
    port = ports.free_port()
    node = KafkaNode(folder, port, ports.free_port([port]))
    own = {"kafka_bootstrap_servers": node.bootstrap_servers, "topic_prefix": topic_prefix}
    return node, settings.model_copy(update=own)


def lead_names(number: int) -> list[str]:
    """Names of leads that nobody else uses."""
    return [f"lead-{new_id()[:8]}-{index}" for index in range(number)]


@asynccontextmanager
async def beside(*duties: Awaitable[None]) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Run duties beside a block; one that ends with an error fails the test."""
    tasks = [asyncio.ensure_future(duty) for duty in duties]
    try:
        yield tasks
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def environment_of(settings: Settings, **changes: str) -> dict[str, str]:
    """The environment that makes a process have these settings."""
    given = settings.model_dump(mode="json", exclude_none=True)
    given |= {"secret": settings.secret.get_secret_value(), "database_url": settings.database_url.get_secret_value()}
    return {
        "PATH": os.environ["PATH"],
        **{
            f"THROUGHLINE_{name.upper()}": content if isinstance(content, str) else json.dumps(content)
            for name, content in {**given, **changes}.items()
        },
    }


async def killed_rebuild(service: Harness, settings: Settings, point: str, meanwhile: Awaitable[None]) -> None:
    """A rebuild in a process of its own that dies at a failpoint, while something else happens."""
    words = (sys.executable, "-m", "throughline", "rebuild", service.code.name)
    rebuilding = await asyncio.create_subprocess_exec(*words, env=environment_of(settings, failpoints=point))
    await meanwhile
    assert await rebuilding.wait() == -signal.SIGKILL


@asynccontextmanager
async def process(
    settings: Settings, *roles: str, module: str = "runtime_process", **changes: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own with some roles of the service; killed at the end."""
    environment = environment_of(settings, port=str(free_port()), management_port=str(free_port()), **changes)
    words = (sys.executable, "-m", f"tests.service.{module}", *roles)
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def all_read(service: Harness, facts: list[Event]) -> None:
    """Wait until these are carried out."""

    async def are_read() -> bool:
        async with service.runtime.database.reading() as connection:
            read = await connection.fetchval(
                "SELECT count(DISTINCT event_id) FROM inbox WHERE event_id = ANY($1)", [fact.event_id for fact in facts]
            )
        return bool(read == len(facts))

    await eventually(are_read, within=120)
