"""F22: capture on a machine whose clock is two days off takes what others take, and dates it as they do."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import libfaketime
import pytest
import pytest_asyncio

from deploy.embedded.ports import free_port
from services.routing.subscriptions.domain import Subscription
from shared.events import Event, LeadCaptured, TouchRecorded
from shared.settings import Settings
from shared.testing import eventually, harness, token
from throughline.services import service_code

LIBRARY = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
EMAIL = "ann@example.com"


def start(settings: Settings, port: int, clock: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Capture's API on a machine whose clock is off (libfaketime's words)."""
    environment = {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": settings.database_url.get_secret_value(),
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
        "THROUGHLINE_PORT": str(port),
        "THROUGHLINE_MANAGEMENT_PORT": str(free_port()),
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME": clock,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with (folder / "capture.log").open("wb") as log:
        command = [sys.executable, "-m", "throughline", "run", "capture", "api"]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@pytest_asyncio.fixture(params=["+2d", "-2d"])
async def client(
    settings: Settings, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    port = free_port()
    process = start(settings, port, request.param, tmp_path)
    try:
        headers = {"authorization": f"Bearer {token(settings)}"}
        base_url = f"http://127.0.0.1:{port}/capture/v1"
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30) as made:
            await eventually(lambda: answers(made))
            yield made
    finally:
        process.kill()
        process.wait()


async def answers(client: httpx.AsyncClient) -> bool:
    try:
        await client.get("/leads")
    except httpx.TransportError:
        return False
    return True


async def test_f22_what_happens_now_is_taken_and_reaches_who_subscribed_a_moment_ago(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    since = datetime.now(UTC)
    lead = await client.post("/leads", json={"email": EMAIL, "occurred_at": since.isoformat()})
    assert lead.status_code == 201
    for at in (since, None):
        touch = {"email": EMAIL, "type": "page_view", **({"occurred_at": at.isoformat()} if at else {})}
        assert (await client.post("/touches", json=touch)).status_code == 202
    early = {"email": EMAIL, "type": "page_view", "occurred_at": (since + timedelta(days=1, hours=1)).isoformat()}
    assert (await client.post("/touches", json=early)).status_code == 422
    async with harness(service_code("capture"), settings) as capture:
        told: list[Event] = [*await capture.told(LeadCaptured), *await capture.told(TouchRecorded)]
    new = Subscription("new", "end", frozenset(each.ce_type for each in told), None, opens=False, since=since, run=1)
    assert [new.wants(fact) for fact in told] == [True] * 3
    assert all(abs(fact.received_at - since) < timedelta(hours=1) for fact in told)
    assert all(abs(fact.occurred_at - since) < timedelta(hours=1) for fact in told)
