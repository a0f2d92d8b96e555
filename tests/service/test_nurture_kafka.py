"""Nurture on real Kafka, PostgreSQL and SMTP: its consumers, relay and timers as they run."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from shared.events import EnrolmentStarted, Event, LeadErased, MessageSettled, TouchRecorded
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.conftest import DatabaseServer
from tests.service.nurture_world import SEQUENCE, Facts, Inbox, World, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"}


@asynccontextmanager
async def running_world(settings: Settings, inbox: Inbox) -> AsyncIterator[World]:
    """Nurture with all its roles, and a capture that has told everything up to now."""
    async with harness(service_code("nurture"), settings, kafka=True) as nurture:
        world = World(nurture, inbox, Facts(nurture.runtime), [])
        for partition in range(settings.topic_partitions):
            await world.execute(
                "INSERT INTO feed_watermarks VALUES ('leads', $1, 'capture', $2) ON CONFLICT DO NOTHING",
                partition,
                datetime.now(UTC) + timedelta(hours=1),
            )
        yield world


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
            equal = await rebuild(code, settings, lambda _: None)
            assert equal
            assert all(equal.values()), equal
            after = world.facts.form("ben@example.com")
            await publish(world.nurture, after)
            await eventually(lambda: carried_out(world, TouchRecorded, after.event_id))
            assert await _run_states(world, ["ended"])
            assert len(await world.nurture.told(EnrolmentStarted)) == 2
            assert len(inbox.accepted) == 2


async def _run_states(world: World, states: list[str]) -> bool:
    return [run["state"] for run in await world.runs(ANN)] == states
