"""A lead goes to the owner of its account, else of one above it, whatever the order in which accounts are heard of."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import permutations

import orjson
import pytest

from shared.settings import Settings
from tests.service.routing_accounts import ACCOUNT_OWNER, account, account_id
from tests.service.routing_support import NOON, Routing, captured, entered, lead_id, merged, routing_service


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def test_the_owner_of_the_account_gets_its_leads_by_id_or_email_with_the_reason(routing: Routing) -> None:
    await routing.hire("ann")
    bob, cid = await routing.hire("bob"), await routing.hire("cid")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "acme", owner=bob), await account(routing, "globex", owner="CID@sales.example.com")
    )
    await routing.qualify("one", account_id=account_id("acme"))
    await routing.qualify("two", account_id=account_id("globex"))
    assert [await routing.owner("one"), await routing.owner("two")] == [bob, cid]
    assignment = await routing.assignment("one")
    assert assignment["strategy"] == "account_owner"
    assert assignment["trace"][-1]["why"] == f"owns {account_id('acme')}, the lead's account"
    assert assignment["inputs"]["lead"]["account"]["name"] == "acme"


async def test_a_decision_says_by_what_it_is_the_leads_account_and_keeps_the_reason_sealed(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    keys = routing.service.consumer_runtime.keys
    async with routing.service.runtime.database.reading() as connection:
        ciphers, _ = await keys.ciphers(connection, [lead_id("one")], NOON)
    reason = "'Acme' is close to 'Acme Inc' (92), and the country is the same, AT"
    personal = keys.seal(lead_id("one"), ciphers[lead_id("one")], orjson.dumps({"account_reason": reason})).decode()
    await routing.service.deliver(await account(routing, "acme", owner=bob))
    await routing.qualify("one", account_id=account_id("acme"), account_matched_by="close_name", personal=personal)
    assignment = await routing.assignment("one")
    why = f"owns {account_id('acme')}, the lead's account, by a close name and a second sign"
    assert assignment["trace"][-1]["why"] == why
    match = {"account_id": account_id("acme"), "matched_by": "close_name", "reason": reason}
    assert assignment["inputs"]["account_match"] == match
    assert "account_reason" not in assignment["inputs"]["lead"]
    async with routing.service.runtime.database.reading() as connection:
        kept = await connection.fetchval("SELECT inputs::text || trace::text FROM assignments")
    assert "Acme Inc" not in kept


async def test_owners_who_cannot_take_a_lead_are_named_with_what_keeps_them(routing: Routing) -> None:
    leave = [{"from": "2026-11-25", "to": "2026-11-27"}]
    ann, bob = await routing.hire("ann", time_off=leave), await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "low", owner="ann@sales.example.com", parent="middle"),
        await account(routing, "middle", owner="nobody", parent="top"),
        await account(routing, "top", owner=bob),
        await account(routing, "alone", owner=ann),
    )
    await routing.qualify("one", account_id=account_id("low"))
    why = (await routing.assignment("one"))["trace"][-1]["why"]
    assert f"2 above the lead's account; the owner of {account_id('low')} is on leave; " in why
    assert why.endswith(f"the owner of {account_id('middle')} is not among the active reps of the queue")
    await routing.qualify("two", account_id=account_id("alone"))
    trace = (await routing.assignment("two"))["trace"]
    assert trace[0]["why"].endswith(f"account_owner asks for; the owner of {account_id('alone')} is on leave")
    assert [trial["matched"] for trial in trace] == [False, True]


async def test_the_nearest_owner_above_who_can_take_it_gets_the_lead(routing: Routing) -> None:
    await routing.hire("ann")
    bob, cid = await routing.hire("bob"), await routing.hire("cid")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "top", owner=bob),
        await account(routing, "middle", owner=cid, parent="top"),
        await account(routing, "low", owner="somebody who left", parent="middle"),
    )
    await routing.qualify("one", account_id=account_id("low"))
    assert await routing.owner("one") == cid
    assert "1 above the lead's account" in (await routing.assignment("one"))["trace"][-1]["why"]
    assert (await routing.client.patch(f"/v1/reps/{cid}", json={"active": False})).status_code == 200
    await routing.qualify("two", account_id=account_id("low"))
    assert await routing.owner("two") == bob


async def test_without_an_owner_the_rep_of_the_same_company_gets_the_lead_else_the_next(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(await account(routing, "acme"))
    await routing.qualify("one", company="Acme", account_id=account_id("acme"))
    await routing.qualify("other")
    await routing.qualify("two", company="Acme", account_id=account_id("acme"))
    await routing.qualify("three", account_id=account_id("acme"))
    assert [await routing.owner(name) for name in ("one", "other", "two", "three")] == [ann, bob, ann, ann]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_accounts_fold_the_same_in_every_order_and_twice(routing: Routing, order: tuple[int, ...]) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    facts = [
        await account(routing, "acme", 1, owner="somebody else", country="AT"),
        await account(routing, "acme", 2, owner=bob, country="DE", employees=240, parent="top"),
        captured("one", account_id=account_id("acme")),
    ]
    for index in order:
        await routing.service.deliver(facts[index])
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("DELETE FROM inbox")
    await routing.service.deliver(*facts)
    await routing.service.deliver(entered("one"))
    assert await routing.owner("one") == bob
    assert (await routing.assignment("one"))["inputs"]["lead"]["account"] == {
        "account_id": account_id("acme"),
        "name": "acme",
        "domain": "acme.com",
        "owner_id": bob,
        "parent_id": account_id("top"),
        "ultimate_parent_id": account_id("acme"),  # the one above is not known yet
        "employees": 240,
        "country": "DE",
    }


async def test_a_lead_whose_account_is_not_here_yet_waits_a_moment_for_it(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    for name in ("one", "two"):
        await routing.qualify(name, account_id=account_id(name))
    assert {hold["reason"] for hold in await routing.holds()} == {"its account is on the way"}
    await routing.service.deliver(await account(routing, "one", owner=bob))
    await routing.pass_time(timedelta(seconds=5))
    assert await routing.owner("one") == bob
    assert await routing.owner("two") in (ann, bob)  # by the catch-all: nothing waits for ever
    assert (await routing.assignment("two"))["strategy"] == "round_robin"


async def test_an_account_that_was_merged_is_the_one_that_stayed(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "old", 2, into="acme"),
        await account(routing, "acme", owner=bob),
        await account(routing, "old", 1, owner="somebody else"),
    )
    await routing.qualify("one", account_id=account_id("old"))
    assert await routing.owner("one") == bob
    assert (await routing.assignment("one"))["inputs"]["lead"]["account"]["account_id"] == account_id("acme")


async def test_a_circle_that_facts_close_for_a_moment_stops_nobody(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "a", parent="b"), await account(routing, "b", parent="a", owner=ann)
    )
    await routing.qualify("one", account_id=account_id("a"))
    assert (await routing.assignment("one"))["strategy"] == "account_owner"


async def test_a_person_has_the_account_that_was_told_for_them_and_no_other_leads(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules(ACCOUNT_OWNER)
    await routing.service.deliver(
        await account(routing, "acme", owner=bob),
        captured("gone", account_id=account_id("acme")),
        captured("kept"),
        merged("gone", into="kept"),
        entered("kept"),
    )
    assert "account" not in (await routing.assignment("kept"))["inputs"].get("lead", {})
    assert (await routing.assignment("kept"))["lead_id"] == lead_id("kept")


async def test_rules_read_the_account_and_unknown_names_are_refused(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob", skills=["enterprise"])
    rule = {"strategy": "round_robin", "who": "'enterprise' in rep.skills"}
    await routing.put_rules({"id": "big", "when": "lead.account.employees > 1000 && lead.country == 'DE'", **rule})
    await routing.service.deliver(await account(routing, "acme", employees=5_000), await account(routing, "tiny"))
    await routing.qualify("one", account_id=account_id("acme"), country="DE")
    await routing.qualify("two", account_id=account_id("tiny"), country="DE")
    assert [await routing.owner("one"), await routing.owner("two")] == [bob, ann]
    assert "lead.account.employees is missing" in (await routing.assignment("two"))["trace"][0]["why"]
    document = (await routing.client.get("/v1/rules")).json()["document"]
    document["rules"][0]["when"] = "lead.account.colour == 'red'"
    refused = await routing.client.put("/v1/rules", json=document)
    assert refused.status_code == 422
    assert "lead.account.colour" in refused.json()["errors"][0]["detail"]


async def test_trying_rules_over_history_knows_whose_the_accounts_were(routing: Routing) -> None:
    await routing.hire("ann")
    bob = await routing.hire("bob")
    await routing.put_rules()
    await routing.service.deliver(await account(routing, "acme", owner=bob))
    await routing.qualify("one", account_id=account_id("acme"))
    await routing.qualify("two", account_id=account_id("acme"))
    draft = (await routing.client.get("/v1/rules")).json()["document"] | {"rules": [ACCOUNT_OWNER]}
    tried = await routing.client.post("/v1/rules:simulate", json={"document": draft, "days": 1})
    assert tried.status_code == 200, tried.text
    assert tried.json()["leads_by_rep"][bob]["after"] == 2
