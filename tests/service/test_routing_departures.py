"""Reps who go leave nothing behind, leads that wait can be let go, and who has a claim on a lead gets it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.routing.departures.domain import AT_ONCE
from shared.events import LeadAssigned
from shared.settings import Settings
from shared.testing import token
from tests.service.routing_support import Routing, entered, lead_id, routing_service


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def post(routing: Routing, path: str, **body: Any) -> httpx.Response:
    return await routing.client.post(f"/v1/{path}", json=body)


async def test_who_leaves_gives_what_they_hold_to_others_and_the_answer_says_to_whom(routing: Routing) -> None:
    ann = await routing.hire("ann", territories=["AT"])
    await routing.put_rules(
        {"id": "at", "when": "true", "who": "lead.country in rep.territories", "strategy": "round_robin"}
    )
    await routing.qualify("one", country="AT")
    routing.clock.move(timedelta(seconds=1))  # they are listed in the order in which they were given
    await routing.qualify("two", country="AT")
    assert (await routing.answer("one", "accept")).status_code == 200
    deal = {"lead_id": lead_id("one"), "name": "Secret", "value_minor": 100_00, "currency": "EUR"}
    deal_id = (await post(routing, "deals", **deal)).json()["deal_id"]
    bob = await routing.hire("bob", territories=["AT"])
    answer = await post(routing, f"reps/{ann}:deactivate", reroute=True, reason="left the company")
    assert answer.status_code == 200, answer.text
    left = answer.json()
    assert (left["active"], left["reason"], left["left"], left["going_on"]) == (False, "left the company", 0, False)
    assert [(one["lead_id"], one["became"], one["rep_id"], one["state"]) for one in left["leads"]] == [
        (lead_id("one"), "rerouted", bob, "accepted"),
        (lead_id("two"), "rerouted", bob, "offered"),
    ]
    assert [(one["deal_id"], one["value_minor"]) for one in left["deals"]] == [(deal_id, 100_00)]
    now = await routing.assignment("one")
    assert (now["assignment_id"], now["reason"]) == (left["leads"][0]["next_assignment_id"], "left the company")
    assert (await routing.client.get(f"/v1/reps/{ann}")).json()["left_because"] == "left the company"
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())
    again = await post(routing, f"reps/{ann}:deactivate", reroute=True, reason="left the company")
    assert (again.json()["leads"], len(await routing.service.told(LeadAssigned))) == ([], 4)
    back = await post(routing, f"reps/{ann}:activate")
    assert (back.json()["active"], back.json()["reason"]) == (True, None)
    assert (await post(routing, f"reps/{ann}:reroute", reason="x")).status_code == 409


async def test_without_reroute_leads_are_listed_for_later_and_nobody_free_holds_them(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules()
    await routing.qualify("one", "two", "three")
    await routing.answer("three", "accept")
    await routing.service.deliver(entered("three", "opportunity", "mql"))
    left = (await post(routing, f"reps/{ann}:deactivate", reason="ill")).json()
    assert {one["became"] for one in left["leads"]} == {"kept"} and left["left"] == 3
    page = (await routing.client.get(f"/v1/reps/{ann}/held", params={"limit": 2})).json()
    rest = (await routing.client.get(f"/v1/reps/{ann}/held", params={"cursor": page["next_cursor"]})).json()
    assert [one["lead_id"] for one in (*page["items"], *rest["items"])] == [one["lead_id"] for one in left["leads"]]
    moved = (await post(routing, f"reps/{ann}:reroute", reason="ill for long")).json()
    became = {one["lead_id"]: (one["became"], one["why"]) for one in moved["leads"]}
    assert became == {
        lead_id("one"): ("held", "there are no active reps"),
        lead_id("two"): ("held", "there are no active reps"),
        lead_id("three"): ("kept", "there are no active reps"),  # leads at this stage would not be routed again
    }
    assert {hold["lead_id"] for hold in await routing.holds()} == {lead_id("one"), lead_id("two")}
    bob = await routing.hire("bob")
    await routing.pass_time(timedelta(0))
    assert [await routing.owner(name) for name in ("one", "two", "three")] == [bob, bob, ann]
    moved = (await post(routing, f"reps/{ann}:reroute", reason="ill for long")).json()
    assert [(one["became"], one["rep_id"]) for one in moved["leads"]] == [("rerouted", bob)]


async def test_more_leads_than_one_transaction_takes_are_carried_on_with_and_each_moves_once(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules()
    names = [f"lead {number}" for number in range(AT_ONCE + 20)]
    await routing.qualify(*names)
    bob, cid = await routing.hire("bob"), await routing.hire("cid")
    body = {"reroute": True, "reason": "left"}
    first, second = await asyncio.gather(*(post(routing, f"reps/{ann}:deactivate", **body) for _ in range(2)))
    assert sorted([first.json()["left"], second.json()["left"]]) == [0, 20]
    assert max(len(one.json()["leads"]) for one in (first, second)) == AT_ONCE
    await routing.pass_time(timedelta(0))
    owners = Counter([await routing.owner(name) for name in names])
    assert owners == {bob: (AT_ONCE + 20) / 2, cid: (AT_ONCE + 20) / 2}
    assert len(await routing.service.told(LeadAssigned)) == 2 * len(names)


async def test_a_lead_that_waits_is_tried_again_given_by_hand_or_let_go_with_all_of_one_reason(
    routing: Routing,
) -> None:
    await routing.put_rules(
        {"id": "at", "when": "lead.country == 'AT'", "who": "'AT' in rep.territories", "strategy": "round_robin"}
    )
    await routing.qualify("one", "two", "three", "four")
    reason = (await routing.holds())[0]["reason"]
    still = (await post(routing, f"holds/{lead_id('one')}:release")).json()
    assert (still["assignment"], still["hold"]["reason"], still["hold"]["why"]) == (None, reason, "nobody")
    async with routing.service.runtime.database.reading() as connection:  # as if it were not noticed that she is back
        ann = await routing.hire("ann")
        await connection.execute("UPDATE holds SET retry_at = NULL")
    released = (await post(routing, f"holds/{lead_id('one')}:release")).json()
    assert (released["assignment"]["rep_id"], released["hold"]) == (ann, None)
    given = await post(routing, f"holds/{lead_id('two')}:assign", rep_id=ann, reason="knows them")
    assert (given.json()["rep_id"], given.json()["strategy"], given.json()["reason"]) == (ann, "by_hand", "knows them")
    listed = (await routing.client.get("/v1/holds", params={"reason": reason})).json()["items"]
    assert [hold["lead_id"] for hold in listed] == sorted([lead_id("three"), lead_id("four")])
    assert (await routing.client.get("/v1/holds", params={"why": "passed_by"})).json()["items"] == []
    other = (await post(routing, "holds:release", reason="another")).json()
    assert (other["released"], other["waiting"]) == (0, [{"why": "nobody", "reason": reason, "leads": 2}])
    assert (await post(routing, "holds:release", reason=reason)).json()["released"] == 2
    await routing.pass_time(timedelta(0))
    assert [await routing.owner(name) for name in ("three", "four")] == [ann, ann] and await routing.holds() == []
    for path, body, status in (
        (f"holds/{lead_id('one')}:release", {}, 404),
        (f"holds/{lead_id('one')}:assign", {"rep_id": ann, "reason": "x"}, 404),
        (f"holds/{lead_id('unheard of')}:release", {}, 404),
        (f"holds/{lead_id('one')}:assign", {"rep_id": ann}, 422),
        ("holds:release", {"why": "because"}, 422),
        ("reps/nobody:deactivate", {"reason": "x"}, 404),
        ("reps/nobody:reroute", {"reason": "x"}, 404),
        ("reps/nobody:activate", {}, 404),
        (f"reps/{ann}:deactivate", {}, 422),
    ):
        assert (await post(routing, path, **body)).status_code == status, path


async def test_who_passed_a_lead_by_is_asked_again_when_a_person_says_so(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules()
    await routing.qualify("one")
    await routing.answer("one", "reject", reason="no")
    assert "1 passed it by" in (await routing.holds())[0]["reason"]
    again = (await post(routing, f"holds/{lead_id('one')}:release", ask_again=True)).json()
    assert again["assignment"]["rep_id"] == ann


async def test_a_lead_goes_back_to_its_rep_for_so_many_days_and_only_where_the_rules_say_so(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules(re_entry={"days": 90, "when": "lead.country != 'FR'"})
    for name, country in (("soon", "AT"), ("late", "AT"), ("french", "FR")):
        await routing.qualify(name, country=country)
        await routing.answer(name, "accept")
    owners = {name: await routing.owner(name) for name in ("soon", "late", "french")}
    for name in owners:
        await routing.service.deliver(entered(name, "recycled", "mql"))
    await routing.pass_time(timedelta(days=90))
    await routing.service.deliver(entered("soon", "mql", "recycled"), entered("french", "mql", "recycled"))
    assert (await routing.assignment("soon"))["queue"] == "re-entry"
    assert await routing.owner("soon") == owners["soon"]
    french = (await routing.assignment("french"))["trace"]
    assert (french[0]["rule_id"], french[0]["matched"]) == ("re-entry", False) and "condition" in french[0]["why"]
    await routing.pass_time(timedelta(minutes=1))
    await routing.service.deliver(entered("late", "mql", "recycled"))
    late = await routing.assignment("late")
    assert late["strategy"] == "round_robin" and "more than 90 days ago" in late["trace"][0]["why"]
    for wrong, pointer in (
        ({"days": -1}, "/re_entry/days"),
        ({"days": 90, "when": "lead.colour"}, "/re_entry/when"),
        ({}, "/re_entry/days"),
    ):
        document = (await routing.client.get("/v1/rules")).json()["document"] | {"re_entry": wrong}
        refused = await routing.client.put("/v1/rules", json=document)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert {ann, bob} >= set(owners.values())


async def test_the_owner_of_the_open_deal_gets_the_lead_by_a_strategy_or_a_condition(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules()
    by = {
        "one": {"strategy": "deal_owner"},
        "two": {"strategy": "round_robin", "who": "rep.rep_id == deal.rep_id"},
    }
    await routing.qualify(*by)
    for name in by:
        await routing.answer(name, "reassign", rep_id=bob, reason="x")
        await routing.answer(name, "accept")
        deal = {"lead_id": lead_id(name), "name": "Big", "value_minor": 100_00, "currency": "EUR"}
        assert (await post(routing, "deals", **deal)).json()["rep_id"] == bob
    async with routing.service.runtime.database.reading() as connection:  # only the deals tell who knows them
        await connection.execute("DELETE FROM assignments")
    for name, rule in by.items():
        await routing.put_rules({"id": "deal", "when": "true", **rule})
        await routing.service.deliver(entered(name, "mql", "recycled"))
        assert await routing.owner(name) == bob
    assert (await routing.assignment("one"))["trace"][0]["why"] == "has the open deal with this lead"


async def test_leaving_and_letting_go_ask_for_the_right_to_write(routing: Routing, settings: Settings) -> None:
    ann = await routing.hire("ann")
    reading = {"authorization": f"Bearer {token(settings, 'routing:read')}"}
    for path in (
        f"reps/{ann}:deactivate",
        f"reps/{ann}:activate",
        f"reps/{ann}:reroute",
        "holds:release",
        "holds/x:assign",
    ):
        body = {"reason": "x", "rep_id": ann} if path.endswith("assign") else {"reason": "x"}
        assert (await routing.client.post(f"/v1/{path}", json=body, headers=reading)).status_code == 403
    assert (await routing.client.get(f"/v1/reps/{ann}/held", headers=reading)).status_code == 200
