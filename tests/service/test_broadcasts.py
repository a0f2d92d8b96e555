"""Broadcasts on real PostgreSQL and SMTP: whoever may have the message gets it once, and the rest is explained."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
import pytest_asyncio

from services.nurture.broadcasts.domain import CANCELLED, LEFT, OVERDUE, SAME_ADDRESS, STOPPED
from services.nurture.broadcasts.pacing import Pacer
from services.nurture.parts import make_parts
from shared.events import EnrolmentStarted, SegmentEntered, SegmentLeft
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.nurture_world import HELLO, Facts, World, make_sender, open_inbox
from tests.service.test_nurture_permission import report
from tests.service.test_nurture_segments import moved
from throughline.services import service_code

ANN, BEN, EVE = "ann@example.com", "ben@example.com", "eve@example.com"
NEXT_TURN = "SELECT min(turn_at) FROM broadcast_members WHERE turn_at > clock_timestamp()"
BROADCAST: dict[str, Any] = {"name": "News", "message": HELLO, "audience": {"segment": "eu"}}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox:
        sending = settings.model_copy(update={"smtp_url": inbox.url})
        async with harness(service_code("nurture"), sending) as nurture:
            made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
            await made.feeds_are_fresh()
            yield made


async def call(world: World, method: str, path: str, status: int = 200, **more: Any) -> dict[str, Any]:
    answer = await world.nurture.client.request(method, f"/v1/broadcasts{path}", **more)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def drafted(world: World, **changes: Any) -> str:
    """A draft; answers its path."""
    return "/" + str((await call(world, "POST", "", 201, json={**BROADCAST, **changes}))["broadcast_id"])


async def in_segment(world: World, *emails: str, consent: bool = True) -> None:
    for email in emails:
        await world.tell(await world.facts.captured(email, first_name=email.partition("@")[0].title()))
        if consent:
            await world.tell(world.facts.consent(email))
        await world.tell(moved(SegmentEntered, world.facts.lead_id(email), "eu", 1))


async def paced(world: World) -> None:
    """What the worker does about broadcasts when its time comes."""
    await Pacer(make_parts(world.nurture.consumer_runtime)).run()


async def carried_out(world: World, path: str) -> dict[str, Any]:
    """All of it, as far as it goes now."""
    await paced(world)
    await world.send()
    await paced(world)
    return await call(world, "GET", path)


async def why(world: World, email: str) -> Sequence[tuple[str, str]]:
    return [(message["state"], message["reason"]) for message in await world.messages(email)]


async def test_a_segment_gets_it_once_and_whoever_does_not_is_told_why(world: World) -> None:
    await in_segment(world, ANN, BEN)
    await in_segment(world, EVE, consent=False)
    path = await drafted(world)
    assert (await call(world, "GET", path))["state"] == "draft"
    begun = await call(world, "POST", f"{path}:start")
    assert (begun["state"], begun["progress"]["people"]) == ("listing", 0)
    await in_segment(world, "late@example.com")
    done = await carried_out(world, path)
    assert (done["state"], done["progress"]["people"], done["progress"]["remaining"]) == ("done", 4, 0)
    assert done["progress"]["messages"] == {"sent": 3, "suppressed": 1}
    assert done["progress"]["reasons"] == [{"state": "suppressed", "reason": "no consent for email", "messages": 1}]
    assert world.inbox.subjects(ANN) == ["Hello Ann"]
    assert await why(world, EVE) == [("suppressed", "no consent for email")]
    assert [message["sequence"] for message in await world.messages(ANN)] == ["News"]
    assert len(await world.nurture.told(EnrolmentStarted)) == 4
    await in_segment(world, "later@example.com")
    assert (await carried_out(world, path))["progress"]["people"] == 4
    assert len(world.inbox.accepted) == 3
    assert (await world.nurture.client.get(f"/v1/sequences{path}")).status_code == 404
    again = await world.nurture.client.post(f"/v1/broadcasts{path}:start")
    assert (again.status_code, again.json()["type"].rpartition(":")[2]) == (409, "broadcast-state")


async def test_a_stop_holds_at_once_what_has_not_left_and_going_on_repeats_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THROUGHLINE_NURTURE_SEND_AT_ONCE", "3")
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url)]
    emails = [f"p{number}@example.com" for number in range(8)]
    await in_segment(world, *emails)
    path = await drafted(world)
    await call(world, "POST", f"{path}:start")
    await paced(world)
    world.inbox.go_on.clear()  # the first message is on its way when the stop comes
    sending = asyncio.create_task(world.send())
    await eventually(lambda: bool(world.inbox.accepted))
    stopped = await call(world, "POST", f"{path}:stop")
    assert (stopped["state"], stopped["reason"]) == ("stopped", STOPPED)
    left = len(world.inbox.accepted)
    world.inbox.go_on.set()
    await sending
    halted = await carried_out(world, path)
    claimed = sum(halted["progress"]["messages"].get(state, 0) for state in ("sent", "unknown"))
    assert (len(world.inbox.accepted), halted["progress"]["remaining"]) == (claimed, 8 - claimed)
    assert left <= claimed < 8
    assert halted["progress"]["seconds_left"] is None
    await call(world, "POST", f"{path}:continue")
    done = await carried_out(world, path)
    assert (done["state"], done["progress"]["messages"]) == ("done", {"sent": 8})
    assert sorted(to for to, _ in world.inbox.accepted) == sorted(emails)


async def test_who_leaves_refuses_merges_or_shares_an_address_meanwhile_gets_none_or_one(world: World) -> None:
    double = "double@example.com"
    await in_segment(world, ANN, BEN, EVE, "old@example.com", "new@example.com", double)
    await in_segment(world, "twin@example.com")
    await shares_address(world, double, "twin@example.com")
    path = await drafted(world)
    await call(world, "POST", f"{path}:start")
    await paced(world)
    await world.tell(moved(SegmentLeft, world.facts.lead_id(ANN), "eu", 2), world.facts.consent(BEN, "denied"))
    await world.tell(world.facts.merged("old@example.com", into="new@example.com"))
    done = await carried_out(world, path)
    assert done["state"] == "done", done
    assert await why(world, ANN) == [("suppressed", LEFT)]
    assert world.inbox.subjects(ANN) == world.inbox.subjects(BEN) == []
    merged = world.inbox.subjects("old@example.com") + world.inbox.subjects("new@example.com")
    assert (len(merged), len(world.inbox.subjects(double)), len(world.inbox.accepted)) == (1, 1, 3)
    assert done["progress"]["messages"]["sent"] == 3
    assert {"state": "suppressed", "reason": SAME_ADDRESS, "messages": 1} in done["progress"]["reasons"]


async def shares_address(world: World, email: str, other: str) -> None:
    """Another lead has this address as well."""
    lead_id = world.facts.lead_id(other)
    keys = world.nurture.runtime.keys
    async with world.nurture.runtime.database.transaction() as tx:
        ciphers, _ = await keys.ciphers(tx.connection, [lead_id], datetime.now(UTC))
    sealed = keys.seal(lead_id, ciphers[lead_id], orjson.dumps({"email": email})).decode()
    captured = (await world.facts.captured(other, revision=2)).model_copy(update={"personal": sealed})
    await world.tell(captured)


async def test_a_test_send_is_marked_counted_nowhere_and_goes_to_nobody_else(world: World) -> None:
    await in_segment(world, ANN)
    await world.nurture.client.post("/v1/suppressions", json={"email": EVE})
    html = '<a href="https://example.com/offer">{{ lead.first_name }}</a>'
    message = {"channel": "email", "template": {"subject": "Hi {{ lead.first_name }}", "html": html}}
    path = await drafted(world, message=message)
    real = {"to": [BEN, EVE], "lead_id": world.facts.lead_id(ANN)}
    tried = await call(world, "POST", f"{path}:test-send", json=real)
    assert [(one["to"], one["state"]) for one in tried["items"]] == [(BEN, "sent"), (EVE, "suppressed")]
    await call(world, "POST", f"{path}:test-send", json={"to": [BEN], "lead": {"first_name": "Zoe"}})
    failed = await call(world, "POST", f"{path}:test-send", json={"to": [BEN]})
    assert failed["items"][0]["state"] == "failed"
    assert world.inbox.subjects(BEN) == ["[Test] Hi Ann", "[Test] Hi Zoe"]
    assert len(world.inbox.accepted) == 2
    page = world.inbox.accepted[0][1].get_body(("html",))
    assert page is not None
    assert 'href="https://example.com/offer"' in page.get_content()
    assert (await call(world, "GET", path))["progress"]["messages"] == {}


async def test_a_rate_spreads_the_turns_evenly_and_those_held_up_do_not_come_all_at_once(world: World) -> None:
    await in_segment(world, *(f"p{number}@example.com" for number in range(4)))
    path = await drafted(world, rate={"per_hour": 6})
    await call(world, "POST", f"{path}:start")
    for entered in (1, 2, 3, 4):
        await paced(world)
        await paced(world)  # no turn is left yet
        assert await turns(world, path) == entered
        await world.execute("UPDATE broadcasts SET free_from = free_from - interval '10 minutes'")
    await world.execute("UPDATE broadcast_members SET turn_at = turn_at - interval '1 hour'")  # something held them up
    await world.send()
    assert len(world.inbox.accepted) == 1
    due = "SELECT due_at FROM enrolments WHERE active ORDER BY due_at"
    async with world.nurture.runtime.database.reading() as connection:
        first, second, third = [row["due_at"] for row in await connection.fetch(due)]
    assert (second - first, third - second) == (timedelta(minutes=10), timedelta(minutes=10))
    assert first > datetime.now(UTC) + timedelta(minutes=5)
    await world.time_passes(timedelta(minutes=11))
    await world.execute(f"UPDATE broadcast_members SET turn_at = clock_timestamp() WHERE turn_at = ({NEXT_TURN})")
    await world.send()
    assert len(world.inbox.accepted) == 2
    progress = (await call(world, "GET", path))["progress"]
    assert (progress["finished"], progress["remaining"]) == (2, 2)
    assert progress["seconds_left"] > 0


async def test_how_long_it_takes_is_not_said_while_it_waits_for_fresh_consent(world: World) -> None:
    await in_segment(world, ANN, BEN)
    path = await drafted(world, rate={"per_hour": 6})
    listing = await call(world, "POST", f"{path}:start")
    await paced(world)
    turning = await call(world, "GET", path)
    await world.feeds_are_fresh(fresh=False)
    await world.send()
    waiting = await call(world, "GET", path)
    assert [one["progress"]["seconds_left"] for one in (listing, turning, waiting)] == [None, 1_200, None]


async def turns(world: World, path: str) -> int:
    """How many have come to the sender."""
    async with world.nurture.runtime.database.reading() as connection:
        return int(await connection.fetchval("SELECT entered FROM broadcasts WHERE broadcast_id = $1", path[1:]))


async def test_its_life_drafts_change_times_are_kept_and_what_is_cancelled_ends(world: World) -> None:
    await in_segment(world, ANN, BEN)
    path = await drafted(world)
    changed = {**BROADCAST, "name": "More news", "audience": {"leads": [world.facts.lead_id(ANN), "nobody"]}}
    assert (await call(world, "PUT", path, json=changed))["document"]["name"] == "More news"
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    scheduled = await call(world, "POST", f"{path}:start", json={"send_at": tomorrow.isoformat()})
    assert (await carried_out(world, path))["state"] == scheduled["state"] == "scheduled"
    await call(world, "PUT", path, 409, json=changed)
    await world.execute("UPDATE broadcasts SET send_at = clock_timestamp() - interval '1 day'")
    late = await carried_out(world, path)
    assert (late["state"], late["reason"]) == ("stopped", OVERDUE)
    await call(world, "POST", f"{path}:continue")
    await paced(world)
    cancelled = await call(world, "POST", f"{path}:cancel")
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", CANCELLED)
    ended = await carried_out(world, path)
    assert (ended["finished_at"] is None, ended["progress"]["remaining"]) == (False, 0)
    assert await why(world, ANN) == [("suppressed", CANCELLED)]
    assert world.inbox.accepted == []
    for action in ("start", "stop", "continue"):
        await call(world, "POST", f"{path}:{action}", 409)
    listed = await call(world, "GET", "", params={"state": "cancelled"})
    assert [one["broadcast_id"] for one in listed["items"]] == [path[1:]]
    assert (await call(world, "GET", "", params={"state": "draft"}))["items"] == []


async def test_each_gets_it_at_the_time_where_they_are_and_by_the_rates(world: World) -> None:
    """By a rate of their own domain too, and with the marks of the broadcast on its links."""
    away = {ANN: "Asia/Tokyo", BEN: "America/New_York", EVE: "Asia/Tokyo"}
    for email, zone in away.items():
        await world.tell(await world.facts.captured(email, attributes={"time_zone": zone}), world.facts.consent(email))
        await world.tell(moved(SegmentEntered, world.facts.lead_id(email), "eu", 1))
    linked = {"channel": "email", "template": {"subject": "News", "html": '<a href="https://acme.example/x">x</a>'}}
    rate = {"per_hour": 6, "domains": {"example.com": 1}}
    said = {"message": linked, "local_time": "10:00", "rate": rate, "utm": {"source": "news"}}
    path = await drafted(world, **said)
    began = datetime.now(UTC)
    await call(world, "POST", f"{path}:start")
    await paced(world)
    await world.send()
    assert world.inbox.accepted == []
    due = await _due(world)
    for email, zone in away.items():
        local = due[world.facts.lead_id(email)].astimezone(ZoneInfo(zone))
        assert (local.hour, local.minute) == (10, 0) and began < local < began + timedelta(days=1, minutes=1)
    await world.execute("UPDATE enrolments SET waiting_since = waiting_since - interval '3 days', due_at = now()")
    await world.send()
    assert len(world.inbox.accepted) == 1, "the others have later turns"
    second, third = sorted((await _due(world)).values())
    assert timedelta(minutes=9) < third - second < timedelta(minutes=11)
    await world.execute("UPDATE broadcast_members SET turn_at = clock_timestamp()")
    await world.execute("UPDATE enrolments SET due_at = now() WHERE active")
    await world.execute("UPDATE domain_minutes SET minute = minute + interval '1 hour'")  # it lasts as long as the test
    await world.send()
    reasons = sorted([str(reason) for email in away for _, reason in await why(world, email)])
    assert reasons == ["250 OK", *["example.com gets 1 emails of this broadcast a minute"] * 2]
    body = world.inbox.accepted[0][1].get_body(("html",))
    assert body is not None
    click = await world.nurture.client.get("/c/" + body.get_content().split("/nurture/c/")[1].split('"')[0])
    assert click.headers["location"] == "https://acme.example/x?utm_source=news"
    await call(world, "POST", f"{path}:cancel")
    assert (await carried_out(world, path))["finished_at"] is not None


async def read(world: World, statement: str) -> Sequence[Any]:
    async with world.nurture.runtime.database.reading() as connection:
        rows: Sequence[Any] = await connection.fetch(statement)
        return rows


async def _due(world: World) -> dict[str, datetime]:
    """When those who are in it are looked at next."""
    return {
        row["lead_id"]: row["due_at"]
        for row in await read(world, "SELECT lead_id, due_at FROM enrolments WHERE active")
    }


async def test_three_complaints_of_a_thousand_pause_a_broadcast_until_somebody_lets_it_go_on(world: World) -> None:
    await in_segment(world, ANN, BEN)
    path = await drafted(world, rate={"per_hour": 1})
    await call(world, "POST", f"{path}:start")
    await carried_out(world, path)
    first, second = (ANN, BEN) if await world.states(ANN) else (BEN, ANN)
    (sent,) = await world.messages(first)
    # The other 999 that were taken.
    await world.execute(
        "INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id,"
        " person_id, state, claimed_at, settled_at) SELECT 'm' || n, 'e' || n, $1, 1, 1, 'message', 1, 'email',"
        " 'l' || n, 'l' || n, 'sent', now(), now() FROM generate_series(2, 1000) AS n",
        path[1:],
    )
    about = [sent["message_id"], "m2", "m3"]
    complaints = [report(world.facts.lead_id(EVE), "complained", message_id=message_id) for message_id in about]
    await world.tell(*complaints[:2])
    assert (await call(world, "GET", path))["reason"] is None
    await world.tell(complaints[2])
    await world.execute("UPDATE broadcasts SET free_from = free_from - interval '1 hour'")
    paused = await carried_out(world, path)
    assert paused["reason"].startswith("paused by the guard: 0.30 % complaints (3 of 1000 in 7 days")
    assert await why(world, second) == [("planned", paused["reason"])]
    resume = f"/v1/guarded-sequences/{path[1:]}:resume"
    assert (await world.nurture.client.post(resume, json={"reason": "a bad list"})).status_code == 200
    await world.send()
    assert await world.states(second) == ["sent"]
    assert (await call(world, "GET", path))["reason"] is None


FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/name", {"name": ""}),
    ("/audience", {"audience": {}}),
    ("/audience", {"audience": {"segment": "eu", "leads": ["a"]}}),
    ("/audience/where", {"audience": {"where": "lead.shoe_size > 40"}}),
    ("/rate/per_minute", {"rate": {"per_minute": 0}}),
    ("/rate", {"rate": {"per_minute": 1, "per_hour": 1}}),
    ("/rate", {"rate": {}}),
    ("/rate/domains/*", {"rate": {"domains": {"*": 0}}}),
    ("/local_time", {"local_time": "25:00"}),
    ("/pressure/expire_after", {"pressure": {"expire_after": {}}}),
    ("/utm/campaign", {"utm": {"campaign": "{{ lead.first_name }}"}}),
    ("/message/template_id", {"message": {"channel": "email", "template_id": "nothing"}}),
    ("/message/template_id", {"message": {"channel": "email", "template_id": "nothing"}, "local_time": "10:00"}),
    ("/purpose", {"purpose": "all"}),
    (
        "/message/template/subject",
        {"message": {"channel": "email", "template": {"subject": "{{ lead.shoe }}", "text": "x"}}},
    ),
    ("/more", {"more": 1}),
)


async def test_every_fault_is_refused_with_its_place(world: World) -> None:
    told = await call(world, "POST", "", 201, json={**BROADCAST, "audience": {"where": "'eu' in segments"}})
    assert [one["pointer"] for one in told["warnings"]] == ["/audience/where"], "nobody is in it"
    for pointer, changes in FAULTS:
        answer = await world.nurture.client.post("/v1/broadcasts", json={**BROADCAST, **changes})
        assert (answer.status_code, [fault["pointer"] for fault in answer.json()["errors"]]) == (422, [pointer])
    path = await drafted(world)
    for action, body in (("start", {"send_at": "tomorrow"}), ("test-send", {"to": []}), ("test-send", {"to": ["no"]})):
        await call(world, "POST", f"{path}:{action}", 422, json=body)
    await call(world, "POST", f"{path}:test-send", 422, json={"to": [BEN], "lead": {"shoe": 1}})
    await call(world, "POST", f"{path}:test-send", 404, json={"to": [BEN], "lead_id": "nobody"})
    for method, unknown in (
        ("GET", "/none"),
        ("GET", f"{path}/dry-run"),
        ("POST", "/none:start"),
        ("POST", "/none:stop"),
    ):
        await call(world, method, unknown, 404)
