"""What Stripe's events tell: money once, in ISO's minor units."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters.adapter import ConversionFact, Fact, Ignored, LeadFact, RefundFact, Unmappable
from tests.samples.signed import sample
from tests.unit.capture.told import body_of, fact_of_body

KNOWN = sample("stripe")
PAYMENT = "pi_2e3054fcf49d2b22eb54fa53"
AT = 1772624070


def told(kind: str, subject: dict[str, Any], **envelope: Any) -> Fact:
    body = {"id": "evt_1", "object": "event", "created": AT, "livemode": True, "type": kind}
    return fact_of_body(KNOWN, body | {"data": {"object": subject}} | envelope)


def session(**changes: Any) -> Fact:
    body = body_of(KNOWN)
    body["data"]["object"] |= changes
    return fact_of_body(KNOWN, body)


def intent(**changes: Any) -> dict[str, Any]:
    return {"id": PAYMENT, "amount": 23681, "amount_received": 23681, "currency": "eur", "customer": "cus_1"} | changes


def test_the_events_about_one_payment_name_one_purchase() -> None:
    invoice = {"id": "in_1", "amount_paid": 23681, "currency": "eur", "customer": "cus_1", "payment_intent": PAYMENT}
    listed = invoice | {"payment_intent": None, "payments": {"data": [{"payment": {"payment_intent": PAYMENT}}]}}
    facts = [
        session(),
        session(payment_intent={"id": PAYMENT, "object": "payment_intent"}),
        told("payment_intent.succeeded", intent()),
        told("invoice.paid", invoice),
        told("invoice.paid", listed),
    ]
    assert all(isinstance(fact, ConversionFact) for fact in facts)
    assert {(f.external_id, f.amount_minor, f.currency) for f in facts if isinstance(f, ConversionFact)} == {
        (PAYMENT, 23681, "EUR")
    }


def test_a_purchase_tells_its_other_names() -> None:
    invoiced = told("payment_intent.succeeded", intent(invoice="in_1", latest_charge="ch_1"))
    newer = told("payment_intent.succeeded", intent(payment_details={"order_reference": "in_1"}))
    subscribed = session(payment_intent=None, invoice="in_1")
    assert isinstance(invoiced, ConversionFact)
    assert isinstance(newer, ConversionFact)
    assert isinstance(subscribed, ConversionFact)
    assert invoiced.same_as == ("in_1", "ch_1")
    assert newer.same_as == ("in_1",)
    assert subscribed.external_id == "in_1"


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [
        ("usd", 1999, 1999),
        ("jpy", 1999, 1999),
        ("kwd", 1990, 1990),
        ("isk", 190000, 1900),
        ("ugx", 500000, 5000),
        ("mga", 4200, 420000),
        ("huf", 45000, 45000),
    ],
)
def test_amounts_are_turned_into_the_minor_units_of_iso_4217(currency: str, amount: int, minor: int) -> None:
    fact = session(currency=currency, amount_total=amount)
    assert isinstance(fact, ConversionFact)
    assert (fact.amount_minor, fact.currency) == (minor, currency.upper())


def test_a_whole_number_may_come_as_text() -> None:
    fact = session(amount_total="23681")
    assert isinstance(fact, ConversionFact)
    assert fact.amount_minor == 23681


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_total": "236.81"},
        {"amount_total": "-5"},
        {"amount_total": ""},
        {"amount_total": 236.81},
        {"amount_total": True},
        {"amount_total": None},
        {"amount_total": -1},
        {"currency": "zzz"},
        {"currency": None},
        {"currency": "isk", "amount_total": 190050},
    ],
)
def test_what_is_no_amount_cannot_be_mapped(changes: dict[str, Any]) -> None:
    with pytest.raises(Unmappable):
        session(**changes)


def test_an_unpaid_session_is_a_lead_until_the_money_comes() -> None:
    unpaid = session(payment_status="unpaid")
    assert isinstance(unpaid, LeadFact)
    assert (unpaid.event, unpaid.person.email) == ("checkout_unpaid", "talia.summers@example.com")
    body = body_of(KNOWN) | {"type": "checkout.session.async_payment_succeeded"}
    paid = fact_of_body(KNOWN, body)
    assert isinstance(paid, ConversionFact)
    assert (paid.event, paid.external_id) == ("checkout_paid", PAYMENT)


def test_money_that_came_later_counts_whatever_the_session_said_of_it() -> None:
    body = body_of(KNOWN) | {"type": "checkout.session.async_payment_succeeded"}
    body["data"]["object"]["payment_status"] = "unpaid"
    assert isinstance(fact_of_body(KNOWN, body), ConversionFact)


@pytest.mark.parametrize("livemode", [True, None])
def test_only_what_says_that_it_is_not_live_is_a_test(livemode: Any) -> None:
    assert isinstance(told("payment_intent.succeeded", intent(), livemode=livemode), ConversionFact)


def test_a_session_without_a_name_is_a_lead_all_the_same() -> None:
    nameless = session(payment_status="unpaid", payment_intent=None, id=None)
    assert isinstance(nameless, LeadFact)
    assert nameless.external_id is None


def test_a_session_that_costs_nothing_is_a_lead() -> None:
    free = session(payment_status="no_payment_required", amount_total=0, payment_intent=None)
    assert isinstance(free, LeadFact)
    assert free.event == "checkout_free"


def test_the_buyer_is_known_by_the_customer_too() -> None:
    fact = told("payment_intent.succeeded", intent())
    assert isinstance(fact, ConversionFact)
    assert (fact.person.external_id, fact.person.email) == ("cus_1", None)


def test_a_payment_of_nobody_is_told_all_the_same() -> None:
    fact = told("payment_intent.succeeded", intent(customer=None))
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.person.identified) == (PAYMENT, 23681, False)


def test_custom_fields_are_answers_and_choices_their_labels() -> None:
    size = {
        "key": "team_size",
        "type": "dropdown",
        "dropdown": {"value": "s", "options": [{"label": "11-50", "value": "s"}]},
    }
    title = {"key": "jobTitle", "type": "text", "text": {"value": "CTO"}}
    fact = session(custom_fields=[size, title])
    assert isinstance(fact, ConversionFact)
    assert (fact.person.title, fact.person.attributes) == ("CTO", {"team_size": "11-50"})


def test_a_question_of_the_shop_answers_what_stripe_did_not_ask() -> None:
    details = body_of(KNOWN)["data"]["object"]["customer_details"] | {"phone": None}
    asked = {"key": "phone", "type": "text", "text": {"value": "+14155550199"}}
    fact = session(custom_fields=[asked], customer_details=details)
    assert isinstance(fact, ConversionFact)
    assert fact.person.phone == "+14155550199"


@pytest.mark.parametrize("place", ["latest_charge", "charges"])
def test_who_paid_may_be_told_by_the_charge(place: str) -> None:
    charge = {"id": "ch_1", "billing_details": {"email": "Ann@Acme.com", "name": "Ann Lee", "phone": None}}
    told_by = {"latest_charge": charge} if place == "latest_charge" else {"charges": {"data": [charge]}}
    fact = told("payment_intent.succeeded", intent(customer=None, receipt_email=None, **told_by))
    assert isinstance(fact, ConversionFact)
    assert (fact.person.email, fact.person.first_name, fact.external_id) == ("ann@acme.com", "Ann", PAYMENT)


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"promotions": "opt_in"}, {"email": "granted"}),
        ({"promotions": "opt_out"}, {"email": "denied"}),
        ({"promotions": None}, {}),
        (None, {}),
    ],
)
def test_consent_is_what_was_chosen_at_the_checkout(consent: Any, expected: dict[str, str]) -> None:
    fact = session(consent=consent)
    assert isinstance(fact, ConversionFact)
    assert fact.person.consent == expected


def test_an_invoice_is_paid_when_it_says_so() -> None:
    invoice = {"id": "in_1", "amount_paid": 4900, "currency": "usd", "customer_email": "a@acme.com"}
    fact = told("invoice.paid", invoice | {"customer_name": "Ann Lee", "status_transitions": {"paid_at": AT - 60}})
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.event, fact.person.last_name) == ("in_1", "invoice_paid", "Lee")
    assert fact.occurred_at == datetime.fromtimestamp(AT - 60, UTC)
    trial = told("invoice.paid", invoice | {"amount_paid": 0})
    assert isinstance(trial, Ignored)


@pytest.mark.parametrize("kind", ["refund.created", "refund.updated"])
def test_a_refund_that_succeeded_refers_to_the_payment(kind: str) -> None:
    refund = {"id": "re_1", "amount": 1000, "currency": "eur", "payment_intent": PAYMENT, "charge": "ch_1"}
    fact = told(kind, refund | {"status": "succeeded", "created": AT - 5})
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id, fact.amount_minor, fact.currency) == (PAYMENT, "re_1", 1000, "EUR")
    assert fact.occurred_at == datetime.fromtimestamp(AT, UTC)  # when it succeeded, not when it was asked for
    pending = told(kind, refund | {"status": "pending"})
    assert isinstance(pending, Ignored)
    with pytest.raises(Unmappable):
        told(kind, refund | {"status": "succeeded", "payment_intent": None, "charge": None})


def test_a_new_customer_is_a_lead() -> None:
    fact = told(
        "customer.created", {"id": "cus_1", "email": "ann@acme.com", "name": "Ann Lee", "address": {"country": "de"}}
    )
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.person.external_id, fact.person.country) == ("customer_created", "cus_1", "DE")
    assert fact.touch is None


DISPUTE = {
    "id": "du_1",
    "charge": "ch_1",
    "payment_intent": PAYMENT,
    "amount": 5000,
    "currency": "isk",
    "created": AT - 9,
}


@pytest.mark.parametrize(
    ("status", "minor", "occurred_at"),
    [
        ("needs_response", 50, AT - 9),
        ("under_review", 50, AT - 9),
        ("lost", 50, AT - 9),
        ("won", 0, AT),
        ("charge_refunded", 0, AT),
    ],
)
def test_a_dispute_takes_its_amount_back_until_it_is_won(status: str, minor: int, occurred_at: int) -> None:
    fact = told("charge.dispute.updated", DISPUTE | {"status": status})
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id, fact.amount_minor, fact.currency) == (PAYMENT, "du_1", minor, "ISK")
    assert fact.occurred_at == datetime.fromtimestamp(occurred_at, UTC)


def test_an_inquiry_takes_nothing_and_a_dispute_names_its_payment() -> None:
    inquiry = told("charge.dispute.created", DISPUTE | {"status": "warning_needs_response"})
    assert isinstance(inquiry, Ignored)
    with pytest.raises(Unmappable):
        told("charge.dispute.created", DISPUTE | {"status": "lost", "charge": None, "payment_intent": ""})


@pytest.mark.parametrize(
    ("kind", "envelope", "reason"),
    [
        ("charge.refunded", {}, "running_total"),
        ("charge.dispute.created", {}, "dispute_takes_nothing"),
        ("customer.deleted", {}, "event_type"),
        (None, {}, "event_type"),
        ("payment_intent.succeeded", {"livemode": False}, "test"),
        ("v1.billing.meter.error", {"object": "v2.core.event", "data": None}, "thin_event"),
    ],
)
def test_the_rest_is_ignored_for_a_reason(kind: Any, envelope: dict[str, Any], reason: str) -> None:
    fact = told(kind, intent(), **envelope)
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_an_event_about_nothing_cannot_be_mapped() -> None:
    with pytest.raises(Unmappable):
        told("payment_intent.succeeded", {})
