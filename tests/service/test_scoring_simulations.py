"""A simulation goes through history day by day, under the rules that count and those that are tried."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.scoring.rules import simulation, slices
from services.scoring.rules.replay import Replay
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.scoring_world import DAY, NOW, World
from throughline.services import service_code


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


def document(points: int, **more: Any) -> dict[str, Any]:
    """Points for a form, which halve in 10 days, and MQLs from 20 points on."""
    rules = [{"id": "form", "when": "event.type == 'form_submitted'", "points": points, **more}]
    stages = [{"stage": "mql", "when": "score.engagement >= 20", "leave_when": "score.engagement < 10"}]
    return {"engagement": {"half_life_days": 10, "rules": rules}, "stages": stages}


async def simulated(world: World, **body: Any) -> dict[str, Any]:
    """The report, however long it takes."""
    client = world.scoring.client
    answer = await client.post("/v1/rules:simulate", json={"days": 30, **body})
    report: dict[str, Any] = answer.json()
    if answer.status_code == 202:

        async def done() -> bool:
            return bool((await job(world, answer))["state"] == "done")

        await eventually(done, within=120)
        report = (await job(world, answer))["report"]
    assert answer.status_code in (200, 202), answer.text
    return {name: value for name, value in report.items() if name not in ("simulation_id", "version", "days")}


async def job(world: World, answer: httpx.Response) -> dict[str, Any]:
    """The simulation that an answer names."""
    found = await world.scoring.client.get(answer.headers["location"].removeprefix("/scoring"))
    simulation: dict[str, Any] = found.json()
    return simulation


def by_day(report: dict[str, Any], name: str) -> dict[str, int]:
    return {day["day"]: day[name] for day in report["mqls"]["days"] if day[name]}


async def test_who_became_an_mql_when_is_told_under_both_rules_with_the_reasons(world: World) -> None:
    await world.put_rules(document(10))
    await world.tell(
        world.touch("once", "form_submitted", datetime(2026, 11, 1, 18, tzinfo=UTC)),
        world.touch("twice", "form_submitted", datetime(2026, 11, 10, 9, tzinfo=UTC)),
        world.touch("twice", "form_submitted", datetime(2026, 11, 10, 9, tzinfo=UTC)),
        world.touch("never", "page_view", datetime(2026, 11, 10, 9, tzinfo=UTC)),
    )
    await world.scoring.run_timers()
    report = await simulated(world, document=document(24))
    assert (report["persons"], report["compared_with"], report["sample"]) == (3, 2, None)
    mqls = report["mqls"]
    assert {name: mqls[name] for name in ("before", "after", "gained", "lost")} == {
        "before": 1,
        "after": 2,
        "gained": 1,
        "lost": 0,
    }
    assert by_day(report, "before") == {"2026-11-10": 1}
    assert by_day(report, "after") == {"2026-11-01": 1, "2026-11-10": 1}
    # 24 points are 10 after 10 · log2(2.4) = 12.63 days: on the 14th at 09:08. 20 are, after 10 days, on the 20th.
    assert by_day(report, "standing_before") == {f"2026-11-{day}": 1 for day in range(10, 20)}
    assert by_day(report, "standing_after") == {
        **{f"2026-11-0{day}": 1 for day in range(1, 10)},
        **{f"2026-11-{day}": 2 for day in range(10, 14)},
        **{f"2026-11-{day}": 1 for day in range(14, 21)},
    }
    assert report["gained"] == [{"lead_id": "once", "day": "2026-11-01"}]
    moved = report["moved"][0]
    assert moved["lead_id"] == "twice"
    points = 0.5 ** (10.125 / 10)
    (rule,) = moved["rules"]
    assert (rule["kind"], rule["rule_id"]) == ("engagement", "form")
    assert (rule["before"], rule["after"]) == pytest.approx((20 * points, 48 * points), abs=1e-5)
    assert sum(one["before"] for one in report["totals"]) == sum(one["after"] for one in report["totals"]) == 3
    assert report["grades"] == {"D": {"before": 3, "after": 3}}
    back = await simulated(world, document=document(4))
    assert (back["lost"], back["mqls"]["lost"], back["gained"]) == ([{"lead_id": "twice", "day": "2026-11-10"}], 1, [])


async def test_a_hand_raised_again_is_seen_when_it_is_though_it_is_paid_once(world: World) -> None:
    """A week of quiet lies between the two requests, so that the first has ended; neither gives enough by itself."""
    at = [NOW - 20 * DAY, NOW - 6 * DAY]
    await world.tell(*(world.touch("lead-1", "demo_requested", moment) for moment in at))
    rules = [{"id": "demo", "when": "event.type == 'demo_requested'", "points": 5, "once": True, "hand_raise": True}]
    stages = [{"stage": "mql", "when": "score.hand_raise"}]
    report = await simulated(world, document={"engagement": {"half_life_days": 10, "rules": rules}, "stages": stages})
    assert by_day(report, "after") == {moment.date().isoformat(): 1 for moment in at}
    assert sum(by_day(report, "standing_after").values()) == 10


async def test_many_people_are_gone_through_by_several_processes_with_the_same_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.tell(
        *(
            world.touch(f"lead-{number}", "form_submitted", NOW - DAY * (number % 28) - timedelta(minutes=number))
            for number in range(240)
        )
    )
    monkeypatch.setattr(simulation, "SLICE", 25)
    alone = await simulated(world, document=document(24))
    assert (alone["persons"], len(alone["items"])) == (240, 100)
    some = await simulated(world, document=document(24), sample=60)
    assert some["sample"] == {"asked": 60, "taken": some["persons"], "of": 240}
    assert 20 < some["persons"] < 120
    monkeypatch.setattr(simulation, "FEW", 1)
    many = await simulated(world, document=document(24))
    assert alone == many


async def test_a_long_simulation_is_a_job_that_can_be_followed_and_called_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.tell(*(world.touch(f"lead-{number}", "form_submitted") for number in range(10)))
    asked = {"document": document(24), "days": 3}
    client, head = world.scoring.client, {"prefer": "respond-async", "idempotency-key": "one"}
    first = await client.post("/v1/rules:simulate", json=asked, headers=head)
    assert first.status_code == 202
    again = await client.post("/v1/rules:simulate", json=asked, headers={"idempotency-key": "one"})
    assert again.json()["simulation_id"] == first.json()["simulation_id"]
    path = first.headers["location"].removeprefix("/scoring")

    async def done() -> bool:
        return bool((await client.get(path)).json()["state"] == "done")

    await eventually(done)
    job = (await client.get(path)).json()
    assert (job["persons"], job["done"], job["report"]["persons"]) == (10, 10, 10)
    assert (await client.delete(path)).json()["state"] == "done"
    locked = await world.scoring.runtime.database.connect()
    async with locked.transaction():
        await locked.execute("LOCK TABLE touches")
        stuck = await client.post("/v1/rules:simulate", json=asked, headers={"prefer": "wait=0"})
        path = stuck.headers["location"].removeprefix("/scoring")
        assert (await client.delete(path)).json()["state"] == "cancelled"
    await locked.close()
    assert (await client.get(path)).json()["state"] == "cancelled"
    assert (await client.get("/v1/simulations/none")).status_code == 404
    for wrong in ({"sample": 0}, {"days": 0}, {"sample": "x"}):
        assert (await client.post("/v1/rules:simulate", json={**asked, **wrong})).status_code == 422


RULES: list[dict[str, Any]] = [
    {"id": "form", "when": "event.type == 'form_submitted'", "points": 12},
    {"id": "page", "when": "event.type == 'page_view'", "points": 2, "per_day": 4},
    {"id": "demo", "when": "event.type == 'demo_requested'", "points": 30, "hand_raise": True, "once": True},
    {"id": "left", "when": "event.type == 'unsubscribed'", "points": -15, "half_life_days": 3},
]


@pytest.mark.parametrize(
    "rules",
    [
        [RULES[0] | {"points": 20}, *RULES[1:]],
        RULES[1:],
        [*RULES, {"id": "both", "when": "event.type in ['page_view', 'demo_requested']", "points": 3}],
        [RULES[0], RULES[1] | {"per_day": 2}, RULES[2] | {"once": False}, RULES[3]],
        [*RULES[:3], RULES[3] | {"half_life_days": 20}],
        RULES[::-1],
    ],
    ids=["points", "one less", "one more", "limits", "half-life", "order"],
)
async def test_a_past_is_gone_through_once_where_both_rules_make_the_same_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch, rules: list[dict[str, Any]]
) -> None:
    dice = random.Random(5)
    kinds = ("form_submitted", "demo_requested", "unsubscribed", *["page_view"] * 4)
    touches = [
        world.touch(f"lead-{dice.randrange(60)}", dice.choice(kinds), NOW - timedelta(minutes=dice.randrange(60_000)))
        for _ in range(300)
    ]
    await world.put_rules(document(10) | {"engagement": {"half_life_days": 10, "rules": RULES}})
    await world.tell(*touches)
    await world.scoring.run_timers()
    candidate = document(10) | {"engagement": {"half_life_days": 10, "rules": rules}}
    gone_through: list[Replay] = []
    end = Replay.end

    def counted(replay: Replay) -> None:
        gone_through.append(replay)
        end(replay)

    monkeypatch.setattr(Replay, "end", counted)
    shared = await simulated(world, document=candidate)
    monkeypatch.setattr(slices, "differing", lambda *_: None)
    slices.trial_of.cache_clear()
    once = len(gone_through)
    assert await simulated(world, document=candidate) == shared
    people = shared["persons"]
    assert people < once < 2 * people or (rules == RULES[::-1] and once == 2 * people)
    assert len(gone_through) - once == 2 * people
    slices.trial_of.cache_clear()
