"""Deliveries that only hold ids: the provider is asked, as often as it takes, and the delivery waits for the answer."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
import uvicorn

from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.samples.signed import sample
from tests.service.capture_world import Capture
from throughline.services import service_code

KNOWN = sample("facebook")
CREDENTIAL = "page-token-1234567890"


@dataclass
class Provider:
    """A provider's API on a port of its own: answers what it is told to, and keeps what it was asked."""

    answers: list[tuple[int, Any]]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def app(
        self, scope: dict[str, Any], _receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        """An ASGI application."""
        path = f"{scope['path']}?{scope['query_string'].decode()}" if scope["query_string"] else scope["path"]
        self.asked.append((path, dict(scope["headers"]).get(b"authorization", b"").decode() or None))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"3")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(provider.app, log_level="critical", lifespan="off", interface="asgi3"))
        task = asyncio.create_task(server.serve([listening]))
        await eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            with suppress(TimeoutError):
                await asyncio.wait_for(task, 5)


@asynccontextmanager
async def capture_of(settings: Settings, provider: Provider) -> AsyncIterator[tuple[Capture, FrozenClock]]:
    clock = FrozenClock(KNOWN.now)
    async with serving(provider) as address:
        asking = settings.model_copy(update={"providers": {"facebook": address}})
        async with harness(service_code("capture"), asking, clock=clock) as made:
            yield Capture(made), clock


async def delivered(capture: Capture, credential: str | None) -> str:
    """A lead that came by its id alone; answers the path of the source's deliveries."""
    source = await capture.source("facebook", secret=KNOWN.secret)
    if credential is not None:
        await given(capture, source["source_id"], credential)
    assert (await capture.send(source, KNOWN.request)).status_code == 200
    await capture.map_deliveries()
    return f"sources/{source['source_id']}/deliveries"


async def given(capture: Capture, source_id: str, credential: str) -> None:
    answer = await capture.harness.client.put(f"/v1/sources/{source_id}/credential", json={"credential": credential})
    assert answer.status_code == 204


async def delivery(capture: Capture, path: str) -> dict[str, Any]:
    (item,) = (await capture.get(path)).json()["items"]
    return dict(item)


async def test_the_provider_is_asked_until_it_answers_and_the_delivery_waits(settings: Settings) -> None:
    person = KNOWN.told["fetch"]["response"]
    provider = Provider([(503, {}), (200, person)])
    async with capture_of(settings, provider) as (capture, clock):
        path = await delivered(capture, CREDENTIAL)
        assert (await delivery(capture, path))["state"] == "pending"
        await capture.harness.run_timers()
        waiting = await delivery(capture, path)
        assert (waiting["state"], "503" in waiting["reason"]) == ("pending", True)
        await capture.harness.run_timers()
        assert len(provider.asked) == 1  # it asked for three seconds of peace
        clock.move(timedelta(seconds=4))
        await capture.harness.run_timers()
        done = await delivery(capture, path)
        assert (done["state"], done["facts"]) == ("mapped", 1)
        (lead,) = (await capture.get("leads", email=KNOWN.expected["email"])).json()["items"]
        assert lead["lead_id"] == done["lead_id"]
        assert provider.asked[0] == (KNOWN.told["fetch"]["request"].removeprefix("GET "), f"Bearer {CREDENTIAL}")


async def test_without_a_credential_it_is_kept_and_mapped_once_there_is_one(settings: Settings) -> None:
    provider = Provider([(200, KNOWN.told["fetch"]["response"])])
    async with capture_of(settings, provider) as (capture, _):
        path = await delivered(capture, None)
        await capture.harness.run_timers()
        kept = await delivery(capture, path)
        assert (kept["state"], "credential" in kept["reason"]) == ("quarantined", True)
        await given(capture, path.split("/")[1], CREDENTIAL)
        await capture.post(f"{path}:retry", None)
        await capture.harness.run_timers()
        assert (await delivery(capture, path))["state"] == "mapped"
        shown = (await capture.get(f"sources/{path.split('/')[1]}")).json()
        assert shown["has_credential"] is True
        assert CREDENTIAL not in str(shown)


@pytest.mark.parametrize(("status", "word"), [(404, "gone"), (410, "gone"), (401, "credential"), (403, "credential")])
async def test_a_record_that_is_gone_or_a_credential_that_is_refused_is_not_asked_for_again(
    settings: Settings, status: int, word: str
) -> None:
    provider = Provider([(status, {})])
    async with capture_of(settings, provider) as (capture, clock):
        path = await delivered(capture, CREDENTIAL)
        await capture.harness.run_timers()
        kept = await delivery(capture, path)
        assert (kept["state"], word in kept["reason"]) == ("quarantined", True), kept["reason"]
        clock.move(timedelta(hours=2))
        await capture.harness.run_timers()
        assert len(provider.asked) == 1


async def test_after_a_day_without_an_answer_it_is_a_persons_turn(settings: Settings) -> None:
    provider = Provider([(500, {})])
    async with capture_of(settings, provider) as (capture, clock):
        path = await delivered(capture, CREDENTIAL)
        for _ in range(4):
            await capture.harness.run_timers()
            clock.move(timedelta(hours=9))
        kept = await delivery(capture, path)
        assert (kept["state"], "for a day" in kept["reason"]) == ("quarantined", True)
