"""Channel groupings as documents: a switch groups all touches anew, whatever arrives, waits or dies meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.channels import handlers
from services.attribution.channels.groupings import active_grouping
from services.attribution.channels.handlers import regroup_touches
from services.attribution.journeys.handlers import on_touches
from services.attribution.models.catalogue import Catalogue
from shared.db import TRANSIENT
from shared.events import CreditsChanged, Event
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from throughline.services import service_code

PARTNERS = {"rules": [{"id": "partners", "channel": "Partners", "when": "touch.source == 'acme'"}]}
CONTENT = """
SELECT touches::text AS row FROM touches UNION ALL SELECT touch_versions::text FROM touch_versions ORDER BY 1
"""

ARRIVED = "SELECT count(DISTINCT event_id) FROM inbox WHERE event_id = ANY($1)"


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def put(service: Harness, document: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await service.client.put("/v1/channel-groupings", json=document, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def state(service: Harness) -> dict[str, Any]:
    body: dict[str, Any] = (await service.client.get("/v1/channel-groupings")).json()
    return body


async def regrouped(service: Harness) -> dict[str, Any]:
    """Run the timers until the walk for the active version has ended."""
    for _ in range(40):
        await service.run_timers()
        body = await state(service)
        if body["regrouping"]["finished_at"]:
            progress: dict[str, Any] = body["regrouping"]
            return progress
    raise AssertionError("the walk does not end")


async def touches(service: Harness, who: str = "nora", teller: Teller | None = None) -> dict[str, tuple[str, str]]:
    lead_id = (teller or Teller()).lead(who)
    journey = (await service.client.get(f"/v1/leads/{lead_id}/journey")).json()
    return {touch["touch_id"]: (touch["channel"], touch["channel_rule"]) for touch in journey["touches"]}


async def told_credits(service: Harness) -> int:
    """How often credits were told, once nothing waits to be."""

    async def nothing_waits() -> None:
        async with service.runtime.database.reading() as connection:
            assert not await connection.fetchval("SELECT count(*) FROM credit_changes")

    await eventually(nothing_waits, within=30)
    return len(await service.told(CreditsChanged))


async def report(service: Harness, model: str = "linear") -> dict[str, int]:
    answer = await service.client.get("/v1/reports/attribution", params={"model": model})
    assert answer.status_code == 200, answer.text
    return {row["key"]: row["value_minor"] for row in answer.json()["rows"]}


async def stored(service: Harness) -> list[str]:
    async with service.runtime.database.reading() as connection:
        return [row["row"] for row in await connection.fetch(CONTENT)]


def varied(teller: Teller, people: int = 40) -> list[Event]:
    """Touches of every sort of origin, each person's before a conversion."""
    sorts: list[dict[str, Any]] = [
        {"channel": None, "source": "acme", "medium": "cpc"},
        {"channel": None, "source": "google", "medium": "organic"},
        {"channel": None, "referrer_host": "www.google.co.uk"},
        {"channel": None, "referrer_host": "acme.com", "page": "https://www.acme.com/pricing"},
        {"channel": None, "click_ids": ("gclid", "fbclid")},
        {"channel": None, "source": "news", "medium": "x", "click_ids": ("gclid",)},
        {"channel": None},
        {"channel": "Fair", "source": "acme"},
        {"channel": "Email", "content": "banner"},
    ]
    facts: list[Event] = []
    for number in range(people):
        who = f"p{number}"
        facts += [teller.touch(who, 10 + days, **sorts[(number + days) % len(sorts)]) for days in range(5)]
        facts.append(teller.conversion(who, 1, 1_000))
    return facts


def corrected(teller: Teller, people: int = 40) -> list[Event]:
    """Touches that are told twice, the second time of somebody else and from somewhere else."""
    return [
        fact
        for number in range(people)
        for fact in (
            teller.touch(f"p{number}", 7, touch_id=f"twice{number}", channel=None, source="acme"),
            teller.touch(f"p{number + 1}", 7, touch_id=f"twice{number}", channel=None, source="google"),
        )
    ]


async def test_shipped_grouping_counts_from_the_start_and_has_nothing_to_change(attribution: Harness) -> None:
    body = await state(attribution)
    assert (body["version"], body["active"], body["author"]) == (1, True, "throughline")
    assert body["document"] == {"rules": [], "keep_given": True, "otherwise": "default"}
    assert body["regrouping"]["finished_at"] is None
    await attribution.deliver(*varied(Teller()))
    progress = await regrouped(attribution)
    assert (progress["done"], progress["total"], progress["changed"]) == (200, 200, 0)
    assert (progress["version"], progress["seconds_left"]) == (1, 0)


async def test_switch_moves_history_to_the_new_channels_and_back(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 9, touch_id="a", channel=None, source="acme", medium="cpc"),
        teller.touch("nora", 5, touch_id="b", channel=None, referrer_host="www.google.com"),
        teller.touch("nora", 4, touch_id="c", channel="Fair", source="acme"),
        teller.conversion("nora", 1, 900),
    )
    await attribution.deliver(*corrected(teller))
    before = await stored(attribution)
    assert await report(attribution) == {"Fair": 300, "Organic Search": 300, "Paid Other": 300}

    saved = await put(attribution, PARTNERS)
    assert (saved["version"], saved["regrouping"]["done"]) == (2, 0)
    await regrouped(attribution)
    assert await touches(attribution) == {
        "a": ("Partners", "grouping:2:partners"),
        "b": ("Organic Search", "organic_search:referrer"),
        "c": ("Fair", "caller"),
    }
    assert await report(attribution) == {"Fair": 300, "Organic Search": 300, "Partners": 300}

    await put(attribution, {**PARTNERS, "keep_given": False})
    await regrouped(attribution)
    assert (await touches(attribution))["c"] == ("Partners", "grouping:3:partners")
    assert await report(attribution) == {"Partners": 600, "Organic Search": 300}

    answer = await attribution.client.post("/v1/channel-groupings:activate", json={"version": 1})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    progress = await regrouped(attribution)
    assert progress["changed"] == 2
    assert await stored(attribution) == before
    assert await report(attribution) == {"Fair": 300, "Organic Search": 300, "Paid Other": 300}


async def test_draft_changes_nothing_and_versions_are_listed(attribution: Harness) -> None:
    draft = await put(attribution, PARTNERS, draft=True)
    assert (draft["version"], draft["active"], draft["regrouping"]) == (2, False, None)
    assert (await state(attribution))["version"] == 1
    listed = (await attribution.client.get("/v1/channel-groupings/versions")).json()["items"]
    assert [(one["version"], one["active"]) for one in listed] == [(2, False), (1, True)]


async def test_history_and_facts_to_come_are_grouped_alike_by_every_version(attribution: Harness) -> None:
    """What the walk makes of stored touches is what a consumer makes of the facts themselves."""
    early, late = Teller("early"), Teller("late")
    await attribution.deliver(*varied(early))
    documents: list[dict[str, Any]] = [
        {**PARTNERS, "keep_given": False},
        {"rules": [{"channel": "Search", "when": "touch.default_channel.endsWith('Search')"}], "otherwise": "given"},
        {"rules": [{"channel": "Ads", "when": "'gclid' in touch.click_ids"}], "keep_given": False, "otherwise": "Rest"},
        {"rules": [{"channel": "Pricing", "when": "touch.page.endsWith('/pricing')"}]},
        {"rules": [{"channel": "Referred", "when": "touch.referrer_host.contains('google')"}]},
        {"rules": [], "keep_given": False},
    ]
    for number, document in enumerate(documents):
        await put(attribution, document)
        await regrouped(attribution)
        await attribution.deliver(*varied(late := Teller(f"late{number}")))
        for who in (f"p{number}" for number in range(9)):
            walked = sorted((await touches(attribution, who, early)).values())
            assert walked == sorted((await touches(attribution, who, late)).values())


async def test_facts_that_arrive_during_the_walk_are_grouped_by_the_new_version(attribution: Harness) -> None:
    teller = Teller()
    await put(attribution, PARTNERS)
    await attribution.deliver(teller.touch("nora", 3, touch_id="a", channel=None, source="acme"))
    assert await touches(attribution) == {"a": ("Partners", "grouping:2:partners")}


async def test_walk_waits_for_a_transaction_that_groups_by_the_version_before(attribution: Harness) -> None:
    """A consumer that looked before the switch and commits after it: its touches are not missed."""
    teller = Teller()
    await regrouped(attribution)
    touch = teller.touch("nora", 3, touch_id="a", channel=None, source="acme")
    async with attribution.consumer_runtime.database.transaction() as tx:
        await on_touches([touch], tx, Catalogue(), active_grouping())
        await put(attribution, PARTNERS)
        for _ in range(4):
            await attribution.run_timers()
        assert (await state(attribution))["regrouping"]["finished_at"] is None
    assert (await touches(attribution))["a"][0] == "Unassigned"
    await regrouped(attribution)
    assert await touches(attribution) == {"a": ("Partners", "grouping:2:partners")}


async def test_two_walks_and_a_consumer_at_once_come_to_the_same(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(*varied(teller, 60), *corrected(teller, 60))
    await put(attribution, {**PARTNERS, "keep_given": False})
    database = attribution.consumer_runtime.database

    async def walk() -> None:
        catalogue, groupings = Catalogue(), active_grouping()
        while await regroup_touches(database, catalogue, groupings) is not None:
            pass

    async def consume() -> None:
        for fact in corrected(teller, 60):
            while True:
                try:
                    await attribution.deliver(fact)
                    break
                except TRANSIENT:  # of two that wait for each other the database ends one; the consumer tries again
                    continue

    await asyncio.gather(walk(), walk(), consume())
    walked, sums = await stored(attribution), await report(attribution)
    async with harness(service_code("attribution"), attribution.settings) as again:
        async with again.runtime.database.reading() as connection:
            await connection.execute("UPDATE regroupings SET version = 1")
        await regrouped(again)
        assert await stored(again) == walked
    assert await report(attribution) == sums
    assert sum(sums.values()) == 60 * 1_000


async def test_walk_that_was_cut_short_goes_on_where_it_was(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.attribution.channels.handlers.PAGE", 40)
    await attribution.deliver(*varied(Teller()))
    await put(attribution, PARTNERS)
    for _ in range(3):
        await attribution.run_timers()
    part = (await state(attribution))["regrouping"]
    assert 0 < part["done"] < part["total"] == 200
    assert part["per_second"] > 0
    assert part["seconds_left"] > 0
    async with harness(service_code("attribution"), attribution.settings) as another:
        progress = await regrouped(another)
    assert progress["done"] == 200
    assert (await report(attribution))["Partners"] > 0


async def test_walk_tells_how_far_it_is_and_goes_on_from_there_also_within_a_look(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "STEP", 10)
    await attribution.deliver(*varied(Teller()))
    await put(attribution, PARTNERS)
    steps = count(1)

    async def cut_short(*told: Any) -> None:
        if next(steps) == 3:
            raise RuntimeError
        await regroup(*told)

    async def dies() -> bool:
        try:
            await regroup_touches(attribution.runtime.database, Catalogue(), active_grouping())
        except RuntimeError:
            return True
        return False

    regroup = handlers.regroup
    with monkeypatch.context() as dying:
        dying.setattr(handlers, "regroup", cut_short)
        await eventually(dies)
    part = (await state(attribution))["regrouping"]
    assert part["changed"] == 20
    assert 20 <= part["done"] < part["total"] == 200
    progress = await regrouped(attribution)
    assert progress["done"] == 200


async def test_erasure_takes_the_page_and_what_followed_from_it_in_any_order(attribution: Harness) -> None:
    teller = Teller()
    await put(attribution, {"rules": [{"channel": "Pricing", "when": "touch.page.endsWith('/pricing')"}]})
    await regrouped(attribution)
    page: dict[str, Any] = {"channel": None, "page": "https://acme.com/pricing", "referrer_host": "acme.com"}
    await attribution.deliver(teller.touch("nora", 3, touch_id="a", **page), teller.conversion("nora", 1, 700))
    assert await report(attribution) == {"Pricing": 700}
    await attribution.deliver(teller.erased("nora"))
    await attribution.deliver(teller.touch("nora", 2, touch_id="b", **page))
    assert await touches(attribution) == {"a": ("Direct", "direct"), "b": ("Direct", "direct")}
    assert await report(attribution) == {"Direct": 700}


async def test_touch_that_turns_out_to_be_a_robots_loses_its_credit_and_gets_it_back(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("nora", 3, touch_id="a", channel="Email"),
        teller.touch("nora", 2, touch_id="b", channel="Fair"),
        teller.conversion("nora", 1, 800),
    )
    assert await report(attribution) == {"Email": 400, "Fair": 400}
    await attribution.deliver(teller.touch("nora", 2, touch_id="b", channel="Fair", automated=True))
    assert await report(attribution) == {"Email": 800}
    conversion = teller.conversion_id("c3")
    explained = (await attribution.client.get(f"/v1/conversions/{conversion}/explain")).json()
    assert ("b", "automated") in [(one["touch_id"], one["reason"]) for one in explained["others"]]
    await attribution.deliver(teller.touch("nora", 2, touch_id="b", channel="Fair"))
    assert await report(attribution) == {"Email": 400, "Fair": 400}


async def test_simulation_tells_what_would_move_and_moves_nothing(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(*varied(teller))
    before, worth = await stored(attribution), await report(attribution)
    answer = await attribution.client.post(
        "/v1/channel-groupings:simulate", json={"document": {**PARTNERS, "keep_given": False}, "days": 3_000}
    )
    assert answer.status_code == 200, answer.text
    simulated = answer.json()
    assert (simulated["touches"], simulated["sampled"]) == (200, 1)
    assert await stored(attribution) == before
    await put(attribution, {**PARTNERS, "keep_given": False})
    progress = await regrouped(attribution)
    async with attribution.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT channel, count(*) AS touches FROM touches GROUP BY 1")
    after = {one["channel"]: one["after"] for one in simulated["channels"] if one["after"]}
    assert after == {row["channel"]: row["touches"] for row in rows}
    assert simulated["moved"] == progress["changed"] > 0
    assert {one["channel"]: one["before_minor"] for one in simulated["value"] if one["before_minor"]} == worth
    worth = await report(attribution)
    assert {one["channel"]: one["after_minor"] for one in simulated["value"] if one["after_minor"]} == worth


async def test_rebuild_groups_everything_by_the_version_that_counts(kafka_settings: Settings) -> None:
    teller = Teller()
    code = service_code("attribution")
    pricing = {"channel": "Pricing", "when": "touch.page.endsWith('/pricing')"}
    facts = [*varied(teller), *corrected(teller)]
    later = [*(teller.erased(f"p{number}") for number in range(5)), teller.touch("last", 1)]
    async with harness(code, kafka_settings, kafka=True) as service:

        async def arrive(events: Sequence[Event]) -> None:
            async with service.runtime.database.transaction() as tx:
                tx.emit(*events)
            ids = [event.event_id for event in events]

            async def arrived() -> None:
                async with service.runtime.database.reading() as connection:
                    assert await connection.fetchval(ARRIVED, ids) == len(ids)

            await eventually(arrived, within=60)  # each of them: no order holds across topics and partitions

        async def walked() -> None:
            assert (await state(service))["regrouping"]["finished_at"]

        await arrive(facts)
        assert sum((await report(service)).values()) == 40 * 1_000
        await put(service, {"rules": [*PARTNERS["rules"], pricing], "keep_given": False})
        await eventually(walked, within=60)
        await arrive(later)
        before = await told_credits(service)
        equal = await rebuild(code, kafka_settings, lambda _line: None)
        assert [table for table, same in equal.items() if not same] == []
        await eventually(walked, within=60)
        assert (await report(service))["Partners"] > 0
        assert await told_credits(service) == before > 0
