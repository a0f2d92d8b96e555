"""Whoever becomes a customer gets no more of what was begun to win them, and is welcomed, once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import ConversionRecorded, DealChanged, DealStakeholder, EnrolmentStarted, LeadHandedOff
from shared.ids import ConversionId, DealId, EventId
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"
STEPS = [{"id": "rest", "wait": {"days": 30}}]
NEWS = [{"id": "news", "send": HELLO}]
WON_AT = datetime.now(UTC) - timedelta(minutes=5)
FORM_AT = WON_AT - timedelta(days=1)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        for name, more in (("Drip", {}), ("Notices", {"purpose": "transactional"})):
            await made.saves(
                {"name": name, "trigger": "event.type == 'form_submitted'", "steps": STEPS}, active=True, **more
            )
        await made.tell(await made.facts.captured(ANN), made.facts.consent(ANN))
        yield made


def handed_off(world: World, revision: int = 1, **more: Any) -> LeadHandedOff:
    """What routing tells of a hand-off."""
    fields: dict[str, Any] = {
        "event_id": EventId(f"handed-off-{revision}"),
        "lead_id": world.facts.lead_id(ANN),
        "occurred_at": datetime.now(UTC),
        "received_at": datetime.now(UTC),
        "deal_id": DealId("deal"),
        "revision": revision,
        "won_at": WON_AT,
        "position": revision,
    }
    return LeadHandedOff(**fields | more)


def won(world: World, *, withdrawn: bool = False) -> ConversionRecorded:
    """What routing tells of the money of a won deal."""
    return ConversionRecorded(
        event_id=EventId(f"won-{withdrawn}"),
        lead_id=world.facts.lead_id(ANN),
        occurred_at=WON_AT,
        received_at=datetime.now(UTC),
        origin="routing",
        conversion_id=ConversionId("won"),
        external_id="deal",
        type="deal_won",
        value_minor=0 if withdrawn else 500,
        currency="EUR",
        deal_id=DealId("deal"),
        position=2 if withdrawn else 1,
        withdrawn=withdrawn,
    )


def won_deal(world: World) -> DealChanged:
    """What routing tells of the deal itself, in which Ben and Cat have a part."""
    return DealChanged(
        event_id=EventId("deal-won"),
        lead_id=world.facts.lead_id(ANN),
        occurred_at=WON_AT,
        received_at=WON_AT,
        deal_id=DealId("deal"),
        revision=1,
        name="",
        status="won",
        stage="won",
        probability=100,
        value_minor=500,
        currency="EUR",
        opened_at=FORM_AT,
        closed_at=WON_AT,
        stakeholders=tuple(DealStakeholder(lead_id=world.facts.lead_id(one), role="buyer") for one in (BEN, CAT)),
    )


async def active(world: World) -> set[str]:
    """The names of the sequences that Ann is in."""
    return {run["sequence_id"] for run in await world.runs(ANN) if run["state"] == "active"}


async def names(world: World) -> dict[str, str]:
    listed = (await world.nurture.client.get("/v1/sequences")).json()["items"]
    return {item["document"]["name"]: item["sequence_id"] for item in listed}


@pytest.mark.parametrize("late", [False, True])
async def test_a_hand_off_ends_marketing_and_starts_onboarding_once(world: World, late: bool) -> None:
    """Also where the form that marketing began with arrives after it."""
    form = world.facts.form(ANN, at=FORM_AT)
    told = [handed_off(world), handed_off(world, 2, owner_id="cat")]
    for batch in ([told[0], form], told) if late else ([form], told, told):
        await world.tell(*batch)
    ids = await names(world)
    assert await active(world) == {ids["Notices"], "onboarding"}
    started = [str(fact.sequence_id) for fact in await world.nurture.told(EnrolmentStarted)]
    assert started.count("onboarding") == 1
    if not late:
        (drip,) = [run for run in await world.runs(ANN) if run["sequence_id"] == ids["Drip"]]
        assert drip["reason"].startswith("exit: the person became a customer")
    await world.send()
    assert world.inbox.subjects(ANN) == ["Welcome aboard, and thank you"]


async def test_what_begins_after_a_deal_was_won_goes_on(world: World) -> None:
    await world.tell(handed_off(world), won(world))
    await world.tell(world.facts.form(ANN))
    assert (await names(world))["Drip"] in await active(world)


async def test_two_deals_and_one_that_is_reopened_welcome_once_also_by_several_consumers(world: World) -> None:
    """A person is welcomed once: not again for the second deal, nor when the first is won again."""
    later = datetime.now(UTC) - timedelta(minutes=1)
    second = handed_off(world, 1, event_id=EventId("second"), deal_id=DealId("other"), won_at=later)
    again = [handed_off(world, 2, withdrawn=True), handed_off(world, 3, won_at=later)]
    await world.tell(world.facts.form(ANN, at=FORM_AT))
    told = (handed_off(world), second)
    await asyncio.gather(*(world.tell(*facts) for facts in (told, told, told[::-1], [*told, *again])))
    await world.tell(*again)
    started = [str(fact.sequence_id) for fact in await world.nurture.told(EnrolmentStarted)]
    assert started.count("onboarding") == 1
    assert await active(world) == {(await names(world))["Notices"], "onboarding"}
    await world.send()
    assert world.inbox.subjects(ANN) == ["Welcome aboard, and thank you"]


async def test_where_the_policy_counts_the_buying_group_a_won_deal_ends_marketing_to_all_of_it(world: World) -> None:
    """Their drip began before the win; what they begin as colleagues of a customer goes on."""
    await world.tell(await world.facts.captured(BEN), world.facts.consent(BEN))
    policy = (await world.nurture.client.get("/v1/takeover")).json()["document"]
    policy["deal"]["pauses"] = "deal"
    assert (await world.nurture.client.put("/v1/takeover", json=policy)).status_code == 200
    await world.saves({"name": "News", "trigger": "event.type == 'demo_requested'", "steps": NEWS}, active=True)
    await world.tell(world.facts.form(BEN, kind="demo_requested", at=FORM_AT))
    await world.tell(won_deal(world))
    await world.send()
    (run,) = [run for run in await world.runs(BEN) if run["sequence_id"] == (await names(world))["News"]]
    assert run["reason"].startswith("exit: a deal that the person has a part in was won")
    await world.tell(await world.facts.captured(CAT), world.facts.consent(CAT))
    await world.tell(world.facts.form(CAT, kind="demo_requested"))
    await world.send()
    assert [to for to, _ in world.inbox.accepted if to in (BEN, CAT)] == [CAT, CAT]


async def test_a_win_that_is_taken_back_ends_nothing_any_more(world: World) -> None:
    await world.tell(won(world, withdrawn=True), handed_off(world, 3, withdrawn=True))
    await world.tell(won(world), handed_off(world))
    await world.tell(world.facts.form(ANN, at=FORM_AT))
    assert (await names(world))["Drip"] in await active(world)
