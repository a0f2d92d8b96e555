"""Credits told to others: what is told last of a conversion is what holds, and nothing is told for nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from services.attribution.telling import domain, handlers
from services.attribution.telling.handlers import tell_credits
from shared.events import CreditsChanged, TouchCredit
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import Teller
from tests.service.attribution_random import random_history
from throughline.services import service_code

UNITS = 10**10


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def told(service: Harness) -> list[CreditsChanged]:
    """Let everything be told, and answer all that ever was."""
    while await tell_credits(service.consumer_runtime) is not None:
        pass
    return await service.told(CreditsChanged)


def newest(facts: Sequence[CreditsChanged]) -> dict[tuple[str, str], CreditsChanged]:
    """As a reader folds them: the highest revision of each conversion and model."""
    found: dict[tuple[str, str], CreditsChanged] = {}
    for fact in facts:
        known = found.get((fact.conversion_id, fact.model))
        if known is None or known.revision < fact.revision:
            found[fact.conversion_id, fact.model] = fact
    return found


async def shown(service: Harness, conversion_id: str, model: str) -> list[tuple[str | None, str, int]]:
    answer = await service.client.get(f"/v1/conversions/{conversion_id}/credits", params={"model": model})
    assert answer.status_code == 200, answer.text
    return [(one["touch_id"], one["channel"], one["value_minor"]) for one in answer.json()["credits"]]


def credits_in(fact: CreditsChanged) -> list[tuple[str | None, str, int]]:
    return [(one.touch_id, one.channel, one.value_minor) for one in fact.credits]


async def test_conversion_is_told_by_each_model_that_is_asked_for(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a", channel="Email", page="https://acme.com/private", content="secret"),
        teller.touch("nora", 2, touch_id="b", channel="Fair"),
        teller.conversion("nora", 1, 1_001, external_id="c"),
    )
    facts = newest(await told(attribution))
    conversion = teller.conversion_id("c")
    assert facts.keys() == {(conversion, "linear"), (conversion, "last_touch")}
    linear = facts[conversion, "linear"]
    assert credits_in(linear) == [("a", "Email", 501), ("b", "Fair", 500)]
    assert (linear.lead_id, linear.value_minor, linear.currency) == (teller.lead("nora"), 1_001, "EUR")
    assert credits_in(facts[conversion, "last_touch"]) == [("b", "Fair", 1_001)]
    assert b"private" not in linear.encode()
    assert b"secret" not in linear.encode()


async def test_what_changes_nothing_is_not_told_and_a_late_touch_is(attribution: Harness) -> None:
    teller = Teller()
    first = teller.touch("nora", 3, touch_id="a", channel="Email")
    await attribution.deliver(first, teller.conversion("nora", 1, 900, external_id="c"))
    before = await told(attribution)
    again = teller.touch("nora", 3, touch_id="a", channel="Email")
    await attribution.deliver(again, teller.touch("nora", 0.5, touch_id="after"), teller.touch("otto", 2))
    assert await told(attribution) == before
    await attribution.deliver(teller.touch("nora", 4, touch_id="late", channel="Fair"))
    after = (await told(attribution))[len(before) :]
    assert [(fact.model, credits_in(fact)) for fact in after if fact.model == "linear"] == [
        ("linear", [("late", "Fair", 450), ("a", "Email", 450)])
    ]
    assert min(fact.revision for fact in after) > max(fact.revision for fact in before)


async def test_what_is_told_last_is_what_holds_after_any_history(attribution: Harness) -> None:
    for seed in range(600, 604):
        facts = random_history(seed)
        for start in range(0, len(facts), 9):
            await attribution.deliver(*facts[start : start + 9])
            if start % 2:
                await tell_credits(attribution.consumer_runtime)
    found = newest(await told(attribution))
    async with attribution.runtime.database.reading() as connection:
        ids = [row["conversion_id"] for row in await connection.fetch("SELECT conversion_id FROM paths")]
    assert found.keys() == {(conversion, model) for conversion in ids for model in ("linear", "last_touch")}
    for (conversion, model), fact in found.items():
        assert credits_in(fact) == await shown(attribution, conversion, model)
        assert sum(one.units for one in fact.credits) == UNITS
        assert sum(one.value_minor for one in fact.credits) == fact.value_minor


async def test_two_that_tell_at_once_tell_each_change_once(attribution: Harness) -> None:
    teller = Teller()
    for number in range(30):
        await attribution.deliver(teller.touch(f"p{number}", 3), teller.conversion(f"p{number}", 1, 100))
    await asyncio.gather(told(attribution), told(attribution), told(attribution))
    facts = await told(attribution)
    # once as a change, and once since this run began to serve without anything told
    assert len(facts) <= 2 * 2 * 30
    assert len(newest(facts)) == 2 * 30
    assert len({fact.event_id for fact in facts}) == len(facts)


async def test_another_version_of_a_model_is_told_for_all_conversions_once_it_serves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "STEP", 7)
    settings = settings.model_copy(update={"credits_topic_models": frozenset({"mine", "nobody_made_this"})})
    async with harness(service_code("attribution"), settings) as service:
        teller = Teller()
        for number in range(20):
            await service.deliver(
                teller.touch(f"p{number}", 3, channel="Email"),
                teller.touch(f"p{number}", 2, channel="Fair"),
                teller.conversion(f"p{number}", 1, 100),
            )
        assert await told(service) == []
        for version, (base, channel) in enumerate((("first_touch", "Email"), ("last_touch", "Fair")), 1):
            answer = await service.client.put("/v1/models/mine", json={"title": "Mine", "base": base})
            assert answer.status_code == 200, answer.text
            for _ in range(30):
                await service.run_timers()
            found = newest(await told(service))
            assert len(found) == 20
            assert {(credits_in(fact)[0][1], fact.model_version) for fact in found.values()} == {(channel, version)}
        assert len(await told(service)) == 40


async def test_path_of_very_many_touches_is_told_by_channel(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "MOST_CREDITS", 3)
    teller = Teller()
    channels = ["Email", "Email", "Fair", "Fair", "Direct"]
    touches = [teller.touch("nora", 9 - place, channel=channel) for place, channel in enumerate(channels)]
    await attribution.deliver(*touches, teller.conversion("nora", 1, 1_000, external_id="c"))
    linear = newest(await told(attribution))[teller.conversion_id("c"), "linear"]
    assert not linear.by_touch
    assert sorted(credits_in(linear), key=str) == [(None, "Direct", 200), (None, "Email", 400), (None, "Fair", 400)]


def test_what_earned_least_comes_together_where_even_channels_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "MOST_CREDITS", 3)
    credits = [
        TouchCredit(channel=f"c{n}", source="s", medium="m", campaign="x", units=n, value_minor=n) for n in range(1, 6)
    ]
    found = domain.together(credits)
    assert [(one.channel, one.units) for one in found] == [("c4", 4), ("c5", 5), ("(other)", 6)]
    assert sum(one.value_minor for one in found) == 15
