"""Who may speak for Mindbody, Square and WooCommerce, and what the first two tell: money once, and bookings."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BookingFact,
    ConversionFact,
    Headers,
    Ignored,
    LeadFact,
    MappingSettings,
    RefundFact,
    Unmappable,
)
from services.capture.hooks.checking import RecordedRequest, check, recorded
from tests.samples.signed import Sample, sample
from tests.unit.capture.shops import accepts, fact_of, facts_of, mac
from tests.unit.capture.told import body_of

MINDBODY = sample("mindbody")
SQUARE = sample("square")
WOO = sample("woocommerce")
SIGNATURE = {
    "mindbody": "x_mindbody_signature",
    "square": "x_square_hmacsha256_signature",
    "woocommerce": "x_wc_webhook_signature",
}
every_shop = pytest.mark.parametrize("known", [MINDBODY, SQUARE, WOO], ids=lambda known: known.kind)


@every_shop
@pytest.mark.parametrize("header", [None, "", " ", "=", "sha256=", "sha256=ü", "====", "\udcff", "\x00", "a" * 10_000])
def test_a_header_that_does_not_parse_is_a_bad_signature(known: Sample, header: str | None) -> None:
    assert not accepts(known, known.with_headers(**{SIGNATURE[known.kind]: header}))


@every_shop
def test_both_secrets_count_while_one_is_retired(known: Sample) -> None:
    assert accepts(known, known.request, "another secret", known.secret)
    assert not accepts(known, known.request, "another secret", "")


@every_shop
def test_encodings_are_not_mixed_up(known: Sample) -> None:
    name = SIGNATURE[known.kind]
    signature = known.request.headers.get(name.replace("_", "-")) or ""
    as_hex = base64.b64decode(signature.removeprefix("sha256=")).hex()
    for changed in (as_hex, f"sha256={as_hex}", signature.lower()):
        assert not accepts(known, known.with_headers(**{name: changed}))
    bare = signature.removeprefix("sha256=")
    assert not accepts(known, known.with_headers(**{name: bare if known is MINDBODY else f"sha256={bare}"}))


# Mindbody


def mindbody(event: str, **data: Any) -> dict[str, Any]:
    return body_of(MINDBODY) | {"eventId": event, "eventData": {"siteId": -99, "clientId": "144471270"} | data}


def with_currency(currency: str | None) -> MappingSettings:
    """The settings of a source whose owner said what its sales are in."""
    return MappingSettings.of({}, {"currency": currency} if currency else {})


def test_mindbody_asks_with_a_head_request_whether_we_are_there() -> None:
    adapter = adapters()["mindbody"]
    head = replace(MINDBODY.request, method="HEAD", raw_body=b"", headers=Headers())
    answer = adapter.handshake(head, [MINDBODY.secret])
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"")
    assert adapter.handshake(MINDBODY.request, [MINDBODY.secret]) is None


@pytest.mark.parametrize(
    ("emails", "texts", "consent"),
    [
        (True, False, {"email": "granted", "sms": "denied"}),
        (None, True, {"sms": "granted"}),
        (None, None, {}),
    ],
)
def test_a_client_changed_is_a_lead_with_what_was_agreed_to(emails: Any, texts: Any, consent: dict[str, str]) -> None:
    data = body_of(MINDBODY)["eventData"] | {"sendPromotionalEmails": emails, "sendPromotionalTexts": texts}
    fact = fact_of(MINDBODY, mindbody("client.updated", **data))
    assert isinstance(fact, LeadFact)
    assert (fact.external_id, fact.person.consent) == ("-99:994743213", consent)


@pytest.mark.parametrize(("amount", "currency", "minor"), [(64.95, "USD", 6495), (5000, "JPY", 5000), (0, "EUR", 0)])
def test_a_sale_is_tied_to_its_client_by_id(amount: Any, currency: str, minor: int) -> None:
    sale = mindbody("clientSale.created", saleId=7, purchasingClientId="144471270", totalAmountPaid=amount)
    request = MINDBODY.with_body(json.dumps(sale).encode())
    (fact,) = adapters()["mindbody"].facts(request, with_currency(currency))
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.currency) == ("-99:7", minor, currency)
    client = fact_of(MINDBODY, body_of(MINDBODY))
    assert isinstance(client, LeadFact)
    assert fact.person.external_id == client.person.external_id == "-99:144471270"


def test_a_sale_in_no_currency_cannot_be_mapped_and_a_return_is_no_sale() -> None:
    sale = mindbody("clientSale.created", saleId=7, purchasingClientId="1", totalAmountPaid=-64.95)
    with pytest.raises(Unmappable):
        facts_of(MINDBODY, sale)
    (fact,) = adapters()["mindbody"].facts(MINDBODY.with_body(json.dumps(sale).encode()), with_currency("USD"))
    assert isinstance(fact, Ignored)
    assert fact.reason == "return"


@pytest.mark.parametrize(
    ("event", "data", "told"),
    [
        ("appointmentBooking.created", {"appointmentId": 5, "clientEmail": "a@acme.com"}, "booked"),
        ("appointmentBooking.updated", {"appointmentId": 5, "status": "Completed"}, "held"),
        ("appointmentBooking.cancelled", {"appointmentId": 5}, "canceled"),
        ("classRosterBooking.created", {"classRosterBookingId": 5, "clientEmail": "a@acme.com"}, "booked"),
        ("classRosterBookingStatus.updated", {"classRosterBookingId": 5, "signedInStatus": "SignedIn"}, "held"),
        ("classRosterBooking.cancelled", {"classRosterBookingId": 5}, "canceled"),
    ],
)
def test_what_happens_to_a_booking_of_mindbody(event: str, data: dict[str, Any], told: str) -> None:
    fact = fact_of(MINDBODY, mindbody(event, **data))
    assert isinstance(fact, BookingFact)
    assert (fact.event, fact.external_id, fact.person.external_id) == (told, "-99:5", "-99:144471270")


@pytest.mark.parametrize(
    "event",
    ["clientMembershipAssignment.created", "appointmentBooking.updated", "classRosterBookingStatus.updated", None],
)
def test_the_rest_of_mindbody_is_ignored(event: Any) -> None:
    fact = fact_of(MINDBODY, mindbody(event, appointmentId=5, classRosterBookingId=5))
    assert isinstance(fact, Ignored)
    assert fact.reason == "event_type"


# Square


def square(event: str, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return body_of(SQUARE) | {"type": event, "data": {"type": name, "id": "x", "object": {name: record}}}


def payment(**changes: Any) -> dict[str, Any]:
    known = body_of(SQUARE)["data"]["object"]["payment"]
    return square("payment.updated", "payment", known | changes)


def test_square_signs_the_address_too() -> None:
    for url in (SQUARE.request.url + "/", SQUARE.request.url + "?a=b", SQUARE.request.url.replace("https", "http")):
        assert not accepts(SQUARE, replace(SQUARE.request, url=url))
    elsewhere = replace(SQUARE, request=replace(SQUARE.request, url="https://x.example/h?a=b"))
    assert accepts(elsewhere, elsewhere.with_body(b"{}"))
    body_alone = mac(SQUARE.secret, SQUARE.request.raw_body)
    assert not accepts(SQUARE, SQUARE.with_headers(x_square_hmacsha256_signature=body_alone))


def test_the_old_signature_of_square_proves_nothing() -> None:
    old = mac(SQUARE.secret, SQUARE.request.url.encode() + SQUARE.request.raw_body, hashlib.sha1)
    request = SQUARE.with_headers(x_square_hmacsha256_signature=None, x_square_signature=old)
    assert not accepts(SQUARE, request)
    assert not accepts(SQUARE, request, settings=MappingSettings(allow_legacy=True))
    assert accepts(SQUARE, SQUARE.with_headers(x_square_signature="nonsense"))


@pytest.mark.parametrize("status", ["APPROVED", "PENDING", "CANCELED", "FAILED", None, []])
def test_a_payment_counts_when_it_is_completed(status: Any) -> None:
    fact = fact_of(SQUARE, payment(status=status))
    assert isinstance(fact, Ignored)
    assert fact.reason == "payment_not_completed"


@pytest.mark.parametrize(("amount", "currency"), [(5000, "JPY"), (1234, "KWD"), (0, "EUR")])
def test_square_counts_in_minor_units(amount: int, currency: str) -> None:
    fact = fact_of(SQUARE, payment(total_money={"amount": amount, "currency": currency}, tip_money=None))
    assert isinstance(fact, ConversionFact)
    assert (fact.amount_minor, fact.currency) == (amount, currency)
    assert "tip_minor" not in fact.person.attributes


@pytest.mark.parametrize(
    "money", [{}, {"amount": 1.5, "currency": "USD"}, {"amount": -1, "currency": "USD"}, {"amount": 1}]
)
def test_a_payment_of_no_amount_cannot_be_mapped(money: dict[str, Any]) -> None:
    with pytest.raises(Unmappable):
        facts_of(SQUARE, payment(total_money=money, amount_money=None))


def test_a_payment_of_nobody_is_told_all_the_same() -> None:
    fact = fact_of(SQUARE, payment(buyer_email_address=None, customer_id=None, tip_money=None))
    assert isinstance(fact, ConversionFact)
    assert (fact.amount_minor, fact.person.identified) == (13450, False)
    known = fact_of(SQUARE, payment(buyer_email_address=None))
    assert isinstance(known, ConversionFact)
    assert known.person.external_id == "6F6EAB7839815AC94BF403FFA0"


REFUND = {
    "id": "refund-1",
    "payment_id": "fb12af43e7dc13ff7e0114ed6e65",
    "amount_money": {"amount": 500, "currency": "USD"},
    "status": "COMPLETED",
    "updated_at": "2026-03-04T11:00:00.000Z",
}


def test_a_refund_of_square_names_its_payment() -> None:
    fact = fact_of(SQUARE, square("refund.updated", "refund", REFUND))
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id, fact.amount_minor) == (REFUND["payment_id"], "refund-1", 500)
    assert fact.occurred_at == datetime(2026, 3, 4, 11, tzinfo=UTC)
    waiting = fact_of(SQUARE, square("refund.created", "refund", REFUND | {"status": "PENDING"}))
    assert isinstance(waiting, Ignored)
    with pytest.raises(Unmappable):
        fact_of(SQUARE, square("refund.updated", "refund", REFUND | {"payment_id": None}))


BOOKING = {"id": "b1", "version": 0, "status": "ACCEPTED", "start_at": "2026-03-06T11:00:00Z", "customer_id": "C/1"}
CUSTOMER = {
    "id": "C/1",
    "given_name": "Quentin",
    "family_name": "Fieldgate",
    "email_address": "quentin.fieldgate@example.com",
    "preferences": {"email_unsubscribed": True},
}


@pytest.mark.parametrize(
    ("event", "status", "told"),
    [
        ("booking.created", "ACCEPTED", "booked"),
        ("booking.created", "PENDING", "booked"),
        ("booking.updated", "ACCEPTED", "rescheduled"),
        ("booking.updated", "CANCELLED_BY_CUSTOMER", "canceled"),
        ("booking.updated", "CANCELLED_BY_SELLER", "canceled"),
        ("booking.updated", "DECLINED", "canceled"),
        ("booking.updated", [], "rescheduled"),
    ],
)
def test_a_booking_of_square_is_of_whom_the_second_call_names(event: str, status: Any, told: str) -> None:
    body = square(event, "booking", BOOKING | {"status": status})
    (path,) = adapters()["square"].lookups(SQUARE.with_body(json.dumps(body).encode()))
    assert path == "/v2/customers/C%2F1"
    fact = fact_of(SQUARE, body, {path: {"customer": CUSTOMER}})
    assert isinstance(fact, BookingFact)
    assert (fact.event, fact.external_id, fact.person.email) == (told, "b1", "quentin.fieldgate@example.com")
    assert (fact.person.external_id, fact.person.consent) == ("C/1", {"email": "denied"})
    assert fact.starts_at == datetime(2026, 3, 6, 11, tzinfo=UTC)


@pytest.mark.parametrize("answer", [None, [], "gone", {"errors": [{"code": "NOT_FOUND"}]}])
def test_a_customer_whom_square_does_not_know_any_more_is_an_id(answer: Any) -> None:
    fact = fact_of(SQUARE, square("booking.created", "booking", BOOKING), {"/v2/customers/C%2F1": answer})
    assert isinstance(fact, BookingFact)
    assert (fact.person.external_id, fact.person.email) == ("C/1", None)


def test_only_bookings_of_somebody_are_looked_up() -> None:
    lookups = adapters()["square"].lookups
    assert not lookups(SQUARE.request)
    assert not lookups(replace(SQUARE.request, raw_body=b"{"))
    nobody = square("booking.created", "booking", BOOKING | {"customer_id": None})
    assert not lookups(SQUARE.with_body(json.dumps(nobody).encode()))
    fact = fact_of(SQUARE, nobody)
    assert isinstance(fact, Ignored)
    assert fact.reason == "no_identifier"


def test_a_new_customer_of_square_is_a_lead() -> None:
    fact = fact_of(SQUARE, square("customer.created", "customer", CUSTOMER))
    assert isinstance(fact, LeadFact)
    assert (fact.external_id, fact.person.first_name, fact.event) == ("C/1", "Quentin", "customer_created")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("invoice.payment_made", "told_by_payment"),
        ("order.updated", "event_type"),
        ("customer.deleted", "event_type"),
        (None, "event_type"),
    ],
)
def test_the_rest_of_square_is_ignored(event: Any, reason: str) -> None:
    fact = fact_of(SQUARE, body_of(SQUARE) | {"type": event})
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_what_happens_in_the_sandbox_of_square_is_a_test() -> None:
    fact = fact_of(SQUARE, payment(), square_environment="Sandbox")
    assert isinstance(fact, Ignored)
    assert fact.reason == "test"


def told_by(known: Sample, secrets: Sequence[str], **changes: Any) -> dict[str, Any]:
    given = {**known.told, **changes, "secret": None, "secrets": list(secrets)}
    return check(recorded(RecordedRequest.model_validate(given)))


def test_a_booking_waits_for_the_second_call() -> None:
    body = json.dumps(square("booking.created", "booking", BOOKING)).encode()
    headers = dict(SQUARE.with_body(body).headers.pairs)
    waiting = told_by(SQUARE, [SQUARE.secret], headers=headers, body=body.decode())
    assert "quarantined" in waiting
    answer = {"request": "GET /v2/customers/C%2F1", "response": {"customer": CUSTOMER}}
    said = told_by(SQUARE, [SQUARE.secret], headers=headers, body=body.decode(), fetch=answer)
    assert [(fact["kind"], fact["event"]) for fact in said["facts"]] == [("booking", "booked")]


@pytest.mark.parametrize(("state", "minor"), [("EVIDENCE_REQUIRED", 700), ("LOST", 700), ("ACCEPTED", 700), ("WON", 0)])
def test_a_dispute_at_square_takes_its_amount_back_until_it_is_won(state: str, minor: int) -> None:
    dispute = {
        "id": "ORSEV",
        "state": state,
        "amount_money": {"amount": 700, "currency": "USD"},
        "disputed_payment": {"payment_id": "pay_1"},
        "created_at": "2026-02-19T21:24:53.258Z",
        "updated_at": "2026-02-20T21:24:53.258Z",
    }
    fact = fact_of(SQUARE, square("dispute.state.updated", "dispute", dispute))
    assert isinstance(fact, RefundFact)
    assert (fact.external_id, fact.refund_id, fact.amount_minor, fact.currency) == ("pay_1", "ORSEV", minor, "USD")
    assert fact.occurred_at.day == (20 if state == "WON" else 19)
    inquiry = square("dispute.created", "dispute", dispute | {"state": "INQUIRY_PROCESSING"})
    assert isinstance(fact_of(SQUARE, inquiry), Ignored)
