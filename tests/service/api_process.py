"""A service's API in a process of its own, on real PostgreSQL and without Kafka."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from shared.service import free_port
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import environment_of


@asynccontextmanager
async def serving(service: str, settings: Settings) -> AsyncIterator[int]:
    """Its port, once it is ready; killed at the end."""
    port, management_port = free_port(), free_port()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "throughline", "run", service, "api"),
        env=environment_of(settings, port=str(port), management_port=str(management_port)),
        stdout=asyncio.subprocess.DEVNULL,
    )

    async def is_ready() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{management_port}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    try:
        await eventually(is_ready)
        yield port
    finally:
        running.kill()
        await running.wait()
