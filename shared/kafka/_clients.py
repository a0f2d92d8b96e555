"""Clients of Kafka that are stopped whatever happens to whoever uses them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient

from shared.kafka._sessions import fetch_in_sessions
from shared.settings import Settings

STARTED_WITHIN_S = 1
ENDED_WITHIN_S = 1
LONGEST_FETCH_MS = 4_000
"""How long a broker keeps a fetch that it has nothing for: each costs it watchers of every partition."""


class Client(Protocol):
    """A consumer or a producer."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> Any:
        """Disconnect."""


def member_of(settings: Settings, group: str, gather_ms: int) -> AIOKafkaConsumer:
    """A client that is to join a group, not started. While records flow its broker gathers them for so long."""
    client = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        client_id=f"throughline-{group}",
        group_id=settings.topic_prefix + group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_uncommitted",
        session_timeout_ms=int(settings.consumer_session_timeout.total_seconds() * 1000),
        heartbeat_interval_ms=int(settings.consumer_session_timeout.total_seconds() * 250),
        rebalance_timeout_ms=30_000,
        max_poll_interval_ms=600_000,
        max_partition_fetch_bytes=1_048_576,
        fetch_max_bytes=16_777_216,
        fetch_max_wait_ms=LONGEST_FETCH_MS,
        request_timeout_ms=30_000,
        metadata_max_age_ms=10_000,
    )
    # The client names all partitions in every fetch.
    fetch_in_sessions(client._client, gather_ms)  # noqa: SLF001
    return client


@asynccontextmanager
async def started(client: Client, within_s: float, stopped_within_s: float) -> AsyncIterator[None]:
    """The client, started, for the length of a block. Raises KafkaError or TimeoutError when the broker is away.

    A start that is broken off leaves connections open that nobody knows of, so it is let end before the client is
    stopped.
    """
    starting = asyncio.create_task(client.start())
    try:
        async with asyncio.timeout(within_s):
            await asyncio.shield(starting)
        yield
    finally:
        stopping = asyncio.create_task(_stop(client, starting))
        if not (await asyncio.wait([stopping], timeout=stopped_within_s))[0]:
            stopping.cancel()
            await _abandon(client)


async def _stop(client: Client, starting: asyncio.Task[None]) -> None:
    await asyncio.wait([starting], timeout=STARTED_WITHIN_S)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)  # whoever waited for it has been told
    await client.stop()


async def _abandon(client: Client) -> None:
    """End what goes on behind a client whose stop was broken off.

    A stop waits for the broker. Broken off, it leaves connections, a producer that tries its records again and a
    consumer that heartbeats for nobody, all for as long as the process lives.
    """
    parts = list(vars(client).values())
    left = [task for task in asyncio.all_tasks() if any(_works_for(task) is part for part in parts)]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=ENDED_WITHIN_S)
    for part in parts:
        if isinstance(part, AIOKafkaClient):
            await part.close()


def _works_for(task: asyncio.Task[Any]) -> object:
    """The object whose method a task carries out, one that is there."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self", task) if frame is not None else task
