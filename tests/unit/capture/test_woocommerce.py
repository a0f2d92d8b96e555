"""What WooCommerce tells: an order is one purchase, and its refunds hide inside it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    ConversionFact,
    Fact,
    Headers,
    Ignored,
    LeadFact,
    RefundFact,
    Unmappable,
)
from tests.samples.signed import sample
from tests.unit.capture.shops import accepts, facts_of, mac
from tests.unit.capture.told import body_of

WOO = sample("woocommerce")


def order(**changes: Any) -> dict[str, Any]:
    return body_of(WOO) | changes


def woo(body: Mapping[str, Any], topic: str = "order.updated") -> list[Fact]:
    return facts_of(WOO, body, x_wc_webhook_topic=topic)


def test_a_ping_of_woocommerce_is_answered_and_kept_nowhere() -> None:
    adapter = adapters()["woocommerce"]
    ping = replace(WOO.request, raw_body=b"webhook_id=7", headers=Headers())
    answer = adapter.handshake(ping, [WOO.secret])
    assert answer is not None
    assert answer.status == 200
    for body in (b"webhook_id=7&id=1", b"webhook_id=", b"webhook_id=x", b"", b'{"webhook_id":7}'):
        other = replace(ping, raw_body=body)
        assert adapter.handshake(other, [WOO.secret]) is None
        assert not accepts(WOO, other)


@pytest.mark.parametrize(
    ("configured", "key"),
    [
        ("rock&amp;roll-long", "rock&roll-long"),
        ("a&lt;b&gt;c&quot;d&#039;e", "a<b>c\"d'e"),
        ("rock&roll-long", "rock&roll-long"),
        ("a&amp;lt;b-long", "a&lt;b-long"),
        ("tr&eacute;s-long", "tr&eacute;s-long"),
    ],
)
def test_the_secret_is_what_wordpress_decodes_it_to(configured: str, key: str) -> None:
    signed = WOO.with_headers(x_wc_webhook_signature=mac(key, WOO.request.raw_body))
    assert accepts(WOO, signed, configured)
    if configured != key:
        raw = WOO.with_headers(x_wc_webhook_signature=mac(configured, WOO.request.raw_body))
        assert not accepts(WOO, raw, configured)


def test_a_delivery_is_named_by_what_changed_and_when() -> None:
    adapter = adapters()["woocommerce"]
    again = WOO.with_headers(x_wc_webhook_delivery_id="another")
    assert adapter.delivery_id(again) == adapter.delivery_id(WOO.request)
    split = WOO.with_headers(x_wc_webhook_topic=None, x_wc_webhook_resource="order", x_wc_webhook_event="created")
    assert adapter.delivery_id(split) == adapter.delivery_id(WOO.request)
    undated = [WOO.with_body(json.dumps(order(date_modified_gmt=None, total=total)).encode()) for total in ("1", "2")]
    assert len({adapter.delivery_id(request) for request in undated}) == 2


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"status": "processing", "date_paid_gmt": None}, True),
        ({"status": "completed"}, True),
        ({"status": "on-hold"}, True),
        ({"status": "on-hold", "date_paid_gmt": None}, False),
        ({"status": "pending", "date_paid_gmt": None}, False),
        ({"status": [], "date_paid_gmt": ""}, False),
    ],
)
def test_an_order_counts_when_it_is_paid(changes: dict[str, Any], counts: bool) -> None:
    (fact,) = woo(order(**changes))
    if counts:
        assert isinstance(fact, ConversionFact)
        assert (fact.external_id, fact.amount_minor) == ("1237", 8485)
    else:
        assert isinstance(fact, Ignored)
        assert fact.reason == "unpaid"


def test_an_order_before_payment_is_a_lead() -> None:
    (fact,) = woo(order(status="on-hold", date_paid_gmt=None), "order.created")
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.external_id, fact.person.email) == ("order_created", "1237", "stellan.castell@example.com")


@pytest.mark.parametrize(
    ("total", "currency", "minor"),
    [
        ("0.00", "EUR", 0),
        ("1500", "JPY", 1500),
        ("1500.00", "JPY", 1500),
        ("1.234", "KWD", 1234),
        ("84.8500", "EUR", 8485),
    ],
)
def test_money_of_woocommerce_is_decimal_text(total: str, currency: str, minor: int) -> None:
    (fact,) = woo(order(total=total, currency=currency))
    assert isinstance(fact, ConversionFact)
    assert (fact.amount_minor, fact.currency) == (minor, currency)


@pytest.mark.parametrize(
    ("total", "currency"), [("", "EUR"), ("1.999", "EUR"), ("-1.00", "EUR"), ("1", "BTC"), ("1,5", "EUR")]
)
def test_a_total_that_is_none_cannot_be_mapped(total: str, currency: str) -> None:
    with pytest.raises(Unmappable):
        woo(order(total=total, currency=currency))


def test_refunds_hide_in_the_order_and_are_told_each_by_itself() -> None:
    rows = [{"id": 9, "reason": "", "total": "-10.00"}, {"id": 10, "total": "-2.5"}, {"id": 11, "total": "0"}]
    body = order(status="refunded", refunds=rows, date_modified_gmt="2026-03-04T11:31:33")
    purchase, *refunds = woo(body)
    assert isinstance(purchase, ConversionFact)
    assert (purchase.amount_minor, purchase.occurred_at) == (8485, datetime(2026, 3, 4, 11, 31, 30, tzinfo=UTC))
    assert [
        (fact.external_id, fact.refund_id, fact.amount_minor, fact.idempotency_key)
        for fact in refunds
        if isinstance(fact, RefundFact)
    ] == [("1237", "9", 1000, "woocommerce:refund:9"), ("1237", "10", 250, "woocommerce:refund:10")]
    unpaid = woo(body | {"date_paid_gmt": None})
    assert unpaid == refunds


@pytest.mark.parametrize("row", [{"total": "-1.00"}, {"id": 9}, {"id": 9, "total": "-1.999"}])
def test_a_refund_that_cannot_be_read_is_not_dropped(row: dict[str, Any]) -> None:
    with pytest.raises(Unmappable):
        woo(order(refunds=[row]))


def test_a_visit_that_is_not_known_has_no_parameters() -> None:
    meta = [
        {"key": "_wc_order_attribution_utm_source", "value": "(direct)"},
        {"key": "_wc_order_attribution_utm_medium", "value": "(none)"},
        {"key": "_wc_order_attribution_session_pages", "value": 3},
    ]
    (fact,) = woo(order(meta_data=meta))
    assert isinstance(fact, ConversionFact)
    assert fact.touch is None
    entry = {"key": "_wc_order_attribution_session_entry", "value": "https://shop.example.com/?gclid=x1&utm_source=a"}
    (fact,) = woo(order(meta_data=[*meta, entry]))
    assert isinstance(fact, ConversionFact)
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "a"}, {"gclid": "x1"})


def test_a_guest_has_no_account() -> None:
    (guest,), (known,) = woo(order(customer_id=0)), woo(order())
    assert isinstance(guest, ConversionFact)
    assert isinstance(known, ConversionFact)
    assert (guest.person.external_id, known.person.external_id) == (None, "12")


def test_a_new_customer_of_woocommerce_is_a_lead() -> None:
    customer = {"id": 12, "email": "A@acme.com", "first_name": "Ada", "date_created_gmt": "2026-03-04T11:00:00"}
    (fact,) = woo(customer, "customer.created")
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.person.external_id, fact.event) == ("a@acme.com", "12", "customer_created")
    assert fact.occurred_at == datetime(2026, 3, 4, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("order.deleted", "deleted"),
        ("customer.deleted", "deleted"),
        ("customer.updated", "topic"),
        ("product.created", "topic"),
        ("coupon.restored", "topic"),
        ("action.woocommerce_add_to_cart", "topic"),
    ],
)
def test_the_rest_of_woocommerce_is_ignored(topic: str, reason: str) -> None:
    (fact,) = woo({"id": 1237}, topic)
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_without_a_topic_nothing_can_be_mapped() -> None:
    names = ("x_wc_webhook_topic", "x_wc_webhook_resource")
    with pytest.raises(Unmappable):
        adapters()["woocommerce"].facts(WOO.with_headers(**dict.fromkeys(names)))
