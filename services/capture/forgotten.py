"""Which persons are erased, known without asking: so that a touch of somebody who came back gets the next id."""

import asyncio
from datetime import UTC, datetime, timedelta

from services.capture.leads.identifying import Make
from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.ids import LeadId
from shared.service import Runtime
from shared.telemetry import log

SINCE = "SELECT lead_id, destroyed_at FROM person_keys WHERE destroyed_at >= $1"
EVERY_S = 2.0
MARGIN = timedelta(minutes=10)  # a transaction commits later than the time it wrote
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class Forgotten:
    """The ids whose keys are destroyed; read again every two seconds, for what other processes erased.

    In between, a touch may still be kept under an erased id. Nobody can read what is personal in it: the key is gone.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ids: set[LeadId] = set()
        self._read_up_to: datetime | None = None
        self._due = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Have read them at least once; looks again in the background when that is long ago."""
        if self._read_up_to is None:
            await self.look_again()
            return
        now = asyncio.get_running_loop().time()
        if now >= self._due:
            self._due = now + EVERY_S
            self._looking = asyncio.create_task(self._look_in_background())

    def __contains__(self, lead_id: LeadId) -> bool:
        return lead_id in self._ids

    def living(self, make: Make) -> LeadId:
        """The id of an identifier, of the generation that is alive."""
        generation = 0
        lead_id = make(generation)
        while lead_id in self._ids:
            generation += 1
            lead_id = make(generation)
        return lead_id

    async def look_again(self) -> None:
        """Read what was erased since the last time. Raises Unavailable."""
        since = self._read_up_to - MARGIN if self._read_up_to else BEGINNING
        async with self._runtime.database.reading() as connection:
            rows = await connection.fetch(SINCE, since)
        gone = {LeadId(row["lead_id"]) for row in rows} - self._ids
        self._ids |= gone
        self._runtime.keys.forget(gone)
        self._read_up_to = max([row["destroyed_at"] for row in rows], default=self._read_up_to or BEGINNING + MARGIN)
        self._due = asyncio.get_running_loop().time() + EVERY_S

    async def _look_in_background(self) -> None:
        try:
            await self.look_again()
        except (Unavailable, *TRANSIENT) as exc:
            log.warning("erasures_not_read", error=type(exc).__name__)
