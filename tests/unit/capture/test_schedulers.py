"""What schedulers tell of meetings: booked, moved, canceled, held, paid for; and who may tell it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    BookingFact,
    ConversionFact,
    Fact,
    Headers,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
    Unmappable,
)
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import body_of, fact_of_body

CALENDLY = sample("calendly")
CAL_COM = sample("cal_com")
ODD_HEADERS = [None, "", " ", "=", "t=,v1=", "v1=00", "t=1,v1=ü", "sha256=", "\x00", "\udcff", "a" * 10_000]


def accepts(
    known: Sample, request: HookRequest, secrets: Sequence[str] | None = None, later: timedelta = timedelta()
) -> bool:
    try:
        adapters()[known.kind].verify(request, [known.secret] if secrets is None else secrets, known.now + later)
    except BadSignature:
        return False
    return True


def signature_header(known: Sample) -> str:
    return next(name.replace("-", "_") for name, _ in known.request.headers.pairs if "signature" in name)


def facts_of(known: Sample, body: dict[str, Any], settings: MappingSettings | None = None) -> list[Fact]:
    request = known.with_body(json.dumps(body).encode())
    assert accepts(known, request)
    return adapters()[known.kind].facts(request, settings or known.settings)


def calendly(event: str = "invitee.created", **payload: Any) -> dict[str, Any]:
    body = body_of(CALENDLY)
    return body | {"event": event, "payload": body["payload"] | payload}


def cal_com(event: str = "BOOKING_CREATED", **payload: Any) -> dict[str, Any]:
    body = body_of(CAL_COM)
    return body | {"triggerEvent": event, "payload": body["payload"] | payload}


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
