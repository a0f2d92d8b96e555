"""Other rules tried on the leads of the last days: who would have got what, held, late, and how fairly."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from services.routing.rules.simulation import in_turn
from shared.errors import QuotaExceeded
from shared.processes import pool
from shared.settings import Settings
from tests.service.routing_accounts import ACCOUNT_OWNER, account, account_id
from tests.service.routing_support import Routing, captured, entered, lead_id, routing_service

TERRITORIES: dict[str, Any] = {
    "rules": [
        {
            "id": "own-country",
            "when": "true",
            "queue": "all",
            "who": "lead.country in rep.territories",
            "strategy": "round_robin",
            "sla": {"accept_minutes": 30},
        }
    ],
    "queues": [{"id": "all", "who": "true"}, {"id": "nobody", "who": "false"}],
    "catch_all": {"queue": "nobody", "strategy": "round_robin"},
}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def come_in(routing: Routing, *countries: str) -> list[str]:
    """Leads ten minutes apart, each accepted by its rep after twenty minutes; their names."""
    names = [f"lead-{number}" for number in range(len(countries))]
    for name, country in zip(names, countries, strict=True):
        await routing.service.deliver(captured(name, country=country), entered(name))
        routing.clock.move(timedelta(minutes=20))
        assert (await routing.answer(name, "accept")).status_code == 200
    return names


async def simulate(routing: Routing, **asked: Any) -> dict[str, Any]:
    answer = await routing.client.post("/v1/rules:simulate", json=asked)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_draft_is_compared_with_the_rules_in_force_and_nothing_changes(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.rules.simulation.AT_ONCE", 3)
    begun: list[int] = []

    def counted(processes: int, *told: Any) -> ProcessPoolExecutor:
        begun.append(processes)
        return pool(processes, *told)

    monkeypatch.setattr("services.routing.rules.simulation.pool", counted)
    monkeypatch.setattr("services.routing.rules.simulation.processes_beside", lambda most: most)
    ann = await routing.hire("ann", territories=["AT"])
    bob = await routing.hire("bob", territories=["DE"], weight=50)
    version = await routing.put_rules()
    names = await come_in(routing, "AT", "AT", "DE", "US", "DE", "AT", "AT")
    owners = [await routing.owner(name) for name in names]
    assert owners == [ann, bob, ann, ann, bob, ann, ann]
    books = (await routing.client.get("/v1/queues/everybody/fairness")).json()
    found = await simulate(routing, document=TERRITORIES, days=7)
    assert (found["leads"], found["changed"], found["with_other_rep"], found["truncated"]) == (7, 7, 3, False)
    changes = {change["lead_id"]: change for change in found["changes"]}
    assert set(changes) == {lead_id(name) for name in names}  # the queue is another one for all
    told = changes[lead_id("lead-1")]
    assert (told["before"]["rep_id"], told["after"]["rep_id"]) == (bob, ann)
    assert (told["before"]["why"], told["after"]["why"]) == ("next in turn among 2", "next in turn among 1")
    assert found["leads_by_rep"] == {ann: {"before": 5, "after": 4}, bob: {"before": 2, "after": 2}}
    assert found["held"]["after"]["leads"] == 1
    assert list(found["held"]["after"]["reasons"].values()) == [1]
    before = found["fairness"]["before"]["everybody"]
    assert before["members"][bob]["balance"] == books["members"][1]["balance"]
    assert abs(before["greatest_deviation"]["leads"]) < 1
    same = await simulate(routing, version=version, days=7)
    assert (same["changed"], same["fairness"]["before"]) == (0, same["fairness"]["after"])
    assert [await routing.owner(name) for name in names] == owners
    assert (await routing.client.get("/v1/queues/everybody/fairness")).json() == books
    assert begun == [1, 1] * 2
    monkeypatch.setattr("services.routing.rules.simulation.processes_beside", lambda most: 0)
    assert await simulate(routing, document=TERRITORIES, days=7) == found
    assert begun == [1, 1] * 2, "by this process alone"


async def test_two_simulations_at_once_take_turns_so_that_neither_runs_where_others_are_answered(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.rules.simulation.AT_ONCE", 3)
    monkeypatch.setattr("services.routing.rules.simulation.processes_beside", lambda most: most)
    begun: list[int] = []

    def counted(processes: int, *told: Any) -> ProcessPoolExecutor:
        begun.append(processes)
        return pool(processes, *told)

    monkeypatch.setattr("services.routing.rules.simulation.pool", counted)
    await routing.hire("ann", territories=["AT"])
    await routing.put_rules()
    await come_in(routing, *["AT"] * 7)
    first, second = await asyncio.gather(*(simulate(routing, document=TERRITORIES, days=7) for _ in range(2)))
    assert first == second
    assert begun == [1, 1] * 2


async def test_a_simulation_whose_turn_does_not_come_says_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.routing.rules.simulation.PATIENCE", timedelta())
    turn = asyncio.Lock()
    async with in_turn(turn):
        with pytest.raises(QuotaExceeded) as refused:
            async with in_turn(turn):
                pytest.fail("two at once")
    assert "ask again" in refused.value.detail
    async with in_turn(turn):  # the one before is over
        assert turn.locked()


async def test_leads_that_came_in_together_are_given_out_in_the_order_in_which_they_were(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.rules.simulation.AT_ONCE", 5)
    for name, weight in (("ann", 100), ("bob", 70), ("cid", 30)):
        await routing.hire(name, weight=weight)
    await routing.put_rules()
    names = [f"lead-{number}" for number in range(24)]
    await routing.service.deliver(*(captured(name) for name in names), *(entered(name) for name in names))
    changes = (await simulate(routing, document=TERRITORIES, days=7))["changes"]
    given = {change["lead_id"]: change["before"]["rep_id"] for change in changes}
    assert given == {lead_id(name): await routing.owner(name) for name in names}


async def test_offers_that_would_be_late_are_expected_from_how_fast_reps_answered(routing: Routing) -> None:
    ann = await routing.hire("ann", territories=["AT"])
    await routing.put_rules()
    await come_in(routing, *["AT"] * 6)
    loose = await simulate(routing, document=TERRITORIES, days=7)
    assert loose["sla"]["after"] == {"offers_with_limit": 6, "expected_breaches": 0.0, "by_rep": {ann: 0.0}}
    strict = {**TERRITORIES, "rules": [{**TERRITORIES["rules"][0], "sla": {"accept_minutes": 19}}]}
    late = await simulate(routing, document=strict, days=7)
    assert late["sla"]["after"]["expected_breaches"] == 6.0
    assert len(late["model"]) > 3


async def test_a_limit_holds_leads_until_earlier_ones_are_done(routing: Routing) -> None:
    ann = await routing.hire("ann", territories=["AT"])
    await routing.put_rules()
    names = await come_in(routing, "AT", "AT")
    await routing.service.deliver(entered(names[0], "disqualified", "mql"))
    await routing.service.deliver(captured("later", country="AT"), entered("later"))
    await routing.client.patch(f"/v1/reps/{ann}", json={"capacity": 2})
    free = await simulate(routing, document=TERRITORIES, days=7)
    assert free["held"]["after"]["leads"] == 0
    await routing.client.patch(f"/v1/reps/{ann}", json={"capacity": 1})
    full = await simulate(routing, document=TERRITORIES, days=7)
    assert full["held"]["after"] == {"leads": 1, "reasons": {"nobody can take it: 1 at capacity": 1}}


async def test_limits_by_day_and_week_begin_anew_with_the_working_days_of_each_rep(routing: Routing) -> None:
    """Wednesday noon and on: four leads a day for three days, for a rep who takes three a day, then five a week."""
    hours = {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
    ann = await routing.hire("ann", territories=["AT"], working_hours=hours)
    await routing.put_rules()
    for day in range(3):
        for number in range(4):
            name = f"day-{day}-{number}"
            await routing.service.deliver(captured(name, country="AT"), entered(name))
            assert (await routing.answer(name, "accept")).status_code == 200
            routing.clock.move(timedelta(hours=1))
        routing.clock.move(timedelta(hours=20))  # the next noon; the last lead of a day comes in at three
    await routing.client.patch(f"/v1/reps/{ann}", json={"daily_capacity": 3})
    by_day = await simulate(routing, document=TERRITORIES, days=7)
    assert by_day["leads_by_rep"][ann] == {"before": 9, "after": 9}
    assert by_day["held"]["after"]["reasons"] == {"nobody can take it: 1 at capacity for the day": 3}
    await routing.client.patch(f"/v1/reps/{ann}", json={"weekly_capacity": 5})
    by_week = await simulate(routing, document=TERRITORIES, days=7)
    assert by_week["leads_by_rep"][ann] == {"before": 5, "after": 5}
    assert (await routing.client.get(f"/v1/reps/{ann}")).json()["open_leads"] == 12


async def test_the_owner_of_an_account_above_gets_what_a_draft_gives_to_owners(routing: Routing) -> None:
    ann, bob, cid = [await routing.hire(name) for name in ("ann", "bob", "cid")]
    await routing.put_rules()
    await routing.service.deliver(
        await account(routing, "low", owner=bob, parent="top"),
        await account(routing, "top", owner="cid@sales.example.com"),
        await account(routing, "alone"),
    )
    for name, of in (("one", "low"), ("two", "top"), ("three", "alone")):
        await routing.qualify(name, account_id=account_id(of))
        routing.clock.move(timedelta(minutes=1))
    draft = {
        "rules": [ACCOUNT_OWNER],
        "queues": [{"id": "everybody", "who": f"rep.rep_id == '{ann}'"}],
        "catch_all": {"queue": "everybody", "strategy": "round_robin"},
    }
    given = {
        change["lead_id"]: change["after"] for change in (await simulate(routing, document=draft, days=7))["changes"]
    }
    assert [given[lead_id(name)]["rep_id"] for name in ("one", "two", "three")] == [bob, cid, ann]
    assert given[lead_id("one")]["why"] == f"owns {account_id('low')}, the lead's account"
    await routing.client.patch(f"/v1/reps/{bob}", json={"daily_capacity": 0})
    above = (await simulate(routing, document=draft, days=7))["changes"]
    (told,) = [change["after"] for change in above if change["lead_id"] == lead_id("one")]
    assert told["rep_id"] == cid
    assert told["why"].endswith(f"; the owner of {account_id('low')} is at capacity for the day")
