"""`make faults`: F4 and F34. A sender killed at every failpoint, at its first, second and seventh time, before every
kind of server: no person ever gets a step twice, and what nobody knows of is listed, exactly.

Not in the default run, as it takes a process for each of its many cases; `tests/service/test_nurture_ledger.py` has a
slice of it.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from subprocess import PIPE, Popen
from typing import Any, Protocol

import orjson
import pytest

from services.nurture.channels.email import EmailChannel
from services.nurture.channels.provider import Providers
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import SEQUENCE, Facts, World, make_sender, open_inbox
from tests.service.provider_world import KEY, Mode, ProviderServer, open_provider
from tests.service.test_nurture_ledger import report
from tests.service.test_nurture_providers import provider_at
from tests.service.test_nurture_sending import process_environment
from throughline.services import service_code

PEOPLE = 18
POINTS = ("after_intent_before_call", "after_call_before_outcome", "after_outcome")
TIMES = (1, 2, 7)
MODES = ("ok", "slow", "resets", "5xx")
HANDS = {"THROUGHLINE_NURTURE_SEND_AT_ONCE": "2", "THROUGHLINE_NURTURE_SMTP_TIMEOUT": "PT1S"}
MINUTE = timedelta(minutes=1)
_ROUND = count(1)
COPIES = """
import asyncio, contextlib, json, os, sys
from services.nurture.worker import timers
from shared.errors import Unavailable
from shared.faults import arm
from shared.service import build_runtime
from shared.settings import Settings

async def work():
    sequences = timers(build_runtime("nurture", Settings()))[0]
    while True:
        with contextlib.suppress(Unavailable):
            await sequences.run()
        await asyncio.sleep(0.01)

for line in sys.stdin:
    environment, failpoint = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # what it logs is no answer
        os.environ.update(environment)
        arm(failpoint)
        asyncio.run(work())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server(Protocol):
    """What takes messages, behaves as told, and remembers to whom it took one."""

    environment: dict[str, str]

    def behave(self, mode: str) -> None: ...

    def accepted(self) -> list[str]: ...

    def sender(self, world: World) -> Sender: ...


class BySmtp:
    """A mail server."""

    def __init__(self, world: World) -> None:
        self._inbox = world.inbox
        self.environment = {"THROUGHLINE_SMTP_URL": world.inbox.url}

    def behave(self, mode: str) -> None:
        modes: dict[str, Any] = {"resets": "accepts_and_hangs_up", "5xx": "accepts_and_answers_5xx"}
        self._inbox.mode = modes.get(mode, "ok")
        self._inbox.go_on.clear() if mode == "slow" else self._inbox.go_on.set()

    def accepted(self) -> list[str]:
        return [recipient for recipient, _ in self._inbox.accepted]

    def sender(self, world: World) -> Sender:
        return make_sender(world.nurture.consumer_runtime, world.inbox.url)


class ByHttp:
    """A provider over HTTP that cannot tell a message from its repetition."""

    def __init__(self, provider: ProviderServer) -> None:
        self._provider = provider
        self.environment = {
            "THROUGHLINE_SMTP_URL": "",
            "THROUGHLINE_NURTURE_SENDGRID_API_KEY": KEY,
            "THROUGHLINE_NURTURE_SENDGRID_URL": provider.url,
        }

    def behave(self, mode: str) -> None:
        modes: dict[str, Mode] = {"resets": "hangs_up_after_accepting", "5xx": "fails_after_accepting"}
        self._provider.mode = modes.get(mode, "ok")
        self._provider.go_on.clear() if mode == "slow" else self._provider.go_on.set()

    def accepted(self) -> list[str]:
        return [one.recipient for one in self._provider.accepted]

    def sender(self, world: World) -> Sender:
        parts = make_parts(world.nurture.consumer_runtime)
        by_http = Providers([provider_at("sendgrid", self._provider.url)])
        return Sender(parts, {"email": EmailChannel(parts, parts.renderer, by_http)})


@asynccontextmanager
async def opened(kind: str, settings: Settings) -> AsyncIterator[tuple[World, Server]]:
    """Nurture before a server of a kind; its sequence writes once."""
    async with (
        open_inbox() as inbox,
        open_provider("sendgrid") as provider,
        harness(service_code("nurture"), settings) as nurture,
    ):
        world = World(nurture, inbox, Facts(nurture.runtime), [])
        await nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "steps": SEQUENCE["steps"][:1]})
        await world.feeds_are_fresh()
        yield world, BySmtp(world) if kind == "smtp" else ByHttp(provider)


class Senders:
    """Starts senders in processes of their own, by copying one that has imported everything."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", COPIES]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True)

    async def until_killed(self, world: World, server: Server, failpoint: str) -> None:
        """Let one work until it dies at the failpoint."""
        environment = {**process_environment(world), **HANDS, **server.environment}
        died = await asyncio.to_thread(self._let_work, orjson.dumps([environment, failpoint]))
        assert died == -signal.SIGKILL

    def _let_work(self, order: bytes) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End them all."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture(scope="module")
def senders() -> Iterator[Senders]:
    """The means to start senders."""
    made = Senders()
    yield made
    made.close()


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", ["smtp", "http"])
async def test_f4_f34_nobody_gets_a_step_twice_and_what_is_unknown_is_listed(
    kind: str, point: str, mode: str, settings: Settings, senders: Senders
) -> None:
    async with opened(kind, settings) as (world, server):
        for times in TIMES:
            people = [f"p{next(_ROUND)}@example.com" for _ in range(PEOPLE)]
            captured = [await world.facts.captured(email) for email in people]
            consents = [world.facts.consent(email) for email in people]
            await world.tell(*captured, *consents, *(world.facts.form(email) for email in people))
            server.behave(mode)
            await senders.until_killed(world, server, f"{point}:{times}")
            await world.time_passes(MINUTE)
            server.behave("ok")
            world.senders = [server.sender(world), server.sender(world)]
            for _ in range(3):
                await world.send()
                await world.time_passes(MINUTE)
            await check(world, server, people)
            await check_reports(world, server, people)


async def check(world: World, server: Server, people: list[str]) -> None:
    """By what the server accepted: each at most once, and the ledger knows of each what can be known."""
    arrived = Counter(server.accepted())
    assert {email: times for email, times in arrived.items() if times > 1} == {}
    ledger = await ledger_of(world)
    states = {email: ledger[world.facts.lead_id(email)][1] for email in people}
    assert set(states.values()) <= {"sent", "unknown", "failed"}, states
    assert {email for email, state in states.items() if state == "sent"} <= set(arrived)
    assert {states[email] for email in set(people) - set(arrived)} <= {"unknown"}
    page = await world.nurture.client.get("/v1/messages", params={"state": "unknown", "limit": "200"})
    listed = [item["message_id"] for item in page.json()["items"]]
    unknown = [message_id for message_id, state in ledger.values() if state == "unknown"]
    assert sorted(listed) == sorted(unknown)


async def ledger_of(world: World) -> dict[str, tuple[str, str]]:
    """The message of each lead, and how it stands. Each has one."""
    async with world.nurture.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT lead_id, message_id, state FROM messages")
    assert len(rows) == len({row["lead_id"] for row in rows})
    return {row["lead_id"]: (row["message_id"], row["state"]) for row in rows}


async def check_reports(world: World, server: Server, people: list[str]) -> None:
    """The provider reports late and twice what it has: then it is known, and nothing is sent because of it."""
    before, ledger = server.accepted(), await ledger_of(world)
    here = [email for email in people if email in set(before)]
    reports = [report(world, email, "delivered", ledger[world.facts.lead_id(email)][0]) for email in here]
    await world.tell(*reports, *reports[::-1])
    await world.send()
    after = await ledger_of(world)
    assert {after[world.facts.lead_id(email)][1] for email in here} == {"delivered"}
    assert server.accepted() == before
