"""The time reps have: reminders, breaches, other hands; who answers in the same moment wins; outages are forgiven."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.routing.assignments.queries import end
from services.routing.parts import make_parts
from services.routing.sla.handlers import run_clocks
from shared.events import AssignmentExpired, LeadAssigned, SlaBreached, SlaKept, TouchRecorded
from shared.ids import AssignmentId, EventId, TouchId, derived_id
from shared.settings import Settings
from shared.testing import eventually
from tests.service.routing_support import NOON, Routing, lead_id, routing_service
from tests.service.runtime_world import anybody_waits

HOUR = timedelta(hours=1)


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def put_sla(routing: Routing, **sla: Any) -> None:
    """Rules whose catch-all has these limits."""
    await routing.put_rules(catch_all={"queue": "everybody", "strategy": "round_robin", "sla": sla})


async def said(routing: Routing) -> list[tuple[str, int, str]]:
    """What reps were to be told of clocks, in order: kind, share of the time, rep."""
    items = (await routing.client.get("/v1/notifications?limit=200")).json()["items"]
    return [(one["kind"], one["step"], one["rep_id"]) for one in reversed(items) if one["kind"] != "assigned"]


def contact(name: str, at: datetime, kind: str = "call_connected", **fields: Any) -> TouchRecorded:
    """A contact that capture was told of."""
    touch_id = TouchId(derived_id("contact", name, kind, at.isoformat()))
    return TouchRecorded(
        event_id=EventId(f"test:{touch_id}"),
        lead_id=lead_id(name),
        occurred_at=at,
        received_at=at,
        touch_id=touch_id,
        type=kind,
        **fields,
    )


async def test_a_ladder_is_climbed_step_by_step_and_each_step_taken_once(routing: Routing) -> None:
    boss = await routing.hire("boss", weight=0)
    ann, bob = await routing.hire("ann", manager_id=boss), await routing.hire("bob")
    await put_sla(routing, accept_minutes=60, on_breach="escalate")
    await routing.qualify("one")
    seen = []
    for minutes in (29, 1, 18, 12, 30, 30):
        await routing.pass_time(timedelta(minutes=minutes))
        await routing.service.run_timers()
        seen.append((len(await said(routing)), await routing.owner("one")))
    assert seen == [(0, ann), (1, ann), (2, ann), (3, ann), (4, ann), (5, bob)]
    assert await said(routing) == [
        ("accept_remind", 50, ann),
        ("accept_remind", 80, ann),
        ("accept_breach", 100, ann),
        ("accept_escalate", 150, boss),
        ("accept_reroute", 200, boss),
    ]
    (breach,) = await routing.service.told(SlaBreached)
    assert (breach.rep_id, breach.clock, breach.due_at) == (ann, "accept", NOON + timedelta(milliseconds=3) + HOUR)
    assert [fact.rep_id for fact in await routing.service.told(AssignmentExpired)] == [ann]


async def test_who_loses_a_lead_is_not_reminded_of_it_in_the_same_moment(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await put_sla(routing, accept_minutes=30, touch_minutes=60)
    await routing.qualify("one")
    for minutes in (15, 9, 6):
        await routing.pass_time(timedelta(minutes=minutes))
    assert await routing.owner("one") == bob
    assert await said(routing) == [("accept_remind", 50, ann), ("accept_remind", 80, ann), ("accept_reroute", 100, ann)]
    await routing.answer("one", "accept")
    await routing.pass_time(timedelta(minutes=30))
    assert (await said(routing))[3:] == [("touch_remind", 50, bob)]


async def test_a_contact_ends_the_clock_and_one_heard_of_late_corrects_a_breach(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await put_sla(routing, accept_minutes=600, touch_minutes=60, remind_at=[])
    await routing.qualify("one", "two", "three")
    at = routing.clock.now()
    await routing.service.deliver(
        contact("one", at + timedelta(minutes=5)),
        contact("two", at - timedelta(minutes=5)),
        contact("two", at + timedelta(minutes=5), "email_opened"),
        contact("two", at + timedelta(minutes=5), automated=True),
    )
    await routing.pass_time(HOUR)
    assert [fact.lead_id for fact in await routing.service.told(SlaKept)] == [lead_id("one")]
    assert {fact.lead_id for fact in await routing.service.told(SlaBreached)} == {lead_id("two"), lead_id("three")}
    assert await said(routing) == [("touch_breach", 100, ann)] * 2
    await routing.service.deliver(contact("two", at + timedelta(minutes=50)))
    await routing.pass_time(HOUR / 2)
    speed = (await routing.client.get(f"/v1/reps/{ann}/speed")).json()["periods"][0]["touch"]
    assert (speed["answered"], speed["kept"], speed["breached"], speed["kept_share"]) == (2, 2, 1, 2 / 3)
    assert (speed["median_s"], speed["p90_s"]) == (27.5 * 60, 45.5 * 60)
    assert (await routing.assignment("two"))["touched_at"] is not None


async def test_a_rep_who_says_that_they_were_in_touch_has_the_lead_and_everybody_is_told(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await put_sla(routing, accept_minutes=60, touch_minutes=60)
    await routing.qualify("one")
    routing.clock.move(timedelta(minutes=10))
    refused = await routing.answer("one", "touched", occurred_at="2026-11-25T11:00:00Z")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/occurred_at"]
    assert (await routing.answer("one", "touched", type="email_opened")).status_code == 422
    assert (await routing.answer("one", "touched", assignment_id="another")).status_code == 409
    assert (await routing.answer("none", "touched")).status_code == 404
    for _ in range(2):
        answer = await routing.answer("one", "touched", type="meeting_booked")
        assert (answer.status_code, answer.json()["state"]) == (200, "accepted")
    await routing.pass_time(timedelta(days=1))
    assert await routing.owner("one") == ann
    assert [fact.type for fact in await routing.service.told(TouchRecorded)] == ["meeting_booked"]
    assert Counter(fact.clock for fact in await routing.service.told(SlaKept)) == {"accept": 1, "touch": 1}
    assert await said(routing) == []


async def test_a_lead_nobody_was_in_touch_with_changes_hands_only_where_the_rules_say_so(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await put_sla(routing, touch_minutes=60, on_breach="reroute")
    await routing.qualify("one")
    await routing.answer("one", "accept")
    await routing.pass_time(HOUR)
    assert await routing.owner("one") == ann  # there is nobody else
    bob = await routing.hire("bob")
    await routing.qualify("two", "three")
    mine = [name for name in ("two", "three") if await routing.owner(name) == ann]
    for name in mine:
        await routing.answer(name, "accept")
    await routing.pass_time(HOUR)
    assert [await routing.owner(name) for name in mine] == [bob] * len(mine)
    before = (await routing.client.get(f"/v1/leads/{lead_id(mine[0])}/assignments")).json()["items"][1]
    assert (before["rep_id"], before["state"], before["end_reason"]) == (ann, "accepted", "untouched")
    await put_sla(routing, touch_minutes=60)
    await routing.qualify("four")
    owner = await routing.owner("four")
    await routing.answer("four", "accept")
    for _ in range(4):
        await routing.pass_time(HOUR)
    assert await routing.owner("four") == owner


async def test_whoever_answers_in_the_same_moment_wins_or_is_told_that_it_is_too_late(routing: Routing) -> None:
    for name in ("ann", "bob", "cho"):
        await routing.hire(name)
    await put_sla(routing, accept_minutes=60, touch_minutes=60, on_breach="reroute", remind_at=[])
    names = [f"lead{number}" for number in range(24)]
    await routing.qualify(*names)
    first = {name: await routing.assignment(name) for name in names}
    for name in names[12:]:
        assert (await routing.answer(name, "accept")).status_code == 200
    routing.clock.move(HOUR)
    parts = [make_parts(routing.service.consumer_runtime), make_parts(routing.service.runtime)]

    async def answers(name: str, what: str) -> int:
        assignment_id, status = first[name]["assignment_id"], 503
        while status == 503:  # as a caller does who finds everything busy
            status = (await routing.answer(name, what, assignment_id=assignment_id)).status_code
        return status

    *results, _, _ = await asyncio.gather(
        *(answers(name, "accept") for name in names[:12]),
        *(answers(name, "touched") for name in names[12:]),
        *(run_clocks(each) for each in parts),
    )
    statuses = dict(zip(names, results, strict=True))
    await asyncio.gather(*(run_clocks(each) for each in parts))
    for name in names[:12]:
        made = (await routing.client.get(f"/v1/leads/{lead_id(name)}/assignments")).json()["items"][-1]
        assert (statuses[name], made["state"]) in ((200, "accepted"), (409, "expired")), name
    for name in names[12:]:
        now = await routing.assignment(name)
        stays = now["assignment_id"] == first[name]["assignment_id"]
        assert (statuses[name], stays) in ((200, True), (409, False)), name
    told = Counter(fact.lead_id for fact in await routing.service.told(LeadAssigned))
    assert max(told.values()) <= 3
    assert {200, 409} >= set(results)
    assert all(kept == counted for kept, counted in (await routing.counted_loads()).values())


async def test_an_acceptance_that_meets_the_clock_while_it_fires_is_refused_and_says_why(routing: Routing) -> None:
    for name in ("ann", "bob"):
        await routing.hire(name)
    await put_sla(routing, accept_minutes=60, on_breach="reroute", remind_at=[])
    await routing.qualify("one")
    offered = AssignmentId((await routing.assignment("one"))["assignment_id"])
    database = routing.service.consumer_runtime.database

    async def somebody_waits() -> None:
        assert await anybody_waits(database)

    async with database.transaction() as tx:
        await end(tx.connection, offered, routing.clock.now(), "not accepted in time", state="expired")
        accepting = asyncio.create_task(routing.answer("one", "accept", assignment_id=offered))
        await eventually(somebody_waits)
    answer = await accepting
    assert (answer.status_code, "it is expired by now" in answer.json()["detail"]) == (409, True), answer.text
    (made,) = (await routing.client.get(f"/v1/leads/{lead_id('one')}/assignments")).json()["items"]
    assert (made["state"], made["current"]) == ("expired", False)


async def test_after_an_outage_reps_have_a_grace_and_what_was_missed_is_spread(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await put_sla(routing, accept_minutes=60)
    names = [f"lead{number}" for number in range(40)]
    await routing.qualify(*names)
    bob = await routing.hire("bob")
    routing.clock.move(timedelta(hours=5))  # nobody watched
    await routing.service.run_timers()
    assert {await routing.owner(name) for name in names} == {ann}
    assert (await said(routing)) == []
    stuck = (await routing.client.get("/v1/stuck")).json()["items"]
    graces = [datetime.fromisoformat(one["grace_until"]) - routing.clock.now() for one in stuck]
    assert len(graces) == 40
    assert timedelta(minutes=15) <= min(graces) < max(graces) <= timedelta(minutes=30)
    assert (await routing.answer(names[0], "accept")).status_code == 200
    parts, moved = make_parts(routing.service.consumer_runtime), []
    for _ in range(35):
        routing.clock.move(timedelta(minutes=1))
        await run_clocks(parts)
        moved.append(len(await routing.service.told(AssignmentExpired)))
    assert moved[13] == 0  # a quarter of the hour they had
    assert len(set(moved)) > 8  # and then one after the other
    assert (moved[-1], await routing.owner(names[-1])) == (39, bob)
    assert await routing.owner(names[0]) == ann
    assert Counter(fact.rep_id for fact in await routing.service.told(AssignmentExpired)) == {ann: 39}
    assert len(await routing.service.told(SlaBreached)) == 40


async def test_speed_is_told_by_rep_and_period_in_hours_that_were_worked(routing: Routing) -> None:
    ann = await routing.hire("ann", working_hours={"thu": [["09:00", "17:00"]]})
    await routing.hire("bob", active=False)
    await put_sla(routing, accept_minutes=60)
    await routing.qualify("one")
    routing.clock.move(timedelta(hours=21, minutes=30))  # Thursday, half past nine
    assert (await routing.answer("one", "accept")).status_code == 200
    found = (await routing.client.get("/v1/speed?from=2026-11-23&to=2026-11-30&interval=week")).json()["items"]
    assert [len(one["periods"]) for one in found] == [1, 0]
    (period,) = found[0]["periods"]
    assert (found[0]["rep_id"], period["period"]) == (ann, "2026-11-23T00:00:00Z")
    assert (period["accept"]["median_s"] // 60, period["accept"]["median_worked_s"]) == (21.5 * 60, 30 * 60)
    assert (period["accept"]["kept_share"], period["touch"]["kept_share"]) == (1.0, None)
    for query in ("from=2026-13-01", "from=2026-11-30&to=2026-11-23", "tz=Mars", "interval=hour", "to=x"):
        assert (await routing.client.get(f"/v1/speed?{query}")).status_code == 422, query
    assert (await routing.client.get("/v1/reps/none/speed")).status_code == 404


async def test_limits_that_make_no_sense_are_refused_with_their_place(routing: Routing) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"remind_at": [80, 50]}, "/catch_all/sla"),
        ({"remind_at": [100]}, "/catch_all/sla/remind_at/0"),
        ({"on_breach": "shout"}, "/catch_all/sla/on_breach"),
        ({"on_breach": "none", "escalate": [{"at": 100}]}, "/catch_all/sla"),
        ({"escalate": []}, "/catch_all/sla/escalate"),
        ({"escalate": [{"at": 99}]}, "/catch_all/sla/escalate/0/at"),
        ({"escalate": [{"at": 100, "notify": ["everybody"]}]}, "/catch_all/sla/escalate/0/notify/0"),
        ({"escalate": [{"at": 100, "reroute": True}, {"at": 200}]}, "/catch_all/sla"),
    )
    for sla, pointer in wrong:
        body = {
            "queues": [{"id": "everybody", "who": "true"}],
            "catch_all": {"queue": "everybody", "strategy": "round_robin", "sla": {"accept_minutes": 60, **sla}},
        }
        answer = await routing.client.put("/v1/rules", json=body)
        assert (answer.status_code, [fault["pointer"] for fault in answer.json()["errors"]]) == (422, [pointer]), sla


async def test_a_day_with_nothing_before_it_is_no_day(routing: Routing) -> None:
    response = await routing.client.get("/v1/speed?to=0001-01-01")
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "query:to")
