"""Scores beside the main one: their own points, limits and decay, in stages, facts, simulation and re-scoring."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from shared.events import LeadScored, StageChanged
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.scoring_world import DAY, NOW, World, with_named_score
from throughline.services import service_code


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def test_a_named_score_counts_limits_and_decays_for_itself(world: World) -> None:
    await world.put_rules(await with_named_score(world))
    views = [world.touch("lead", "page_view", NOW - timedelta(minutes=10 - n)) for n in range(3)]
    await world.tell(*views, *(world.touch("lead", "demo_requested") for _ in range(2)))
    score = await world.score("lead")
    product = score["scores"]["product"]
    assert (product["title"], product["limit"], round(product["points"], 1)) == ("Product", 60, 38)
    assert {one["event_id"] for one in product["contributions"] if one["rule_id"] == "page-view"} == {
        view.event_id for view in views[:2]
    }
    assert [one["awarded"] for one in product["contributions"] if one["rule_id"] == "demo"] == [30]
    assert round(score["engagement"]) == 100, "with the same touches, its own"
    world.clock.move(10 * DAY)
    decayed = (await world.score("lead"))["scores"]["product"]
    assert decayed["points"] == pytest.approx(product["points"] / 2, abs=1e-4)
    assert decayed["points"] == pytest.approx(sum(one["points"] for one in decayed["contributions"]), abs=1e-4)


async def test_a_named_score_is_told_when_its_whole_number_changes_and_when_it_is_gone(world: World) -> None:
    await world.tell(world.touch("before", "page_view"))
    await world.put_rules(await with_named_score(world))
    await world.scoring.run_timers()
    await world.tell(world.touch("lead", "demo_requested"))
    await world.tell(world.touch("lead", "email_opened"))
    first = [one.scores for one in await world.scoring.told(LeadScored) if one.lead_id == "lead"]
    assert first == [{"product": 30.0}]
    changed = [one.scores for one in await world.scoring.told(StageChanged) if one.lead_id == "lead"]
    assert changed == [{"product": 30.0}]
    without = await with_named_score(world)
    del without["scores"]
    await world.put_rules(without)
    await world.scoring.run_timers()
    told = {str(one.lead_id): one.scores for one in await world.scoring.told(LeadScored)}
    assert told["lead"] == {}
    assert (await world.score("lead"))["scores"] == {}


async def test_a_named_score_makes_and_ends_a_stage_on_time(world: World) -> None:
    document = await with_named_score(world)
    document["stages"] = [{"stage": "mql", "when": "scores.product >= 25.0", "leave_when": "scores.product < 15.0"}]
    await world.put_rules(document)
    await world.tell(world.touch("lead", "demo_requested"))
    assert (await world.score("lead"))["stage"] == "mql"
    world.clock.move(10 * DAY - timedelta(minutes=1))
    await world.scoring.run_timers()
    assert (await world.score("lead"))["stage"] == "mql"
    world.clock.move(timedelta(minutes=2))
    await world.scoring.run_timers()
    assert (await world.score("lead"))["stage"] == "subscriber"


async def test_new_rules_score_the_past_merges_join_it_and_a_simulation_foresees_it(world: World) -> None:
    await world.tell(world.touch("one", "demo_requested", NOW - DAY), world.touch("other", "page_view"))
    document = await with_named_score(world)
    simulated = await world.scoring.client.post("/v1/rules:simulate", json={"document": document, "days": 30})
    assert simulated.status_code == 200, simulated.text
    after = {item["lead_id"]: item["after"]["scores"] for item in simulated.json()["items"]}
    assert after == {"one": {"product": pytest.approx(30 * 0.5**0.1, abs=1e-6)}, "other": {"product": 4}}
    await world.put_rules(document)
    await world.scoring.run_timers()
    assert (await world.score("one"))["scores"]["product"]["points"] == after["one"]["product"]
    merge = world.merged("other", "one")
    await world.tell(merge)
    joined = (await world.score("other"))["scores"]["product"]["points"]
    assert joined == pytest.approx(after["one"]["product"] + 4, abs=1e-6)
    await world.tell(world.unmerged("other", "one", NOW + timedelta(seconds=1)))
    assert (await world.score("other"))["scores"]["product"]["points"] == 4


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"id": "Product"}, "/scores/0/id"),
        ({"id": "in"}, "/scores/0/id"),
        ({"half_life_days": 0}, "/scores/0/half_life_days"),
        ({"groups": {"": 3}}, "/scores/0/groups"),
        ({"rules": [{"id": "x", "when": "event.kind == ''", "points": 1}]}, "/scores/0/rules/0/when"),
        ({"rules": [{"id": "x", "when": "true", "points": 1, "group": "y"}]}, "/scores/0/rules/0/group"),
        ({"rules": [{"id": "x", "when": "true", "points": 1, "hand_raise": True}]}, "/scores/0/rules/0/hand_raise"),
        ({"rules": [{"id": "x", "when": "true", "points": 1}] * 2}, "/scores/0/rules/1/id"),
    ],
)
async def test_a_fault_in_a_named_score_is_pointed_at(world: World, change: dict[str, object], pointer: str) -> None:
    answer = await world.scoring.client.put("/v1/rules", json=await with_named_score(world, **change))
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]], answer.text


async def test_a_stage_that_asks_for_a_score_that_is_not_there_is_refused(world: World) -> None:
    document = await with_named_score(world)
    document["stages"] = [{"stage": "mql", "when": "scores.prodct >= 25.0"}]
    answer = await world.scoring.client.put("/v1/rules", json=document)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/stages/0/when")
