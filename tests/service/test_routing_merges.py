"""Whoever two leads turn out to be has exactly one owner, whatever the order of facts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.events import LeadAssigned
from shared.settings import Settings
from tests.service.routing_support import (
    NOON,
    Routing,
    captured,
    entered,
    lead_id,
    linked,
    merged,
    routing_service,
    unmerged,
)


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def current_owners(routing: Routing) -> list[str]:
    listed = await routing.client.get("/v1/assignments", params={"current": True})
    return [item["rep_id"] for item in listed.json()["items"]]


async def test_each_telling_of_an_assignment_names_the_teams_of_its_rep(routing: Routing) -> None:
    await routing.hire("ann", teams=["emea"])
    await routing.hire("bob", teams=["emea", "enterprise"])
    await routing.qualify("one", "two")
    await routing.answer("two", "accept")
    await routing.service.deliver(merged("two", into="one"))
    told = [fact.teams for fact in await routing.service.told(LeadAssigned)]
    assert told == [("emea",), ("emea", "enterprise"), ("emea", "enterprise")]


async def test_of_two_owners_the_one_who_accepted_stays_and_is_told_anew(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two")
    await routing.answer("two", "accept")
    await routing.service.deliver(merged("two", into="one"))
    assert await current_owners(routing) == [bob]
    for name in ("one", "two"):
        assignment = await routing.assignment(name)
        assert (assignment["rep_id"], assignment["state"], assignment["lead_id"]) == (bob, "accepted", lead_id("one"))
    history = (await routing.client.get(f"/v1/leads/{lead_id('one')}/assignments")).json()["items"]
    assert {(item["rep_id"], item["end_reason"]) for item in history} == {(bob, None), (ann, "merged")}
    last = (await routing.service.told(LeadAssigned))[-1]
    assert (last.lead_id, last.rep_id, last.revision) == (lead_id("one"), bob, 2)
    assert await routing.counted_loads() == {ann: (0, 0), bob: (1, 1)}


async def test_who_has_the_lead_is_told_above_what_the_other_lead_had_before(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one", "two")
    await routing.answer("one", "reject", reason="a duplicate")
    await routing.service.deliver(entered("one", "disqualified", "mql"))
    accepted = (await routing.answer("two", "accept")).json()
    await routing.service.deliver(merged("two", into="one"))
    last = (await routing.service.told(LeadAssigned))[-1]
    assert (last.assignment_id, last.lead_id, last.revision) == (accepted["assignment_id"], lead_id("one"), 3)
    assert (await routing.assignment("one"))["assignment_id"] == accepted["assignment_id"]


async def test_who_has_the_lead_is_told_above_what_the_other_lead_had_as_often(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.qualify("one")
    await routing.answer("one", "reject", reason="a duplicate")
    await routing.qualify("two")
    accepted = (await routing.answer("two", "accept")).json()
    await routing.service.deliver(merged("one", into="two"))
    last = (await routing.service.told(LeadAssigned))[-1]
    assert (last.assignment_id, last.lead_id, last.revision) == (accepted["assignment_id"], lead_id("two"), 2)


async def test_a_merged_lead_that_comes_back_goes_to_whoever_had_either_last(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two")
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "recycled", "sal"), entered("one", "mql", "recycled"))
    await routing.answer("one", "accept")
    await routing.service.deliver(entered("one", "recycled", "sal"))
    routing.clock.move(timedelta(days=1))
    await routing.answer("two", "accept")
    await routing.service.deliver(entered("two", "recycled", "sal"))
    assert [(await routing.assignment(name))["rep_id"] for name in ("one", "two")] == [ann, bob]
    await routing.service.deliver(merged("two", into="one"))
    assert (await routing.assignment("one"))["rep_id"] == bob, "the last one"
    await routing.service.deliver(entered("one", "mql", "recycled"))
    assert await routing.owner("one") == bob


async def test_two_offers_leave_the_earlier_one_and_undoing_the_merge_brings_the_other_back(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one")
    routing.clock.move(timedelta(seconds=1))
    await routing.qualify("two")
    await routing.service.deliver(merged("one", into="two"))
    assert await current_owners(routing) == [ann]
    assert await routing.owner("two") == ann
    await routing.service.deliver(unmerged("one", into="two"))
    assert [await routing.owner("one"), await routing.owner("two")] == [ann, bob]
    told = sorted(await routing.service.told(LeadAssigned), key=lambda fact: fact.revision)
    assert {fact.rep_id: fact.lead_id for fact in told} == {ann: lead_id("one"), bob: lead_id("two")}
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_what_was_decided_between_a_merge_and_its_undoing_stays_with_whom_it_was_about(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one")
    routing.clock.move(timedelta(seconds=1))
    await routing.qualify("two")
    await routing.service.deliver(merged("two", into="one"))
    assert (await routing.answer("two", "accept")).json()["rep_id"] == ann
    routing.clock.move(timedelta(seconds=1))
    await routing.service.deliver(captured("two", revision=2, country="AT"))
    await routing.service.deliver(unmerged("two", into="one", at=routing.clock.now()))
    assert [await routing.owner("one"), await routing.owner("two")] == [ann, bob]
    assert [(await routing.assignment(name))["state"] for name in ("one", "two")] == ["accepted", "offered"]
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())
    await routing.service.deliver(entered("two", "recycled", "mql"), entered("two", "mql", "recycled"))
    assert (await routing.owner("two")) == bob


@pytest.mark.parametrize("order", [("ab", "bc"), ("bc", "ab")])
async def test_chains_of_merges_leave_the_same_owner_in_any_order(routing: Routing, order: tuple[str, str]) -> None:
    reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
    for name in ("a", "b", "c"):
        await routing.qualify(name)
        routing.clock.move(timedelta(seconds=1))
    merges = {"ab": merged("a", into="b"), "bc": merged("b", into="c")}
    for which in order:
        await routing.service.deliver(merges[which])
    assert await current_owners(routing) == [reps[0]]
    assert {await routing.owner(name) for name in ("a", "b", "c")} == {reps[0]}


async def test_f31_merges_of_a_chain_at_once_and_late_facts_leave_the_same_owner(routing: Routing) -> None:
    reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
    for name in ("a", "b", "c"):
        await routing.qualify(name)
        routing.clock.move(timedelta(seconds=1))
    await asyncio.gather(
        routing.service.deliver(merged("a", into="b")),
        routing.service.deliver(merged("b", into="c")),
        routing.service.deliver(captured("a", revision=2, country="AT"), entered("a", "mql", "recycled")),
    )
    await routing.service.deliver(entered("b", "mql", "recycled"), captured("b", revision=2, country="DE"))
    assert await current_owners(routing) == [reps[0]]
    assert {await routing.owner(name) for name in ("a", "b", "c")} == {reps[0]}
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_merges_and_decisions_at_once_leave_one_owner(routing: Routing) -> None:
    for name in ("ann", "bob", "cid"):
        await routing.hire(name)
    for index in range(5):
        one, two = f"one-{index}", f"two-{index}"
        await asyncio.gather(routing.qualify(one), routing.qualify(two), routing.service.deliver(merged(one, into=two)))
    assert len(await current_owners(routing)) == 5
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_a_held_lead_that_is_merged_into_one_with_a_rep_is_held_no_more(routing: Routing) -> None:
    ann = await routing.hire("ann", capacity=1)
    await routing.qualify("one", "two")
    assert len(await routing.holds()) == 1
    await routing.service.deliver(merged("two", into="one"))
    assert await routing.holds() == []
    assert await routing.owner("two") == ann


async def test_a_held_lead_stays_held_as_the_person_it_turned_out_to_be(routing: Routing) -> None:
    await routing.qualify("one")
    await routing.service.deliver(merged("one", into="two"))
    assert [hold["lead_id"] for hold in await routing.holds()] == [lead_id("two")]
    ann = await routing.hire("ann")
    await routing.service.run_timers()
    assert await routing.owner("two") == ann


async def test_an_anonymous_lead_linked_to_a_merged_one_does_not_make_a_second_owner(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.service.deliver(merged("old", into="one"))
    await routing.qualify("one")
    routing.clock.move(timedelta(seconds=1))
    await routing.service.deliver(entered("browser", profile=0), captured("old"))
    await routing.service.deliver(linked("browser", "old"))
    assert await current_owners(routing) == [ann]
    assert await routing.owner("browser") == ann


async def test_who_turns_out_to_be_a_customer_has_no_rep_to_win_them_whichever_came_first(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.qualify("one", "two")
    for name in ("one", "two"):
        await routing.answer(name, "accept")
    won = {name: entered(name, "customer", "opportunity", at=NOON + timedelta(minutes=1)) for name in ("three", "four")}
    await routing.service.deliver(merged("one", into="three"))
    await routing.service.deliver(won["three"], won["four"])
    await routing.service.deliver(merged("two", into="four"))
    for name in ("one", "two"):
        assignment = await routing.assignment(name)
        assert (assignment["state"], assignment["current"]) == ("accepted", False)
    assert await current_owners(routing) == []
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


@pytest.mark.parametrize("first", ["merged", "won"])
async def test_whose_customer_is_parted_from_them_has_their_rep_again(routing: Routing, first: str) -> None:
    ann = await routing.hire("ann")
    await routing.qualify("one")
    await routing.answer("one", "accept")
    won = entered("two", "customer", "opportunity", at=NOON + timedelta(minutes=1))
    both = [merged("one", into="two"), won]
    routing.clock.move(timedelta(minutes=2))
    for fact in both if first == "merged" else reversed(both):
        await routing.service.deliver(fact)
    assert await routing.owner("one") is None
    await routing.service.deliver(unmerged("one", into="two", at=routing.clock.now()))
    assert (await routing.owner("one"), (await routing.assignment("one"))["state"]) == (ann, "accepted")
    last = max(await routing.service.told(LeadAssigned), key=lambda fact: fact.revision)
    assert last.lead_id == lead_id("one"), "what was told of the other is told of its own lead again"


async def test_an_assignment_that_ended_while_two_were_one_is_told_of_its_own_lead_again(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.qualify("one", "two")
    await routing.answer("two", "reject", reason="a duplicate")
    await routing.service.deliver(entered("two", "lead", "mql"))
    kept = (await routing.assignment("one"))["assignment_id"]
    await routing.service.deliver(merged("one", into="two"))
    assert (await routing.service.told(LeadAssigned))[-1].lead_id == lead_id("two")
    await routing.answer("two", "reject", reason="a bad lead")
    await routing.service.deliver(unmerged("one", into="two"))
    assert await current_owners(routing) == []
    told = [fact for fact in await routing.service.told(LeadAssigned) if fact.assignment_id == kept]
    assert max(told, key=lambda fact: fact.revision).lead_id == lead_id("one")


async def test_what_lost_to_an_assignment_that_is_still_the_person_s_does_not_live_again(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one", "two")
    await routing.answer("one", "accept")
    await routing.service.deliver(merged("two", into="one"))
    routing.clock.move(timedelta(seconds=1))
    await routing.service.deliver(entered("one", "recycled", "sal"))
    await routing.qualify("three")
    await routing.service.deliver(entered("three", "disqualified", "mql", at=NOON - timedelta(minutes=1)))
    await routing.service.deliver(merged("three", into="one"))
    await routing.service.deliver(unmerged("three", into="one"))
    assert await current_owners(routing) == []
    assert (await routing.assignment("two"))["rep_id"] == ann


async def test_a_rep_who_accepts_a_recycled_person_s_other_lead_keeps_it(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.qualify("before", "since")
    await routing.answer("before", "accept")
    routing.clock.move(timedelta(minutes=2))
    await routing.service.deliver(
        *(entered(name, "recycled", "mql", at=NOON + timedelta(minutes=1)) for name in ("one", "two"))
    )
    await routing.answer("since", "accept")
    await routing.service.deliver(merged("before", into="one"), merged("since", into="two"))
    assert [await routing.owner(name) for name in ("before", "since")] == [None, ann]
