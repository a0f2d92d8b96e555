"""A broadcast whose worker is killed in the middle of everything: nobody gets it twice, nobody is left out."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.events import SegmentEntered
from shared.service import free_port
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.nurture_world import HELLO, Facts, World, open_inbox
from tests.service.runtime_world import environment_of
from tests.service.test_nurture_segments import moved
from throughline.services import service_code

PEOPLE = 150
KILLED_AT = ("broadcast_before_commit:2", "after_intent_before_call:2", "after_call_before_outcome:20")
QUICK = {"lease_seconds": "2", "nurture_claim_for": "PT6S", "nurture_smtp_timeout": "PT3S"}


@asynccontextmanager
async def worker(settings: Settings, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker of nurture in a process of its own; killed at the end."""
    ports = {"port": str(free_port()), "management_port": str(free_port())}
    environment = environment_of(settings, failpoints=failpoints, **ports, **QUICK)
    words = (sys.executable, "-m", "throughline", "run", "nurture", "worker")
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.slow
async def test_a_worker_killed_three_times_sends_to_nobody_twice_and_leaves_nobody_out(settings: Settings) -> None:
    emails = [f"p{number}@example.com" for number in range(PEOPLE)]
    async with open_inbox() as inbox:
        sending = settings.model_copy(update={"smtp_url": inbox.url})
        async with harness(service_code("nurture"), sending) as nurture:
            world = World(nurture, inbox, Facts(nurture.runtime), [])
            await world.feeds_are_fresh()
            captured = [await world.facts.captured(email) for email in emails]
            entered = [moved(SegmentEntered, world.facts.lead_id(email), "eu", 1) for email in emails]
            await world.tell(*captured, *(world.facts.consent(email) for email in emails), *entered)
            path = await started(world)
            for failpoint in KILLED_AT:
                async with worker(sending, failpoint) as killed:
                    assert await asyncio.wait_for(killed.wait(), 90) == -signal.SIGKILL
            async with worker(sending):
                await eventually(lambda: is_done(world, path), within=200)
            await check(world, path, emails)


async def started(world: World) -> str:
    document = {"name": "News", "message": HELLO, "audience": {"segment": "eu"}}
    made = await world.nurture.client.post("/v1/broadcasts", json=document)
    path = f"/v1/broadcasts/{made.json()['broadcast_id']}"
    assert (await world.nurture.client.post(f"{path}:start")).status_code == 200
    return path


async def progress(world: World, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await world.nurture.client.get(path)).json()
    return answer


async def is_done(world: World, path: str) -> bool:
    return bool((await progress(world, path))["state"] == "done")


async def check(world: World, path: str, emails: list[str]) -> None:
    """By what the server accepted: each message once; and whoever is not among them is listed as unknown."""
    accepted = Counter(str(message["message-id"]) for _, message in world.inbox.accepted)
    assert set(accepted.values()) == {1}
    received = {to for to, _ in world.inbox.accepted}
    missing = set(emails) - received
    listed = {email for email in emails if await world.states(email) == ["unknown"]}
    assert missing < listed  # the one killed after the call was received, the one killed before it was not
    states = (await progress(world, path))["progress"]["messages"]
    assert states == {"sent": PEOPLE - len(listed), "unknown": len(listed)}
