"""Capture as its callers and its sources see it: what the tests of capture tell stories with."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson

from services.capture.adapters.request import HookRequest
from shared.events import DeliveryReceived
from shared.testing import Harness

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**spans: float) -> str:
    """A time before now, as JSON has it."""
    return (NOW - timedelta(**spans)).isoformat()


@dataclass
class Capture:
    """The service, and what was delivered to its consumer already."""

    harness: Harness
    _delivered: set[str] = field(default_factory=set)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """POST JSON; `idempotency_key=` becomes the header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.harness.client.post(f"/v1/{path}", json=body, headers=named)

    async def get(self, path: str, **params: str) -> httpx.Response:
        """GET with a query."""
        return await self.harness.client.get(f"/v1/{path}", params=params)

    async def lead(self, **fields: Any) -> dict[str, Any]:
        """POST a lead that must be taken; answers the profile."""
        response = await self.post("leads", fields)
        assert response.status_code in (200, 201), response.text
        return dict(response.json())

    async def source(self, kind: str = "generic", **fields: Any) -> dict[str, Any]:
        """Make a source."""
        response = await self.post("sources", {"kind": kind, "name": f"Our {kind}", **fields})
        assert response.status_code == 201, response.text
        return dict(response.json())

    async def hook(self, source: dict[str, Any], body: Any, **options: Any) -> httpx.Response:
        """A delivery, with the source's secret as a bearer token unless headers are given."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = options.pop("headers", {"authorization": f"Bearer {source['secret']}"})
        headers = {"content-type": "application/json", **headers}
        return await self.harness.client.post(
            f"/hooks/{source['source_id']}", content=content, headers=headers, **options
        )

    async def send(self, source: dict[str, Any], request: HookRequest) -> httpx.Response:
        """A delivery as its sender signed it."""
        query = request.url.partition("?")[2]
        path = f"/hooks/{source['source_id']}" + (f"?{query}" if query else "")
        return await self.harness.client.request(
            request.method, path, content=request.raw_body, headers=list(request.headers.pairs)
        )

    async def map_deliveries(self) -> None:
        """Let the consumer map what has come in since the last time."""
        fresh = [event for event in await self.harness.told(DeliveryReceived) if event.event_id not in self._delivered]
        self._delivered |= {event.event_id for event in fresh}
        await self.harness.deliver(*fresh)

    async def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Rows of the database."""
        async with self.harness.runtime.database.reading() as connection:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
