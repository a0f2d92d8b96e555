"""Nurture on real Kafka, PostgreSQL and SMTP: its consumers, relay and timers as they run."""

import asyncio
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from shared.events import EnrolmentStarted, Event, LeadErased, LeadHandedOff, MessageSettled, TouchRecorded
from shared.ids import DealId, EventId
from shared.service import free_port, rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.conftest import DatabaseServer
from tests.service.nurture_world import SEQUENCE, Facts, Inbox, World, open_inbox
from tests.service.runtime_world import environment_of, killed_rebuild
from throughline.services import service_code

ANN = "ann@example.com"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"}


@asynccontextmanager
async def running_world(settings: Settings, inbox: Inbox) -> AsyncIterator[World]:
    """Nurture with all its roles, and a capture that has told everything up to now."""
    async with harness(service_code("nurture"), settings, kafka=True) as nurture:
        world = World(nurture, inbox, Facts(nurture.runtime), [])
        await capture_is_fresh(world, settings)
        yield world


async def capture_is_fresh(world: World, settings: Settings) -> None:
    for partition in range(settings.topic_partitions):
        await world.execute(
            "INSERT INTO feed_watermarks VALUES ('leads', $1, 'capture', $2) ON CONFLICT DO NOTHING",
            partition,
            datetime.now(UTC) + timedelta(hours=1),
        )


async def publish(nurture: Harness, *events: Event) -> None:
    """Tell facts to everybody, over the event log, the relay and Kafka."""
    async with nurture.runtime.database.transaction() as tx:
        tx.emit(*events)


async def arrives(world: World, email: str) -> None:
    captured = await world.facts.captured(email, first_name="Ann")
    await publish(world.nurture, world.facts.form(email), world.facts.consent(email), captured)


async def carried_out(world: World, kind: type[Event], event_id: str) -> bool:
    """Whether a fact came back from Kafka."""
    async with world.nurture.runtime.database.reading() as connection:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM inbox WHERE event_id = $1)", event_id))


async def test_from_a_form_to_a_click_that_comes_back_as_a_touch(kafka_settings: Settings) -> None:
    async with open_inbox() as inbox:
        settings = kafka_settings.model_copy(update={"smtp_url": inbox.url})
        async with running_world(settings, inbox) as world:
            await arrives(world, ANN)
            await eventually(lambda: inbox.subjects(ANN) == ["Welcome, Ann"])
            await eventually(lambda: _is_sent(world))
            settled = (await world.nurture.told(MessageSettled))[0]
            await eventually(lambda: carried_out(world, MessageSettled, settled.event_id))
            await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 minute'")
            body = inbox.accepted[0][1].get_body(("html",))
            assert body is not None
            path = body.get_content().split("/nurture/c/")[1].split('"')[0]
            assert (await world.nurture.client.get(f"/c/{path}", headers=BROWSER)).status_code == 302
            click = next(touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "email_clicked")
            await eventually(lambda: carried_out(world, TouchRecorded, click.event_id))
            assert await world.states(ANN) == ["sent"]
            assert await world.nurture.parked() == []
        async with running_world(settings, inbox) as again:  # a restart
            await publish(again.nurture, again.facts.form(ANN))
            form = (await again.nurture.told(TouchRecorded))[-1]
            await eventually(lambda: carried_out(again, TouchRecorded, form.event_id))
            assert len(await again.nurture.told(EnrolmentStarted)) == 1
            assert len(inbox.accepted) == 1
            await _history_is_tried(again)


async def _history_is_tried(world: World) -> None:
    """What happened, found again in Kafka; and what another document would have made of it."""
    draft = {**SEQUENCE, "reentry": "always", "steps": [{"id": "only", "wait": {"minutes": 0}}], "exit": None}
    url = "/v1/sequences/welcome:simulate"
    answer = await world.nurture.client.post(url, json={"document": draft, "days": 1})
    assert answer.status_code in (200, 202), answer.text
    path = f"/v1/sequences/welcome/simulations/{answer.json()['trial_id']}"

    async def is_done() -> bool:
        return bool((await world.nurture.client.get(path)).json()["state"] == "done")

    await eventually(is_done)
    report = (await world.nurture.client.get(path)).json()["report"]
    assert (report["would"]["entered"], report["would"]["people"]) == (2, 1)
    assert report["would"]["endings"] == {"completed": 2}
    assert (report["serving"]["version"], report["serving"]["entered"]) == (1, 1)
    assert report["serving"]["steps"] == [{"step_id": "hello", "what": "sends email", "times": 1}]


async def _is_sent(world: World) -> bool:
    return await world.states(ANN) == ["sent"]


async def test_an_earlier_copy_of_the_database_reads_its_own_decisions_back_before_it_sends(
    kafka_settings: Settings, database_server: DatabaseServer
) -> None:
    async with open_inbox() as inbox:
        sending = kafka_settings.model_copy(update={"smtp_url": inbox.url})
        async with running_world(kafka_settings, inbox) as world:  # no server to send by yet
            await arrives(world, ANN)
            await eventually(lambda: _has_states(world, ["planned"]))
        original = kafka_settings.database_url.get_secret_value()
        copy = database_server.make(f"copy_{uuid.uuid4().hex[:8]}", original.rsplit("/", 1)[1])
        async with running_world(sending, inbox) as world:
            await eventually(lambda: _is_sent(world))
            settled = (await world.nurture.told(MessageSettled))[-1]
            await eventually(lambda: carried_out(world, MessageSettled, settled.event_id))
        restored = sending.model_copy(update={"database_url": SecretStr(copy)})
        async with running_world(restored, inbox) as world:
            await eventually(lambda: _is_sent(world))
            await arrives(world, "ben@example.com")
            await eventually(lambda: inbox.subjects("ben@example.com") == ["Welcome, Ann"])
        assert inbox.subjects(ANN) == ["Welcome, Ann"]


async def _has_states(world: World, states: list[str]) -> bool:
    return await world.states(ANN) == states


async def test_a_rebuild_gives_the_same_projection_and_takes_no_decision_anew(kafka_settings: Settings) -> None:
    async with open_inbox() as inbox:
        settings = kafka_settings.model_copy(update={"smtp_url": inbox.url, "watermark_every": timedelta(seconds=4)})
        code = service_code("nurture")
        async with running_world(settings, inbox) as world:
            await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "reentry": "after_exit"})
            await arrives(world, ANN)
            await eventually(lambda: inbox.subjects(ANN) == ["Hello Ann"])
            during = world.facts.form(ANN)  # it starts nothing: the run is under way
            await publish(world.nurture, during)
            await eventually(lambda: carried_out(world, TouchRecorded, during.event_id))
            await publish(world.nurture, world.facts.consent(ANN, "denied"))
            await eventually(lambda: _run_states(world, ["ended"]))
            await publish(world.nurture, world.facts.merged("old@example.com", into=ANN), world.facts.consent(ANN))
            await arrives(world, "eve@example.com")
            await eventually(lambda: inbox.subjects("eve@example.com") == ["Hello Ann"])
            await publish(world.nurture, world.facts.erased("eve@example.com"))
            erased = (await world.nurture.told(LeadErased))[0]
            await eventually(lambda: carried_out(world, LeadErased, erased.event_id))
            await publish(world.nurture, world.facts.form(ANN, kind="email_replied"), world.facts.accepted(ANN))
            replied = (await world.nurture.told(TouchRecorded))[-1]
            await eventually(lambda: carried_out(world, TouchRecorded, replied.event_id))
            equal = await rebuild(code, settings, lambda _: None)
            assert equal
            assert all(equal.values()), equal
            after = world.facts.form("ben@example.com")
            await publish(world.nurture, after)
            await eventually(lambda: carried_out(world, TouchRecorded, after.event_id))
            assert await _run_states(world, ["ended"])
            assert len(await world.nurture.told(EnrolmentStarted)) == 2
            assert len(inbox.accepted) == 2


@pytest.mark.slow
async def test_a_consumer_killed_on_either_side_of_its_commit_welcomes_a_customer_once(
    kafka_settings: Settings,
) -> None:
    """By SIGKILL while it reads that a deal was won; the sender goes on in a process of its own."""
    async with open_inbox() as inbox:
        settings = kafka_settings.model_copy(update={"smtp_url": inbox.url})
        async with harness(service_code("nurture"), settings) as nurture, role(settings, "worker"):
            world = World(nurture, inbox, Facts(nurture.runtime), [])
            await world.policy()
            await capture_is_fresh(world, settings)
            now = datetime.now(UTC)
            won = LeadHandedOff(
                event_id=EventId("won"), lead_id=world.facts.lead_id(ANN), occurred_at=now, received_at=now,
                deal_id=DealId("deal"), revision=1, won_at=now, position=1,
            )  # fmt: skip
            await publish(nurture, await world.facts.captured(ANN), world.facts.consent(ANN), won)
            for place in ("before_consumer_commit:1", "after_tx_before_kafka_commit:1"):
                async with role(settings, "consumer", place) as killed:
                    assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
            async with role(settings, "consumer"):
                await eventually(lambda: _is_sent(world), within=60)
                again = won.model_copy(update={"event_id": EventId("told again"), "revision": 2})
                await publish(nurture, again)
                await eventually(lambda: carried_out(world, LeadHandedOff, again.event_id), within=60)
            assert [fact.sequence_id for fact in await nurture.told(EnrolmentStarted)] == ["onboarding"]
            assert inbox.subjects(ANN) == ["Welcome aboard, and thank you"]


@asynccontextmanager
async def role(settings: Settings, name: str, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """A role of nurture in a process of its own; killed at the end."""
    ports = {"port": str(free_port()), "management_port": str(free_port())}
    environment = environment_of(settings, failpoints=failpoints, **ports)
    words = (sys.executable, "-m", "throughline", "run", "nurture", name)
    started = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def _run_states(world: World, states: list[str]) -> bool:
    return [run["state"] for run in await world.runs(ANN)] == states


async def test_f32_a_rebuild_killed_twice_while_people_come_writes_to_nobody_again_and_the_next_one_is_equal(
    kafka_settings: Settings,
) -> None:
    people = [f"person-{number}@example.com" for number in range(12)]
    async with open_inbox() as inbox:
        settings = kafka_settings.model_copy(update={"smtp_url": inbox.url})

        async def come(world: World, start: int, end: int) -> None:
            for email in people[start:end]:
                await arrives(world, email)

        async def are_written_to() -> bool:
            return sorted(to for to, _ in inbox.accepted) == sorted(people)

        async with running_world(settings, inbox) as world:
            await world.policy()
            await come(world, 0, 4)
            for point, start in (("after_tx_before_kafka_commit", 4), ("before_swap_commit", 6)):
                await killed_rebuild(world.nurture, settings, point, come(world, start, start + 2))
            building = asyncio.create_task(rebuild(service_code("nurture"), settings, lambda _: None))
            await come(world, 8, 12)
            assert all((await building).values()), building.result()
            await eventually(are_written_to)
            await eventually(lambda: _all_are_sent(world, people))
            last = (await world.nurture.told(MessageSettled))[-1]
            await eventually(lambda: carried_out(world, MessageSettled, last.event_id))
            equal = await rebuild(service_code("nurture"), settings, lambda _: None)
            assert all(equal.values()), equal
            assert await _all_are_sent(world, people)
            assert len(await world.nurture.told(EnrolmentStarted)) == len(people)
            assert await are_written_to(), "a rebuild sends nothing"
            assert await world.nurture.parked() == []


async def _all_are_sent(world: World, people: list[str]) -> bool:
    return [await world.states(email) for email in people] == [["sent"]] * len(people)
