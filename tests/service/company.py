"""All five services on one database, and what they tell one another carried between them at once, without Kafka.

`settle` carries every fact to every service that reads its topic, in the order of the logs, until nobody has anything
new to say; each service carries it out as its consumer does.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock
from shared.events import EVENT_OF, Event, PersonKeyCreated
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.capture_world import Capture
from throughline.contracts.services import reacts_to
from throughline.services import SERVICES, service_code

LOG = """
SELECT event_id, type, key, value, log, position FROM event_log WHERE (log, position) > ($1, $2) ORDER BY log, position
"""


@dataclass
class Company:
    """The services by name."""

    services: dict[str, Harness]
    _carried: set[tuple[str, int, int]] = field(default_factory=set)

    @property
    def capture(self) -> Capture:
        """Capture as its callers see it."""
        return Capture(self.services["capture"])

    async def settle(self) -> int:
        """Carry what was told; answers how many facts that were."""
        carried = 0
        while fresh := [fact for name in self.services for fact in await self._told(name)]:
            await self.carry(fresh)
            carried += len(fresh)
        return carried

    async def _told(self, name: str) -> list[tuple[Event | None, LeadId | None]]:
        async with self.services[name].runtime.database.reading() as connection:
            rows = await connection.fetch(LOG, -1, 0)
        fresh: list[tuple[Event | None, LeadId | None]] = []
        for row in rows:
            place = (name, row["log"], row["position"])
            if place in self._carried:
                continue
            self._carried.add(place)
            if row["value"] is None:
                fresh.append((None, LeadId(row["key"])))
            else:
                event = EVENT_OF[row["type"]].decode(row["value"])
                fresh.append((event.model_copy(update={"position": row["position"]}), None))
        return fresh

    async def carry(self, facts: list[tuple[Event | None, LeadId | None]]) -> None:
        """Carry facts, and tombstones of keys, to everybody who reads them."""
        for name in self.services:
            await self._carry(facts, name)

    async def _carry(self, facts: list[tuple[Event | None, LeadId | None]], name: str) -> None:
        """Keys first, as their own feed is ahead; then everything else as one batch."""
        service, kinds = self.services[name], reacts_to(name)
        keys = [fact for fact in facts if fact[0] is None or isinstance(fact[0], PersonKeyCreated)]
        if PersonKeyCreated in kinds:
            for event, tombstone in keys:
                await self._fold_key(service, event, tombstone)
        batch = [event for event, _ in facts if event is not None and type(event) in kinds - {PersonKeyCreated}]
        if batch:
            await service.deliver(*batch)

    async def _fold_key(self, service: Harness, event: Event | None, tombstone: LeadId | None) -> None:
        assert event is None or isinstance(event, PersonKeyCreated)
        lead_id = event.lead_id if event is not None else tombstone
        assert lead_id is not None
        async with service.consumer_runtime.database.transaction() as tx:
            await service.consumer_runtime.keys.fold_keys(tx.connection, [(lead_id, event)])

    async def everything(self) -> dict[str, list[str]]:
        """Every row of every table of every service, as text."""
        found: dict[str, list[str]] = {}
        statement = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        async with self.services["capture"].runtime.database.reading() as connection:
            for table in await connection.fetch(statement):
                schema, name = table["table_schema"], table["table_name"]
                if schema.removesuffix("_projection") not in SERVICES:
                    continue
                rows: list[Any] = await connection.fetch(f'SELECT * FROM "{schema}"."{name}"')
                found[f"{schema}.{name}"] = [str([_readable(value) for value in row.values()]) for row in rows]
        return found


def _readable(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@asynccontextmanager
async def company(settings: Settings, *, clock: Clock | None = None, kafka: bool = False) -> AsyncIterator[Company]:
    """All services for the length of a block."""
    async with AsyncExitStack() as stack:
        yield Company(
            {
                name: await stack.enter_async_context(harness(service_code(name), settings, clock=clock, kafka=kafka))
                for name in SERVICES
            }
        )
