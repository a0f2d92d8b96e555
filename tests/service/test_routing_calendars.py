"""Reps' own calendars: fetched, uploaded, and never a reason to send nobody when they are broken."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.routing.calendars.domain import NotACalendar
from services.routing.calendars.handlers import written_out
from shared.settings import Settings
from shared.testing import token
from tests.service.local_server import LocalServer, authority, reply, serving
from tests.service.routing_support import NOON, Routing, routing_service

ICS = {"content-type": "text/calendar; charset=utf-8"}
AVAILABLE = {"id": "available", "when": "true", "strategy": "round_robin", "available": True}


def calendar(*events: str) -> bytes:
    body = "".join(f"BEGIN:VEVENT\r\nUID:{n}\r\nSUMMARY:Secret\r\n{e}\r\nEND:VEVENT\r\n" for n, e in enumerate(events))
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{body}END:VCALENDAR\r\n".encode()


MEETING = "DTSTART:20261125T113000Z\r\nDTEND:20261125T123000Z"
HOLIDAY = "DTSTART;VALUE=DATE:20261125\r\nDTEND;VALUE=DATE:20261127"
ENDLESS = "DTSTART:19000101T000000Z\r\nDTEND:19000101T000001Z\r\nRRULE:FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30"


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def state(routing: Routing, rep_id: str) -> dict[str, Any]:
    return dict((await routing.client.get(f"/v1/reps/{rep_id}")).json()["calendar"])


async def why_not_now(routing: Routing, rep_id: str) -> str | None:
    shown = (await routing.client.get(f"/v1/reps/{rep_id}/availability")).json()
    return shown["items"][0]["why_not"]  # type: ignore[no-any-return]  # of JSON


async def test_an_uploaded_calendar_keeps_a_rep_from_work_and_its_titles_are_not_kept(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    await routing.put_rules(AVAILABLE)
    for rep_id, events, why in ((ann, [MEETING], "busy by their calendar"), (bob, [HOLIDAY], "on leave")):
        put = await routing.client.put(f"/v1/reps/{rep_id}/calendar", content=calendar(*events), headers=ICS)
        assert (put.status_code, put.json()["state"], put.json()["events"]) == (200, "good", 1)
        assert await why_not_now(routing, rep_id) == why
    await routing.qualify("one")
    trace = (await routing.assignment("one"))["trace"]
    assert "1 busy by their calendar, 1 on leave" in trace[0]["why"]
    assert await routing.owner("one") == ann  # busy is not away: the catch-all may choose her
    async with routing.service.runtime.database.reading() as connection:
        kept = await connection.fetchval("SELECT string_agg(rep_calendars::text, '') FROM rep_calendars")
    assert "Secret" not in kept
    await routing.pass_time(timedelta(days=400))  # what was uploaded is written out anew, and is as old as it is
    assert (await state(routing, ann))["age_seconds"] >= 400 * 86_400
    assert (await routing.client.delete(f"/v1/reps/{ann}/calendar")).status_code == 204
    assert (await routing.client.get(f"/v1/reps/{ann}/calendar")).status_code == 404
    assert await why_not_now(routing, ann) is None


async def test_a_decision_is_taken_again_with_the_calendars_and_limits_that_it_saw(routing: Routing) -> None:
    ann = await routing.hire("ann", daily_capacity=5, holidays={"country": "AT"}, time_zone="Europe/Vienna")
    bob = await routing.hire("bob", monthly_capacity=1)
    await routing.put_rules({**AVAILABLE, "sla": {"accept_minutes": 90}}, re_entry={"days": 90})
    await routing.client.put(f"/v1/reps/{bob}/calendar", content=calendar(MEETING), headers=ICS)
    await routing.qualify("one", "two")
    assert [await routing.owner("one"), await routing.owner("two")] == [ann, ann]
    await routing.client.put("/v1/holidays", json={"days": [{"date": "2026-11-25", "name": "Outing"}]})
    await routing.client.delete(f"/v1/reps/{bob}/calendar")
    await routing.client.patch(f"/v1/reps/{ann}", json={"daily_capacity": 1})
    for name in ("one", "two"):
        assignment = await routing.assignment(name)
        again = (await routing.client.post(f"/v1/assignments/{assignment['assignment_id']}:replay")).json()
        assert again["same"], again
        why = await routing.client.get(f"/v1/assignments/{assignment['assignment_id']}/explain", params={"rep_id": bob})
        assert "busy by their calendar" in why.json()["why"]


async def test_a_feed_is_read_again_by_its_etag_and_a_broken_one_says_so_and_its_last_copy_counts(
    settings: Settings, tmp_path: Path
) -> None:
    ca, tls = authority(tmp_path, "calendar.test")
    allowing = settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"}), "outbound_ca_file": ca})
    server = LocalServer(
        [
            reply(302, location="/moved.ics"),
            reply(200, calendar(MEETING), ETag='"1"'),
            reply(304),
            reply(503, b"", retry_after="1200"),
            reply(200, b"<html>sign in</html>"),
            reply(200, calendar(MEETING)[:-20]),
            reply(200, calendar()),
        ]
    )
    async with routing_service(allowing) as routing, serving(server, tls) as url:
        ann = await routing.hire("ann")
        put = await routing.client.put(f"/v1/reps/{ann}/calendar", json={"url": f"{url}/secret-path/ann.ics"})
        assert (put.status_code, put.json()["state"]) == (200, "waiting")
        assert "secret-path" not in put.text
        await routing.pass_time(timedelta(0))
        assert (await state(routing, ann))["state"] == "good"
        assert await why_not_now(routing, ann) == "busy by their calendar"
        assert [asked.target for asked in server.asked] == ["/secret-path/ann.ics", "/moved.ics"]
        await routing.pass_time(timedelta(minutes=4))
        assert len(server.asked) == 2
        await routing.pass_time(timedelta(minutes=1))
        assert server.asked[2].headers["if-none-match"] == '"1"'
        read_at = (await state(routing, ann))["read_at"]
        failing: dict[str, Any] = {}
        for minutes, error in ((5, "the server answers 503"), (20, "no calendar"), (20, "not whole")):
            await routing.pass_time(timedelta(minutes=minutes))
            failing = await state(routing, ann)
            assert failing["state"] == "failing" and error in failing["error"], failing
            assert failing["read_at"] == read_at
        assert failing["age_seconds"] == 45 * 60 and failing["failing_since"] is not None
        begin = NOON.isoformat()
        shown = (await routing.client.get(f"/v1/reps/{ann}/availability", params={"from": begin})).json()
        assert shown["items"][0]["why_not"] == "busy by their calendar"  # what was read last
        assert shown["why_no_lead"] is None
        await routing.client.post(f"/v1/reps/{ann}/calendar:refresh")
        await routing.pass_time(timedelta(0))
        recovered = await state(routing, ann)
        assert (recovered["state"], recovered["error"], recovered["age_seconds"]) == ("good", None, 0)
        assert await why_not_now(routing, ann) is None


async def test_a_calendar_made_to_hold_up_whoever_reads_it_holds_up_nobody(routing: Routing) -> None:
    ann = await routing.hire("ann")
    reading = asyncio.create_task(written_out(calendar(ENDLESS).decode(), NOON, within_s=4))
    await routing.qualify("one")
    assert await routing.owner("one") == ann and not reading.done()
    with pytest.raises(NotACalendar, match="repeats endlessly"):
        await reading


ADDRESSES = [
    {"url": "http://calendar.example.com/a.ics"},
    {"url": "https://127.0.0.1/a.ics"},
    {"url": "https://169.254.169.254/latest"},
    {"url": "https://[::1]/a.ics"},
    {"url": "webcal://10.0.0.1/a.ics"},
    {"url": "https://ann:secret@calendar.example.com/a.ics"},
    {"url": "https://calendar.example.com:22/a.ics"},
    {"url": "file:///etc/passwd"},
    {"url": ""},
    {"url": None},
    {},
]


async def test_addresses_that_lead_inside_and_texts_that_are_no_calendars_are_refused(
    routing: Routing, settings: Settings
) -> None:
    ann = await routing.hire("ann")
    for body in ADDRESSES:
        refused = await routing.client.put(f"/v1/reps/{ann}/calendar", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/url"), body
    refused = await routing.client.put(f"/v1/reps/{ann}/calendar", content=b"BEGIN:VCARD", headers=ICS)
    assert refused.status_code == 422 and "BEGIN:VCALENDAR" in refused.json()["detail"]
    assert (await routing.client.put("/v1/reps/nobody/calendar", json={"url": "https://a.example/"})).status_code == 404
    assert (await routing.client.post("/v1/reps/nobody/calendar:refresh")).status_code == 404
    assert (await routing.client.delete(f"/v1/reps/{ann}/calendar")).status_code == 404
    webcal = await routing.client.put(f"/v1/reps/{ann}/calendar", json={"url": "webcal://calendar.example.com/a.ics"})
    assert (webcal.status_code, webcal.json()["host"]) == (200, "calendar.example.com")
    reading = {"authorization": f"Bearer {token(settings, 'routing:read')}"}
    for method, path in (("PUT", "calendar"), ("DELETE", "calendar"), ("POST", "calendar:refresh")):
        answer = await routing.client.request(method, f"/v1/reps/{ann}/{path}", headers=reading)
        assert answer.status_code == 403
