"""What Shopify's topics tell: an order is one purchase, and counts when it is paid."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    ConversionFact,
    ErasureFact,
    Fact,
    Headers,
    Ignored,
    LeadFact,
    RefundFact,
    Unmappable,
)
from tests.samples.signed import sample
from tests.unit.capture.told import body_of, fact_of

KNOWN = sample("shopify")


def told(topic: str | None, body: dict[str, Any], **headers: str) -> Fact:
    request = KNOWN.with_body(json.dumps(body).encode())
    others = {name.replace("_", "-"): value for name, value in headers.items()}
    given = others if topic is None else others | {"x-shopify-topic": topic}
    kept = [(name, value) for name, value in request.headers.pairs if name not in given | {"x-shopify-topic": ""}]
    return fact_of(KNOWN, replace(request, headers=Headers((*kept, *given.items()))))


def order(**changes: Any) -> dict[str, Any]:
    return body_of(KNOWN) | changes


def paid(**changes: Any) -> ConversionFact:
    fact = told("orders/paid", order(**changes))
    assert isinstance(fact, ConversionFact)
    return fact


def test_an_order_paid_at_once_is_one_purchase_under_both_topics() -> None:
    created, later = told("orders/create", order()), told("orders/paid", order())
    assert isinstance(created, ConversionFact)
    assert isinstance(later, ConversionFact)
    assert created == later


def test_an_order_before_payment_is_a_lead_that_came_by_the_same_visit() -> None:
    fact = told("orders/create", order(financial_status="pending"))
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.external_id, fact.person.email) == (
        "order_created",
        "1208963873639",
        "rhea.penrose@example.com",
    )
    assert fact.touch == paid().touch


def test_the_topics_of_one_event_are_deliveries_of_their_own() -> None:
    adapter = adapters()["shopify"]
    other = KNOWN.with_headers(x_shopify_webhook_id="another", x_shopify_topic="orders/create")
    assert adapter.delivery_id(other) == "shopify:another"
    nameless = KNOWN.with_headers(x_shopify_webhook_id=None)
    assert adapter.delivery_id(nameless) == adapter.delivery_id(nameless)
    assert "2c2800b4" not in adapter.delivery_id(nameless)  # the event id


@pytest.mark.parametrize(
    ("money", "minor", "currency"),
    [
        ({"shop_money": {"amount": "249.90", "currency_code": "USD"}}, 24990, "USD"),
        (
            {"shop_money": {"amount": "1500", "currency_code": "JPY"}, "presentment_money": {"amount": "9.99"}},
            1500,
            "JPY",
        ),
        ({"shop_money": {"amount": "1.234", "currency_code": "KWD"}}, 1234, "KWD"),
        (None, 24990, "USD"),
    ],
)
def test_money_is_that_of_the_shop(money: Any, minor: int, currency: str) -> None:
    fact = paid(total_price_set=money, presentment_currency="CAD")
    assert (fact.amount_minor, fact.currency) == (minor, currency)


@pytest.mark.parametrize("amount", ["", "free", "-1.00", "1e3", "1.999", None])
def test_a_price_that_is_none_cannot_be_mapped(amount: Any) -> None:
    with pytest.raises(Unmappable):
        paid(total_price_set=None, total_price=amount)


def test_a_price_as_a_json_number_is_read_exactly() -> None:
    assert paid(total_price_set=None, total_price=249.9).amount_minor == 24990


def test_an_order_may_lack_almost_everything() -> None:
    bare = paid(email=None, customer=None, billing_address=None, landing_site=None, referring_site=None, phone=None)
    assert bare.person.email == "rhea.penrose@example.com"  # contact_email
    assert bare.touch is None
    nobody = paid(email=None, contact_email=None, customer=None, phone=None, billing_address=None)
    assert (nobody.amount_minor, nobody.person.identified) == (24990, False)
    ordered = told(
        "orders/create",
        order(
            financial_status="pending", email=None, contact_email=None, customer=None, phone=None, billing_address=None
        ),
    )
    assert isinstance(ordered, Ignored)
    assert ordered.reason == "no_identifier"


def test_the_customer_is_known_by_its_id_too() -> None:
    person = paid().person
    assert (person.external_id, person.country) == ("1208963873646", "US")


def test_utm_parameters_come_from_the_notes_when_the_landing_page_has_none() -> None:
    notes = [
        {"name": "utm_source", "value": "bing"},
        {"name": "utmMedium", "value": "cpc"},
        {"name": "anonymous_id", "value": "anon_1"},
    ]
    fact = paid(landing_site="/products/kit", note_attributes=notes)
    assert fact.touch is not None
    assert fact.touch.utm == {"source": "bing", "medium": "cpc"}
    assert fact.person.anonymous_id == "anon_1"
    landed = paid(note_attributes=notes)
    assert landed.touch is not None
    assert landed.touch.utm["source"] == "google"
    assert landed.touch.referrer == "https://www.google.com/"


@pytest.mark.parametrize(
    ("accepts", "state", "consent"),
    [
        (True, "subscribed", {"email": "granted"}),
        (True, None, {"email": "granted"}),
        (False, None, {}),
        (None, "not_subscribed", {}),
        (None, "pending", {}),
        (False, "unsubscribed", {"email": "denied"}),
    ],
)
def test_consent_is_only_what_was_asked_and_answered(accepts: Any, state: str | None, consent: dict[str, str]) -> None:
    customer = {"id": 1, "email_marketing_consent": state and {"state": state}}
    assert paid(buyer_accepts_marketing=accepts, customer=customer).person.consent == consent


def test_orders_happened_when_they_were_processed() -> None:
    fact = paid(processed_at="2026-03-01T00:00:00+01:00")
    assert fact.occurred_at == datetime(2026, 2, 28, 23, tzinfo=UTC)


REFUND = {
    "id": 929361464,
    "order_id": 1208963873639,
    "created_at": "2026-03-04T10:00:00Z",
    "refund_line_items": [{"subtotal": 195.67}],
    "transactions": [
        {"kind": "refund", "status": "success", "amount": "40.00", "currency": "USD"},
        {"kind": "refund", "status": "success", "amount": "1.95", "currency": "USD"},
        {"kind": "refund", "status": "failure", "amount": "100.00", "currency": "USD"},
        {"kind": "void", "status": "success", "amount": "7.00", "currency": "USD"},
    ],
}


def test_a_refund_is_the_money_that_moved() -> None:
    fact = told("refunds/create", REFUND)
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id) == ("1208963873639", "929361464")
    assert (fact.amount_minor, fact.currency) == (4195, "USD")
    assert fact.occurred_at == datetime(2026, 3, 4, 10, tzinfo=UTC)


def test_a_refund_of_nothing_is_ignored() -> None:
    fact = told("refunds/create", REFUND | {"transactions": []})
    assert isinstance(fact, Ignored)
    assert fact.reason == "nothing_refunded"


@pytest.mark.parametrize(
    "change",
    [
        {
            "transactions": [
                {"kind": "refund", "status": "success", "amount": a, "currency": c}
                for a, c in (("1.00", "USD"), ("1", "JPY"))
            ]
        },
        {"transactions": [{"kind": "refund", "status": "success", "amount": "1.00"}]},
        {"id": None},
        {"order_id": True},
    ],
)
def test_a_refund_that_is_none_cannot_be_mapped(change: dict[str, Any]) -> None:
    with pytest.raises(Unmappable):
        told("refunds/create", REFUND | change)


def test_a_new_customer_is_a_lead() -> None:
    address = {"company": "Acme", "country_code": "DE", "phone": "+4930123456"}
    customer = {"id": 7, "email": "a@acme.com", "created_at": "2026-03-04T10:00:00Z", "default_address": address}
    fact = told("customers/create", customer)
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.person.external_id, fact.touch) == ("customer_created", "7", None)
    assert (fact.person.company, fact.person.country, fact.person.phone) == ("Acme", "DE", "+4930123456")


@pytest.mark.parametrize(
    ("topic", "body", "consent"),
    [
        (
            "customers_marketing_consent/update",
            {"id": 7, "phone": "+14155550161", "sms_marketing_consent": {"state": "unsubscribed"}},
            {"sms": "denied"},
        ),
        (
            "customers_email_marketing_consent/update",
            {"customer_id": 7, "email_address": "a@acme.com", "email_marketing_consent": {"state": "subscribed"}},
            {"email": "granted"},
        ),
    ],
)
def test_consent_given_or_taken_back_later_is_told(topic: str, body: dict[str, Any], consent: dict[str, str]) -> None:
    fact = told(topic, body)
    assert isinstance(fact, LeadFact)
    assert (fact.person.external_id, fact.person.consent, fact.touch) == ("7", consent, None)
    assert fact.occurred_at == datetime(2026, 3, 4, 11, 28, 30, 290670, tzinfo=UTC)  # X-Shopify-Triggered-At


def test_a_wish_to_be_forgotten_is_passed_on() -> None:
    fact = told("customers/redact", {"shop_id": 1, "customer": {"id": 7, "email": "A@acme.com", "phone": None}})
    assert isinstance(fact, ErasureFact)
    assert (fact.person.email, fact.person.external_id) == ("a@acme.com", "7")
    nobody = told("customers/redact", {"customer": {}})
    assert isinstance(nobody, Ignored)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("orders/cancelled", "topic"),
        ("customers/data_request", "topic"),
        ("shop/redact", "topic"),
        ("checkouts/create", "topic"),
    ],
)
def test_other_topics_are_ignored(topic: str, reason: str) -> None:
    fact = told(topic, {"id": 1})
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_test_orders_are_ignored() -> None:
    for fact in (told("orders/paid", order(test=True)), told("orders/paid", order(), x_shopify_test="true")):
        assert isinstance(fact, Ignored)
        assert fact.reason == "test"


def test_events_of_the_newer_kind_are_proven_and_ignored() -> None:
    signature = KNOWN.request.headers.get("x-shopify-hmac-sha256")
    newer = KNOWN.with_headers(
        x_shopify_hmac_sha256=None, x_shopify_topic=None, shopify_hmac_sha256=signature, shopify_topic="Order"
    )
    fact = fact_of(KNOWN, newer)
    assert isinstance(fact, Ignored)
    assert fact.reason == "events"
    with pytest.raises(BadSignature):
        fact_of(KNOWN, replace(newer, raw_body=b"{}"))


def test_without_a_topic_nothing_can_be_mapped() -> None:
    with pytest.raises(Unmappable):
        told(None, order())


@pytest.mark.parametrize(
    ("status", "minor", "day"), [("needs_response", 1150, 3), ("lost", 1150, 3), ("accepted", 1150, 3), ("won", 0, 4)]
)
def test_a_chargeback_takes_its_amount_back_until_it_is_won(status: str, minor: int, day: int) -> None:
    dispute = {
        "id": 598735659,
        "order_id": 1208963873639,
        "type": "chargeback",
        "amount": "11.50",
        "currency": "EUR",
        "status": status,
        "initiated_at": "2026-03-03T10:00:00Z",
        "finalized_on": "2026-03-04" if status == "won" else None,
    }
    fact = told("disputes/update", dispute)
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id) == ("1208963873639", "dispute:598735659")
    assert (fact.amount_minor, fact.currency, fact.occurred_at.day) == (minor, "EUR", day)
    assert isinstance(told("disputes/create", dispute | {"type": "inquiry"}), Ignored)
    with pytest.raises(Unmappable):
        told("disputes/create", dispute | {"order_id": None})
