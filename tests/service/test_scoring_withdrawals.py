"""What a machine did is taken back: points, raised hands, and the stages that they caused, with the touch named."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.events import Event, LeadScored, StageChanged, TouchRecorded
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.scoring_world import DAY, GOOD_FIT, NOW, World
from throughline.services import service_code

ANNA = "anna@acme.example.com"


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def stages(world: World, lead_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.scoring.client.get(f"/v1/leads/{lead_id}/stages")).json()["items"]
    return items


@pytest.mark.parametrize("way", ["withdrawn", "corrected"])
async def test_a_robots_demo_request_loses_its_points_its_raised_hand_and_its_stage(world: World, way: str) -> None:
    demo = world.touch("lead", "demo_requested")
    await world.tell(demo, world.touch("lead", "page_view"))
    assert ((await world.score("lead"))["stage"], (await world.score("lead"))["hand_raise"]) == ("mql", True)
    robot: dict[str, Any] = {"touch_id": demo.touch_id, "automated": True, "automated_reason": "a scanner"}
    await world.tell(world.withdrawn(demo) if way == "withdrawn" else world.touch("lead", "demo_requested", **robot))
    score = await world.score("lead")
    assert (score["stage"], score["engagement"], score["hand_raise"]) == ("subscriber", 1, False)
    assert score["furthest_stage"] == "subscriber"
    assert [one["rule_id"] for one in score["contributions"]] == ["page-view"]
    last = (await stages(world, "lead"))[0]
    assert (last["stage"], last["previous"]) == ("subscriber", "mql")
    assert last["reason"].startswith(f"touch {demo.touch_id} of api was withdrawn (a scanner): mql ended")
    changes = await world.scoring.told(StageChanged)
    assert [(one.stage, one.reason) for one in changes][-1] == ("subscriber", last["reason"])
    assert (await world.scoring.told(LeadScored))[-1].total == 1


async def test_what_is_left_of_the_furthest_stage_is_none_at_which_a_lead_was_set_aside(world: World) -> None:
    await world.tell(world.touch("lead", "page_view"))
    for decided in ("disqualify", "requalify"):
        reason = {"reason": "spam" if decided == "disqualify" else "mistake"}
        answer = await world.scoring.client.post(f"/v1/leads/lead:{decided}", json=reason)
        assert answer.status_code == 200, answer.text
    world.clock.move(DAY)
    robot = world.touch("lead", "demo_requested", NOW + DAY)
    await world.tell(robot)
    assert (await world.score("lead"))["furthest_stage"] == "mql"
    await world.tell(world.withdrawn(robot))
    score = await world.score("lead")
    assert (score["stage"], score["furthest_stage"]) == ("subscriber", "subscriber")


async def test_a_stage_that_was_only_held_on_to_goes_with_the_touch_that_brought_it(world: World) -> None:
    """Forty points of people keep an MQL above the bar that ends one, but never made one."""
    anna = world.lead_id(ANNA)
    await world.tell(await world.captured(ANNA, **GOOD_FIT))
    await world.tell(world.touch(anna, "webinar_attended"), world.touch(anna, "webinar_attended"))
    robot = world.touch(anna, "form_submitted")
    await world.tell(robot)
    assert (await world.score(anna))["stage"] == "mql"
    await world.tell(world.withdrawn(robot))
    score = await world.score(anna)
    assert (score["stage"], score["engagement"], score["furthest_stage"]) == ("lead", 40, "lead")


async def test_a_stage_that_people_brought_stays(world: World) -> None:
    """Decayed below the bar by now, and held on to: what a robot did afterwards has nothing to do with it."""
    anna = world.lead_id(ANNA)
    await world.tell(await world.captured(ANNA, **GOOD_FIT))
    await world.tell(*(world.touch(anna, "form_submitted", NOW - 10 * DAY) for _ in range(2)))
    robot = world.touch(anna, "form_submitted")
    await world.tell(robot)
    before = await stages(world, anna)
    await world.tell(world.withdrawn(robot))
    score = await world.score(anna)
    assert (score["stage"], round(score["engagement"])) == ("mql", 40)
    assert await stages(world, anna) == before


async def test_a_withdrawal_may_come_before_its_touch_and_outlasts_corrections(world: World) -> None:
    demo = world.touch("lead", "demo_requested")
    await world.tell(world.withdrawn(demo))
    await world.tell(demo, world.touch("lead", "page_view"))
    await world.tell(world.touch("lead", "form_submitted", touch_id=demo.touch_id))
    score = await world.score("lead")
    assert (score["stage"], score["engagement"]) == ("subscriber", 1)


async def test_touches_and_their_withdrawals_that_come_at_once_never_miss_each_other(world: World) -> None:
    demos = [world.touch(f"lead-{number}", "demo_requested") for number in range(12)]

    async def consume(*facts: Event) -> None:
        while True:
            try:
                await world.tell(*facts)
                return
            except (Unavailable, *TRANSIENT):
                continue

    batches = [(demo,) for demo in demos] + [(world.withdrawn(demo),) for demo in demos]
    random.Random(3).shuffle(batches)
    await asyncio.gather(*(consume(*batch) for batch in batches))
    assert await world.scoring.parked() == []
    for demo in demos:
        score = await world.score(demo.lead_id)
        assert (score["engagement"], score["hand_raise"], score["stage"]) == (0, False, "subscriber")


async def test_limits_pay_others_in_place_of_what_was_withdrawn(world: World) -> None:
    views = [world.touch("lead", "page_view", NOW - timedelta(minutes=20 - n)) for n in range(12)]
    await world.tell(*views)
    await world.tell(world.withdrawn(views[0]), world.withdrawn(views[11]))
    paid = {one["event_id"] for one in (await world.score("lead"))["contributions"]}
    assert paid == {view.event_id for view in views[1:11]}


async def test_a_rule_that_asks_may_count_machines(world: World) -> None:
    document = (await world.scoring.client.get("/v1/rules")).json()["document"]
    document["engagement"]["rules"] = [
        {"id": "opened", "when": "event.type == 'email_opened'", "points": 1},
        {"id": "scanned", "when": "event.type == 'email_opened' && event.automated", "points": -5},
    ]
    await world.put_rules(document)

    def opened(name: str, *, automated: bool) -> TouchRecorded:
        return world.touch(name, "email_opened", automated=automated)

    await world.tell(opened("person", automated=False), opened("machine", automated=True))
    given = {
        name: [one["rule_id"] for one in (await world.score(name))["contributions"]] for name in ("person", "machine")
    }
    assert given == {"person": ["opened"], "machine": ["scanned"]}
