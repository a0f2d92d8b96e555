"""Runs of sequences on real PostgreSQL: who comes in, in which order whatever, once; and who leaves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
import pytest_asyncio

from shared.events import EnrolmentEnded, EnrolmentStarted, IdentityLinked, SegmentEntered
from shared.ids import EventId
from shared.settings import Settings
from tests.service.nurture_world import HELLO, SEQUENCE, World, open_world
from tests.service.test_nurture_segments import moved

ANN = "ann@example.com"
BEN = "ben@example.com"
SHIPPED = {
    *("welcome", "onboarding", "demo_follow_up", "content_download"),
    *("re_engagement", "abandoned_cart", "trial", "renewal"),
}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_order_of_profile_consent_and_form_does_not_matter(world: World, order: tuple[int, ...]) -> None:
    facts = [await world.facts.captured(ANN), world.facts.consent(ANN), world.facts.form(ANN)]
    for index in order:
        await world.tell(facts[index])
    (run,) = await world.runs(ANN)
    assert (run["sequence_id"], run["state"], run["run"]) == ("welcome", "active", 1)


async def test_a_form_without_consent_starts_nothing_and_an_hour_later_it_never_will(world: World) -> None:
    await world.tell(await world.facts.captured(ANN), world.facts.form(ANN))
    assert await world.runs(ANN) == []
    await world.execute("UPDATE pending_triggers SET expires_at = expires_at - interval '1 hour'")
    await world.tell(world.facts.consent(ANN))
    assert await world.runs(ANN) == []
    await world.nurture.run_timers()
    async with world.nurture.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM pending_triggers") == 0


async def test_an_anonymous_form_starts_the_sequence_once_the_browser_has_a_name(world: World) -> None:
    browser = world.nurture.runtime.ids.of_anonymous_id("browser-1")
    form = world.facts.touch(browser)
    await world.tell(form, await world.facts.captured(ANN), world.facts.consent(ANN))
    assert await world.runs(ANN) == []
    at = datetime.now(UTC)
    await world.tell(
        IdentityLinked(
            event_id=EventId("linked-1"),
            lead_id=world.facts.lead_id(ANN),
            occurred_at=at,
            received_at=at,
            anonymous_lead_id=browser,
        )
    )
    (run,) = await world.runs(ANN)
    assert run["triggered_at"] == form.occurred_at.isoformat().replace("+00:00", "Z")


async def test_the_same_person_enters_once_however_often_and_by_how_many_at_once(world: World) -> None:
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    forms = [world.facts.form(ANN) for _ in range(6)]
    await asyncio.gather(*(world.tell(form) for form in forms))
    await world.tell(*forms)
    assert len(await world.runs(ANN)) == 1
    assert len(await world.nurture.told(EnrolmentStarted)) == 1


async def test_reentry_after_the_exit_makes_a_second_run_and_only_by_a_new_fact(world: World) -> None:
    sequence_id = await world.saves(reentry="after_exit")
    await world.arrives(ANN)
    await world.tell(world.facts.accepted(ANN))
    again = world.facts.form(ANN)
    await world.tell(again)
    await world.tell(again)
    mine = [run for run in await world.runs(ANN) if run["sequence_id"] == sequence_id]
    assert [(run["run"], run["state"]) for run in mine] == [(1, "ended"), (2, "active")]


async def test_facts_older_than_a_week_greet_nobody(world: World) -> None:
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    await world.tell(world.facts.form(ANN, at=datetime.now(UTC) - timedelta(days=8)))
    assert await world.runs(ANN) == []


@pytest.mark.parametrize("late", [False, True])
async def test_a_conversion_is_the_goal_and_an_accepted_assignment_the_exit(world: World, late: bool) -> None:
    """Also when they arrive before the form does, which happened earlier."""
    form = world.facts.form(ANN)
    reached, left = world.facts.conversion(ANN), world.facts.accepted(BEN)
    forms = [form, world.facts.form(BEN, at=form.occurred_at)]
    for email in (ANN, BEN):
        await world.tell(await world.facts.captured(email), world.facts.consent(email))
    for batch in ([reached, left], forms) if late else (forms, [reached, left]):
        await world.tell(*batch)
    await world.send()
    ended = {email: await world.runs(email) for email in (ANN, BEN)}
    if late:
        assert ended == {ANN: [], BEN: []}
    else:
        assert ended[ANN][0]["reason"].startswith("goal: conversion_recorded")
        assert ended[BEN][0]["reason"].startswith("exit: assignment_accepted")
        assert len(await world.nurture.told(EnrolmentEnded)) == 2
    assert world.inbox.accepted == []


async def test_what_happened_before_the_form_does_not_end_the_run(world: World) -> None:
    await world.tell(world.facts.accepted(ANN), world.facts.conversion(ANN))
    await world.arrives(ANN)
    await world.send()
    assert (await world.runs(ANN))[0]["state"] == "active"
    assert len(world.inbox.subjects(ANN)) == 1


async def test_a_stage_starts_a_sequence_that_names_no_event(world: World) -> None:
    sequence_id = await world.saves(trigger="stage == 'mql' && lead.consent.email == 'granted'")
    await world.arrives(ANN)
    assert sequence_id not in {run["sequence_id"] for run in await world.runs(ANN)}
    await world.tell(world.facts.stage(ANN, "mql"))
    assert sequence_id in {run["sequence_id"] for run in await world.runs(ANN)}


async def test_properties_of_a_touch_are_opened_when_a_trigger_reads_them(world: World) -> None:
    sequence_id = await world.saves(trigger="event.properties.form == 'ebook' && lead.consent.email == 'granted'")
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    lead_id = world.facts.lead_id(ANN)
    runtime = world.nurture.runtime
    async with runtime.database.transaction() as tx:
        ciphers, _ = await runtime.keys.ciphers(tx.connection, [lead_id], datetime.now(UTC))
    other, ebook = (
        runtime.keys.seal(lead_id, ciphers[lead_id], b'{"properties": {"form": "%s"}}' % name).decode()
        for name in (b"other", b"ebook")
    )
    await world.tell(world.facts.touch(lead_id, "content_downloaded", personal=other))
    assert await world.runs(ANN) == []
    await world.tell(world.facts.touch(lead_id, "content_downloaded", personal=ebook))
    assert [run["sequence_id"] for run in await world.runs(ANN)] == [sequence_id]


async def test_two_people_who_turn_out_to_be_one_share_the_earlier_run(world: World) -> None:
    await world.arrives(ANN)
    await world.arrives(BEN)
    await world.send()
    await world.tell(world.facts.merged(BEN, into=ANN))
    runs = await world.runs(ANN)
    assert [(run["state"], run["reason"]) for run in runs] == [
        ("active", None),
        ("ended", "merged: the person is in the sequence under another id"),
    ]
    await world.time_passes(timedelta(days=3))
    await world.send()
    assert sorted(to for to, _ in world.inbox.accepted) == [ANN, ANN, BEN]


async def test_an_unmerge_gives_both_their_runs_back_with_what_happened_in_between(world: World) -> None:
    await world.arrives(ANN)
    await world.arrives(BEN)
    await world.send()
    await world.tell(world.facts.merged(BEN, into=ANN))
    ended = await world.nurture.told(EnrolmentEnded)
    await world.tell(world.facts.consent(ANN, "denied"))
    unmerge = world.facts.unmerged(BEN, into=ANN)
    await world.tell(unmerge)
    await world.tell(*ended)  # our own decision, read back late
    assert [(run["state"], run["reason"]) for run in await world.runs(ANN)] == [
        ("ended", "consent for email is denied")
    ]
    assert [(run["state"], run["reason"]) for run in await world.runs(BEN)] == [("active", None)]
    await world.tell(unmerge)
    await world.time_passes(timedelta(days=3))
    await world.send()
    assert sorted(to for to, _ in world.inbox.accepted) == [ANN, BEN, BEN]
    assert len(await world.nurture.told(EnrolmentStarted)) == 3


async def test_a_run_that_reached_its_end_while_merged_stays_ended_after_an_unmerge(world: World) -> None:
    await world.arrives(ANN)
    await world.arrives(BEN)
    await world.tell(world.facts.merged(BEN, into=ANN))
    await world.tell(world.facts.accepted(BEN))
    await world.tell(world.facts.unmerged(BEN, into=ANN))
    assert [run["state"] for run in await world.runs(BEN)] == ["ended"]


async def test_a_run_follows_its_person_into_a_merge(world: World) -> None:
    await world.arrives(BEN)
    await world.tell(await world.facts.captured(ANN))
    await world.tell(world.facts.merged(BEN, into=ANN))
    await world.tell(world.facts.accepted(ANN))
    (run,) = await world.runs(ANN)
    assert run["state"] == "ended"


async def test_an_erased_person_leaves_and_nothing_personal_stays(world: World) -> None:
    await world.arrives(ANN, first_name="Annabella")
    await world.send()
    assert world.inbox.subjects(ANN) == ["Welcome, Annabella"]
    lead_id = world.facts.lead_id(ANN)
    late = await world.facts.captured(ANN, revision=2, first_name="Annabella")
    await world.tell(world.facts.erased(ANN))
    await world.time_passes(timedelta(days=3))
    await world.send()
    assert len(world.inbox.accepted) == 1
    answer = await world.nurture.client.get(f"/v1/leads/{lead_id}/messages")
    assert [(item["state"], item["subject"]) for item in answer.json()["items"]] == [("sent", None)]
    await world.tell(late)
    assert await _everywhere(world, "Annabella") == []
    assert await _everywhere(world, ANN) == []


async def _everywhere(world: World, text: str) -> list[str]:
    """The tables of nurture that hold a text."""
    found = []
    async with world.nurture.runtime.database.reading() as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname LIKE 'nurture%'"
        )
        for table in tables:
            if await connection.fetchval(
                f"SELECT EXISTS (SELECT FROM {table['name']} AS t WHERE t::text LIKE $1)", f"%{text}%"
            ):
                found.append(table["name"])
    return found


async def test_sequences_are_versioned_and_runs_keep_theirs(world: World) -> None:
    client = world.nurture.client
    created = await client.post("/v1/sequences", json=SEQUENCE, headers={"idempotency-key": "one"})
    again = await client.post("/v1/sequences", json=SEQUENCE, headers={"idempotency-key": "one"})
    assert created.status_code == again.status_code == 201
    assert created.json() == again.json()
    sequence_id = created.json()["sequence_id"]
    assert (created.json()["version"], created.json()["active"]) == (1, True)
    await world.arrives(ANN)
    changed = {**SEQUENCE, "steps": SEQUENCE["steps"][:1]}
    saved = await client.put(f"/v1/sequences/{sequence_id}", json=changed)
    assert (saved.status_code, saved.json()["version"]) == (200, 2)
    await world.arrives(BEN)
    versions = {
        email: [run["sequence_version"] for run in await world.runs(email) if run["sequence_id"] == sequence_id]
        for email in (ANN, BEN)
    }
    assert versions == {ANN: [1], BEN: [2]}
    back = await client.post(f"/v1/sequences/{sequence_id}:activate", json={"version": 1})
    assert (back.json()["version"], back.json()["active"]) == (1, True)
    listed = (await client.get("/v1/sequences")).json()["items"]
    assert {item["sequence_id"]: item["version"] for item in listed} == {**dict.fromkeys(SHIPPED, 1), sequence_id: 1}
    stored = (await client.get(f"/v1/sequences/{sequence_id}/versions")).json()["items"]
    assert [item["version"] for item in stored] == [2, 1]
    assert (await client.get(f"/v1/sequences/{sequence_id}", params={"version": 2})).json()["document"]["steps"]
    assert (await client.get("/v1/sequences/none")).status_code == 404
    assert (await client.put("/v1/sequences/none", json=SEQUENCE)).status_code == 404


async def test_a_sequence_that_is_switched_off_holds_its_runs(world: World) -> None:
    sequence_id = await world.saves()
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "active": False})
    await world.arrives(ANN)
    await world.nurture.client.put(f"/v1/sequences/{sequence_id}", json={**SEQUENCE, "active": False})
    await world.arrives(BEN)
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [("planned", "the sequence is not active")]
    assert await world.runs(BEN) == []
    await world.nurture.client.put(f"/v1/sequences/{sequence_id}", json=SEQUENCE)
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert await world.states(ANN) == ["sent"]


@pytest.mark.parametrize(
    ("change", "pointer", "column"),
    [
        ({"trigger": "event.typ == 'x'"}, "/trigger", 7),
        ({"steps": [{"id": "a", "send": {"channel": "fax", "template": {}}}]}, "/steps/0/send/channel", None),
        ({"steps": [{"id": "a", "wait": {"days": 1}, "next": "b"}]}, "/steps/0/next", None),
        ({"color": "red"}, "/color", None),
        ({"name": "a\x00b"}, "/name", None),
        ({"name": "Spring\r\nsale"}, "/name", None),
        ({"name": "Spring \u202eelas"}, "/name", None),
        ({"name": None}, "/name", None),
    ],
)
async def test_a_faulty_document_is_refused_with_its_place(
    world: World, change: dict[str, Any], pointer: str, column: int | None
) -> None:
    for answer in (
        await world.nurture.client.post("/v1/sequences", json={**SEQUENCE, **change}),
        await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, **change}),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert (pointer, column) in [(error["pointer"], error.get("column")) for error in answer.json()["errors"]]
    assert [
        item["version"] for item in (await world.nurture.client.get("/v1/sequences/welcome/versions")).json()["items"]
    ] == [1]


async def test_what_a_document_names_is_looked_up_before_it_is_saved(world: World) -> None:
    """The same of a document that is only checked; segments are scoring's, so what nobody is in is a warning."""
    other = await world.saves()
    variants = [
        {"id": "x", "weight": 50},
        {"id": "y", "weight": 50, "template": {"subject": "a", "mjml": "<mjml><no/>"}},
    ]
    steps = [
        {"id": "a", "enrol": {"sequence": "gone"}},
        {"id": "b", "remove": {"sequence": other}},
        {"id": "c", "send": {"channel": "email", "template_id": "nothing"}},
        {"id": "d", "send": HELLO, "experiment": {"id": "e", "variants": variants}},
        {"id": "e", "wait_until": {"segment": "eu", "timeout": {"days": 1}}},
        {"id": "f", "branch": [{"when": "'us' in segments", "to": "end"}]},
    ]
    document = {**SEQUENCE, "trigger": "event.type == 'segment_entered' && event.segment == 'eu'", "steps": steps}
    client = world.nurture.client
    places = {"/steps/0/enrol/sequence", "/steps/2/send/template_id", "/steps/3/experiment/variants/1/template"}
    for url in ("/v1/sequences:validate", "/v1/sequences/welcome:validate"):
        told = (await client.post(url, json=document)).json()
        assert (told["valid"], {fault["pointer"] for fault in told["errors"]}) == (False, places)
    for answer in (
        await client.post("/v1/sequences", json=document),
        await client.put("/v1/sequences/welcome", json=document),
    ):
        assert answer.status_code == 422
        assert {fault["pointer"] for fault in answer.json()["errors"]} == places
    await world.tell(moved(SegmentEntered, world.facts.lead_id(ANN), "eu", 1))
    fine = {**document, "steps": [steps[1], *steps[4:]]}
    for saved in (
        await client.post("/v1/sequences:validate", json=fine),
        await client.post("/v1/sequences", json=fine),
        await client.put("/v1/sequences/welcome", json=fine),
    ):
        assert [one["pointer"] for one in saved.json()["warnings"]] == ["/steps/2/branch/0/when"], saved.text
    itself = {**fine, "steps": [{"id": "a", "remove": {"sequence": "welcome"}}]}
    told = (await client.post("/v1/sequences/welcome:validate", json=itself)).json()
    assert [fault["pointer"] for fault in told["errors"]] == ["/steps/0/remove/sequence"]


async def test_a_broken_body_is_refused(world: World) -> None:
    answer = await world.nurture.client.post("/v1/sequences", content=b"{")
    assert answer.status_code == 400


async def test_what_nobody_knows_is_not_found(world: World) -> None:
    for path in ("/v1/leads/nobody/messages", "/v1/messages?email=nobody@example.com", "/v1/leads/nobody/enrolments"):
        assert (await world.nurture.client.get(path)).status_code == 404
    assert (await world.nurture.client.get("/v1/messages?email=nonsense")).status_code == 422
    assert (await world.nurture.client.get("/v1/messages?state=nonsense")).status_code == 422


async def test_every_endpoint_asks_for_its_scope(world: World) -> None:
    paths = [("GET", "/v1/sequences"), ("POST", "/v1/sequences"), ("PUT", "/v1/sequences/welcome")]
    paths += [("GET", "/v1/leads/x/messages"), ("GET", "/v1/suppressions"), ("POST", "/v1/suppressions")]
    for method, path in paths:
        answer = await world.nurture.client.request(method, path, headers={"authorization": ""})
        assert answer.status_code == 401, path
