"""Leads go to reps: once per cause, fairly, with reasons, and never into silence."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.events import AssignmentAccepted, AssignmentExpired, AssignmentRejected, LeadAssigned
from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, captured, entered, erased, lead_id, linked, routing_service


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def test_the_default_rules_are_active_from_the_first_start(routing: Routing) -> None:
    rules = (await routing.client.get("/v1/rules")).json()
    assert (rules["version"], rules["active"]) == (1, True)
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two", "three")
    assert [await routing.owner(name) for name in ("one", "two", "three")] == [ann, bob, ann]


async def test_an_assignment_says_who_when_until_when_and_why(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.qualify("one", country="AT")
    assignment = await routing.assignment("one")
    assert (assignment["state"], assignment["rep_id"], assignment["queue"]) == ("offered", ann, "everybody")
    assert (assignment["strategy"], assignment["rules_version"]) == ("round_robin", 1)
    assert assignment["trace"] == [{"rule_id": "catch-all", "matched": True, "why": "next in turn among 1"}]
    assert assignment["inputs"]["lead"] == {"country": "AT"}
    assert assignment["inputs"]["score"]["total"] == 90.0
    told = await routing.service.told(LeadAssigned)
    assert [(fact.assignment_id, fact.rep_id, fact.revision) for fact in told] == [
        (assignment["assignment_id"], ann, 1)
    ]
    assert told[0].due_at == routing.clock.now() + timedelta(minutes=240)


async def test_a_replayed_stage_change_decides_nothing_anew(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.hire("bob")
    fact = entered("one")
    await routing.service.deliver(captured("one"), fact)
    first = await routing.assignment("one")
    await routing.service.deliver(fact)
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("DELETE FROM inbox")  # as after the days that the inbox remembers
    await routing.service.deliver(fact)
    assert await routing.assignment("one") == first
    assert len(await routing.service.told(LeadAssigned)) == 1


async def test_a_stage_that_is_not_routed_gets_no_rep(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.service.deliver(captured("one"), entered("one", "lead", "subscriber"))
    answer = await routing.client.get(f"/v1/leads/{lead_id('one')}/assignment")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:throughline:problem:routing:not-assigned")
    assert "its stage is lead" in answer.json()["detail"]


async def test_accepting_is_told_once_and_a_stage_that_follows_moves_nothing(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one")
    for _ in range(2):
        answer = await routing.answer("one", "accept")
        assert (answer.status_code, answer.json()["state"]) == (200, "accepted")
    await routing.service.deliver(entered("one", "sal", "mql"), entered("one", "sql", "sal"))
    assert await routing.owner("one") == ann
    assert len(await routing.service.told(AssignmentAccepted)) == 1
    assert len(await routing.service.told(LeadAssigned)) == 1


async def test_an_assignment_that_is_no_longer_current_cannot_be_accepted(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.qualify("one")
    old = (await routing.assignment("one"))["assignment_id"]
    rejected = await routing.answer("one", "reject", reason="not mine")
    assert rejected.json()["state"] == "rejected"
    refused = await routing.answer("one", "accept", assignment_id=old)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:throughline:problem:routing:not-current")
    accepted = await routing.answer("one", "accept", assignment_id=rejected.json()["next_assignment_id"])
    assert (accepted.status_code, accepted.json()["rep_id"]) == (200, bob)


async def test_a_rejected_lead_goes_to_the_next_rep_not_the_same(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one")
    assert (await routing.answer("one", "reject", reason="wrong language")).status_code == 200
    assert await routing.owner("one") == bob
    told = await routing.service.told(AssignmentRejected)
    assert [(fact.rep_id, fact.reason) for fact in told] == [(ann, "wrong language")]
    assert (await routing.answer("one", "reject", reason="nor mine")).json()["next_assignment_id"] is None
    assert await routing.owner("one") is None
    assert [hold["reason"] for hold in await routing.holds()] == ["nobody can take it: 2 passed it by"]


async def test_an_offer_not_accepted_in_time_expires_and_goes_to_the_next(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules()
    await routing.qualify("one")
    await routing.pass_time(timedelta(minutes=59))
    assert await routing.owner("one") == ann
    await routing.pass_time(timedelta(minutes=1))
    assert await routing.owner("one") == bob
    assert [fact.rep_id for fact in await routing.service.told(AssignmentExpired)] == [ann]
    history = (await routing.client.get(f"/v1/leads/{lead_id('one')}/assignments")).json()["items"]
    assert [(item["rep_id"], item["state"]) for item in history] == [(bob, "offered"), (ann, "expired")]
    assert (await routing.answer("one", "accept", assignment_id=history[1]["assignment_id"])).status_code == 409


async def test_an_accepted_offer_does_not_expire(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules()
    await routing.qualify("one")
    routing.clock.move(timedelta(hours=2))  # late, but before the deadline was looked at
    assert (await routing.answer("one", "accept")).status_code == 200
    await routing.service.run_timers()
    assert await routing.owner("one") == ann
    assert await routing.service.told(AssignmentExpired) == []


async def test_a_lead_that_every_rep_lets_pass_ends_on_the_list_of_holds(routing: Routing) -> None:
    for name in ("ann", "bob", "cid", "dan", "eve", "flo", "gus"):
        await routing.hire(name)
    await routing.put_rules()
    await routing.qualify("one")
    for _ in range(6):
        await routing.pass_time(timedelta(hours=1))
    assert len(await routing.service.told(AssignmentExpired)) == 5
    assert [hold["reason"] for hold in await routing.holds()] == ["5 reps passed it by; give it to somebody by hand"]
    eve = (await routing.client.get("/v1/reps?email=eve@sales.example.com")).json()["items"][0]["rep_id"]
    assert (await routing.answer("one", "reassign", rep_id=eve, reason="she knows them")).status_code == 200
    assert await routing.owner("one") == eve
    assert await routing.holds() == []


async def test_an_opportunity_that_its_rep_gives_back_goes_on_and_waits_where_nobody_takes_it(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules()
    await routing.qualify("one")
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "opportunity", "mql", at=NOON + timedelta(minutes=1)))
    assert await routing.owner("one") == ann
    await routing.answer("one", "reject", reason="moves to another team")
    assert await routing.owner("one") == bob
    await routing.pass_time(timedelta(minutes=61))
    assert [hold["lead_id"] for hold in await routing.holds()] == [lead_id("one")]
    await routing.pass_time(timedelta(hours=1))
    assert [hold["lead_id"] for hold in await routing.holds()] == [lead_id("one")], "it still waits"
    cid = await routing.hire("cid")
    await routing.pass_time(timedelta(minutes=15))
    assert (await routing.owner("one"), await routing.holds()) == (cid, [])


async def test_without_reps_a_lead_is_held_and_given_to_the_first_who_appears(routing: Routing) -> None:
    await routing.qualify("one")
    holds = await routing.holds()
    assert [(hold["lead_id"], hold["reason"]) for hold in holds] == [(lead_id("one"), "there are no active reps")]
    answer = await routing.client.get(f"/v1/leads/{lead_id('one')}/assignment")
    assert "it is held: there are no active reps" in answer.json()["detail"]
    ann = await routing.hire("ann")
    await routing.service.run_timers()
    assert await routing.owner("one") == ann
    assert await routing.holds() == []


async def test_a_held_lead_is_tried_again_when_rules_change_or_a_rep_returns(routing: Routing) -> None:
    away = {"from": "2026-11-25", "to": "2026-11-27"}
    ann = await routing.hire("ann", time_off=[away])
    bob = await routing.hire("bob")
    await routing.put_rules(queues=[{"id": "everybody", "members": [{"rep_id": ann}]}])
    await routing.qualify("one", "two")
    assert [hold["reason"] for hold in await routing.holds()] == ["nobody can take it: 1 on leave"] * 2
    await routing.put_rules(
        {"id": "vip", "when": "lead.country == 'AT'", "strategy": "least_loaded"},
        queues=[{"id": "everybody", "members": [{"rep_id": ann}]}],
    )
    await routing.service.deliver(captured("two", revision=2, country="AT"))
    await routing.service.run_timers()
    assert await routing.owner("two") == bob
    assert await routing.owner("one") is None
    await routing.pass_time(timedelta(hours=36))
    assert await routing.owner("one") == ann


async def test_a_held_lead_that_cooled_down_is_held_no_more(routing: Routing) -> None:
    await routing.qualify("one")
    await routing.service.deliver(entered("one", "lead", "mql"))
    await routing.service.run_timers()
    assert await routing.holds() == []


async def test_territory_routing_waits_for_a_profile_that_its_stage_overtook(routing: Routing) -> None:
    await routing.hire("ann", territories=["DE"])
    bob = await routing.hire("bob", territories=["AT"])
    await routing.put_rules(
        {"id": "territory", "when": "true", "who": "lead.country in rep.territories", "strategy": "round_robin"}
    )
    await routing.service.deliver(entered("one", profile=2))
    assert [hold["reason"] for hold in await routing.holds()] == ["its profile is on the way"]
    await routing.service.deliver(captured("one"))
    assert await routing.owner("one") is None
    await routing.service.deliver(captured("one", revision=2, country="AT"))
    assert await routing.owner("one") == bob
    assert await routing.holds() == []


async def test_a_profile_that_never_comes_does_not_hold_a_lead_for_ever(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.service.deliver(entered("one", profile=1), entered("two", profile=None), entered("three", profile=0))
    assert await routing.owner("three") == ann  # scoring knew no profile either: nothing to wait for
    await routing.pass_time(timedelta(seconds=5))
    assert (await routing.owner("one"), await routing.owner("two")) == (None, ann)
    await routing.pass_time(timedelta(seconds=55))
    assert await routing.owner("one") == ann
    trace = (await routing.assignment("one"))["trace"]
    assert [(trial["rule_id"], trial["matched"]) for trial in trace] == [("profile", False), ("catch-all", True)]


async def test_a_lead_that_comes_back_goes_to_its_rep(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one")
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "recycled", "sal"))
    assert await routing.owner("one") is None
    await routing.service.deliver(entered("one", "mql", "recycled"))
    assignment = await routing.assignment("one")
    assert (assignment["rep_id"], assignment["state"], assignment["strategy"]) == (ann, "offered", "previous_owner")
    assert assignment["trace"][0]["rule_id"] == "re-entry"
    assert (await routing.client.patch(f"/v1/reps/{ann}", json={"active": False})).status_code == 200
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "lead", "sal"), entered("one", "mql", "lead"))
    assert await routing.owner("one") != ann


async def test_a_rep_whom_a_lead_was_taken_from_by_hand_is_not_its_rep_any_more(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules()
    await routing.qualify("one")
    await routing.answer("one", "accept")
    await routing.answer("one", "reassign", rep_id=bob, reason="she is leaving")
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "recycled", "sal"), entered("one", "mql", "recycled"))
    assert await routing.owner("one") == bob


async def test_the_next_lead_of_a_company_goes_to_the_rep_who_has_it(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules({"id": "account", "when": "true", "strategy": "account_owner"})
    await routing.qualify("one")
    await routing.qualify("two", company="Acme GmbH")
    await routing.qualify("three", company="ACME  GmbH")
    assert [await routing.owner("two"), await routing.owner("three")] == [bob, bob]
    assert (await routing.assignment("three"))["strategy"] == "account_owner"


async def test_capacity_is_freed_when_the_work_is_done(routing: Routing) -> None:
    ann = await routing.hire("ann", capacity=1)
    await routing.qualify("one", "two")
    assert [await routing.owner("one"), await routing.owner("two")] == [ann, None]
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "customer", "sql"))
    await routing.pass_time(timedelta(minutes=2))
    assert await routing.owner("two") == ann
    assert (await routing.assignment("one"))["state"] == "accepted"
    assert (await routing.counted_loads())[ann] == (1, 1)


async def test_a_disqualified_lead_is_offered_to_nobody_until_it_is_requalified(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.qualify("one")
    await routing.service.deliver(entered("one", "disqualified", "mql"))
    assert await routing.owner("one") is None
    await routing.pass_time(timedelta(days=2))
    assert await routing.owner("one") is None
    await routing.service.deliver(entered("one", "mql", "disqualified"))
    assert await routing.owner("one") == ann


async def test_concurrent_decisions_of_several_consumers_stay_fair(routing: Routing) -> None:
    reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
    names = [f"lead-{number}" for number in range(30)]
    await asyncio.gather(*(routing.qualify(*names[start::5]) for start in range(5)))
    received = Counter([await routing.owner(name) for name in names])
    assert received == dict.fromkeys(reps, 10)
    told = await routing.service.told(LeadAssigned)
    for given in range(1, len(told) + 1):
        so_far = Counter(str(fact.rep_id) for fact in told[:given])
        assert max(so_far[rep] for rep in reps) - min(so_far[rep] for rep in reps) <= 1
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_turns_go_on_where_they_were_after_a_restart(settings: Settings) -> None:
    order = []
    async with routing_service(settings) as routing:
        reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
        await routing.qualify("one")
        order.append(await routing.owner("one"))
    async with routing_service(settings) as routing:
        await routing.qualify("two", "three", "four")
        order += [await routing.owner(name) for name in ("two", "three", "four")]
    assert order == [*reps, reps[0]]


async def test_two_answers_at_once_are_one_decision(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one")
    answers = await asyncio.gather(
        *(routing.answer("one", "accept") for _ in range(3)), routing.answer("one", "reject", reason="busy")
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    accepted = await routing.service.told(AssignmentAccepted)
    rejected = await routing.service.told(AssignmentRejected)
    assert len({fact.assignment_id for fact in accepted}) == len(accepted)
    assert len({fact.assignment_id for fact in rejected}) == len(rejected)
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_reassigning_to_a_rep_or_to_the_next_by_the_rules(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one")
    by_rules = await routing.answer("one", "reassign", reason="on the road")
    assert (by_rules.status_code, by_rules.json()["rep_id"]) == (200, bob)
    by_name = await routing.answer("one", "reassign", rep_id=ann, reason="back again")
    assert (by_name.json()["rep_id"], by_name.json()["strategy"]) == (ann, "by_hand")
    assert by_name.json()["trace"] == [{"rule_id": "by-hand", "matched": True, "why": "given by hand: back again"}]
    same = await routing.answer("one", "reassign", rep_id=ann, reason="again")
    assert same.json()["assignment_id"] == by_name.json()["assignment_id"]
    assert sorted(fact.revision for fact in await routing.service.told(LeadAssigned)) == [1, 2, 3]
    assert await routing.counted_loads() == {ann: (1, 1), bob: (0, 0)}


@pytest.mark.parametrize(
    ("rep_id", "words"), [("nobody", "is not the id of a rep"), ("deactivated", "is a rep who is deactivated")]
)
async def test_reassigning_to_one_who_cannot_take_it_names_the_field(routing: Routing, rep_id: str, words: str) -> None:
    await routing.hire("ann")
    await routing.qualify("one")
    if rep_id == "deactivated":
        rep_id = await routing.hire("bob", active=False)
    answer = await routing.answer("one", "reassign", rep_id=rep_id, reason="why not")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/rep_id", "detail": words}]


async def test_assignments_holds_and_history_are_found_by_email(routing: Routing) -> None:
    await routing.hire("ann")
    address = "nora@acme-industries.com"
    by_email = routing.service.runtime.ids.of_email(address)
    facts = [captured("nora").model_copy(update={"lead_id": by_email})]
    facts += [entered("nora").model_copy(update={"lead_id": by_email})]  # type: ignore[list-item]  # both are facts
    await routing.service.deliver(*facts)
    one = await routing.client.get("/v1/assignment", params={"email": "Nora@Acme-Industries.com"})
    assert (one.status_code, one.json()["lead_id"]) == (200, by_email)
    listed = await routing.client.get("/v1/assignments", params={"email": address})
    assert [item["assignment_id"] for item in listed.json()["items"]] == [one.json()["assignment_id"]]
    assert (await routing.client.get("/v1/assignments", params={"email": "no address"})).status_code == 422
    unknown = await routing.client.get("/v1/assignment", params={"email": "who@acme-industries.com"})
    assert unknown.status_code == 404


async def test_an_erased_person_is_nobodys_lead_and_its_inputs_are_forgotten(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.qualify("one", country="AT")
    await routing.service.deliver(erased("one"))
    assignment = await routing.assignment("one")
    assert (assignment["current"], assignment["inputs"], assignment["end_reason"]) == (False, None, "erased")
    await routing.service.deliver(entered("one", "mql", "lead"))
    assert await routing.owner("one") is None
    assert await routing.holds() == []


async def test_an_anonymous_hand_raiser_has_a_rep_who_stays_when_the_person_is_known(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.service.deliver(entered("browser", profile=0))
    await routing.service.deliver(captured("one"), linked("browser", "one", at=NOON - timedelta(minutes=5)))
    assert await routing.owner("one") == ann
    await routing.service.deliver(entered("one", "mql", "lead"))
    assert await routing.owner("one") == ann
    assert len(await routing.service.told(LeadAssigned)) == 1
