"""A lease: of all processes of a service, one does a thing at a time, and another takes over when it stops."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from shared.db import Database
from shared.errors import Unavailable
from shared.ids import new_id
from shared.telemetry import log

TAKE = """
INSERT INTO leases AS held (name, owner, expires_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, expires_at = excluded.expires_at,
    epoch = held.epoch + CASE WHEN held.owner = excluded.owner THEN 0 ELSE 1 END
WHERE held.owner = excluded.owner OR held.expires_at < clock_timestamp()
RETURNING epoch
"""
GIVE_BACK = "DELETE FROM leases WHERE name = $1 AND owner = $2"


class LeaseLost(Exception):
    """Another process holds the lease now."""


class Lease:
    """The right to do a thing, by name, held as long as it is renewed; times are the database's."""

    def __init__(self, database: Database, name: str, seconds: float) -> None:
        self.name = name
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{new_id()[:8]}"
        self.epoch = 0
        self._database = database
        self._seconds = seconds

    async def take(self) -> bool:
        """Take or renew it; False when another holds it."""
        async with self._database.reading() as connection:
            epoch = await connection.fetchval(TAKE, self.name, self.owner, self._seconds)
        if epoch is None:
            return False
        self.epoch = epoch
        return True

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait for the lease, renew it while the block runs, cancel the block when it is lost."""
        while True:
            with suppress(Unavailable):
                if await self.take():
                    break
            await asyncio.sleep(self._seconds / 6)
        block = asyncio.current_task()
        assert block is not None
        lost = False

        async def renew() -> None:
            nonlocal lost
            loop = asyncio.get_running_loop()
            good_until = loop.time() + self._seconds
            while True:
                await asyncio.sleep(self._seconds / 4)
                asked_at = loop.time()
                with suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout_at(good_until):
                        held = await self.take()
                    good_until = asked_at + self._seconds if held else 0.0
                if loop.time() > good_until:
                    lost = True
                    log.warning("lease_lost", lease=self.name)
                    block.cancel()
                    return

        renewing = asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if lost and block.uncancel() == 0:
                raise LeaseLost(self.name) from None
            raise
        finally:
            renewing.cancel()
            with suppress(Unavailable, asyncio.CancelledError):
                async with self._database.reading() as connection:
                    await connection.execute(GIVE_BACK, self.name, self.owner)


Run = Callable[[], Awaitable[None]]


async def while_held(lease: Lease, run: Run, stopping: asyncio.Event | None = None) -> None:
    """Run a duty whenever the lease can be had, until `stopping`; whoever loses it waits for it again."""
    while stopping is None or not stopping.is_set():
        try:
            async with lease.held():
                await run()
        except LeaseLost:
            continue
