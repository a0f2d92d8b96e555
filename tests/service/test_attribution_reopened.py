"""A deal that is reopened: its money is nobody's until it is won again, and its story is the one told last."""

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from typing import Any

import pytest_asyncio

from shared.events import CreditsChanged
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.pipeline_facts import PipelineTeller
from tests.service.runtime_world import anybody_waits
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def report(service: Harness, model: str = "linear") -> dict[str, Any]:
    answer = await service.client.get("/v1/reports/attribution", params={"model": model, "dimension": "channel"})
    assert answer.status_code == 200, answer.text
    return {row["key"]: (row["conversions"], row["value_minor"]) for row in answer.json()["rows"]}


async def test_a_win_that_is_taken_back_earns_nobody_anything_in_whatever_order_it_is_told(
    attribution: Harness,
) -> None:
    for number, order in enumerate(permutations(range(3))):
        teller = Teller(f"order-{number}")
        conversion_id = teller.conversion_id("deal")
        deal_id = f"deal-{number}"
        told = [teller.conversion("ann", 2, 500, external_id="deal", deal_id=deal_id) for _ in range(3)]
        facts = [told[0], told[1].model_copy(update={"withdrawn": True, "value_minor": 0}), told[2]]
        await attribution.deliver(
            teller.touch("ann", 5, channel=f"Channel {number}"), *(facts[one] for one in order[:2])
        )
        last = max(order[:2])
        expected = {} if last == 1 else {f"Channel {number}": (1, 500)}
        shown = {key: row for key, row in (await report(attribution)).items() if key == f"Channel {number}"}
        assert shown == expected, order
        credits = await attribution.client.get(f"/v1/conversions/{conversion_id}/credits")
        assert credits.status_code == (404 if last == 1 else 200)
        journey = (await attribution.client.get(f"/v1/leads/{teller.lead('ann')}/journey")).json()
        assert len(journey["conversions"]) == (0 if last == 1 else 1)
        await attribution.deliver(facts[order[2]])
        assert (await report(attribution))[f"Channel {number}"] == (1, 500), order
    assert await attribution.parked() == []


async def test_a_deal_whose_win_was_taken_back_goes_on(attribution: Harness) -> None:
    """Also where the win was taken back before anything of the deal was told here: topics have no order."""
    for name in ("goes-on", "unheard-of"):
        teller = PipelineTeller(name)
        won = teller.conversion("ann", 4, 500, external_id=name, deal_id=name)
        gone = won.model_copy(update={"event_id": f"{name}-gone", "position": 99, "withdrawn": True, "value_minor": 0})
        opened = teller.deal_step("ann", 6, name, "first", 1)
        given = teller.deal_step("ann", 2, name, "late", 2, opened=6, rep_id="rosa")
        await attribution.deliver(*([opened] if name == "goes-on" else []), won, gone)
        await attribution.deliver(given)
        assert await attribution.parked() == []
        again = won.model_copy(update={"event_id": f"{name}-again", "position": 100})
        await attribution.deliver(again)
        credits = await attribution.client.get(f"/v1/conversions/{won.conversion_id}/explain")
        assert credits.json()["rep"] == "rosa"


async def test_the_sums_are_those_without_the_win_and_that_is_told(attribution: Harness) -> None:
    teller = PipelineTeller("never")
    opened = teller.deal_step("ann", 4, "deal", "first", 1)
    won = teller.conversion("ann", 2, 500, external_id="deal", deal_id="deal")
    gone = won.model_copy(update={"event_id": "gone", "position": 99, "withdrawn": True, "value_minor": 0})
    await attribution.deliver(teller.touch("ann", 5), teller.captured("ann", 6), opened)
    before = await sums(attribution)
    await attribution.deliver(won)
    assert await sums(attribution) != before
    await attribution.deliver(gone)
    assert await sums(attribution) == before
    told = [(fact.model, fact.value_minor) for fact in await attribution.told(CreditsChanged)]
    assert sorted(told) == [("last_touch", 0), ("last_touch", 500), ("linear", 0), ("linear", 500)]


async def test_a_win_taken_back_is_told_before_anything_of_its_deal_is_known(attribution: Harness) -> None:
    teller = PipelineTeller("early")
    won = teller.conversion("ann", 2, 500, external_id="deal", deal_id="deal")
    gone = won.model_copy(update={"event_id": "gone", "position": 99, "withdrawn": True, "value_minor": 0})
    await attribution.deliver(teller.touch("ann", 5), won)
    await attribution.run_timers()
    await attribution.deliver(gone)
    await attribution.run_timers()
    told = [(fact.model, fact.lead_id, fact.value_minor) for fact in await attribution.told(CreditsChanged)]
    ann = teller.lead("ann")
    assert set(told) == {(model, ann, minor) for model in ("last_touch", "linear") for minor in (0, 500)}


async def test_win_taken_back_under_another_id_waits_for_who_credits_it(attribution: Harness) -> None:
    teller = PipelineTeller("moved")
    won = teller.conversion("ann", 2, 500, external_id="deal", deal_id="deal")
    gone = won.model_copy(
        update={"event_id": "gone", "position": 99, "withdrawn": True, "value_minor": 0, "lead_id": teller.lead("bea")}
    )
    touch = teller.touch("ann", 5)
    corrected = touch.model_copy(update={"event_id": "again", "position": 98, "content": "banner"})
    await attribution.deliver(touch)
    before = await sums(attribution)
    await attribution.deliver(won)
    async with attribution.consumer_runtime.database.transaction() as tx:
        for route in attribution.code.routes(attribution.consumer_runtime):
            if route.event_type is type(touch):
                await route.handle([corrected], tx)
        delivery = asyncio.create_task(attribution.deliver(gone))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
    await delivery
    assert await sums(attribution) == before


async def test_a_deal_told_anew_counts_as_it_was_told_last(attribution: Harness) -> None:
    """What was told late stands where it happened, whether the first telling is known, comes later, or never."""
    counted = []
    for name in ("anew", "later", "only"):
        teller = PipelineTeller(name)
        deal_id = f"deal-{name}"
        first = [teller.deal_step("ann", 9, deal_id, "first", 1), teller.deal_step("ann", 3, deal_id, "late", 2)]
        anew = [
            teller.deal_step("ann", days, deal_id, stage, revision, opened=9, begins=3)
            for days, stage, revision in ((9, "first", 3), (6, "middle", 4), (3, "late", 5))
        ]
        batches = {"anew": [first, anew], "later": [anew, first], "only": [anew]}[name]
        for batch in batches:
            await attribution.deliver(*batch)
        async with attribution.runtime.database.reading() as connection:
            rows = await connection.fetch(
                "SELECT kind, step, at, number, value_minor, weighted_minor, bucket FROM marks WHERE ref = $1", deal_id
            )
        counted.append(sorted(tuple(row.values()) for row in rows))
    assert counted[0] == counted[1] == counted[2] != []
    assert ("deal_entered", "middle") in {(row[0], row[1]) for row in counted[0]}


async def sums(service: Harness) -> dict[str, list[tuple[Any, ...]]]:
    """All that is summed, once nothing waits to be looked at."""
    for _ in range(2):
        await service.run_timers()
    found = {}
    async with service.runtime.database.reading() as connection:
        for row in await connection.fetch(TABLES):
            table = row["table_name"]
            if table.endswith("sums") or table in ("marks", "paths", "credits", "remainders"):
                found[table] = sorted(
                    (tuple(one.values()) for one in await connection.fetch(f"SELECT * FROM {table}")), key=repr
                )
    return found


TABLES = """
SELECT table_name FROM information_schema.tables
WHERE table_schema = 'attribution_projection' AND table_type = 'BASE TABLE'
"""
