"""What schedulers tell of meetings: booked, moved, canceled, held, paid for; and who may tell it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
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
    Unmappable,
)
from tests.samples.signed import Sample
from tests.unit.capture.schedulers import CAL_COM, CALENDLY, accepts, cal_com, calendly, facts_of
from tests.unit.capture.told import body_of, fact_of_body

ODD_HEADERS = [None, "", " ", "=", "t=,v1=", "v1=00", "t=1,v1=ü", "sha256=", "\x00", "\udcff", "a" * 10_000]


def signature_header(known: Sample) -> str:
    return next(name.replace("-", "_") for name, _ in known.request.headers.pairs if "signature" in name)


@pytest.mark.parametrize("known", [CALENDLY, CAL_COM], ids=lambda known: known.kind)
@pytest.mark.parametrize("header", ODD_HEADERS)
def test_a_header_that_does_not_parse_is_a_bad_signature(known: Sample, header: str | None) -> None:
    assert not accepts(known, known.with_headers(**{signature_header(known): header}))


@pytest.mark.parametrize("known", [CALENDLY, CAL_COM], ids=lambda known: known.kind)
def test_both_secrets_count_while_one_is_retired(known: Sample) -> None:
    assert accepts(known, known.request, ["another secret", known.secret])
    assert not accepts(known, known.request, ["another secret", ""])
    assert not accepts(known, known.request, [])


@pytest.mark.parametrize(("seconds", "fits"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_a_time_that_is_signed_may_be_five_minutes_off(seconds: int, fits: bool) -> None:
    fresh = CALENDLY.with_body(CALENDLY.request.raw_body)
    assert accepts(CALENDLY, fresh, later=timedelta(seconds=seconds)) is fits
    assert accepts(CAL_COM, CAL_COM.request, later=timedelta(days=3))  # signs no time


def test_any_v1_of_calendly_will_do_and_nothing_else() -> None:
    signature = CALENDLY.request.headers.get("calendly-webhook-signature") or ""
    listed = signature.replace("v1=", f"v1={'0' * 64},v1=")
    assert accepts(CALENDLY, CALENDLY.with_headers(calendly_webhook_signature=listed))
    for changed in (
        signature.replace("v1=", "v0="),
        signature.replace("t=1772622510", "t=1772622511"),
        signature.replace("t=1772622510", "t=1772622510,t=1772622511"),
        signature.replace("t=1772622510", "t=soon"),
        signature.partition(",")[2],
    ):
        assert not accepts(CALENDLY, CALENDLY.with_headers(calendly_webhook_signature=changed))
    twice = replace(CALENDLY.request, headers=Headers(CALENDLY.request.headers.pairs * 2))
    assert not accepts(CALENDLY, twice)


@pytest.mark.parametrize("header", ["no-secret-provided", "NO-SECRET-PROVIDED"])
@pytest.mark.parametrize("secrets", [[], [""], ["no-secret-provided"], [CAL_COM.secret]])
def test_cal_com_without_a_secret_proves_nothing(header: str, secrets: list[str]) -> None:
    assert not accepts(CAL_COM, CAL_COM.with_headers(x_cal_signature_256=header), secrets)


def test_a_move_in_calendly_is_told_twice_and_is_no_loss() -> None:
    (new,) = facts_of(CALENDLY, calendly(old_invitee="https://api.calendly.com/scheduled_events/A/invitees/B"))
    (old,) = facts_of(CALENDLY, calendly("invitee.canceled", rescheduled=True, status="canceled"))
    assert (new.event, old.event) == ("rescheduled", "rescheduled")


def test_a_cancellation_in_calendly() -> None:
    canceled = calendly("invitee.canceled", cancellation={"reason": "ill"}, payment={"successful": True})
    (fact,) = facts_of(CALENDLY, canceled | {"created_at": "2026-03-04T11:00:00.000000Z"})
    assert isinstance(fact, BookingFact)
    assert fact.event == "canceled"
    assert fact.occurred_at == datetime(2026, 3, 4, 11, tzinfo=UTC)
    assert fact.idempotency_key.startswith("calendly:invitee.canceled:https://")


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("49.5", "usd", 4950),
        ("5000", "JPY", 5000),
        ("5000.0", "JPY", 5000),
        ("1.234", "KWD", 1234),
        ("0", "EUR", 0),
        ("1.5e2", "EUR", 15000),
    ],
)
def test_what_is_paid_for_a_meeting_is_a_purchase_of_its_own(amount: str, currency: str, minor: int) -> None:
    payment = {"external_id": "ch_1", "provider": "stripe", "amount": 0, "currency": currency, "successful": True}
    body = json.dumps(calendly(payment=payment)).replace('"amount": 0', f'"amount": {amount}').encode()
    booking, paid = adapters()["calendly"].facts(CALENDLY.with_body(body))
    assert isinstance(booking, BookingFact)
    assert isinstance(paid, ConversionFact)
    assert (paid.external_id, paid.amount_minor, paid.currency) == ("ch_1", minor, currency.upper())
    assert paid.idempotency_key == "calendly:ch_1"
    assert paid.person == booking.person


@pytest.mark.parametrize("payment", [None, {}, {"amount": 5, "currency": "EUR", "successful": False}, "paid"])
def test_what_is_not_paid_is_no_purchase(payment: Any) -> None:
    (fact,) = facts_of(CALENDLY, calendly(payment=payment))
    assert isinstance(fact, BookingFact)


def test_a_payment_that_cannot_be_read_is_not_dropped() -> None:
    for payment in (
        {"amount": 10**30, "currency": "EUR"},
        {"amount": "10000000000000.01", "currency": "EUR"},
        {"amount": 5},
        {"amount": -5, "currency": "EUR"},
        {"amount": 5.001, "currency": "EUR"},
    ):
        with pytest.raises(Unmappable):
            facts_of(CALENDLY, calendly(payment=payment | {"successful": True}))


def test_a_form_of_calendly_with_one_name_field_and_no_tracking() -> None:
    bare = calendly(first_name=None, last_name=None, name="Nolan van Harrow", tracking=None, questions_and_answers=None)
    (fact,) = facts_of(CALENDLY, bare)
    assert isinstance(fact, BookingFact)
    assert (fact.person.first_name, fact.person.last_name) == ("Nolan", "van Harrow")
    assert fact.touch is None


def test_answers_of_calendly_are_kept_by_their_question() -> None:
    answers = [
        {"question": "Email", "answer": "other@acme.com", "position": 0},
        {"question": "What do you hope for?", "answer": "Less work", "position": 1},
        {"question": "Anything else?", "answer": "", "position": 2},
    ]
    changed = calendly(questions_and_answers=answers, text_reminder_number="+1 415-555-0157")
    (fact,) = facts_of(CALENDLY, changed)
    assert isinstance(fact, BookingFact)
    assert (fact.person.email, fact.person.phone) == ("nolan.harrow@example.com", "+14155550157")
    assert fact.person.attributes == {"What do you hope for?": "Less work"}


def test_answers_of_calendly_are_known_by_what_is_left_of_their_question() -> None:
    asked = {
        "What is your company?": "Acme",
        "Mobile number": "+14155550157",
        "Phone": "+14155550158",
        "Need?": "Routing",
    }
    answers = [{"question": question, "answer": answer} for question, answer in asked.items()]
    changed = calendly(questions_and_answers=answers)
    (fact,) = facts_of(CALENDLY, changed, MappingSettings.of({"use_case": "Need?"}, {}))
    assert isinstance(fact, BookingFact)
    person = fact.person
    assert (person.company, person.phone, person.use_case) == ("Acme", "+14155550158", "Routing")
    assert person.attributes == {"Mobile number": "+14155550157"}


def test_a_routing_form_of_calendly_is_a_lead_without_a_meeting() -> None:
    payload = {
        "uri": "https://api.calendly.com/routing_form_submissions/1",
        "questions_and_answers": [{"question": "Email", "answer": "A@acme.com"}],
        "tracking": {"utm_source": "google"},
    }
    body = {"event": "routing_form_submission.created", "created_at": "2026-03-04T11:00:00Z", "payload": payload}
    fact = fact_of_body(CALENDLY, body)
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.touch and fact.touch.utm) == ("a@acme.com", {"source": "google"})


def test_who_filled_in_a_routing_form_is_known_by_the_answers_alone() -> None:
    asked = {
        "Your name": "Ann Bell",
        "What is your work email?": "Ann@Acme.com",
        "Team size": "7",
        "Newsletter?": "Yes",
    }
    answers = [{"question_uuid": "1", "question": question, "answer": answer} for question, answer in asked.items()]
    payload = {"uri": "https://api.calendly.com/routing_form_submissions/1", "questions_and_answers": answers}
    fact = fact_of_body(CALENDLY, {"event": "routing_form_submission.created", "payload": payload})
    assert isinstance(fact, LeadFact)
    person = fact.person
    assert (person.first_name, person.last_name, person.email) == ("Ann", "Bell", "ann@acme.com")
    assert (person.attributes, person.consent) == ({"Team size": "7", "Newsletter?": "Yes"}, {})


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("invitee_no_show.created", "no_show"),
        ("invitee_no_show.deleted", "no_show"),
        ("user.updated", "event_type"),
        (None, "event_type"),
    ],
)
def test_the_rest_of_calendly_is_ignored(event: Any, reason: str) -> None:
    fact = fact_of_body(CALENDLY, calendly(event))
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_a_booking_needs_a_name_and_a_readable_time() -> None:
    meeting = body_of(CALENDLY)["payload"]["scheduled_event"]
    for odd in (
        calendly(uri=None),
        calendly(scheduled_event=meeting | {"start_time": "tomorrow"}),
        cal_com(uid=None, bookingId=None),
        cal_com(startTime="tomorrow"),
    ):
        with pytest.raises(Unmappable):
            facts_of(CAL_COM if "triggerEvent" in odd else CALENDLY, odd)
