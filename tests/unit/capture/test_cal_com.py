"""What Cal.com tells of meetings, forms and payments."""

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
    Unmappable,
)
from tests.unit.capture.schedulers import CAL_COM, cal_com, facts_of
from tests.unit.capture.told import fact_of_body


@pytest.mark.parametrize(
    ("trigger", "event"),
    [
        ("BOOKING_CREATED", "booked"),
        ("BOOKING_RESCHEDULED", "rescheduled"),
        ("BOOKING_CANCELLED", "canceled"),
    ],
)
def test_what_happens_to_a_booking_of_cal_com(trigger: str, event: str) -> None:
    fact = fact_of_body(CAL_COM, cal_com(trigger))
    assert isinstance(fact, BookingFact)
    assert (fact.event, fact.external_id) == (event, "b41204f633a899d2e4a0fe")
    assert fact.idempotency_key == f"cal_com:{trigger}:b41204f633a899d2e4a0fe"


def test_a_meeting_that_ended_lies_flat_and_happened_when_it_ended() -> None:
    flat = {
        "triggerEvent": "MEETING_ENDED",
        "uid": "b41204f633a899d2e4a0fe",
        "createdAt": "2026-02-20T08:00:00.000Z",
        "startTime": "2026-03-04T10:30:00Z",
        "endTime": "2026-03-04T11:00:00Z",
        "attendees": [{"email": "opal.langtree@example.com", "name": "Opal Langtree", "timeZone": "America/Chicago"}],
        "user": {"email": "rep@example.com"},
        "responses": {"email": "opal.langtree@example.com", "location": {"value": "phone", "optionValue": ""}},
    }
    fact = fact_of_body(CAL_COM, flat)
    assert isinstance(fact, BookingFact)
    assert (fact.event, fact.external_id, fact.host_email) == ("held", "b41204f633a899d2e4a0fe", "rep@example.com")
    assert fact.occurred_at == datetime(2026, 3, 4, 11, tzinfo=UTC)
    assert (fact.person.email, fact.person.attributes) == ("opal.langtree@example.com", {})
    assert fact.idempotency_key == "cal_com:MEETING_ENDED:b41204f633a899d2e4a0fe"


def test_who_books_by_telephone_has_an_address_that_is_made_up() -> None:
    attendee = {"email": "14155550158@sms.cal.com", "name": "Opal", "phoneNumber": "+14155550158"}
    fact = fact_of_body(CAL_COM, cal_com(attendees=[attendee], responses={}))
    assert isinstance(fact, BookingFact)
    assert (fact.person.email, fact.person.phone) == (None, "+14155550158")


def test_answers_and_hidden_fields_of_cal_com() -> None:
    responses = {
        "name": {"label": "your_name", "value": {"firstName": "Opal", "lastName": "Langtree"}},
        "email": {"label": "email_address", "value": "opal@acme.com"},
        "utm_source": {"label": "utm_source", "value": "google"},
        "gclid": {"label": "gclid", "value": "x1"},
        "team-size": {"label": "How many are you?", "value": "20"},
        "notes": {"label": "additional_notes", "value": ""},
    }
    fact = fact_of_body(CAL_COM, cal_com(attendees=[], responses=responses))
    assert isinstance(fact, BookingFact)
    person, touch = fact.person, fact.touch
    assert (person.first_name, person.last_name, person.email) == ("Opal", "Langtree", "opal@acme.com")
    assert person.attributes == {"team-size": "20"}
    assert touch is not None
    assert (touch.utm, touch.click_ids) == ({"source": "google"}, {"gclid": "x1"})


@pytest.mark.parametrize(
    ("slug", "value", "consent"),
    [
        ("i-agree-to-receive-emails", True, {"email": "granted"}),
        ("consent-sms", False, {"sms": "denied"}),
        ("i-accept-the-terms", True, {}),
        ("first-visit", True, {}),
        ("consent", "yes", {}),
    ],
)
def test_only_a_box_of_cal_com_about_it_is_consent(slug: str, value: Any, consent: dict[str, str]) -> None:
    responses = {"email": {"value": "opal@acme.com"}, slug: {"label": slug, "value": value}}
    fact = fact_of_body(CAL_COM, cal_com(responses=responses))
    assert isinstance(fact, BookingFact)
    assert fact.person.consent == consent
    assert fact.person.attributes == ({} if consent else {slug: value})


def test_a_question_of_cal_com_without_an_answer_says_nothing() -> None:
    """As in the examples of Cal.com's documentation: of such a question there is only the label."""
    unanswered = {
        "attendeePhoneNumber": {"label": "phone_number", "isHidden": True},
        "title": {"label": "what_is_this_meeting_about", "isHidden": True},
        "notes": {"label": "additional_notes", "isHidden": False},
        "rescheduleReason": {"label": "reason_for_reschedule", "isHidden": False},
    }
    answered = {"email": {"label": "email_address", "value": "opal@acme.com", "isHidden": False}}
    fact = fact_of_body(CAL_COM, cal_com(responses=answered | unanswered))
    assert isinstance(fact, BookingFact)
    assert (fact.person.phone, fact.person.attributes) == (None, {})


def test_choices_of_a_form_of_cal_com_are_their_labels_where_there_is_no_plain_value() -> None:
    responses = {
        "email": {"response": "opal@acme.com"},
        "Language": {"response": [{"label": "English", "id": "1"}, {"label": "French", "id": "2"}]},
        "Size": {"response": {"label": "11-50", "id": "3"}},
        "Country": {"value": ["AT"], "response": [{"label": "AT", "id": "4"}]},
    }
    body = {"triggerEvent": "FORM_SUBMITTED", "createdAt": "2026-03-04T11:11:30Z", "payload": {"responses": responses}}
    fact = fact_of_body(CAL_COM, body)
    assert isinstance(fact, LeadFact)
    assert fact.person.email == "opal@acme.com"
    assert fact.person.attributes == {"Language": ["English", "French"], "Size": "11-50"}
    assert fact.person.country == "AT"


@pytest.mark.parametrize(("price", "currency", "minor"), [(4900, "usd", 4900), (500, "jpy", 500), (1234, "kwd", 1234)])
def test_a_booking_that_is_paid_is_a_purchase(price: int, currency: str, minor: int) -> None:
    fact = fact_of_body(CAL_COM, cal_com("BOOKING_PAID", price=price, currency=currency))
    assert isinstance(fact, ConversionFact)
    assert (fact.external_id, fact.amount_minor, fact.currency) == ("b41204f633a899d2e4a0fe", minor, currency.upper())
    for odd in ("49.00", -1, True):
        with pytest.raises(Unmappable):
            facts_of(CAL_COM, cal_com("BOOKING_PAID", price=odd))


def test_a_request_for_a_meeting_is_a_lead_and_no_meeting() -> None:
    fact = fact_of_body(CAL_COM, cal_com("BOOKING_REQUESTED", status="PENDING"))
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.person.company) == ("booking_requested", "Ridgeback Cycles")


def test_a_form_of_cal_com_is_a_lead() -> None:
    responses = {
        "Name": {"value": "Opal Langtree"},
        "email": {"value": "opal@acme.com", "response": "opal@acme.com"},
        "title": {"value": "Head of Sales"},
        "Seats": {"value": ["10", "20"]},
    }
    payload = {"formId": "f1", "formName": "Route", "responses": responses}
    body = {"triggerEvent": "FORM_SUBMITTED", "createdAt": "2026-03-04T11:11:30.315Z", "payload": payload}
    fact = fact_of_body(CAL_COM, body)
    assert isinstance(fact, LeadFact)
    assert (fact.event, fact.person.email, fact.person.title) == ("form_submitted", "opal@acme.com", "Head of Sales")
    assert fact.person.attributes == {"Seats": ["10", "20"]}


@pytest.mark.parametrize(
    ("trigger", "reason"),
    [
        ("PING", "test"),
        ("BOOKING_REJECTED", "rejected"),
        ("BOOKING_NO_SHOW_UPDATED", "no_show"),
        ("BOOKING_PAYMENT_INITIATED", "event_type"),
        ("MEETING_STARTED", "event_type"),
        ("OOO_CREATED", "event_type"),
    ],
)
def test_the_rest_of_cal_com_is_ignored(trigger: str, reason: str) -> None:
    fact = fact_of_body(CAL_COM, cal_com(trigger))
    assert isinstance(fact, Ignored)
    assert fact.reason == reason


def test_a_template_of_the_owners_own_needs_a_mapping() -> None:
    form = replace(CAL_COM.with_body(b"mail=opal%40acme.com&firm=Acme"), headers=Headers())
    form = replace(form, headers=Headers((("content-type", "application/x-www-form-urlencoded"),)))
    adapter = adapters()["cal_com"]
    with pytest.raises(Unmappable):
        adapter.facts(form)
    (fact,) = adapter.facts(form, MappingSettings.of({"email": "mail", "company": "firm"}, {}))
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.person.company) == ("opal@acme.com", "Acme")
