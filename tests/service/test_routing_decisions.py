"""Decisions are taken again from what they saw, explained in words, and tried on a lead before it comes."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.routing.decisions.handlers import forget_old
from services.routing.parts import make_parts
from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, captured, entered, erased, lead_id, routing_service

LINES: tuple[dict[str, Any], ...] = (
    {
        "id": "austria",
        "when": "lead.country == 'AT'",
        "queue": "austria",
        "strategy": "round_robin",
        "available": True,
        "sla": {"accept_minutes": 30, "touch_minutes": 60},
    },
    {"id": "senior", "when": "score.total > 95.0", "strategy": "highest_seniority"},
    {"id": "loaded", "when": "lead.country == 'DE'", "who": "rep.seniority > 1", "strategy": "least_loaded"},
)
QUEUES = [
    {"id": "austria", "who": "'AT' in rep.territories", "catch_up": {"capacity": True}, "cycle": "monthly"},
    {"id": "everybody", "who": "true"},
]
HOURS = {"mon": [["09:00", "17:00"]], "wed": [["09:00", "17:00"]]}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        await service.put_rules(*LINES, queues=QUEUES)
        yield service


async def replay(routing: Routing, assignment_id: str) -> dict[str, Any]:
    answer = await routing.client.post(f"/v1/assignments/{assignment_id}:replay")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def all_assignments(routing: Routing) -> list[dict[str, Any]]:
    return list((await routing.client.get("/v1/assignments", params={"limit": 200})).json()["items"])


async def explain(routing: Routing, assignment_id: str, rep_id: str | None = None) -> dict[str, Any]:
    params = {"rep_id": rep_id} if rep_id else {}
    answer = await routing.client.get(f"/v1/assignments/{assignment_id}/explain", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def live(routing: Routing) -> list[str]:
    """Some weeks of work of four reps: every strategy, refusals, absences, limits, other rules. Their ids."""
    ann = await routing.hire("ann", territories=["AT"], working_hours=HOURS, seniority=3)
    bob = await routing.hire("bob", territories=["AT", "DE"], weight=37, seniority=2, capacity=3)
    cid = await routing.hire("cid", territories=["AT"], seniority=5)
    dan = await routing.hire("dan", seniority=1)
    for number in range(16):
        country = ("AT", "AT", "DE", "US")[number % 4]
        name = f"lead-{number}"
        facts = captured(name, country=country, company=f"Company {number % 5}"), entered(name, total=70.0 + 2 * number)
        await routing.service.deliver(*facts)
        if number % 3 == 0:
            await routing.answer(name, "reject", reason="not for me")
        if number % 5 == 0:
            await routing.answer(name, "reassign", reason="on the road")
        if number % 4 > 1:
            await routing.answer(name, "accept")
        if number == 6:
            leave = [{"from": "2026-11-25", "to": "2026-12-01"}]
            await routing.client.patch(f"/v1/reps/{cid}", json={"time_off": leave, "weight": 61})
        if number == 10:
            await routing.put_rules(*LINES[1:], queues=QUEUES)
        await routing.pass_time(timedelta(minutes=50))
    return [ann, bob, cid, dan]


async def test_every_decision_taken_again_gives_the_same_rep_for_the_same_reasons(routing: Routing) -> None:
    await live(routing)
    made = await all_assignments(routing)
    assert {one["strategy"] for one in made} >= {"round_robin", "least_loaded", "highest_seniority"}
    assert len(made) > 25
    for one in made:
        again = await replay(routing, one["assignment_id"])
        assert (again["same"], again["differences"]) == (True, []), again
        assert (again["rep_id"], again["trace"]) == (one["rep_id"], one["trace"])
    assert await all_assignments(routing) == made


async def test_what_decisions_saw_is_kept_without_growing_with_reps_and_decisions(routing: Routing) -> None:
    for number in range(30):
        await routing.hire(f"rep-{number}")
    names = [f"lead-{number}" for number in range(40)]
    await routing.qualify(*names)
    async with routing.service.runtime.database.reading() as connection:
        kept = {
            table: await connection.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("rep_states", "rep_profiles", "pools", "fairness_weights", "fairness_entries")
        }
    assert kept["rep_profiles"] == 30
    assert (kept["pools"], kept["fairness_weights"]) == (1, 1)
    assert kept["rep_states"] == 30 + 39  # all of them once, then the one who got the lead before
    assert kept["fairness_entries"] == 30 + 40


async def test_what_old_decisions_saw_is_dropped_and_the_others_can_be_taken_again(routing: Routing) -> None:
    rep = await routing.hire("ann", working_hours={"mon": [["09:00", "10:00"]]})
    for number in range(3):
        routing.clock.move(timedelta(hours=1))
        hours = {"mon": [["09:00", f"{11 + number}:00"]]}
        answer = await routing.client.patch(f"/v1/reps/{rep}", json={"working_hours": hours})
        assert answer.status_code == 200, answer.text
        await routing.qualify(f"lead-{number}")
    routing.clock.move(timedelta(minutes=30))
    for _ in range(2):
        await forget_old(make_parts(routing.service.runtime), timedelta(hours=2))
    await routing.qualify("lead-3")
    made = [(await routing.assignment(f"lead-{number}"))["assignment_id"] for number in range(4)]
    gone = await routing.client.post(f"/v1/assignments/{made[0]}:replay")
    assert (gone.status_code, "REPLAYS_KEPT" in gone.json()["detail"]) == (409, True)
    for assignment_id in made[1:]:
        assert (await replay(routing, assignment_id))["same"]
    async with routing.service.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM rep_schedules") == 2


async def test_books_far_in_the_past_are_read_from_a_statement(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.fairness.queries.STATEMENT_EVERY", 4)
    for name in ("ann", "bob", "cid"):
        await routing.hire(name, weight=len(name) * 7)
    for number in range(20):
        await routing.qualify(f"lead-{number}")
    async with routing.service.runtime.database.reading() as connection:
        assert 3 <= await connection.fetchval("SELECT count(*) FROM fairness_statements") <= 6
    for one in await all_assignments(routing):
        assert (await replay(routing, one["assignment_id"]))["same"]


async def test_why_me_and_why_not_me_are_answered_for_every_rep(routing: Routing) -> None:
    ann = await routing.hire("ann", territories=["AT"])
    bob = await routing.hire("bob", territories=["AT"])
    cid = await routing.hire("cid", territories=["AT"], working_hours={"mon": [["09:00", "10:00"]]})
    dan = await routing.hire("dan")
    eve = await routing.hire("eve", territories=["AT"], capacity=0)
    await routing.qualify("one", country="AT")
    late = await routing.hire("late", territories=["AT"])
    made = await routing.assignment("one")
    found = {rep: await explain(routing, made["assignment_id"], rep) for rep in (ann, bob, cid, dan, eve, late)}
    assert (found[ann]["chosen"], found[ann]["why"]) == (True, "rule austria gave it to them: next in turn among 2")
    assert "it was Ann's turn" in found[bob]["why"]
    assert found[cid]["why"] == "rule austria: outside working hours"
    assert found[dan]["why"] == "rule austria: not fitting `who`"
    assert found[eve]["why"] == "rule austria: at capacity"
    assert found[late]["why"] == "was not among the active reps then"
    assert (await explain(routing, made["assignment_id"]))["rep_id"] == ann
    unknown = await routing.client.get(f"/v1/assignments/{made['assignment_id']}/explain", params={"rep_id": "x"})
    assert (unknown.status_code, unknown.json()["type"].rsplit(":", 1)[-1]) == (404, "no-such-rep")


async def test_what_cannot_be_taken_again_says_why(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.qualify("one", "two")
    by_hand = (await routing.answer("one", "reassign", rep_id=bob, reason="knows them")).json()["assignment_id"]
    gone = (await routing.assignment("two"))["assignment_id"]
    await routing.service.deliver(erased("two"))
    for assignment_id, words in ((by_hand, "by hand"), (gone, "erased")):
        answer = await routing.client.post(f"/v1/assignments/{assignment_id}:replay")
        assert (answer.status_code, words in answer.json()["detail"]) == (409, True)
    assert (await routing.client.post("/v1/assignments/none:replay")).status_code == 404
    assert "knows them" in (await explain(routing, by_hand))["why"]
    assert "nothing more is known" in (await explain(routing, by_hand, ann))["why"]


async def test_a_preview_is_what_then_happens_and_changes_nothing(routing: Routing) -> None:
    for name in ("ann", "bob", "cid", "dan"):
        await routing.hire(name, territories=["AT"])
    await routing.qualify("old", country="AT")
    lead: dict[str, Any] = {"country": "AT", "company": "Company 9", "attributes": {"plan": "pro"}}
    told = {"lead": lead, "score": {"engagement": 50, "fit": 40, "total": 90, "grade": "C"}}
    before = await all_assignments(routing)
    shown = (await routing.client.post("/v1/rules:preview", json=told)).json()
    assert (await routing.client.post("/v1/rules:preview", json=told)).json() == shown
    assert await all_assignments(routing) == before
    await routing.service.deliver(captured("new", **lead), entered("new", total=90.0))
    made = await routing.assignment("new")
    assert (shown["rep_id"], shown["trace"]) == (made["rep_id"], made["trace"])
    assert (shown["outcome"]["queue"], shown["not_routed"]) == (made["queue"], None)
    assert len(shown["reps"]) == 4
    assert [one["chosen"] for one in shown["reps"]] == [True, False, False, False]
    assert shown["rep_id"] not in {other["rep_id"] for other in shown["alternatives"]}


async def test_a_preview_tries_other_rules_at_another_time_on_a_known_lead(routing: Routing) -> None:
    ann = await routing.hire("ann", territories=["AT"], working_hours=HOURS)
    await routing.service.deliver(captured("one", country="AT"), entered("one", "lead", None))
    night = (NOON + timedelta(hours=12)).isoformat()
    document = {"rules": [LINES[0]], "queues": QUEUES, "catch_all": {"queue": "austria", "strategy": "round_robin"}}
    told = {"lead_id": lead_id("one"), "document": document, "at": night}
    shown = (await routing.client.post("/v1/rules:preview", json=told)).json()
    assert shown["not_routed"] == "route_when does not hold: false"
    assert [(trial["rule_id"], trial["matched"]) for trial in shown["trace"]] == [
        ("austria", False),
        ("catch-all", True),
    ]
    assert shown["rep_id"] == ann
    assert [step["why"] for step in shown["reps"][0]["steps"]] == ["outside working hours", "next in turn among 1"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"lead": {}, "email": "a@b.at"}, ""),
        ({"lead": {"shoe_size": 44}}, "/lead/shoe_size"),
        ({"lead": {"employees": "many"}}, "/lead/employees"),
        ({"lead": {}, "score": {"total": True}}, "/score/total"),
        ({"lead": {"account": {"owner_id": 5}}}, "/lead/account/owner_id"),
        ({"email": "nobody"}, "/email"),
        ({"lead": {}, "at": "tomorrow"}, "/at"),
        ({"lead": {}, "at": "9999-12-31T23:59:59-14:00"}, "/at"),
        ({"lead": {}, "at": "0001-01-01T00:00:00Z"}, "/at"),
        ({"lead": {}, "document": {"queues": []}}, "/document/queues"),
    ],
)
async def test_a_preview_of_nonsense_names_the_field(routing: Routing, body: dict[str, Any], pointer: str) -> None:
    answer = await routing.client.post("/v1/rules:preview", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_a_profile_that_arrives_while_its_lead_is_being_held_ends_the_wait(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.service.deliver(entered("one"))
    assert [hold["reason"] for hold in await routing.holds()] == ["its profile is on the way"]
    async with routing.service.runtime.database.reading() as connection:  # folded by a consumer that saw no hold yet
        await connection.execute(
            "INSERT INTO profiles (lead_id, revision, captured_at, fields) VALUES ($1, 1, $2, '{}')",
            lead_id("one"),
            NOON,
        )
    await routing.pass_time(timedelta(seconds=1))
    assert await routing.owner("one") == ann
    assert [trial["rule_id"] for trial in (await routing.assignment("one"))["trace"]][-1] == "catch-all"
