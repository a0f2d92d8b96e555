"""What Segment and RudderStack sign, and what their calls tell."""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    ConversionFact,
    Fact,
    Headers,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
    TouchFact,
    Unmappable,
)
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import fact_of_body

SEGMENT, RUDDERSTACK = sample("segment"), sample("rudderstack")
ORDER = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "m1",
    "userId": "u1",
    "properties": {"order_id": "o-9", "revenue": 249.9, "currency": "EUR"},
    "timestamp": "2026-03-04T11:58:30Z",
}
TRACK = {"type": "track", "event": "Video Played", "messageId": "m2", "anonymousId": "a1"}


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def with_token(known: Sample, body: Any, authorization: str | None = None) -> HookRequest:
    """A body that is not signed, with the secret in a header."""
    headers = {"authorization": authorization or f"Bearer {known.secret}", "content-type": "application/json"}
    return replace(known.request, raw_body=json.dumps(body).encode(), headers=Headers.of(headers))


def facts_of(body: Any, known: Sample = SEGMENT) -> list[Fact]:
    adapter, request = adapters()[known.kind], with_token(known, body)
    adapter.verify(request, [known.secret], known.now)
    return adapter.facts(adapter.stored(request, [known.secret]))


def purchase(properties: Mapping[str, Any], known: Sample = SEGMENT) -> Fact:
    return fact_of_body(known, ORDER | {"properties": properties})


@pytest.mark.parametrize("header", [None, "", "x", "ÿ", "7BD6" * 10, "7bd6ba1d282ea317b454de53775d4be2482dff2"])
def test_a_signature_that_does_not_fit_is_refused(header: str | None) -> None:
    with pytest.raises(BadSignature):
        adapters()["segment"].verify(SEGMENT.with_headers(x_signature=header), [SEGMENT.secret], SEGMENT.now)
    with pytest.raises(BadSignature):
        adapters()["segment"].verify(SEGMENT.request, [], SEGMENT.now)


def test_a_signature_of_one_event_proves_no_batch() -> None:
    one = json.dumps(TRACK).encode()
    of_one = SEGMENT.with_body(one)
    adapters()["segment"].verify(of_one, [SEGMENT.secret], SEGMENT.now)
    batch = replace(of_one, raw_body=b"[" + one + b"," + one + b"]")
    with pytest.raises(BadSignature):
        adapters()["segment"].verify(batch, [SEGMENT.secret], SEGMENT.now)
    with_header = replace(batch, headers=Headers((*batch.headers.pairs, ("authorization", f"Bearer {SEGMENT.secret}"))))
    adapters()["segment"].verify(with_header, [SEGMENT.secret], SEGMENT.now)


@pytest.mark.parametrize("known", [SEGMENT, RUDDERSTACK], ids=lambda known: known.kind)
@pytest.mark.parametrize("way", ["bearer {}", "Bearer {}", "{}:", "hooks:{}"])
def test_the_secret_can_be_carried(known: Sample, way: str) -> None:
    written = way.format(known.secret)
    request = with_token(known, TRACK, written if "earer" in way else basic(written))
    adapters()[known.kind].verify(request, [known.secret], known.now)


@pytest.mark.parametrize("known", [SEGMENT, RUDDERSTACK], ids=lambda known: known.kind)
@pytest.mark.parametrize("header", ["Bearer", "Bearer x", "Basic !", basic(""), basic("a:b"), "x", "ÿ ÿ"])
def test_another_secret_is_refused(known: Sample, header: str) -> None:
    with pytest.raises(BadSignature):
        adapters()[known.kind].verify(with_token(known, TRACK, header), [known.secret, ""], known.now)


def test_an_empty_user_is_none_and_a_call_of_nobody_makes_no_lead() -> None:
    fact = fact_of_body(RUDDERSTACK, TRACK | {"userId": ""})
    assert isinstance(fact, TouchFact)
    assert (fact.person.external_id, fact.external_id, fact.person.anonymous_id) == (None, None, "a1")
    nobody = fact_of_body(RUDDERSTACK, TRACK | {"userId": "", "anonymousId": None})
    assert isinstance(nobody, Ignored)
    assert nobody.reason == "no_identifier"


def test_what_is_tracked_is_a_touch_by_its_name() -> None:
    context = {
        "page": {"url": "https://x.example/v?gclid=7", "referrer": "https://r.example/"},
        "campaign": {"name": 1},
    }
    fact = fact_of_body(SEGMENT, TRACK | {"context": context, "properties": {"length": 3}})
    assert isinstance(fact, TouchFact)
    assert (fact.event, fact.touch.type, fact.touch.touch_id) == ("Video Played", "video_played", "m2")
    assert (fact.touch.url, fact.touch.referrer) == ("https://x.example/v?gclid=7", "https://r.example/")
    assert (fact.touch.utm, fact.touch.click_ids) == ({"campaign": "1"}, {"gclid": "7"})
    assert fact.touch.properties == {"length": 3}


@pytest.mark.parametrize(
    ("sent_along", "page", "told"),
    [
        ({"utm_source": "sent", "utmMedium": "m"}, "?utm_source=page", {"source": "sent", "medium": "m"}),
        ({}, "?utm_source=page", {"source": "page"}),
        ({}, "?x=1", {"source": "campaign", "campaign": "spring"}),
    ],
)
def test_a_visit_is_told_by_named_fields_then_by_the_page_then_by_the_campaign(
    sent_along: dict[str, str], page: str, told: dict[str, str]
) -> None:
    context = {
        "page": {"url": f"https://x.example/{page}"},
        "campaign": {"source": "campaign", "name": "spring"},
    }
    tracked = fact_of_body(SEGMENT, TRACK | {"context": context, "properties": sent_along})
    identify = {"type": "identify", "messageId": "m1", "userId": "u1", "traits": sent_along}
    identified = fact_of_body(SEGMENT, identify | {"context": context})
    assert isinstance(tracked, TouchFact) and isinstance(identified, LeadFact) and identified.touch is not None
    assert tracked.touch.utm == identified.touch.utm == told
    assert identified.person.attributes == {}


def test_the_event_tester_tells_nothing() -> None:
    fact = fact_of_body(SEGMENT, TRACK | {"messageId": "segment-test-message-l1ux2"})
    assert isinstance(fact, Ignored)
    assert fact.reason == "test"


def test_a_call_may_be_named_by_the_address_of_the_tracking_api() -> None:
    call = {"userId": "u1", "messageId": "m1", "traits": {"email": "nora@acme.com"}}
    for address, kind in (("/v1/identify", LeadFact), ("/v1/page/", TouchFact), ("/v1/group", Ignored)):
        request = with_token(SEGMENT, call, basic(f"{SEGMENT.secret}:"))
        request = replace(request, url=SEGMENT.request.url + address)
        adapters()["segment"].verify(request, [SEGMENT.secret], SEGMENT.now)
        (fact,) = adapters()["segment"].facts(request)
        assert isinstance(fact, kind)


@pytest.mark.parametrize("kind", ["page", "screen"])
def test_a_page_is_a_touch(kind: str) -> None:
    call = {
        "type": kind,
        "name": "Pricing",
        "anonymousId": "a1",
        "properties": {"url": "https://x.example/?utm_term=t"},
    }
    fact = fact_of_body(SEGMENT, call)
    assert isinstance(fact, TouchFact)
    assert (fact.event, fact.touch.type, fact.touch.utm) == (kind, kind, {"term": "t"})
    assert fact.touch.properties["name"] == "Pricing"


@pytest.mark.parametrize("kind", ["group", "alias", "something"])
def test_other_calls_are_ignored(kind: str) -> None:
    fact = fact_of_body(SEGMENT, {"type": kind, "userId": "u1", "messageId": "m1"})
    assert isinstance(fact, Ignored)
    assert (fact.idempotency_key, fact.reason) == ("segment:m1", "event_type")


def test_traits_are_fields_of_a_lead_or_attributes() -> None:
    traits = {
        "email": " Nora@Acme.com ",
        "name": "Nora Falk",
        "company": "Acme",
        "address": {"country": "de", "city": "Ulm"},
        "plan": "pro",
        "id": "7",
        "external_id": "not-theirs",
        "anonymous_id": "nor-this",
    }
    fact = fact_of_body(SEGMENT, {"type": "identify", "userId": 42, "messageId": "m1", "traits": traits})
    assert isinstance(fact, LeadFact)
    person = fact.person
    assert (person.email, person.first_name, person.last_name) == ("nora@acme.com", "Nora", "Falk")
    assert (person.company, person.country, person.attributes) == ("Acme", "DE", {"plan": "pro"})
    assert (person.external_id, person.anonymous_id, fact.external_id) == ("42", None, "42")


def test_an_order_with_revenue_is_a_purchase() -> None:
    fact = fact_of_body(SEGMENT, ORDER)
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.currency, fact.event) == ("o-9", 24990, "EUR", "Order Completed")


@pytest.mark.parametrize(
    ("revenue", "currency", "minor"),
    [
        ("249.90", "eur", 24990),
        (250, "JPY", 250),
        (89.97000000000001, "USD", 8997),
        ("1.234", "KWD", 1234),
        (0, "EUR", 0),
    ],
)
def test_revenue_is_in_minor_units(revenue: Any, currency: str, minor: int) -> None:
    fact = purchase({"order_id": 9, "revenue": revenue, "currency": currency})
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.currency) == ("9", minor, currency.upper())


@pytest.mark.parametrize("revenue", ["a lot", "1.999", -5, 1e300, "1,5"])
def test_revenue_that_is_no_amount_cannot_be_mapped(revenue: Any) -> None:
    with pytest.raises(Unmappable):
        purchase({"order_id": "o", "revenue": revenue, "currency": "EUR"})
    with pytest.raises(Unmappable):
        purchase({"order_id": "o", "revenue": 5, "currency": "euro"})


def test_an_order_without_revenue_is_a_touch_and_one_without_a_currency_is_in_dollars() -> None:
    assert isinstance(purchase({"order_id": "o"}), TouchFact)
    fact = purchase({"revenue": 5})
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.currency) == ("m1", 500, "USD")


def test_revenue_without_a_currency_is_in_that_of_the_source() -> None:
    call = ORDER | {"properties": {"order_id": "o", "revenue": "5"}}
    fact = fact_of_body(SEGMENT, call, MappingSettings.of({}, {"currency": "JPY"}))
    assert isinstance(fact, ConversionFact)
    assert (fact.amount_minor, fact.currency) == (5, "JPY")


def test_each_call_of_a_batch_is_a_fact_of_its_own() -> None:
    nameless: dict[str, Any] = {**TRACK, "messageId": "m3", "event": None}
    sent = {"batch": [ORDER, TRACK, ORDER, nameless], "writeKey": SEGMENT.secret}
    bought, played, fault = facts_of(sent)
    assert isinstance(bought, ConversionFact) and isinstance(played, TouchFact) and isinstance(fault, Ignored)
    assert (bought.idempotency_key, played.idempotency_key, fault.reason) == ("segment:m1", "segment:m2", "unmappable")
    assert [fact.idempotency_key for fact in facts_of([ORDER, TRACK], RUDDERSTACK)] == [
        "rudderstack:m1",
        "rudderstack:m2",
    ]


def test_the_context_of_a_batch_is_that_of_its_calls() -> None:
    page = {"url": "https://x.example/?utm_source=page"}
    batch = [TRACK, TRACK | {"messageId": "m3", "context": {"page": {"url": "https://y.example/"}}}]
    first, second = facts_of({"batch": batch, "context": {"page": page, "traits": {"email": "a@acme.com"}}})
    assert isinstance(first, TouchFact) and isinstance(second, TouchFact)
    assert (first.touch.utm, second.touch.url) == ({"source": "page"}, "https://y.example/")
    assert first.person.email == second.person.email == "a@acme.com"


def test_a_batch_sent_again_has_the_same_name_whatever_the_attempt() -> None:
    adapter = adapters()["segment"]
    first, second = ({"batch": [ORDER, TRACK], "sentAt": f"2026-03-04T12:0{minute}:00Z"} for minute in (0, 5))
    names = {adapter.delivery_id(with_token(SEGMENT, body)) for body in (first, second)}
    assert len(names) == 1
    assert adapter.delivery_id(with_token(SEGMENT, {"batch": [ORDER]})) == "segment:m1"
    nameless = {name: value for name, value in TRACK.items() if name != "messageId"}
    unnamed = [nameless | {"sentAt": f"2026-03-04T12:0{minute}:00Z"} for minute in (0, 5)]
    assert len({adapter.delivery_id(with_token(SEGMENT, call)) for call in unnamed}) == 1


@pytest.mark.parametrize("body", [[], {"batch": []}, {"batch": {}}, [1], "x", {}, {"type": "track"}])
def test_what_has_no_call_in_it_cannot_be_mapped(body: Any) -> None:
    with pytest.raises(Unmappable):
        facts_of(body)


def test_the_time_is_put_right_by_the_clock_that_was_wrong() -> None:
    times = {
        "originalTimestamp": "2026-03-04T10:57:30Z",
        "sentAt": "2026-03-04T10:57:32Z",
        "receivedAt": "2026-03-04T11:58:32Z",
    }
    assert fact_of_body(SEGMENT, TRACK | times).occurred_at.isoformat() == "2026-03-04T11:58:30+00:00"
    ahead = {name: value.replace("2026", "2029") for name, value in times.items() if name != "receivedAt"}
    put_right = fact_of_body(SEGMENT, TRACK | ahead)
    assert (SEGMENT.now - put_right.occurred_at).total_seconds() == 2
    unsent = fact_of_body(SEGMENT, TRACK | {"originalTimestamp": times["originalTimestamp"]})
    assert unsent.occurred_at.isoformat() == "2026-03-04T10:57:30+00:00"
    assert fact_of_body(SEGMENT, TRACK).timed_by == "receipt"


def test_the_write_key_is_not_kept_and_a_packed_body_is_unpacked() -> None:
    adapter = adapters()["segment"]
    body = {"batch": [ORDER], "writeKey": SEGMENT.secret}
    request = with_token(SEGMENT, body, basic(f"{SEGMENT.secret}:"))
    headers = Headers((*request.headers.pairs, ("content-encoding", "gzip")))
    packed = replace(request, raw_body=gzip.compress(request.raw_body), headers=headers)
    adapter.verify(packed, [SEGMENT.secret], SEGMENT.now)
    stored = adapter.stored(packed, [SEGMENT.secret])
    assert SEGMENT.secret.encode() not in stored.raw_body
    assert isinstance(adapter.facts(stored)[0], ConversionFact)
    for odd in (b"", b"\x1f\x8b", packed.raw_body[:-9], gzip.compress(b"0" * 2_000_000)):
        with pytest.raises(Unmappable):
            adapter.facts(adapter.stored(replace(packed, raw_body=odd), [SEGMENT.secret]))
