"""A person who asks gets to know all that every service holds about them, and nobody else's."""

import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from shared.events import ExportAnswered, ExportRequested
from shared.settings import Settings
from shared.testing import FrozenClock
from tests.service.company import Company, company
from tests.service.nurture_world import SEQUENCE
from throughline.services import SERVICES

ANN = "ann@example.com"
BEN = "ben@example.com"
LISTED = """
WITH audience AS (
    INSERT INTO audiences (audience_id, name, url, secret, segment_id, purpose, identifiers)
    VALUES ('ads', 'Ads', 'https://ads.example', '', 'eu', 'marketing', '{email}') RETURNING audience_id
)
INSERT INTO audience_members (audience_id, lead_id, wanted) SELECT audience_id, $1, '{email_sha256:1}' FROM audience
"""


@pytest_asyncio.fixture
async def everybody(settings: Settings) -> AsyncIterator[Company]:
    async with company(settings) as made:
        yield made


async def live(everybody: Company) -> str:
    """Ann was here from her phone first, agreed, came back and bought."""
    capture, routing = everybody.capture, everybody.services["routing"]
    rep = {"name": "Rep", "email": "rep@acme.example", "time_zone": "UTC"}
    assert (await routing.client.post("/v1/reps", json=rep)).status_code == 201
    await everybody.services["nurture"].client.post("/v1/sequences", json=SEQUENCE)
    await capture.lead(phone="+4915112345678", attributes={"shoe": 38})
    evidence = {"method": "form", "text": "Yes please"}
    lead = await capture.lead(
        email=ANN,
        phone="+4915112345678",
        anonymous_id="browser-1",
        first_name="Ann",
        consents=[{"channel": "email", "state": "granted", "evidence": evidence}],
        touch={"type": "form_submitted", "properties": {"size": "L"}, "url": "https://a.example/?q=shoes"},
    )
    await capture.post("touches", {"email": ANN, "type": "demo_requested"})
    await everybody.settle()  # who buys before a sequence can begin is in none
    money = {"value_minor": 900, "currency": "EUR"}
    await capture.post("conversions", {"email": ANN, "external_id": "o-1", "type": "payment", **money})
    await everybody.settle()
    lead_id = str(lead["lead_id"])
    deal = {"lead_id": lead_id, "external_id": "d-1", "name": "Ann's shoes", **money}
    assert (await routing.client.post("/v1/deals", json=deal)).status_code == 201
    await everybody.settle()
    return lead_id


async def exported(everybody: Company, lead_id: str) -> dict[str, Any]:
    asked = await everybody.capture.post(f"leads/{lead_id}:export", None)
    assert asked.status_code == 202, asked.text
    assert (asked.json()["state"], asked.json()["held"]) == ("running", None)
    await everybody.settle()
    export = (await everybody.capture.get(f"person-exports/{asked.json()['export_id']}")).json()
    assert export["state"] == "done"
    return dict(export)


async def test_an_export_has_what_every_service_holds_by_all_ids_of_the_person(everybody: Company) -> None:
    lead_id = await live(everybody)
    async with everybody.services["nurture"].runtime.database.reading() as connection:
        await connection.execute(LISTED, lead_id)
    held = (await exported(everybody, lead_id))["held"]
    assert held.keys() == set(SERVICES)
    assert [(row["name"], row["listed_as"]) for row in held["nurture"]["audiences"]] == [("Ads", ["email_sha256:1"])]
    statements = {name: told for row in held["capture"]["leads"] for name, told in row["statements"].items()}
    assert (statements["email"][0], statements["first_name"][0], statements["attributes.shoe"][0]) == (ANN, "Ann", 38)
    assert all(told[2] == "api" for told in statements.values())
    assert {row["kind"] for row in held["capture"]["identifiers"]} == {"email", "phone"}
    assert held["capture"]["consent"][0]["evidence"] == {"method": "form", "text": "Yes please"}
    assert len(held["capture"]["browsers"]) == 1
    properties = [row["personal"]["properties"] for row in held["scoring"]["touches"] if row["personal"]]
    assert {"size": "L"} in properties
    assert [row["personal"]["email"] for row in held["scoring"]["profiles"] if "email" in row["personal"]] != []
    assert held["scoring"]["stages"] and held["scoring"]["scores"]
    assert [row["sealed"]["name"] for row in held["routing"]["deals"]] == ["Ann's shoes"]
    assert [row["sealed"]["lead"]["first_name"] for row in held["routing"]["assignments"]] == ["Ann"]
    assert held["nurture"]["enrolments"] and held["nurture"]["consents"][0]["state"] == "granted"
    assert {row["type"] for row in held["attribution"]["journey"]} == {"form_submitted", "demo_requested"}
    assert [row["value_minor"] for row in held["attribution"]["conversions"]] == [900]
    assert held["attribution"]["credits"]


async def test_of_a_shared_browser_only_what_happened_while_it_was_theirs_is_told(everybody: Company) -> None:
    capture = everybody.capture
    now = datetime.now(UTC)
    for index, email in enumerate((ANN, BEN)):
        at = (now - timedelta(hours=9 - 3 * index)).isoformat()
        await capture.lead(email=email, anonymous_id="shared", occurred_at=at)
        later = (now - timedelta(hours=8 - 3 * index)).isoformat()
        touch = {"anonymous_id": "shared", "type": "page_view", "occurred_at": later, "properties": {"who": email}}
        await capture.post("touches", touch)
    await everybody.settle()
    for email, other in ((ANN, BEN), (BEN, ANN)):
        (lead,) = (await capture.get("leads", email=email)).json()["items"]
        held = (await exported(everybody, lead["lead_id"]))["held"]
        assert [row["personal"]["properties"] for row in held["scoring"]["touches"]] == [{"who": email}]
        assert len(held["attribution"]["journey"]) == 1
        assert other not in str(held)


async def test_answers_are_sealed_with_the_persons_key_and_told_in_pieces_small_enough_for_kafka(
    everybody: Company,
) -> None:
    capture = everybody.capture
    lead = await capture.lead(email=ANN)
    noise = random.Random(7)
    touches = [
        {"email": ANN, "type": "page_view", "touch_id": f"t{number}", "properties": {"n": noise.randbytes(2_000).hex()}}
        for number in range(400)
    ]
    for start in range(0, len(touches), 100):
        assert (await capture.post("touches", {"touches": touches[start : start + 100]})).status_code == 202
    await everybody.settle()
    held = (await exported(everybody, lead["lead_id"]))["held"]
    assert len(held["scoring"]["touches"]) == 400
    answers = await everybody.services["scoring"].told(ExportAnswered)
    assert len(answers) == answers[0].chunks > 1
    assert all(len(answer.encode()) < 1_000_000 and answer.plain is None for answer in answers)
    for service in ("scoring", "routing", "nurture"):
        for answer in await everybody.services[service].told(ExportAnswered):
            assert ANN.encode() not in answer.encode() and answer.personal
    (row,) = await capture.rows("SELECT count(*) AS n FROM person_export_chunks WHERE sealed IS NULL AND plain IS NULL")
    assert row["n"] == 0


async def test_an_answer_told_twice_is_kept_once_and_one_that_is_asked_again_is_its_own(everybody: Company) -> None:
    lead_id = await live(everybody)
    first = await exported(everybody, lead_id)
    (asked,) = await everybody.capture.harness.told(ExportRequested)
    again = asked.model_copy(update={"event_id": "again"})
    for name in ("scoring", "routing", "nurture", "attribution"):
        await everybody.services[name].deliver(again)
    await everybody.settle()
    path = f"person-exports/{first['export_id']}"
    assert (await everybody.capture.get(path)).json() == first
    second = await exported(everybody, lead_id)
    assert second["export_id"] != first["export_id"]
    keyed = [await everybody.capture.post(f"leads/{lead_id}:export", None, idempotency_key="k") for _ in range(2)]
    assert keyed[0].json()["export_id"] == keyed[1].json()["export_id"]


async def test_an_export_is_gone_with_the_erasure_and_late_answers_bring_nothing_back(everybody: Company) -> None:
    lead_id = await live(everybody)
    export = await exported(everybody, lead_id)
    waiting = (await everybody.capture.post(f"leads/{lead_id}:export", None)).json()
    await everybody.capture.post(f"leads/{lead_id}:erase", None)
    await everybody.settle()
    for export_id in (export["export_id"], waiting["export_id"], "nope"):
        assert (await everybody.capture.get(f"person-exports/{export_id}")).status_code == 404
    assert await everybody.capture.rows("SELECT 1 FROM person_export_chunks") == []
    assert (await everybody.capture.post(f"leads/{lead_id}:export", None)).status_code == 410
    assert (await everybody.capture.post("leads/x:export", None)).status_code == 404


async def test_an_export_is_dropped_after_seven_days(settings: Settings) -> None:
    clock = FrozenClock(datetime.now(UTC))
    async with company(settings, clock=clock) as everybody:
        lead = await everybody.capture.lead(email=ANN)
        export = await exported(everybody, lead["lead_id"])
        clock.move(timedelta(days=7, seconds=1))
        assert (await everybody.capture.get(f"person-exports/{export['export_id']}")).status_code == 404
        await everybody.services["capture"].run_timers()
        assert await everybody.capture.rows("SELECT 1 FROM person_export_chunks") == []


async def test_somebody_known_by_touches_alone_may_ask_too(everybody: Company) -> None:
    capture = everybody.capture
    await capture.post("touches", {"email": ANN, "type": "page_view", "properties": {"a": "b"}})
    await everybody.settle()
    held = (await exported(everybody, capture.harness.runtime.ids.of_email(ANN)))["held"]
    assert [row["personal"]["properties"] for row in held["scoring"]["touches"]] == [{"a": "b"}]
    assert held["capture"]["leads"] == []
