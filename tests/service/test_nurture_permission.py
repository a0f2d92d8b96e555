"""Permission at the moment of the send: hours, pressure, lists, reports, the guard, and what people choose."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from services.nurture.parts import make_parts
from services.nurture.permission.handlers import follow_policy
from shared.events import ConsentChanged, ConsentEvidence, MessageReported, TouchRecorded
from shared.ids import EventId, LeadId, new_id
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, SEQUENCE, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BEN = "ben@example.com"
EVE = "eve@example.com"
ONE = {**SEQUENCE, "steps": [{"id": "first", "send": HELLO}]}
NEVER = "event.type == 'nothing'"
DAY = timedelta(days=1)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        senders = [make_sender(nurture.consumer_runtime, inbox.url) for _ in range(2)]
        made = World(nurture, inbox, Facts(nurture.runtime), senders)
        await made.feeds_are_fresh()
        await made.nurture.client.put("/v1/sequences/welcome", json={**ONE, "active": False})
        yield made


def report(lead_id: LeadId, event: str, **more: Any) -> MessageReported:
    now = more.pop("at", datetime.now(UTC))
    return MessageReported(
        event_id=EventId(new_id()),
        lead_id=lead_id,
        occurred_at=now,
        received_at=now,
        origin="postmark",
        channel="email",
        event=event,
        **more,
    )


async def reason_of(world: World, email: str) -> str:
    return str((await world.messages(email))[-1]["reason"])


async def test_two_senders_and_three_sequences_keep_one_persons_limit_and_say_which_messages_fill_it(
    world: World,
) -> None:
    await world.policy(pressure={"limits": [{"messages": 1, "days": 1}], "expire_after_hours": 36})
    for number in range(3):
        await world.saves(ONE, name=f"Sequence {number}", goal=NEVER)
    await world.saves(ONE, name="Receipt", purpose="transactional", goal=NEVER)
    await world.arrives(ANN)
    await world.send()
    messages = await world.messages(ANN)
    assert sorted(message["state"] for message in messages) == ["planned", "planned", "sent", "sent"]
    sent = next(one["sequence"] for one in messages if one["state"] == "sent" and one["sequence"] != "Receipt")
    held = [one for one in messages if one["state"] == "planned"]
    assert all(one["reason"].startswith("contact pressure: at most 1 in 24 hours") for one in held)
    assert all(f"{sent}/first (email, " in one["reason"] for one in held)
    due = [datetime.fromisoformat(run["due_at"]) for run in await world.runs(ANN) if run["waits_because"]]
    assert all(timedelta(hours=23) < one - datetime.now(UTC) <= DAY for one in due)
    await world.time_passes(DAY)
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '24 hours 1 minute'")
    await asyncio.gather(world.send(), world.send())
    assert sorted(await world.states(ANN)) == ["planned", "sent", "sent", "sent"]
    await world.execute("UPDATE messages SET created_at = created_at - interval '36 hours'")
    await world.time_passes(2 * DAY)
    await world.send()
    assert sorted(await world.states(ANN)) == ["sent", "sent", "sent", "suppressed"]
    (expired,) = [one for one in await world.messages(ANN) if one["state"] == "suppressed"]
    assert expired["reason"].startswith("expired under contact pressure: ")


async def test_a_hold_says_when_the_message_expires_as_its_step_has_it(world: World) -> None:
    await world.policy(pressure={"limits": [{"messages": 1, "days": 1}], "expire_after_hours": 36})
    await world.saves(ONE, goal=NEVER)
    await world.arrives(ANN)
    await world.send()
    step = {"id": "first", "send": HELLO, "pressure": {"expire_after": {"hours": 4}}}
    sequence_id = await world.saves(
        ONE, name="Impatient", goal=NEVER, trigger="event.type == 'page_view'", steps=[step]
    )
    await world.tell(world.facts.form(ANN, kind="page_view"))
    await world.send()
    (message,) = [one for one in await world.messages(ANN) if one["sequence_id"] == sequence_id]
    explained = (await world.nurture.client.get(f"/v1/messages/{message['message_id']}/explain")).json()
    (hold,) = explained["holds"]
    assert hold["reason"].startswith("contact pressure: at most 1 in 24 hours")
    assert hold["until"] == hold["expires_at"], "the limit is full for longer than the step waits"
    (run,) = [one for one in await world.runs(ANN) if one["sequence_id"] == sequence_id]
    assert run["due_at"] == hold["expires_at"]
    assert datetime.fromisoformat(hold["expires_at"]) - datetime.fromisoformat(hold["since"]) <= timedelta(hours=4)
    (check,) = [one for one in explained["checks"] if one["says"] == "held"]
    assert datetime.fromisoformat(check["expires_at"]) == datetime.fromisoformat(hold["expires_at"])
    await world.execute("UPDATE messages SET created_at = created_at - interval '4 hours' WHERE state = 'planned'")
    await world.time_passes(timedelta(hours=4))
    await world.send()
    (message,) = [one for one in await world.messages(ANN) if one["sequence_id"] == sequence_id]
    assert message["state"] == "suppressed"
    assert message["reason"].startswith("expired under contact pressure: ")


async def test_of_two_that_wait_the_one_with_priority_goes_first(world: World) -> None:
    await world.policy(pressure={"limits": [{"messages": 1, "days": 1}]})
    early = await world.saves(ONE, name="Early", trigger="event.type == 'page_view'", goal=NEVER)
    low, high = [await world.saves(ONE, name=name, goal=NEVER) for name in ("Low", "High")]
    limit = {"limits": [{"messages": 1, "days": 1}], "priorities": {high: 5, early: 9}}
    await world.policy(pressure=limit)
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN), world.facts.form(ANN, kind="page_view"))
    await world.send()
    await world.tell(world.facts.form(ANN))
    await world.send()
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '25 hours'")
    await world.execute("UPDATE enrolments SET due_at = now() - interval '1 hour' WHERE sequence_id = $1", low)
    await world.senders[0].run()
    assert "higher priority goes first" in await _reason_in(world, ANN, low)
    await world.execute("UPDATE enrolments SET due_at = now() WHERE sequence_id = $1", high)
    await world.senders[0].run()
    by_sequence = {one["sequence"]: one["state"] for one in await world.messages(ANN)}
    assert by_sequence == {"Early": "sent", "Low": "planned", "High": "sent"}


async def _reason_in(world: World, email: str, sequence_id: str) -> str:
    return next(str(one["reason"]) for one in await world.messages(email) if one["sequence_id"] == sequence_id)


async def test_quiet_hours_are_those_of_the_persons_place_and_answers_do_not_wait(world: World) -> None:
    now = datetime.now(UTC)
    tomorrow = (now + DAY).strftime("%a").lower()
    hours = {"email": {tomorrow: [["00:00", "24:00"]]}}
    await world.saves(ONE, goal=NEVER)
    await world.policy(hours=hours)
    await world.arrives(ANN, attributes={"time_zone": "Etc/GMT-14"}, country="DE")  # 14 hours ahead
    await world.arrives(BEN, country="GB")
    await world.send()
    there = now + timedelta(hours=14)
    assert await world.states(ANN) == (["sent"] if there.date() > now.date() else ["planned"])
    assert await world.states(BEN) == ["planned"]
    assert re.match(
        r"quiet hours: \w{3} \d\d:\d\d in Europe/London \(by the country\), email goes out from \w{3} 00:00",
        await reason_of(world, BEN),
    )
    await world.policy(hours=hours, answer_within_minutes=15)
    await follow_policy(make_parts(world.nurture.consumer_runtime))
    await world.send()
    assert await world.states(BEN) == ["sent"]
    shipped = (await world.nurture.client.get("/v1/sending-policy/versions/1")).json()["document"]
    assert shipped["pressure"]["limits"][1] == {"messages": 3, "days": 7}
    odd = await world.nurture.client.put("/v1/sending-policy", json={"default_time_zone": "Mars", "hours": {"fax": {}}})
    assert {one["pointer"] for one in odd.json()["errors"]} >= {"/default_time_zone"} and odd.status_code == 422


async def test_whoever_moves_while_their_hours_are_awaited_is_written_to_in_those_of_the_new_place(
    world: World,
) -> None:
    east, west = "Etc/GMT-14", "Etc/GMT+12"  # it is never the same day in both
    today = (datetime.now(UTC) + timedelta(hours=14)).strftime("%a").lower()
    await world.policy(hours={"email": {today: [["00:00", "24:00"]]}})
    await world.saves(ONE, goal=NEVER)
    await world.arrives(ANN, attributes={"time_zone": west})
    await world.send()
    assert (await reason_of(world, ANN)).startswith("quiet hours: ")
    await world.tell(await world.facts.captured(ANN, revision=2, attributes={"time_zone": east}))
    await world.send()
    assert await world.states(ANN) == ["sent"]


async def test_lists_by_channel_domain_role_and_number_go_in_and_out_as_files(world: World) -> None:
    client = world.nurture.client
    await world.saves(ONE, goal=NEVER)
    rows = (
        "email,domain,role,phone,reason\nann@example.com,,,,spam\n,Corp.example,,,\n,,sales,,bounce\n"
        ",,,+4915112345678,\nno,,,,\n"
    )
    sent: Any = {"content": rows, "headers": {"content-type": "text/csv", "idempotency-key": "k1"}}
    first, again = [await client.post("/v1/suppressions:import", params={"origin": "old"}, **sent) for _ in range(2)]
    assert first.json() == again.json()
    assert {name: first.json()[name] for name in ("rows", "added", "known", "rejected")} == {
        "rows": 5,
        "added": 4,
        "known": 0,
        "rejected": 1,
    }
    assert first.json()["faults"] == [{"line": 6, "detail": "email is not an address that mail can go to"}]
    for email in (ANN, "x@mail.corp.example", "sales@other.example", BEN):
        await world.arrives(email)
    await world.send()
    assert await world.states(BEN) == ["sent"]
    assert await reason_of(world, ANN) == "suppressed: complained"
    assert await reason_of(world, "x@mail.corp.example") == "suppressed: manual"
    assert await reason_of(world, "sales@other.example") == "suppressed: bounced"
    out = await client.get("/v1/suppressions:export")
    lines = list(csv.DictReader(io.StringIO(out.text)))
    assert len(lines) == 4 and {line["domain"] for line in lines} == {"", "corp.example"}
    assert {line["channel"] for line in lines} == {"email", "sms"}
    for item in (await client.get("/v1/suppressions")).json()["items"]:
        assert (await client.delete(f"/v1/suppressions/{item['suppression_id']}")).status_code == 204
    back = await client.post("/v1/suppressions:import", content=out.text, headers={"content-type": "text/csv"})
    assert (back.json()["added"], back.json()["rejected"]) == (4, 0)
    found = (await client.get("/v1/suppressions", params={"email": ANN, "channel": "email"})).json()["items"]
    assert [(one["reason"], one["origin"], one["kind"]) for one in found] == [("complained", "old", "address")]
    assert (await client.post("/v1/suppressions:import", content="x")).status_code == 422
    assert (await client.post("/v1/suppressions", json={"domain": "no domain"})).status_code == 422
    assert (await client.post("/v1/suppressions", json={"email": ANN, "phone": "+4915112345678"})).status_code == 422


async def test_reports_put_an_address_on_the_list_and_the_guard_pauses_what_brings_complaints(world: World) -> None:
    await world.policy(guard={"min_messages": 2, "complaint_percent": 40, "bounce_percent": 90})
    sequence_id = await world.saves(ONE, goal=NEVER)
    people = [f"p{number}@example.com" for number in range(3)]
    for email in people:
        await world.arrives(email)
    await world.send()
    lead = {email: world.facts.lead_id(email) for email in people}
    ids = {email: (await world.messages(email))[0]["message_id"] for email in people}
    soft = [report(lead[people[0]], "bounced", permanent=False) for _ in range(3)]
    await world.tell(*soft[:2], *soft[:2])
    assert await _listed(world, people[0]) == []
    await world.tell(soft[2], report(lead[people[1]], "bounced", permanent=True))
    assert await _listed(world, people[0]) == await _listed(world, people[1]) == [("bounced", "email", "postmark")]
    complaints = [report(lead[email], "complained", message_id=ids[email]) for email in people[:2]]
    await world.tell(complaints[0], complaints[0])
    assert (await world.nurture.client.get("/v1/guarded-sequences")).json()["items"] == []
    await world.tell(complaints[1])
    (guarded,) = (await world.nurture.client.get("/v1/guarded-sequences", params={"paused": True})).json()["items"]
    assert (guarded["sequence_id"], guarded["complained"], guarded["taken"]) == (sequence_id, 2, 3)
    await world.arrives(BEN)
    await world.send()
    assert await reason_of(world, BEN) == guarded["reason"]
    assert "66.67 % complaints (2 of 3" in guarded["reason"]
    resume = f"/v1/guarded-sequences/{sequence_id}:resume"
    assert (await world.nurture.client.post(resume, json={"reason": "the list was cleaned"})).status_code == 200
    assert (await world.nurture.client.post(resume, json={"reason": "again"})).status_code == 409
    await world.send()
    assert await world.states(BEN) == ["sent"]
    await world.arrives(EVE)
    await world.send()
    assert await world.states(EVE) == ["sent"]
    await world.tell(report(lead[people[2]], "complained", message_id=ids[people[2]]))  # about one of those before
    await world.nurture.run_timers()
    paused = await world.nurture.client.get("/v1/guarded-sequences", params={"paused": True})
    assert paused.json()["items"] == []


async def _listed(world: World, email: str) -> list[tuple[str, str, str]]:
    items = (await world.nurture.client.get("/v1/suppressions", params={"email": email})).json()["items"]
    return [(one["reason"], one["channel"], one["origin"]) for one in items]


async def test_what_a_person_chooses_on_their_page_counts_at_once_and_is_told_with_evidence(world: World) -> None:
    client = world.nurture.client
    await world.saves(ONE, name="News", purpose="newsletter", goal=NEVER, trigger="event.type == 'page_view'")
    await world.saves(ONE, name="Offers", goal=NEVER, trigger="event.type == 'page_view'")
    await world.tell(await world.facts.captured(ANN, phone="+4915112345678"), world.facts.consent(ANN))
    told = (await client.get(f"/v1/leads/{world.facts.lead_id(ANN)}/preferences")).json()
    assert {(one["purpose"], one["channel"]) for one in told["choices"] if one["on"]} == {
        (purpose, "email") for purpose in ("newsletter", "product_updates", "events", "surveys", "marketing")
    }
    path = "/v1/preferences/" + told["url"].rpartition("/")[2]
    bare: Any = {"headers": {"authorization": "", "accept-language": "de"}}
    page = await client.get(path, **bare)
    assert page.status_code == 200 and "Ihre Einstellungen" in page.text
    assert str(world.facts.lead_id(ANN)) not in page.text + told["url"] and ANN not in page.text
    on = re.findall(r'name="was" value="([^"]+)"', page.text)
    form = {"do": "save", "shown": "de", "was": on, "on": [one for one in on if one != "newsletter.email"]}
    saved = await client.post(path, data={**form, "language": "fr"}, **bare)
    assert saved.status_code == 303
    assert "Vos choix sont enregistrés" in (await client.get(path, params={"lang": "fr", "done": "done"}, **bare)).text
    (word,) = await world.nurture.told(ConsentChanged)
    assert (word.purpose, word.channel, word.state) == ("newsletter", "email", "denied")
    async with world.nurture.runtime.database.reading() as connection:
        (text,) = await world.nurture.runtime.keys.open_many(connection, [(word.lead_id, word.personal)])
    evidence = ConsentEvidence.model_validate_json(text or b"")
    assert (evidence.method, evidence.text) == ("preference_centre", "Newsletter")
    assert evidence.text_version is not None and evidence.text_version.startswith("preference-page 1")
    await world.tell(world.facts.form(ANN, kind="page_view"))
    await world.send()
    assert {one["sequence"]: one["state"] for one in await world.messages(ANN)} == {
        "News": "suppressed",
        "Offers": "sent",
    }
    (mail,) = [message for to, message in world.inbox.accepted if to == ANN]
    body = mail.get_body(("plain",))
    assert body is not None and told["url"] in body.get_content()
    await client.post(path, data={"do": "pause", "days": "30"}, **bare)
    await world.saves(ONE, name="Later", goal=NEVER)
    await world.tell(world.facts.form(ANN))
    await world.send()
    assert (await reason_of(world, ANN)).startswith("the person wants nothing before ")
    await client.post(path, data={"do": "resume"}, **bare)
    await world.send()
    assert sorted(await world.states(ANN)) == ["sent", "sent", "suppressed"]
    await client.post(path, data={"do": "leave", "shown": "en"}, **bare)
    assert [touch.type for touch in await world.nurture.told(TouchRecorded)] == ["unsubscribed"]
    assert 'name="was"' not in (await client.get(path, **bare)).text
    assert (await client.post(path, data={"do": "pause", "days": "7"}, **bare)).status_code == 422
    assert (await client.post(path, data={"do": "win"}, **bare)).status_code == 422
    again = {"do": "save", "on": ["newsletter.email", "events.sms"]}
    await client.post(path, data=again, **bare)
    choices = (await client.get(f"/v1/leads/{world.facts.lead_id(ANN)}/preferences")).json()["choices"]
    assert {(one["purpose"], one["channel"]) for one in choices if one["on"]} == {
        ("newsletter", "email"),
        ("events", "sms"),
    }
    assert (await client.get("/v1/preferences/AAAA", **bare)).status_code == 404
    await world.tell(world.facts.erased(ANN))
    assert (await client.get(path, **bare)).status_code == 404
    assert (await client.post(path, data=again, **bare)).status_code == 404


async def test_who_refuses_on_the_page_counts_for_the_message_that_led_there(world: World) -> None:
    sequence_id = await world.saves(ONE, goal=NEVER)
    bare: Any = {"headers": {"authorization": ""}}
    pages = {}
    for email in (ANN, BEN, "eve@example.com"):
        await world.arrives(email)
        await world.send()
        body = next(mail for to, mail in world.inbox.accepted if to == email).get_body(("plain",))
        assert body is not None
        (pages[email],) = re.findall(r"/v1/preferences/[\w-]+\.[\w-]+", body.get_content())
    ann, ben, eve = pages.values()
    stranger = f"{ann.partition('.')[0]}.{ben.partition('.')[2]}"
    on = re.findall(r'name="was" value="([^"]+)"', (await world.nurture.client.get(ben, **bare)).text)
    kept = {"do": "save", "was": on, "on": [one for one in on if one != "newsletter.email"]}
    await world.nurture.client.post(ben, data=kept, **bare)
    assert await _unsubscribed(world, sequence_id) == 0, "the newsletter was not what the message was for"
    for page, form in ((ann, {"do": "leave"}), (ben, {**kept, "on": []}), (ben, {**kept, "on": []})):
        await world.nurture.client.post(page, data=form, **bare)
    assert await _unsubscribed(world, sequence_id) == 2
    assert (await world.nurture.client.post(stranger, data={"do": "leave"}, **bare)).status_code == 303
    assert (await world.nurture.client.post(eve[:-4], data={"do": "leave"}, **bare)).status_code == 303
    assert await _unsubscribed(world, sequence_id) == 2, "no address of a message that was theirs led there"


async def _unsubscribed(world: World, sequence_id: str) -> int:
    report = (await world.nurture.client.get(f"/v1/sequences/{sequence_id}/report")).json()
    return int(report["total"]["unsubscribed"])


async def test_two_people_who_turn_out_to_be_one_share_a_limit(world: World) -> None:
    await world.policy(pressure={"limits": [{"messages": 1, "days": 1}]})
    await world.saves(ONE, goal=NEVER)
    await world.saves(ONE, name="Other", goal=NEVER, trigger="event.type == 'page_view'")
    await world.arrives(ANN)
    await world.send()
    await world.tell(await world.facts.captured(BEN), world.facts.consent(BEN), world.facts.merged(ANN, BEN))
    await world.tell(world.facts.form(BEN, kind="page_view"))
    await world.send()
    states = {one["sequence"]: (one["state"], one["reason"]) for one in await world.messages(BEN)}
    assert states["Test"][0] == "sent" and states["Other"][0] == "planned"
    assert "Test/first (email, " in states["Other"][1]
