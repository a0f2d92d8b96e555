"""A won deal is handed to customer success: what is missing, who does what by when, and with whom it goes on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from shared.events import DealChanged, HandoffTaskChanged, LeadHandedOff
from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, captured, erased, lead_id, read_back, routing_service
from tests.service.test_deal_pipelines import SEATS, change, open_deal, pointers

HOUR = timedelta(hours=1)
STAGES = [{"id": "talk", "name": "Talk", "probability": 30}]
KNOWN = {
    "notes": {
        "contract_terms": "net 30",
        "scope": "all",
        "use_case": "sales",
        "success_criteria": "more",
        "risks": "few",
    },
    "contract_ends_on": "2027-11-30",
    "stakeholders": [{"lead_id": lead_id("two"), "role": "champion"}],
}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        await service.hire("ann")
        await service.qualify("one", country="DE", company="Acme")
        await service.service.deliver(captured("two", company="Acme"))
        yield service


async def win(routing: Routing, **fields: Any) -> str:
    deal_id: str = (await open_deal(routing, **fields))["deal_id"]
    answer = await change(routing, deal_id, won=True)
    assert answer.status_code == 200, answer.text
    return deal_id


async def handoff(routing: Routing, deal_id: str) -> dict[str, Any]:
    answer = await routing.client.get(f"/v1/deals/{deal_id}/handoff")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def deal(routing: Routing, deal_id: str) -> dict[str, Any]:
    return dict((await routing.client.get(f"/v1/deals/{deal_id}")).json())


def after_win(shown: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(shown["won_at"])


async def pipeline(routing: Routing, **handoff: Any) -> None:
    answer = await routing.client.put("/v1/pipelines/cs", json={"stages": STAGES, "handoff": handoff})
    assert answer.status_code == 200, answer.text


async def test_a_won_deal_is_handed_over_with_what_is_missing_and_all_that_is_known(routing: Routing) -> None:
    deal_id = await win(routing, lines=[SEATS], notes={"scope": "Ten seats", "promises": "a training day"})
    shown = await handoff(routing, deal_id)
    assert shown["status"] == "open"
    assert shown["gaps"] == [
        "notes.contract_terms", "stakeholders", "use_case", "notes.success_criteria", "notes.risks", "contract_ends_on",
    ]  # fmt: skip
    assert (shown["owner"]["name"], shown["owner"]["why"]) == ("Ann", "has the deal")
    assert [task["task_id"] for task in shown["tasks"]] == [
        "introduction", "kickoff_invited", "kickoff_held", "first_health_score",
    ]  # fmt: skip
    packet = {part["part"]: part for part in shown["packet"]}
    assert packet["profile"]["content"]["company"] == "Acme"
    assert packet["deal"]["content"]["notes"]["promises"] == "a training day"
    assert packet["deal"]["content"]["lines"][0]["product"] == "seat"
    assert [step["status"] for step in packet["deal_history"]["content"]["items"]] == ["open", "won"]
    assert packet["assignments"]["content"][0]["state"] == "offered"
    assert packet["scores"]["content"]["stage"] == "mql"
    assert packet["journey"] == {
        "part": "journey", "source": f"/attribution/v1/leads/{lead_id('one')}/journey", "content": None,
    }  # fmt: skip
    await change(routing, deal_id, **KNOWN)
    shown = await handoff(routing, deal_id)
    assert shown["gaps"] == []
    people = {part["part"]: part["content"] for part in shown["packet"]}["stakeholders"]
    assert [(one["role"], one["profile"]["company"]) for one in people] == [("champion", "Acme")]
    (told,) = await routing.service.told(LeadHandedOff)
    assert (told.deal_id, told.lead_id, told.revision, len(told.gaps)) == (deal_id, lead_id("one"), 1, 6)


async def test_a_pipeline_that_blocks_refuses_a_win_that_misses_something(routing: Routing) -> None:
    await pipeline(routing, required=["notes.scope", "stakeholders.champion", "lead.country"], block=True)
    deal_id = (await open_deal(routing, pipeline="cs"))["deal_id"]
    refused = await change(routing, deal_id, won=True)
    assert (refused.status_code, pointers(refused)) == (422, ["/notes/scope", "/stakeholders/champion"])
    assert (await change(routing, deal_id, won=True, force=True, reason="now")).status_code == 422
    assert (await change(routing, deal_id, won=True, **KNOWN)).status_code == 200
    assert (await handoff(routing, deal_id))["gaps"] == []


async def test_tasks_are_done_undone_and_found_when_they_are_overdue(routing: Routing) -> None:
    hello = {"id": "hello", "title": "Say hello", "due": {"hours": 24}}
    await pipeline(routing, tasks=[hello, {"id": "visit", "title": "Visit", "due": {"days": 9}}])
    deal_id = await win(routing, pipeline="cs")

    async def listed(**filters: Any) -> list[str]:
        found = (await routing.client.get("/v1/handoffs", params=filters)).json()["items"]
        return [one["deal_id"] for one in found]

    async def task(what: str) -> dict[str, Any]:
        answer = await routing.client.post(f"/v1/deals/{deal_id}/handoff/tasks/{what}")
        return {"http": answer.status_code, **answer.json()}

    assert (await listed(overdue=True), await listed(status="open")) == ([], [deal_id])
    await routing.pass_time(timedelta(hours=25))
    assert await listed(overdue=True) == [deal_id]
    assert [one["overdue"] for one in (await handoff(routing, deal_id))["tasks"]] == [True, False]
    assert (await task("hello:complete"))["tasks"][0]["completed_by"]
    assert await listed(overdue=True) == []
    assert (await task("visit:complete"))["status"] == "done"
    assert (await task("visit:reopen"))["status"] == "open"
    assert ((await task("nothing:complete"))["http"], await listed(status="done")) == (404, [])

    # What is told brings a database that was restored to where it was; told again it changes nothing.
    assert (await task("visit:reopen"))["status"] == "open"
    told = await routing.service.told(HandoffTaskChanged)
    assert [(one.task_id, one.revision, one.completed_at is not None) for one in told] == [
        ("hello", 1, True), ("visit", 1, True), ("visit", 2, False),
    ]  # fmt: skip
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("UPDATE handoff_tasks SET completed_at = NULL, completed_by = NULL, revision = 0")
    for _ in range(2):
        await routing.service.deliver(*told)
        assert [one["completed_at"] is not None for one in (await handoff(routing, deal_id))["tasks"]] == [True, False]


async def test_customers_go_to_the_reps_of_a_queue_in_turn_and_wait_where_there_is_nobody(routing: Routing) -> None:
    queues = [{"id": "everybody", "who": "true"}, {"id": "success", "who": "'cs' in rep.teams"}]
    await routing.put_rules(queues=queues)
    await pipeline(routing, owner={"queue": "success", "strategy": "round_robin"})
    waiting = await win(routing, pipeline="cs")
    shown = await handoff(routing, waiting)
    assert (shown["owner"]["rep_id"], "nobody can take it" in shown["owner"]["why"]) == (None, True)
    reps = [await routing.hire(name, teams=["cs"]) for name in ("cat", "dan")]
    await read_back(routing.service, routing.clock.now() + timedelta(days=365))
    await routing.pass_time(timedelta(minutes=2))
    won = await asyncio.gather(*(win(routing, pipeline="cs") for _ in range(3)))
    owners = [(await handoff(routing, deal_id))["owner"]["rep_id"] for deal_id in (waiting, *won)]
    assert sorted(owners) == sorted([*reps, *reps])
    told = [fact for fact in await routing.service.told(LeadHandedOff) if fact.deal_id == waiting]
    assert [(fact.revision, fact.owner_id, fact.queue) for fact in told] == [
        (1, None, "success"), (2, owners[0], "success"),
    ]  # fmt: skip
    given = await routing.client.post(f"/v1/deals/{waiting}/handoff:assign", json={"rep_id": reps[1]})
    assert (given.status_code, given.json()["owner"]["rep_id"]) == (200, reps[1])
    unknown = await routing.client.post(f"/v1/deals/{waiting}/handoff:assign", json={"rep_id": "nobody"})
    assert (unknown.status_code, pointers(unknown)) == (422, ["/rep_id"])


async def test_a_reopened_deal_takes_its_hand_off_back_and_winning_it_again_hands_over_again(routing: Routing) -> None:
    deal_id = await win(routing)
    await routing.client.post(f"/v1/deals/{deal_id}/handoff/tasks/introduction:complete")
    await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "not signed"})
    assert (await handoff(routing, deal_id))["status"] == "withdrawn"
    await change(routing, deal_id, won=True)
    shown = await handoff(routing, deal_id)
    assert (shown["status"], [bool(task["completed_at"]) for task in shown["tasks"]]) == ("open", [True, *[False] * 3])
    told = await routing.service.told(LeadHandedOff)
    assert [(fact.revision, fact.withdrawn) for fact in told] == [(1, False), (2, True), (3, False)]


async def test_a_win_put_right_in_time_moves_what_is_due_with_it(routing: Routing) -> None:
    deal_id = await win(routing)
    before = await handoff(routing, deal_id)
    await routing.client.post(f"/v1/deals/{deal_id}/handoff/tasks/introduction:complete")
    for _ in range(2):
        assert (await change(routing, deal_id, won=True, occurred_at=(NOON + HOUR).isoformat())).status_code == 200
    after = await handoff(routing, deal_id)
    assert (after["won_at"], after["status"]) == ((await deal(routing, deal_id))["closed_at"], "open")
    due = [[datetime.fromisoformat(task["due_at"]) for task in one["tasks"]] for one in (before, after)]
    assert {later - earlier for earlier, later in zip(*due, strict=True)} == {after_win(after) - after_win(before)}
    told = await routing.service.told(LeadHandedOff)
    assert [(fact.won_at, fact.first_won_at) for fact in told] == [
        (after_win(before), None), (NOON + HOUR, after_win(before)),
    ]  # fmt: skip


async def test_a_past_by_which_a_deal_is_not_won_takes_its_hand_off_back(routing: Routing) -> None:
    deal_id = await win(routing, external_id="crm-1")
    deal = (await routing.client.get(f"/v1/deals/{deal_id}")).json()
    past = {
        **{name: deal[name] for name in ("external_id", "lead_id", "name", "value_minor", "currency")},
        "occurred_at": deal["opened_at"],
        "changes": [
            {"occurred_at": deal["opened_at"], "reopened": True, "stage": deal["history"][0]["stage"]},
            {"occurred_at": deal["opened_at"], "lost": True},
        ],
    }
    for status in ("updated", "unchanged"):
        answer = await routing.client.post("/v1/deals:import", content=orjson.dumps(past))
        assert orjson.loads(answer.content.splitlines()[0])["status"] == status, answer.text
    assert (await routing.client.get(f"/v1/deals/{deal_id}")).json()["status"] == "lost"
    assert (await handoff(routing, deal_id))["status"] == "withdrawn"
    assert [fact.withdrawn for fact in await routing.service.told(LeadHandedOff)] == [False, True]


async def test_a_renewal_is_opened_once_before_the_contract_ends_with_the_same_rep(routing: Routing) -> None:
    deal = await open_deal(routing, lines=[SEATS, {"product": "setup", "unit_minor": 7}], contract_ends_on="2027-02-28")
    await open_deal(routing, contract_ends_on="2027-02-28")
    await change(routing, deal["deal_id"], won=True)
    await routing.pass_time(timedelta(days=4))
    assert len((await routing.client.get("/v1/deals?pipeline=renewals")).json()["items"]) == 0
    await routing.pass_time(timedelta(days=2))
    await asyncio.gather(routing.service.run_timers(), routing.service.run_timers())
    (renewal,) = (await routing.client.get("/v1/deals?pipeline=renewals")).json()["items"]
    assert (renewal["renewal_of"], renewal["rep_id"], renewal["name"]) == (
        deal["deal_id"], deal["rep_id"], "Renewal of Acme",
    )  # fmt: skip
    assert (renewal["value_minor"], renewal["annual_minor"], renewal["expected_close_on"]) == (
        120_000, 120_000, "2027-02-28",
    )  # fmt: skip
    assert len([fact for fact in await routing.service.told(DealChanged) if fact.renewal_of]) == 1


async def test_a_customer_who_left_and_is_won_back_is_renewed_again_also_on_a_leap_day(routing: Routing) -> None:
    async def renewals() -> dict[str, dict[str, Any]]:
        items = (await routing.client.get("/v1/deals?pipeline=renewals")).json()["items"]
        return {item["contract_starts_on"]: item for item in items}

    deal_id = await win(routing, contract_ends_on="2027-02-28")
    await routing.pass_time(timedelta(days=6))
    first = (await renewals())["2027-03-01"]
    left = await change(routing, first["deal_id"], lost=True, reason="too dear")
    assert (left.status_code, left.json()["status"]) == (200, "lost")
    await routing.service.run_timers()
    assert len(await renewals()) == 1, "who left is not asked again"
    await routing.pass_time(timedelta(days=90))
    assert (await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "back"})).status_code == 200
    await change(routing, deal_id, contract_ends_on="2028-02-29")
    back = await change(routing, deal_id, won=True)
    assert (back.json()["status"], back.json()["contract_ends_on"]) == ("won", "2028-02-29")
    await routing.service.run_timers()
    assert len(await renewals()) == 1
    await read_back(routing.service, routing.clock.now() + timedelta(days=365))
    await routing.pass_time(timedelta(days=365 - 90))
    await asyncio.gather(routing.service.run_timers(), routing.service.run_timers())
    second = (await renewals())["2028-03-01"]
    assert (second["renewal_of"], second["status"], second["expected_close_on"]) == (deal_id, "open", "2028-02-29")
    assert len(await renewals()) == 2


async def test_an_erased_person_leaves_nothing_written_behind_and_no_part_in_others_deals(routing: Routing) -> None:
    deal_id = await win(routing, **KNOWN)
    await routing.service.deliver(erased("two"))
    assert (await routing.client.get(f"/v1/deals/{deal_id}")).json()["stakeholders"] == []
    history = (await routing.client.get(f"/v1/deals/{deal_id}/history")).text
    assert lead_id("two") not in history
    await routing.service.deliver(erased("one"))
    shown = (await routing.client.get(f"/v1/deals/{deal_id}")).json()
    assert (shown["name"], shown["value_minor"], set(shown["notes"].values())) == ("", 500, {None})


async def test_a_restored_database_learns_whom_it_had_handed_over(routing: Routing) -> None:
    deal_id = await win(routing)
    shown = await handoff(routing, deal_id)
    told = await routing.service.told(LeadHandedOff)
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("TRUNCATE handoffs, handoff_tasks")
    await routing.service.deliver(*told)
    learnt = await handoff(routing, deal_id)
    assert (learnt["tasks"], learnt["gaps"], learnt["owner"]["rep_id"]) == (
        shown["tasks"], shown["gaps"], shown["owner"]["rep_id"],
    )  # fmt: skip
