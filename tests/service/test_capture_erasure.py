"""Forgetting a person: nothing personal can be read any more, and who comes back is new."""

from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest_asyncio

from shared.events import IdentityLinked, LeadCaptured, LeadErased, TouchRecorded
from shared.ids import EventId
from shared.settings import Settings
from shared.testing import harness
from tests.samples.signed import sample
from tests.service.capture_world import Capture, ago
from throughline.services import service_code

ANN = "ann@example.com"
PHONE = "+4915112345678"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def _ann(capture: Capture) -> dict[str, object]:
    await capture.post("touches", {"anonymous_id": "browser-1", "type": "page_view"})
    await capture.post("touches", {"email": ANN, "type": "page_view", "properties": {"note": "secret"}})
    lead = await capture.lead(phone=PHONE, first_name="Ann", occurred_at=ago(hours=2))
    await capture.lead(external_id="crm-1", company="Acme")
    await capture.lead(
        email=ANN, phone=PHONE, external_id="crm-1", anonymous_id="browser-1", consent={"email": "granted"}
    )
    return lead


async def test_erasing_destroys_every_key_of_the_person_and_strips_the_rows(capture: Capture) -> None:
    lead = await _ann(capture)
    ids = capture.harness.runtime.ids
    everybody = {
        ids.of_phone(PHONE),
        ids.of_email(ANN),
        ids.of_external_id("api", "crm-1"),
        ids.of_anonymous_id("browser-1"),
    }
    account_id = (await capture.get(f"leads/{lead['lead_id']}")).json()["account"]["account_id"]
    answer = await capture.post(f"leads/{lead['lead_id']}:erase", None)
    assert answer.status_code == 200
    assert set(answer.json()["lead_ids"]) == everybody
    assert {event.lead_id for event in await capture.harness.told(LeadErased)} == everybody
    tombstones = await capture.rows("SELECT key FROM event_log WHERE topic = 'keys' AND value IS NULL")
    assert {row["key"] for row in tombstones} == everybody | {account_id}  # nobody but they told of the account
    facts: list[TouchRecorded | LeadCaptured] = [*await capture.harness.told(TouchRecorded)]
    facts += await capture.harness.told(LeadCaptured)
    async with capture.harness.consumer_runtime.database.reading() as connection:
        blocks = [(fact.lead_id, fact.personal) for fact in facts]
        opened = await capture.harness.consumer_runtime.keys.open_many(connection, blocks)
    assert opened == [None] * len(facts)
    for lead_id in everybody:
        assert (await capture.get(f"leads/{lead_id}")).status_code in (404, 410)
    assert (await capture.get(f"leads/{lead['lead_id']}")).status_code == 410
    assert (await capture.get("leads", email=ANN)).json()["items"] == []
    rows = await capture.rows("SELECT * FROM leads")
    assert all((row["statements"], row["sealed"]) == ({}, None) and row["erased_at"] for row in rows)
    assert (await capture.rows("SELECT target FROM audit_entries WHERE action = 'lead.erased'")) != []
    for table in ("identifiers", "links", "idempotency_keys"):
        assert await capture.rows(f"SELECT 1 FROM {table}") == []


async def test_erasing_twice_changes_nothing_and_an_unknown_id_is_404(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    first = await capture.post(f"leads/{lead['lead_id']}:erase", None)
    again = await capture.post(f"leads/{lead['lead_id']}:erase", None)
    assert (again.status_code, again.json()["erased_at"]) == (200, first.json()["erased_at"])
    assert len(await capture.harness.told(LeadErased)) == 1
    assert (await capture.post("leads/0db2ed11-1f5c-8c3e-9a6b-000000000001:erase", None)).status_code == 404


async def test_somebody_known_by_touches_alone_can_be_erased(capture: Capture) -> None:
    await capture.post("touches", {"email": ANN, "type": "page_view", "properties": {"a": 1}})
    ann = capture.harness.runtime.ids.of_email(ANN)
    assert (await capture.post(f"leads/{ann}:erase", None)).status_code == 200
    assert [event.lead_id for event in await capture.harness.told(LeadErased)] == [ann]


async def test_who_comes_back_is_a_new_lead_without_a_past(capture: Capture) -> None:
    lead = await _ann(capture)
    await capture.post(f"leads/{lead['lead_id']}:erase", None)
    await capture.post("touches", {"email": ANN, "type": "page_view"})
    answer = await capture.post("leads", {"email": ANN})
    back = answer.json()
    ids = capture.harness.runtime.ids
    assert (answer.status_code, back["lead_id"]) == (201, ids.of_email(ANN, 1))
    assert (back["first_name"], back["consent"], back["lead_ids"]) == (None, {}, [back["lead_id"]])
    assert (await capture.harness.told(TouchRecorded))[-1].lead_id == back["lead_id"]
    await capture.post(f"leads/{back['lead_id']}:erase", None)
    assert (await capture.lead(email=ANN))["lead_id"] == ids.of_email(ANN, 2)


async def test_a_touch_under_an_erased_id_is_refused_and_named(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    await capture.post(f"leads/{lead['lead_id']}:erase", None)
    touch = {"lead_id": lead["lead_id"], "type": "page_view"}
    assert (await capture.post("touches", touch)).status_code == 410
    mixed = await capture.post("touches", {"touches": [touch, {"email": ANN, "type": "page_view"}]})
    assert (mixed.status_code, mixed.json()["accepted"]) == (202, 1)
    assert mixed.json()["rejected"][0]["type"] == "urn:throughline:problem:personal:person-erased"


async def test_another_process_that_does_not_know_of_the_erasure_yet_looks_again(
    capture: Capture, settings: Settings
) -> None:
    async with harness(service_code("capture"), settings) as other_made:
        other = Capture(other_made)
        await other.post("touches", {"email": "ben@example.com", "type": "page_view"})
        lead = await capture.lead(email=ANN)
        await capture.post(f"leads/{lead['lead_id']}:erase", None)
        body = {"email": ANN, "type": "page_view", "properties": {"a": 1}}
        assert (await other.post("touches", body)).status_code == 202
        told = await other.harness.told(TouchRecorded)
        assert told[-1].lead_id == capture.harness.runtime.ids.of_email(ANN, 1)


async def test_a_delivery_from_before_the_erasure_brings_nobody_back(capture: Capture) -> None:
    source = await capture.source()
    lead = await capture.lead(email=ANN)
    await capture.hook(source, {"email": ANN, "first_name": "Ann"})
    await capture.post(f"leads/{lead['lead_id']}:erase", None)
    await capture.map_deliveries()
    (item,) = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
    assert (item["state"], item["reason"]) == ("ignored", "erased")
    assert (await capture.get("leads", email=ANN)).json()["items"] == []
    await capture.hook(source, {"email": ANN, "first_name": "Ann again"})
    await capture.map_deliveries()
    assert (await capture.get("leads", email=ANN)).json()["items"][0]["first_name"] == "Ann again"


async def test_a_shops_wish_to_forget_somebody_is_carried_out(settings: Settings) -> None:
    known = sample("shopify")
    async with harness(service_code("capture"), settings) as made:
        capture = Capture(made)
        source = await capture.source("shopify", secret=known.secret)
        await capture.lead(email=ANN)
        body = orjson.dumps({"customer": {"id": 7, "email": ANN}, "orders_to_redact": []})
        request = known.with_body(body)
        headers = [
            (name, "customers/redact" if name == "x-shopify-topic" else value) for name, value in request.headers.pairs
        ]
        response = await made.client.post(f"/hooks/{source['source_id']}", content=body, headers=headers)
        assert response.status_code == 200
        await capture.map_deliveries()
        assert (await capture.get("leads", email=ANN)).json()["items"] == []
        assert len(await made.told(LeadErased)) == 1


async def test_a_browser_linked_in_the_last_moment_is_forgotten_with_its_person(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    await capture.post("touches", {"email": ANN, "anonymous_id": "browser-1", "type": "page_view"})
    (link,) = await capture.harness.told(IdentityLinked)
    await capture.post(f"leads/{lead['lead_id']}:erase", None)
    await capture.harness.deliver(link)
    browser = capture.harness.runtime.ids.of_anonymous_id("browser-1")
    assert browser in {event.lead_id for event in await capture.harness.told(LeadErased)}
    later = link.model_copy(update={"event_id": EventId("later"), "received_at": link.received_at + timedelta(days=1)})
    await capture.harness.deliver(later)
    assert await capture.rows("SELECT 1 FROM links") == []
