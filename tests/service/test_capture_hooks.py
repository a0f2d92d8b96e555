"""Webhooks through the door on real PostgreSQL: proved, kept, answered, and mapped once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio

from services.capture.adapters.request import Headers
from shared.events import (
    ConsentChanged,
    ConversionRecorded,
    DeliveryReceived,
    LeadCaptured,
    RefundRecorded,
    TouchRecorded,
)
from shared.settings import Settings
from shared.testing import FrozenClock, harness, make_settings
from tests.samples.signed import KINDS, Sample, sample, sign
from tests.service.capture_world import Capture
from throughline.services import service_code

FORM = {"email": "ann@example.com", "first_name": "Ann", "consent": {"email": "granted"}, "utm_source": "google"}


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


@asynccontextmanager
async def at_the_time_of(known: Sample, settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings, clock=FrozenClock(known.now)) as made:
        yield Capture(made)


async def source_of(capture: Capture, known: Sample) -> dict[str, Any]:
    said = {
        "phone_country": known.told.get("default_country"),
        "organization_id": known.told.get("organization_id"),
        "verify_token": known.told.get("handshake", {}).get("verify_token"),
    }
    return await capture.source(
        known.kind,
        secret=known.secret,
        mapping=known.told.get("mapping", {}),
        defaults={
            **known.told.get("defaults", {}),
            **{name: value for name, value in said.items() if value is not None},
        },
    )


# Of the others the address is signed, or a certificate has to be had; their adapters' own tests see to them.
AT_ANY_ADDRESS = [kind for kind in KINDS if kind not in ("square", "twilio", "hubspot", "ses")]


@pytest.mark.parametrize("kind", AT_ANY_ADDRESS)
async def test_a_signed_sample_is_mapped_once_however_often_it_comes(kind: str, settings: Settings) -> None:
    known = sample(kind)
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        answers = [await capture.send(source, known.request) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        await capture.map_deliveries()
        (item,) = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
        assert item["received"] == 2
        if "fetch" in known.told:
            assert (item["state"], item["told"]) == ("pending", [])
            return
        expected = known.all_expected
        left_alone = item["facts"] == 0 and all(fact["kind"].endswith("_event") for fact in expected)
        assert item["state"] == ("ignored" if left_alone else "mapped"), item["reason"]
        assert {fact["idempotency_key"] for fact in item["told"]} <= {fact["idempotency_key"] for fact in expected}
        for fact in expected:
            if fact["kind"] in ("lead", "booking", "conversion", "touch"):
                (lead,) = (await capture.get("leads", email=fact["email"])).json()["items"]
                assert lead["lead_id"] == item["lead_id"]
                assert lead["first_name"] == fact.get("first_name")
                assert lead["consent"] == fact.get("consent", {})
        told = await capture.harness.told(TouchRecorded)
        assert len({touch.touch_id for touch in told}) == len(told) <= len(expected)
        for touch in told:
            assert touch.origin == source["source_id"]
        if len(expected) == 1 and told and expected[0]["utm"]:
            assert told[0].source == expected[0]["utm"]["source"]
            assert told[0].campaign == expected[0]["utm"].get("campaign")
        conversions = await capture.harness.told(ConversionRecorded)
        money = [fact for fact in expected if fact["kind"] == "conversion"]
        assert [(each.value_minor, each.currency, each.external_id) for each in conversions] == [
            (fact["amount_minor"], fact["currency"], fact["external_id"]) for fact in money
        ]


@pytest.mark.parametrize("query", ["", "?kind=status&to=%2B49%20x"])
@pytest.mark.parametrize("kind", ["square", "twilio", "hubspot"])
async def test_a_signed_address_is_the_public_one_also_behind_a_proxy_that_adds_a_prefix(
    kind: str, query: str, settings: Settings
) -> None:
    known = sample(kind)
    behind = settings.model_copy(update={"public_url": "https://crm.example.com/leads/"})
    async with at_the_time_of(known, behind) as capture:
        source = await source_of(capture, known)
        address = source["hook_url"] + query
        assert address.startswith("https://crm.example.com/leads/capture/hooks/")
        names = ("x-hubspot-signature", "x-hubspot-signature-version", *sign(kind, b"", "x", known.now, url=""))
        kept = {name: value for name, value in known.request.headers.pairs if name not in names}
        for signed, status in (
            (address, 200),
            (address.replace("/leads/", "/"), 401),
            (source["hook_url"] + "?x", 401),
        ):
            proof = sign(kind, known.request.raw_body, known.secret, known.now, url=signed)
            request = replace(known.request, url=address, headers=Headers(tuple({**kept, **proof}.items())))
            assert (await capture.send(source, request)).status_code == status
        await capture.map_deliveries()
        (item,) = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
        assert item["state"] != "quarantined", item["reason"]


@pytest.mark.parametrize("kind", ["typeform", "shopify", "stripe", "standard_webhooks", "generic"])
async def test_a_wrong_signature_is_401_and_nothing_is_stored(kind: str, settings: Settings) -> None:
    known = sample(kind)
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        wrong = sign(kind, known.request.raw_body + b" ", known.secret, known.now)
        changed = {name.replace("-", "_"): value for name, value in wrong.items()}
        for request in (known.with_headers(**changed), known.with_headers(**dict.fromkeys(changed))):
            response = await capture.send(source, request)
            assert response.status_code == 401
            assert response.json()["type"] == "urn:throughline:problem:capture:bad-signature"
        assert await capture.rows("SELECT 1 FROM event_log") == []


async def test_an_unknown_source_is_404_and_503_while_nobody_can_know(capture: Capture) -> None:
    unknown = {"source_id": "0db2ed11-1f5c-4c3e-9a6b-000000000001", "secret": "s"}
    assert (await capture.hook(unknown, FORM)).status_code == 404
    away = make_settings("postgresql://nobody@127.0.0.1:1/none")
    async with harness(service_code("capture"), away) as without_database:
        response = await Capture(without_database).hook(unknown, FORM)
        assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)


async def test_get_and_head_of_a_known_source_store_nothing(capture: Capture) -> None:
    source = await capture.source()
    for method in ("GET", "HEAD"):
        response = await capture.harness.client.request(method, f"/hooks/{source['source_id']}")
        assert (response.status_code, response.content) == (200, b"")
        unknown = await capture.harness.client.request(method, "/hooks/0db2ed11-1f5c-4c3e-9a6b-000000000001")
        assert unknown.status_code == 404
    assert await capture.harness.told(DeliveryReceived) == []


async def test_a_body_over_the_limit_is_413(capture: Capture) -> None:
    source = await capture.source()
    assert (await capture.hook(source, {**FORM, "note": "x" * 2_100_000})).status_code == 413
    assert await capture.harness.told(DeliveryReceived) == []


async def test_a_body_that_packs_well_is_kept_although_it_is_large(capture: Capture) -> None:
    source = await capture.source()
    assert (await capture.hook(source, {**FORM, "attributes": {"note": "again " * 10_000}})).status_code == 200
    await capture.map_deliveries()
    (lead,) = (await capture.get("leads", email="ann@example.com")).json()["items"]
    assert lead["attributes"]["note"].startswith("again again")


async def test_a_delivery_at_rest_is_unreadable(capture: Capture) -> None:
    source = await capture.source()
    await capture.hook(source, FORM)
    (row,) = await capture.rows("SELECT value FROM event_log WHERE type = $1", DeliveryReceived.ce_type)
    assert b"ann@" not in row["value"]
    assert source["secret"].encode() not in row["value"]
    (secret,) = await capture.rows("SELECT sealed FROM source_secrets")
    assert source["secret"] not in secret["sealed"]


async def test_a_replay_weeks_later_changes_nothing(capture: Capture) -> None:
    source = await capture.source()
    await capture.hook(source, {**FORM, "idempotency_key": "s-1"})
    await capture.map_deliveries()
    (event,) = await capture.harness.told(DeliveryReceived)
    later = event.model_copy(update={"received_at": event.received_at + timedelta(days=20)})
    await capture.harness.deliver(later)
    assert len(await capture.harness.told(TouchRecorded)) == 1
    assert len(await capture.harness.told(LeadCaptured)) == 1


async def test_a_form_makes_a_lead_and_a_touch_under_one_id(capture: Capture) -> None:
    source = await capture.source(defaults={"channel": "partners"})
    assert (
        await capture.hook(source, {**FORM, "anonymous_id": "browser-1", "page_url": "https://a.test/x?q=1"})
    ).status_code == 200
    await capture.map_deliveries()
    (lead,) = (await capture.get("leads", anonymous_id="browser-1")).json()["items"]
    (touch,) = await capture.harness.told(TouchRecorded)
    assert (touch.type, touch.lead_id, touch.channel, touch.source) == (
        "form_submitted",
        lead["lead_id"],
        "partners",
        "google",
    )
    (consent,) = await capture.harness.told(ConsentChanged)
    assert (consent.origin, consent.state) == (source["source_id"], "granted")


async def test_what_cannot_be_mapped_is_quarantined_and_tried_again_after_the_mapping_is_corrected(
    capture: Capture,
) -> None:
    source = await capture.source()
    await capture.hook(source, b"[1, 2]")
    await capture.hook(source, FORM)
    await capture.map_deliveries()
    path = f"sources/{source['source_id']}/deliveries"
    (item,) = (await capture.get(path, state="quarantined")).json()["items"]
    assert item["reason"].startswith("capture/unmappable")
    assert await capture.harness.parked() == []
    assert len((await capture.get("leads", email="ann@example.com")).json()["items"]) == 1
    still = await capture.post(f"{path}:retry", None)
    assert still.json() == {"tried": 1, "still_quarantined": 1}
    changed = await capture.harness.client.patch(
        f"/v1/sources/{source['source_id']}", json={"mapping": {"email": {"cel": "'ben@example.com'"}}}
    )
    assert changed.status_code == 200
    assert (await capture.post(f"{path}:retry", None)).json() == {"tried": 1, "still_quarantined": 0}
    assert len((await capture.get("leads", email="ben@example.com")).json()["items"]) == 1
    assert (await capture.get(path, state="quarantined")).json()["items"] == []


async def test_an_event_without_anybody_is_kept_and_makes_no_lead(capture: Capture) -> None:
    source = await capture.source()
    assert (await capture.hook(source, {"company": "Acme"})).status_code == 200
    await capture.map_deliveries()
    (item,) = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
    assert (item["state"], item["reason"]) == ("ignored", "no_identifier")
    assert (await capture.get("leads")).json()["items"] == []


async def test_secrets_rotate_without_losing_a_delivery(capture: Capture) -> None:
    source = await capture.source(secret="the-first-secret")
    path = f"sources/{source['source_id']}/secrets"
    added = await capture.post(path, {"secret": "the-second-secret"})
    assert (added.status_code, added.json()["n"], added.json()["secret"]) == (201, 2, "the-second-secret")
    assert (await capture.post(path, {})).status_code == 409
    for secret in ("the-first-secret", "the-second-secret"):
        assert (await capture.hook({**source, "secret": secret}, {**FORM, "note": secret})).status_code == 200
    assert (await capture.harness.client.delete(f"/v1/{path}/1")).status_code == 204
    assert (await capture.hook(source, FORM)).status_code == 401
    assert (await capture.hook({**source, "secret": "the-second-secret"}, FORM)).status_code == 200
    assert (await capture.harness.client.delete(f"/v1/{path}/2")).status_code == 409
    assert (await capture.harness.client.delete(f"/v1/{path}/1")).status_code == 404
    for shown in ((await capture.get("sources")).text, (await capture.get(f"sources/{source['source_id']}")).text):
        assert "secret" not in shown.replace('"secrets"', "")


async def test_events_about_one_payment_make_one_conversion_and_its_refund_finds_it(settings: Settings) -> None:
    known = sample("stripe")
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        session = orjson.loads(known.request.raw_body)
        payment = session["data"]["object"]["payment_intent"]
        intent = {
            **session,
            "id": "evt_2",
            "type": "payment_intent.succeeded",
            "data": {
                "object": {
                    "id": payment,
                    "object": "payment_intent",
                    "amount_received": 23_681,
                    "currency": "eur",
                    "customer": session["data"]["object"]["customer"],
                    "latest_charge": "ch_1",
                }
            },
        }
        refund = {
            **session,
            "id": "evt_3",
            "type": "refund.created",
            "data": {
                "object": {
                    "id": "re_1",
                    "object": "refund",
                    "status": "succeeded",
                    "charge": "ch_1",
                    "amount": 681,
                    "currency": "eur",
                }
            },
        }
        for body in (intent, session, refund):
            request = known.with_body(orjson.dumps(body))
            assert (await capture.send(source, request)).status_code == 200
        await capture.map_deliveries()
        conversions = await capture.harness.told(ConversionRecorded)
        assert {conversion.external_id for conversion in conversions} == {payment}
        (refunded,) = await capture.harness.told(RefundRecorded)
        assert (refunded.conversion_id, refunded.amount_minor) == (conversions[0].conversion_id, 681)


async def test_two_names_of_one_purchase_that_met_too_late_count_once(settings: Settings) -> None:
    known = sample("stripe")
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        base = orjson.loads(known.request.raw_body)

        def event(name: str, kind: str, **subject: Any) -> dict[str, Any]:
            subject = {"currency": "eur", "customer": "cus_1", **subject}
            return {**base, "id": name, "type": kind, "data": {"object": subject}}

        events = (
            event("e1", "payment_intent.succeeded", id="pi_1", amount_received=500),
            event("e2", "invoice.paid", id="in_1", amount_paid=500),
            event("e3", "invoice.paid", id="in_1", amount_paid=500, payment_intent="pi_1"),
        )
        for body in events:
            assert (await capture.send(source, known.with_body(orjson.dumps(body)))).status_code == 200
            await capture.map_deliveries()
        last = {event.external_id: event.value_minor for event in await capture.harness.told(ConversionRecorded)}
        assert sorted(last.values()) == [0, 500]


async def test_the_libraries_of_segment_send_to_addresses_below_the_source(settings: Settings) -> None:
    known = sample("segment")
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        call = {"userId": "u1", "messageId": "m1", "traits": {"email": "ann@example.com", "firstName": "Ann"}}
        client, path, write_key = capture.harness.client, f"/hooks/{source['source_id']}/v1", (known.secret, "")
        assert (await client.post(f"{path}/identify", json=call, auth=write_key)).status_code == 200
        assert (await client.post(f"{path}/nothing", json=call, auth=write_key)).status_code == 422
        assert (await client.post(f"{path}/identify", json=call)).status_code == 401
        await capture.map_deliveries()
        (lead,) = (await capture.get("leads", email="ann@example.com")).json()["items"]
        assert lead["first_name"] == "Ann"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("zoho", {"module": "Accounts", "operation": "update"}),
        ("postmark", {"Email": "nobody"}),
        ("woocommerce", {"billing": None, "customer_id": 0}),
    ],
)
async def test_what_is_about_nobody_makes_no_lead(kind: str, changes: dict[str, str], settings: Settings) -> None:
    known = sample(kind)
    async with at_the_time_of(known, settings) as capture:
        source = await source_of(capture, known)
        body = {**orjson.loads(known.request.raw_body), **changes}
        assert (await capture.send(source, known.with_body(orjson.dumps(body)))).status_code == 200
        await capture.map_deliveries()
        (item,) = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
        assert (item["state"], item["reason"], item["lead_id"]) == ("ignored", "no_identifier", None)


async def test_a_mail_providers_signature_is_good_for_one_body(settings: Settings) -> None:
    known = sample("mailgun")
    async with at_the_time_of(known, settings) as capture, at_the_time_of(known, settings) as other:
        source = await source_of(capture, known)
        genuine = (await capture.send(source, known.request)).status_code
        again = (await capture.send(source, known.request)).status_code
        body = orjson.loads(known.request.raw_body)
        body["event-data"] |= {"id": "another", "recipient": "victim@example.com"}
        forged = replace(known.request, raw_body=orjson.dumps(body))
        answers = [(await each.send(source, forged)).status_code for each in (capture, other)]
        await capture.map_deliveries()
        listed = (await capture.get(f"sources/{source['source_id']}/deliveries")).json()["items"]
    assert (genuine, again) == (200, 200)
    assert answers == [401, 200], "another process cannot know at the door"
    assert sorted(delivery["state"] for delivery in listed) == ["mapped", "quarantined"]
    assert "capture/signature-reused" in next(one["reason"] for one in listed if one["state"] == "quarantined")
