"""Who reads a word about consent takes its purpose into account."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest_asyncio

from services.routing.people.queries import people_of
from services.scoring.people.queries import consents_of
from shared.events import ConsentChanged
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import SEQUENCE, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
THREE_DAYS = timedelta(days=3)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        await nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "active": False})
        yield made


async def test_a_sequence_is_sent_by_the_word_about_its_own_purpose(world: World) -> None:
    await world.saves(trigger="event.type == 'form_submitted'", purpose="profiling")
    granted = [world.facts.consent(ANN, purpose="newsletter"), world.facts.consent(ANN)]
    await world.tell(await world.facts.captured(ANN), *granted, world.facts.form(ANN))
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [
        ("suppressed", "no consent for email (profiling)")
    ]
    await world.tell(world.facts.consent(ANN, purpose="profiling"))
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert await world.states(ANN) == ["suppressed", "sent"]


async def test_refusing_marketing_ends_every_purpose_sent_unasked_at_once(world: World) -> None:
    await world.saves(trigger="event.type == 'form_submitted'", purpose="newsletter")
    await world.saves(trigger="event.type == 'form_submitted'", purpose="transactional")
    granted = world.facts.consent(ANN, purpose="newsletter")
    await world.tell(await world.facts.captured(ANN), granted, world.facts.form(ANN))
    await world.tell(world.facts.consent(ANN, "denied"))
    reasons = {run["reason"] for run in await world.runs(ANN)}
    assert reasons == {None, "consent for email is denied (marketing)"}
    await world.tell(world.facts.consent(ANN, "denied", purpose="all"))
    assert None not in {run["reason"] for run in await world.runs(ANN)}
    await world.send()
    assert world.inbox.accepted == []


async def test_one_click_in_a_newsletter_refuses_all_that_is_sent_unasked(world: World) -> None:
    await world.saves(trigger="event.type == 'form_submitted'", purpose="newsletter")
    await world.saves(trigger="event.type == 'form_submitted'", purpose="events")
    words = [world.facts.consent(ANN, purpose=purpose) for purpose in ("newsletter", "events")]
    await world.tell(await world.facts.captured(ANN), *words, world.facts.form(ANN))
    await world.send()
    (_, first), _ = world.inbox.accepted
    link = str(first["list-unsubscribe"]).split("/nurture")[1].rstrip(">")
    for _ in range(2):
        answer = await world.nurture.client.post(link, data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 200
    (refusal,) = await world.nurture.told(ConsentChanged)
    assert (refusal.state, refusal.purpose) == ("denied", "marketing")
    await world.tell(refusal)
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert len(world.inbox.accepted) == 2
    assert {run["reason"] for run in await world.runs(ANN)} == {"unsubscribed"}


async def test_a_sequence_for_every_purpose_or_for_none_is_refused(world: World) -> None:
    for purpose in ("all", "", "Big News", "x" * 65, None):
        answer = await world.nurture.client.post("/v1/sequences", json={**SEQUENCE, "purpose": purpose})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/purpose"]


async def test_rules_of_scoring_and_routing_see_the_word_about_marketing_alone(settings: Settings) -> None:
    facts = [
        ("granted", "marketing", 1, {"email": "granted"}),
        ("denied", "newsletter", 2, {"email": "granted"}),
        ("denied", "all", 3, {"email": "denied"}),
        ("granted", "sales", 4, {"email": "denied"}),
        ("granted", "marketing", 5, {"email": "granted"}),
    ]
    async with (
        harness(service_code("routing"), settings) as routing,
        harness(service_code("scoring"), settings) as scoring,
    ):
        made = Facts(routing.runtime)
        lead_id = made.lead_id(ANN)
        for state, purpose, hour, expected in facts:
            at = NOON + timedelta(hours=hour)
            word = made.consent(ANN, state, purpose=purpose).model_copy(update={"occurred_at": at})
            for service in (routing, scoring):
                await service.deliver(word)
            async with routing.runtime.database.reading() as connection:
                (person,) = (await people_of(connection, [lead_id], routing.runtime.keys)).values()
                assert person.lead["consent"] == expected
            async with scoring.runtime.database.reading() as connection:
                assert (await consents_of(connection, [lead_id]))[lead_id] == expected
