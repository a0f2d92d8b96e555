"""Clients of Kafka that are stopped whatever happens to whoever uses them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

STARTED_WITHIN_S = 1


class Client(Protocol):
    """A consumer or a producer."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> Any:
        """Disconnect."""


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
        await asyncio.wait([stopping], timeout=stopped_within_s)
        stopping.cancel()


async def _stop(client: Client, starting: asyncio.Task[None]) -> None:
    await asyncio.wait([starting], timeout=STARTED_WITHIN_S)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)  # whoever waited for it has been told
    await client.stop()
