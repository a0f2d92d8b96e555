"""Reps get leads when they can take them: holidays, caps by the working day, and everybody sees why not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.settings import Settings
from shared.testing import token
from tests.service.routing_support import Routing, routing_service

OFFICE = {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
AVAILABLE = {"id": "available", "when": "true", "strategy": "round_robin", "available": True}
SOONEST = {"id": "soonest", "when": "true", "strategy": "soonest_available"}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def availability(routing: Routing, rep_id: str, **params: str) -> dict[str, Any]:
    answer = await routing.client.get(f"/v1/reps/{rep_id}/availability", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_holiday_by_law_or_by_the_company_is_no_working_time_and_says_its_name(routing: Routing) -> None:
    bavaria = await routing.hire(
        "ann", time_zone="Europe/Berlin", working_hours=OFFICE, holidays={"country": "de", "subdivision": "BY"}
    )
    days = [{"date": "2026-12-24", "name": "Christmas Eve", "country": "DE"}, {"date": "2026-11-26", "name": "Outing"}]
    told = await routing.client.put("/v1/holidays", json={"days": days})
    assert told.status_code == 200
    assert (await routing.client.get("/v1/holidays")).json() == told.json()
    shown = await availability(routing, bavaria, **{"from": "2026-12-23T00:00:00+01:00", "to": "2026-12-29T00:00:00Z"})
    holidays = [(one["start"], one["end"], one["name"]) for one in shown["items"] if one["why_not"] == "on holiday"]
    assert holidays == [
        ("2026-12-23T23:00:00Z", "2026-12-24T23:00:00Z", "Christmas Eve"),
        ("2026-12-24T23:00:00Z", "2026-12-25T23:00:00Z", "Christmas Day"),
        ("2026-12-25T23:00:00Z", "2026-12-26T23:00:00Z", "Second Day of Christmas"),
    ]
    edges = [shown["items"][0]["start"], *(one["end"] for one in shown["items"])]
    assert edges == [edges[0], *(one["start"] for one in shown["items"][1:]), "2026-12-29T00:00:00Z"]
    bob = await routing.hire("bob", time_zone="America/New_York", working_hours=OFFICE, holidays={"country": "US"})
    await routing.put_rules(AVAILABLE)
    routing.clock.move(
        datetime(2026, 11, 26, 15, tzinfo=UTC) - routing.clock.now()
    )  # Thanksgiving there, and the company's outing
    await routing.qualify("one")
    trace = (await routing.assignment("one"))["trace"]
    assert "2 on holiday" in trace[0]["why"] and trace[1]["matched"]
    routing.clock.move(datetime(2026, 11, 27, 15, tzinfo=UTC) - routing.clock.now())
    await routing.client.put("/v1/holidays", json={"days": [{"date": "2026-11-27", "name": "Off", "country": "US"}]})
    await routing.qualify("two")
    assert await routing.owner("two") == bavaria
    assert (await availability(routing, bob))["works_next_at"] == "2026-11-30T14:00:00Z"


async def test_the_soonest_and_the_deadline_know_of_holidays_nights_and_leave(routing: Routing) -> None:
    night = await routing.hire("ann", time_zone="Asia/Tokyo", working_hours={"wed": [["22:00", "06:00"]]})
    days = await routing.hire(
        "bob", working_hours=OFFICE, time_off=[{"from": "2026-11-25T13:00:00Z", "to": "2026-11-27", "reason": "fair"}]
    )
    await routing.put_rules({**SOONEST, "sla": {"accept_minutes": 90}})
    routing.clock.move(datetime(2026, 11, 25, 12, 1, tzinfo=UTC) - routing.clock.now())
    await routing.qualify("one")
    assert await routing.owner("one") == days  # it is noon, and 21:00 in Tokyo
    assert (await routing.assignment("one"))["due_at"] == "2026-11-27T09:31:00Z"
    routing.clock.move(datetime(2026, 11, 25, 18, tzinfo=UTC) - routing.clock.now())  # Thursday, 03:00 in Tokyo
    await routing.qualify("two")
    assert await routing.owner("two") == night
    assert (await routing.assignment("two"))["due_at"] == "2026-11-25T19:30:00Z"
    shown = await availability(routing, days)
    assert (shown["why_no_lead"], shown["items"][0]["name"]) == ("on leave", "fair")


async def test_a_day_that_is_full_skips_a_rep_until_the_next_working_day(routing: Routing) -> None:
    ann = await routing.hire("ann", working_hours=OFFICE, daily_capacity=2, monthly_capacity=3)
    bob = await routing.hire("bob", working_hours=OFFICE)
    await routing.put_rules()
    names = [f"lead {number}" for number in range(6)]
    await routing.qualify(*names)
    owners = [await routing.owner(name) for name in names]
    assert owners == [ann, bob, ann, bob, bob, bob]
    assert (await availability(routing, ann))["why_no_lead"] == "at capacity for the day"
    await routing.answer("lead 0", "reject", reason="not mine")  # given back, so that it counts no more
    assert (await availability(routing, ann))["caps"][0]["given"] == 1
    await routing.qualify("again", "more")
    assert {await routing.owner("again"), await routing.owner("more")} == {ann, bob}
    routing.clock.move(
        datetime(2026, 11, 25, 17, tzinfo=UTC) - routing.clock.now()
    )  # what comes in now is worked on tomorrow
    await routing.qualify("evening", "late")
    assert [await routing.owner(name) for name in ("evening", "late")].count(ann) == 1
    caps = {cap["of"]: (cap["given"], cap["start"], cap["end"]) for cap in (await availability(routing, ann))["caps"]}
    assert caps == {
        "day": (1, "2026-11-25T17:00:00Z", "2026-11-26T17:00:00Z"),
        "month": (3, "2026-10-30T17:00:00Z", "2026-11-30T17:00:00Z"),
    }


async def test_a_lead_that_nobody_has_room_for_is_tried_again_when_the_next_working_day_begins(
    routing: Routing,
) -> None:
    ann = await routing.hire("ann", working_hours=OFFICE, daily_capacity=1)
    await routing.put_rules()
    routing.clock.move(datetime(2026, 11, 25, 16, 59, 50, tzinfo=UTC) - routing.clock.now())
    await routing.qualify("one", "two")
    assert [hold["reason"] for hold in await routing.holds()] == ["nobody can take it: 1 at capacity for the day"]
    assert (await routing.holds())[0]["retry_at"] == "2026-11-25T17:00:00Z"
    await routing.pass_time(timedelta(seconds=10))
    assert await routing.owner("two") == ann and await routing.holds() == []


IMPOSSIBLE_DAYS: list[tuple[dict[str, Any], str]] = [
    ({"date": "2026-02-30", "name": "x"}, "/days/0/date"),
    ({"date": 20261224, "name": "x"}, "/days/0/date"),
    ({"date": "2026-12-24T00:00:00Z", "name": "x"}, "/days/0/date"),
    ({"date": "2026-12-24", "name": ""}, "/days/0/name"),
    ({"date": "2026-12-24"}, "/days/0/name"),
    ({"date": "2026-12-24", "name": "x", "country": "XX"}, "/days/0"),
    ({"date": "2026-12-24", "name": "x", "subdivision": "BY"}, "/days/0"),
    ({"date": "2026-12-24", "name": "x", "country": "DE", "subdivision": "CA"}, "/days/0"),
    ({"date": "2026-12-24", "name": "x", "free": True}, "/days/0/free"),
]
STRETCHES = [
    ({"from": "2026-12-24"}, "query:from"),
    ({"from": "2026-12-24T00:00:00"}, "query:from"),
    ({"from": "0001-01-01T00:00:00Z", "to": "0001-01-02T00:00:00Z"}, "query:from"),
    ({"from": "9999-12-31T00:00:00Z"}, "query:from"),
    ({"to": "2026-11-25T12:00:00Z"}, "query:to"),
    ({"from": "2026-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}, "query:to"),
]


async def test_days_and_times_that_cannot_be_are_refused_where_they_are_wrong(
    routing: Routing, settings: Settings
) -> None:
    for day, pointer in IMPOSSIBLE_DAYS:
        refused = await routing.client.put("/v1/holidays", json={"days": [day]})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), day
    twice = [{"date": "2026-12-24", "name": "x"}] * 2
    assert (await routing.client.put("/v1/holidays", json={"days": twice})).status_code == 422
    ann = await routing.hire("ann")
    for params, pointer in STRETCHES:
        refused = await routing.client.get(f"/v1/reps/{ann}/availability", params=params)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), params
    assert (await routing.client.get("/v1/reps/nobody/availability")).status_code == 404
    reading = {"authorization": f"Bearer {token(settings, 'routing:read')}"}
    assert (await routing.client.put("/v1/holidays", json={"days": []}, headers=reading)).status_code == 403
    assert (await routing.client.get(f"/v1/reps/{ann}/availability", headers=reading)).status_code == 200
