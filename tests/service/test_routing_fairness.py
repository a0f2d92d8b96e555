"""The books of a queue: what each member is owed, entry by entry, exactly."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.settings import Settings
from tests.service.routing_support import Routing, entered, lead_id, merged, routing_service, unmerged


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        await service.put_rules()
        yield service


async def fairness(routing: Routing, queue: str = "everybody") -> dict[str, dict[str, Any]]:
    """The members' standings by id, after their entries were found to add up to them."""
    answer = (await routing.client.get(f"/v1/queues/{queue}/fairness")).json()
    standings = {member["rep_id"]: member for member in answer["members"]}
    for rep_id, standing in standings.items():
        lines = await entries(routing, queue, rep_id=rep_id)
        assert (len(lines), sum(line["units"] for line in lines)) == (standing["entries"], standing["balance_units"])
        assert standing["balance"] == pytest.approx(standing["entitled"] - standing["received"], abs=1e-5)
    return standings


async def entries(routing: Routing, queue: str = "everybody", **filters: Any) -> list[dict[str, Any]]:
    """All entries, the oldest first, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await routing.client.get(
            f"/v1/queues/{queue}/fairness/entries",
            params={"limit": 7, **filters, **({"cursor": cursor} if cursor else {})},
        )
        assert page.status_code == 200, page.text
        found += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found[::-1]


def balances(standings: dict[str, dict[str, Any]]) -> list[float]:
    return [round(standing["balance"], 2) for standing in standings.values()]


async def test_nobody_is_a_whole_lead_from_entitlement_after_any_entry(routing: Routing) -> None:
    reps = [await routing.hire(name, weight=weight) for name, weight in (("ann", 100), ("bob", 50), ("cid", 25))]
    for number in range(15):
        await routing.qualify(f"lead-{number}")
    sums: Counter[str] = Counter()
    lines = {rep_id: await entries(routing, rep_id=rep_id) for rep_id in reps}
    for line in sorted((line for each in lines.values() for line in each), key=lambda line: line["number"]):
        sums[line["rep_id"]] += line["units"]
        assert abs(sums[line["rep_id"]]) < 803_134_332_000
    standings = await fairness(routing)
    assert [standing["received"] for standing in standings.values()] == [9, 4, 2]
    assert [line["kind"] for line in lines[reps[0]][:2]] == ["joined", "received"]
    assert all(line["assignment_id"] for line in lines[reps[2]] if line["kind"] == "earned")
    answer = (await routing.client.get("/v1/queues/everybody/fairness")).json()
    furthest = answer["greatest_deviation"]
    assert abs(furthest["leads"]) == max(abs(standing["balance"]) for standing in standings.values())


async def test_a_lead_taken_back_is_credited_once_and_a_turn_wasted_is_not(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two", "three")
    await routing.answer("one", "reject", reason="a student")
    standings = await fairness(routing)
    assert (standings[ann]["received"], standings[bob]["received"]) == (1, 2)
    (credit,) = [line for line in await entries(routing) if line["kind"] == "rejected"]
    assert (credit["rep_id"], credit["leads"], credit["lead_id"]) == (ann, 1.0, lead_id("one"))
    await routing.answer("two", "reject", reason="too busy", bad_lead=False)
    assert len([line for line in await entries(routing) if line["kind"] == "rejected"]) == 1
    await routing.pass_time(timedelta(minutes=61))
    expired = [line for line in await entries(routing) if line["kind"] == "expired"]
    assert expired and all(line["leads"] == 1.0 for line in expired)
    await fairness(routing)


async def test_a_lead_given_to_another_by_hand_is_credited_to_the_one_and_counted_for_the_other(
    routing: Routing,
) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two")
    assert await routing.owner("one") == ann
    await routing.answer("one", "reassign", rep_id=bob, reason="knows them")
    assert balances(await fairness(routing)) == [1.0, -1.0]
    await routing.answer("one", "reassign", rep_id=ann, reason="after all")
    assert balances(await fairness(routing)) == [0.0, 0.0]
    kinds = [line["kind"] for line in await entries(routing) if line["lead_id"] == lead_id("one")]
    assert kinds == ["received", "reassigned", "given", "reassigned", "given"]


async def test_a_merge_credits_the_rep_who_loses_the_lead_until_it_is_undone(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.hire("bob")
    await routing.qualify("one")
    routing.clock.move(timedelta(minutes=1))  # of two offers the earlier one stays
    await routing.qualify("two")
    await routing.service.deliver(merged("two", "one"))
    assert balances(await fairness(routing)) == [0.0, 1.0]
    await routing.service.deliver(unmerged("two", "one"))
    assert balances(await fairness(routing)) == [0.0, 0.0]


async def test_absences_limits_and_weights_are_entries_and_a_returner_starts_level(routing: Routing) -> None:
    ann, bob, cid = [await routing.hire(name) for name in ("ann", "bob", "cid")]
    await routing.qualify("one")
    leave = [{"from": "2026-11-25T00:00:00Z", "to": "2026-11-25T18:00:00Z"}]
    await routing.client.patch(f"/v1/reps/{ann}", json={"time_off": leave})
    await routing.client.patch(f"/v1/reps/{bob}", json={"capacity": 1})
    await routing.client.patch(f"/v1/reps/{cid}", json={"weight": 50})
    await routing.qualify("two", "three")
    assert [await routing.owner(name) for name in ("two", "three")] == [bob, cid]
    routing.clock.move(timedelta(hours=7))
    await routing.client.patch(f"/v1/reps/{bob}", json={"capacity": None})
    await routing.qualify("four")
    await routing.client.patch(f"/v1/reps/{bob}", json={"active": False})
    await routing.qualify("five")
    told = [(line["kind"], line["rep_id"], line["why"]) for line in await entries(routing)]
    assert ("absent", ann, "on leave") in told
    assert ("capped", bob, "at capacity") in told
    assert ("weight", cid, "from 100 to 50") in told
    assert ("returned", ann, "was on leave; starts at the level of the others") in told
    assert ("returned", bob, "was at capacity; what was owed stays") in told
    assert ("absent", bob, "deactivated, or taken out of the queue") in told
    standings = await fairness(routing)
    assert standings[bob]["why_not"] == "deactivated"


async def test_a_balance_is_set_right_by_hand_once_with_its_reason(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    body = {"rep_id": bob, "leads": 2, "reason": "was forgotten last month"}
    path = "/v1/queues/everybody/fairness:adjust"
    answers = [await routing.client.post(path, json=body, headers={"idempotency-key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["leads"], answers[0].json()["why"]) == (2.0, body["reason"])
    await routing.qualify("one", "two", "three", "four")
    assert [await routing.owner(name) for name in ("one", "two", "three", "four")] == [bob, bob, ann, bob]
    assert (await fairness(routing))[bob]["received"] == 3
    async with routing.service.runtime.database.reading() as connection:
        audited = await connection.fetch("SELECT actor, target, detail FROM audit_entries")
    assert [(row["target"], row["detail"]["reason"]) for row in audited] == [("everybody", body["reason"])]
    assert answers[0].json()["by"] == audited[0]["actor"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"rep_id": "nobody"}, "/rep_id"),
        ({"leads": 0}, "/leads"),
        ({"leads": 5000}, "/leads"),
        ({"leads": 0.0001}, "/leads"),
        ({"leads": "NaN"}, "/leads"),
        ({"reason": ""}, "/reason"),
    ],
)
async def test_an_adjustment_that_makes_no_sense_is_refused(
    routing: Routing, change: dict[str, Any], pointer: str
) -> None:
    ann = await routing.hire("ann")
    body = {"rep_id": ann, "leads": 1, "reason": "why not", **change}
    answer = await routing.client.post("/v1/queues/everybody/fairness:adjust", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_queues_are_listed_with_members_and_load(routing: Routing) -> None:
    ann, bob = await routing.hire("ann", skills=["crm"]), await routing.hire("bob")
    await routing.put_rules(
        {"id": "crm", "when": "lead.use_case == 'crm'", "queue": "crm", "strategy": "round_robin"},
        {"id": "vip", "when": "lead.country == 'AT'", "strategy": "least_loaded"},
        queues=[
            {"id": "crm", "who": "'crm' in rep.skills", "catch_up": {"capacity": True}},
            {"id": "everybody", "members": [{"rep_id": ann, "weight": 20}, {"rep_id": bob}], "cycle": "monthly"},
        ],
    )
    await routing.qualify("one", use_case="crm")
    first = (await routing.client.get("/v1/queues", params={"limit": 2})).json()
    rest = (await routing.client.get("/v1/queues", params={"cursor": first["next_cursor"]})).json()
    listed: list[dict[str, Any]] = [*first["items"], *rest["items"]]
    crm, everybody, vip = listed
    assert [queue["queue_id"] for queue in (crm, everybody, vip)] == ["crm", "everybody", "vip"]
    assert [(member["rep_id"], member["open_leads"]) for member in crm["members"]] == [(ann, 1)]
    assert (crm["rules"], crm["catch_up_capacity"], crm["open_leads"]) == (["crm"], True, 1)
    assert [member["weight"] for member in everybody["members"]] == [20, 100]
    assert (everybody["rules"], everybody["monthly"]) == (["catch-all"], True)
    assert (await routing.client.get("/v1/queues/crm")).json() == crm
    for path in ("/v1/queues/none", "/v1/queues/none/fairness", "/v1/queues/none/fairness/entries"):
        assert (await routing.client.get(path)).status_code == 404


async def test_stages_told_twice_write_no_entry_twice(routing: Routing) -> None:
    await routing.hire("ann")
    await routing.hire("bob")
    fact = entered("one", profile=0)
    await routing.service.deliver(fact)
    before = await entries(routing)
    await routing.service.deliver(fact)
    assert await entries(routing) == before
