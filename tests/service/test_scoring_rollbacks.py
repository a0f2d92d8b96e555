"""A rollback takes back the stages that only the rules it takes off have made."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.events import StageChanged
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.scoring_world import NOW, World
from throughline.services import service_code

FORM, WEBINAR = "form_submitted", "webinar_attended"


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


def rules(bar: int) -> dict[str, Any]:
    points = {FORM: 20, WEBINAR: 50}
    return {
        "engagement": {
            "rules": [
                {"id": kind, "when": f"event.type == '{kind}'", "points": given} for kind, given in points.items()
            ]
        },
        "fit": {"rules": []},
        "stages": [{"stage": "mql", "when": f"score.engagement >= {bar}", "leave_when": "score.engagement < 10"}],
    }


async def test_what_only_the_rules_that_are_rolled_back_have_made_is_taken_back(world: World) -> None:
    """`held` was an MQL by the rules gone back to and is above the bar that ends it; the mistake made one of `made`."""
    await world.put_rules(rules(45))
    await world.tell(world.touch("held", WEBINAR, NOW - timedelta(days=30)), world.touch("made", FORM))
    await world.scoring.run_timers()
    await world.put_rules(rules(15))
    await world.scoring.run_timers()
    await world.tell(world.touch("since", FORM))
    assert [(await world.score(name))["stage"] for name in ("held", "made", "since")] == ["mql"] * 3
    assert (await world.scoring.client.post("/v1/rules:rollback")).status_code == 200
    await world.scoring.run_timers()
    stood = {name: await world.score(name) for name in ("held", "made", "since")}
    assert [one["stage"] for one in stood.values()] == ["mql", "subscriber", "subscriber"]
    assert stood["made"]["engagement"] == 20
    told = [one for one in await world.scoring.told(StageChanged) if one.previous == "mql"]
    assert {(one.lead_id, one.stage) for one in told} == {("made", "subscriber"), ("since", "subscriber")}
    assert told[0].reason.startswith("the rules were rolled back to version 2")


async def test_who_is_taken_over_by_sales_meanwhile_stays_with_them(world: World) -> None:
    accepted = {"stage": "sal", "when": "assignment.state == 'accepted'"}
    for bar in (45, 15):
        document = rules(bar)
        await world.put_rules({**document, "stages": [*document["stages"], accepted]})
        await world.scoring.run_timers()
    await world.tell(world.touch("made", FORM))
    await world.tell(world.assigned("made", "one"), world.accepted("made", "one"))
    assert (await world.scoring.client.post("/v1/rules:rollback")).status_code == 200
    await world.scoring.run_timers()
    assert (await world.score("made"))["stage"] == "sal"
