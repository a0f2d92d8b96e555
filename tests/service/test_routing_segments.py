"""Segments in routing rules: which rep, and whether a lead is routed at all."""

from collections.abc import AsyncIterator

import pytest

from shared.events import SegmentEntered, SegmentLeft, SegmentMove
from shared.ids import SegmentId
from shared.settings import Settings
from tests.service.routing_support import Routing, captured, entered, lead_id, merged, routing_service
from tests.service.test_nurture_segments import moved


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def test_a_rule_asks_for_a_segment_which_is_known_when_the_stage_is(routing: Routing) -> None:
    for name in ("ann", "bob", "cat"):
        await routing.hire(name, skills=[name])
    await routing.put_rules(
        {"id": "vips", "when": "'vip' in segments", "who": "'ann' in rep.skills", "strategy": "round_robin"},
        {"id": "others", "when": "!('dull' in segments)", "who": "'bob' in rep.skills", "strategy": "round_robin"},
        {"id": "dull", "when": "true", "who": "'cat' in rep.skills", "strategy": "round_robin"},
    )
    with_stage = entered("one").model_copy(
        update={"segments": (SegmentMove(segment_id=SegmentId("vip"), revision=1, member=True),)}
    )
    await routing.service.deliver(captured("one"), with_stage)
    await routing.qualify("two")
    await routing.service.deliver(
        moved(SegmentLeft, lead_id("three"), "vip", 2),
        moved(SegmentEntered, lead_id("three"), "vip", 1),
        moved(SegmentEntered, lead_id("three"), "dull", 1),
    )
    await routing.qualify("three")
    rules = {name: (await routing.assignment(name))["trace"][-1]["rule_id"] for name in ("one", "two", "three")}
    assert rules == {"one": "vips", "two": "others", "three": "dull"}
    await routing.service.deliver(merged("three", "four"), captured("four"), entered("four"))
    assert (await routing.assignment("four"))["trace"][-1]["rule_id"] in ("re-entry", "dull")


async def test_entering_a_segment_routes_where_the_rules_say_so(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules(route_when="'hot' in segments")
    await routing.qualify("one", "two", "three")
    assert await routing.owner("one") is None
    for name, initial in (("one", False), ("two", True)):
        await routing.service.deliver(moved(SegmentEntered, lead_id(name), "hot", 1, initial=initial))
    await routing.service.deliver(moved(SegmentEntered, lead_id("three"), "cold", 1))
    assert [await routing.owner(name) for name in ("one", "two", "three")] == [ann, None, None]
    await routing.service.deliver(moved(SegmentLeft, lead_id("one"), "hot", 2))
    await routing.service.deliver(moved(SegmentEntered, lead_id("one"), "hot", 3))
    assert await routing.owner("one") == ann
