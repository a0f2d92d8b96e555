"""Capture whose leads are enriched by a provider on this machine: what the tests of enrichment tell stories with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.capture_world import NOW, Capture
from tests.service.local_server import LocalServer, reply, serving
from throughline.services import service_code

ANN = "ann@acme.com"
ACME = {"company": {"industry": "Robots", "size": 120, "country": "Germany"}, "score": 0.9}


class World(Capture):
    """Capture whose clock a test moves, and the server of a provider."""

    server: LocalServer
    address: str
    clock: FrozenClock

    async def provider(self, provider_id: str = "acme", **changes: Any) -> dict[str, Any]:
        """Save a provider that finds the industry by the domain."""
        document = {
            "title": "Acme data",
            "request": {"url": f"{self.address}/{provider_id}/{{domain}}"},
            "map": {"industry": "response.company.industry"},
            **changes,
        }
        answer = await self.put(f"enrichment/providers/{provider_id}", document)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def put(self, path: str, body: Any) -> Any:
        return await self.harness.client.put(f"/v1/{path}", json=body)

    async def enriched(self, lead_id: str) -> dict[str, Any]:
        """What is said about a lead."""
        answer = await self.get(f"leads/{lead_id}/enrichment")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def run_of(self, lead_id: str, provider_id: str = "acme") -> dict[str, Any]:
        """How it went with a provider."""
        runs = (await self.enriched(lead_id))["runs"]
        return next(dict(run) for run in runs if run["provider_id"] == provider_id)

    async def turn(self, **later: float) -> None:
        """Some time later, the worker's turn."""
        self.clock.move(timedelta(**later))
        await self.harness.run_timers()


@asynccontextmanager
async def world_of(settings: Settings, *answers: bytes, **options: Any) -> AsyncIterator[World]:
    server = LocalServer(list(answers) or [reply(200, ACME)])
    clock = FrozenClock(NOW)
    allowing = settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"}), **options})
    async with serving(server) as address, harness(service_code("capture"), allowing, clock=clock) as made:
        world = World(made)
        world.server, world.address, world.clock = server, address, clock
        yield world
