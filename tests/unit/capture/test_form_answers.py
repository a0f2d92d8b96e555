"""What answers tell whose questions have names and types: Webflow, Tally, Fillout, rows of a sheet."""

import hashlib
import hmac
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    Headers,
    LeadFact,
    MappingSettings,
    Unmappable,
)
from services.capture.adapters.form_answers import FormAnswer, consent_given, form_fields
from tests.samples.signed import Sample, sample
from tests.unit.capture.forms import lead, reason, refused
from tests.unit.capture.told import body_of, fact_of_body


def webflow(**payload: Any) -> LeadFact:
    known = sample("webflow")
    body = body_of(known)
    body["payload"] |= payload
    return lead(known, body)


def test_webflow_signs_milliseconds_and_a_colon() -> None:
    known = sample("webflow")
    refused(known, known.with_headers(x_webflow_signature=None))
    refused(known, known.with_headers(x_webflow_timestamp=None))
    refused(known, known.with_headers(x_webflow_timestamp="1772619630"))
    refused(known, known.with_headers(x_webflow_timestamp="soon"))
    refused(known, replace(known.request, raw_body=known.request.raw_body + b" "))
    for minutes in (-6, 6):
        refused(known, known.with_body(b"{}", known.now + timedelta(minutes=minutes)))
    adapters()[known.kind].verify(known.request, ["newer-secret", known.secret], known.now)


@pytest.mark.parametrize(
    ("milliseconds", "fits"), [(-300_001, False), (-300_000, True), (-299_001, True), (300_000, True), (300_001, False)]
)
def test_webflow_is_five_minutes_off_to_the_millisecond(milliseconds: int, fits: bool) -> None:
    known = sample("webflow")
    now = known.now + timedelta(milliseconds=731)
    sent = str(round(now.timestamp() * 1_000) + milliseconds)
    mac = hmac.new(known.secret.encode(), f"{sent}:".encode() + known.request.raw_body, hashlib.sha256).hexdigest()
    request = known.with_headers(x_webflow_timestamp=sent, x_webflow_signature=mac)
    with nullcontext() if fits else pytest.raises(BadSignature):
        adapters()[known.kind].verify(request, [known.secret], now)


def test_webflow_from_the_dashboard_carries_the_secret_in_its_address() -> None:
    known = sample("webflow")
    bare = known.with_headers(x_webflow_signature=None, x_webflow_timestamp=None)
    refused(known, bare)
    adapters()[known.kind].verify(replace(bare, url=f"{bare.url}?token={known.secret}"), [known.secret], known.now)
    signed_badly = known.with_headers(x_webflow_signature="0" * 64)
    refused(known, replace(signed_badly, url=f"{bare.url}?token={known.secret}"))


def test_webflow_has_other_triggers() -> None:
    known = sample("webflow")
    assert (
        reason(fact_of_body(known, {"triggerType": "ecomm_new_order", "payload": {"orderId": "1"}})) == "trigger_type"
    )
    with pytest.raises(Unmappable):
        webflow(data=None)


def test_webflow_knows_fields_by_what_the_page_shows() -> None:
    data = {"Your name": "Nora van Dijk", "Email Address": "a@acme.com", "Newsletter": True, "Budget": 7, "Terms": True}
    fact = webflow(data=data, pageUrl="https://x.example/?utm_source=g&gclid=Cj0&utm_source=b")
    assert (fact.person.last_name, fact.person.email) == ("van Dijk", "a@acme.com")
    assert (fact.person.consent, fact.person.attributes) == ({"email": "granted"}, {"Budget": 7, "Terms": True})
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "g"}, {"gclid": "Cj0"})


def test_a_mapped_answer_is_no_attribute() -> None:
    known = sample("webflow")
    body = body_of(known)
    body["payload"]["data"] = {"Kontakt": "a@acme.com", "Firma": "Acme"}
    person = lead(known, body, MappingSettings.of({"email": "Kontakt", "company": "Firma"}, {})).person
    assert (person.email, person.company, person.attributes) == ("a@acme.com", "Acme", {})


def tally(*fields: dict[str, Any]) -> LeadFact:
    known = sample("tally")
    body = body_of(known)
    body["data"]["fields"] = [{"key": f"question_{n}", **field} for n, field in enumerate(fields)]
    return lead(known, body)


WORK_EMAIL = {"label": "Where to?", "type": "INPUT_EMAIL", "value": "a@acme.com"}
OPTIONS = [{"id": "o1", "text": "Scoring"}, {"id": "o2", "text": "Routing"}]


def test_tally_signs_the_body() -> None:
    known = sample("tally")
    refused(known, known.with_headers(tally_signature=None))
    refused(known, known.with_headers(tally_signature="x"))
    refused(known, replace(known.request, raw_body=known.request.raw_body + b" "))
    adapters()[known.kind].verify(known.request, ["newer-secret", known.secret], known.now)


def test_tally_choices_are_the_texts_of_their_options() -> None:
    told = tally(
        WORK_EMAIL,
        {"label": "Topics", "type": "CHECKBOXES", "value": ["o2"], "options": OPTIONS},
        {"label": "Topics (Routing)", "type": "CHECKBOXES", "value": True},
        {"label": "First", "type": "DROPDOWN", "value": ["o1"], "options": OPTIONS},
        {"label": "Both", "type": "MULTIPLE_CHOICE", "value": ["o1", "Magic"], "options": OPTIONS},
        {"label": "Nothing", "type": "MULTIPLE_CHOICE", "value": None, "options": OPTIONS},
        {"label": "Empty", "type": "INPUT_TEXT", "value": None},
        {"label": "Deck", "type": "FILE_UPLOAD", "value": [{"url": "https://x.example/deck.pdf"}]},
    )
    assert told.person.email == "a@acme.com"
    assert told.person.attributes == {
        "Topics": ["Routing"],
        "First": "Scoring",
        "Both": ["Scoring", "Magic"],
        "Deck": ["https://x.example/deck.pdf"],
    }


def test_tally_consent_is_a_ticked_box() -> None:
    box = {"type": "CHECKBOXES", "options": [{"id": "o1", "text": "Yes, I agree to receive emails"}]}
    assert tally(WORK_EMAIL, {**box, "label": "Consent", "value": ["o1"]}).person.consent == {"email": "granted"}
    assert tally(WORK_EMAIL, {**box, "label": None, "value": ["o1"]}).person.consent == {"email": "granted"}
    assert tally(WORK_EMAIL, {**box, "label": "Consent", "value": None}).person.consent == {}
    text = {"label": "Consent", "type": "INPUT_TEXT", "value": "yes"}
    assert tally(WORK_EMAIL, text).person.consent == {}


def test_tally_hidden_fields_are_below_answers() -> None:
    hidden = [
        {"label": "email", "type": "HIDDEN_FIELDS", "value": "old@acme.com"},
        {"label": "anonymous_id", "type": "HIDDEN_FIELDS", "value": "anon_1"},
        {"label": "plan", "type": "HIDDEN_FIELDS", "value": "pro"},
    ]
    person = tally(*hidden, WORK_EMAIL).person
    assert (person.email, person.anonymous_id, person.attributes) == ("a@acme.com", "anon_1", {"plan": "pro"})


def test_tally_has_other_events() -> None:
    known = sample("tally")
    assert reason(fact_of_body(known, body_of(known) | {"eventType": "TEST"})) == "event_type"
    assert reason(tally_without_answers(known)) == "no_identifier"
    with pytest.raises(Unmappable):
        fact_of_body(known, {"eventType": "FORM_RESPONSE"})


def tally_without_answers(known: Sample) -> object:
    body = body_of(known)
    body["data"]["fields"] = []
    return fact_of_body(known, body)


def test_fillout_knows_questions_by_name_and_type() -> None:
    known = sample("fillout")
    body = body_of(known)
    body["submission"] |= {
        "questions": [
            {"id": "a", "name": "Where to?", "type": "EmailInput", "value": "a@acme.com"},
            {"id": "b", "name": "Topics", "type": "Checkboxes", "value": ["Scoring"]},
            {"id": "c", "name": "I agree to receive SMS", "type": "Checkbox", "value": True},
            {"id": "d", "name": "Notes", "type": "LongAnswer", "value": None},
        ],
        "urlParameters": [{"id": "gclid", "name": "gclid", "value": "Cj0"}, {"id": "ref", "name": "ref", "value": "x"}],
    }
    fact = lead(known, body)
    assert (fact.person.email, fact.person.consent) == ("a@acme.com", {"sms": "granted"})
    assert fact.person.attributes == {"Topics": ["Scoring"], "ref": "x"}
    assert fact.touch is not None
    assert fact.touch.click_ids == {"gclid": "Cj0"}


@pytest.mark.parametrize("submission", [None, [], {}, {"questions": "none"}])
def test_fillout_without_questions_cannot_be_mapped(submission: Any) -> None:
    known = sample("fillout")
    with pytest.raises(Unmappable):
        fact_of_body(known, body_of(known) | {"submission": submission})


def sheets(values: Any, **changed: Any) -> object:
    known = sample("google_sheets")
    body = body_of(known) | changed
    body["data"] |= {"values": values}
    return fact_of_body(known, body)


def test_sheets_cells_may_be_numbers() -> None:
    fact = sheets({"E-mail": "a@acme.com", "Phone number": 14155550156, "Seats": 7.5, "": "x", "Blank": ""})
    assert isinstance(fact, LeadFact)
    assert (fact.person.phone, fact.person.attributes) == ("+14155550156", {"Seats": 7.5})


@pytest.mark.parametrize(
    ("cell", "country", "phone"),
    [
        (14155550141, None, "+14155550141"),
        (14155550141, "US", "+14155550141"),
        (4155550141, "US", "+14155550141"),
        (14155550141, "DE", "+14155550141"),  # the plus was lost: there is no such number in Germany
        (30123456, "DE", "+4930123456"),
        (442079460958, "GB", "+442079460958"),
        (14155550156.0, None, "+14155550156"),
        ("14155550141", None, None),
        (1.5, "US", None),
    ],
)
def test_a_phone_that_came_as_a_number_is_somebodys_number(cell: Any, country: str | None, phone: str | None) -> None:
    known = sample("google_sheets")
    body = body_of(known)
    body["data"] |= {"values": {"Email": "a@acme.com", "Phone": cell}}
    person = lead(known, body, MappingSettings.of({}, {"phone_country": country} if country else {})).person
    assert (person.phone, "phone" in person.attributes) == (phone, phone is None)


def test_a_parameter_of_the_visit_may_be_named_as_people_read_it() -> None:
    fact = sheets({"Email": "a@acme.com", "UTM Source": "google", "utm medium": "cpc", "Utm-Campaign": "spring"})
    assert isinstance(fact, LeadFact)
    assert fact.person.attributes == {}
    assert fact.touch is not None
    assert fact.touch.utm == {"source": "google", "medium": "cpc", "campaign": "spring"}


def test_sheets_has_other_events() -> None:
    assert reason(sheets({}, type="sheet.changed")) == "event_type"
    assert reason(sheets({"Email": ""})) == "no_identifier"
    with pytest.raises(Unmappable):
        sheets([])


def test_sheets_is_signed_as_standard_webhooks() -> None:
    known = sample("google_sheets")
    refused(known, known.with_headers(webhook_signature=None))
    refused(known, replace(known.request, headers=Headers(())))
    refused(known, replace(known.request, raw_body=b"{}"))


def test_a_parameter_of_the_address_is_no_box() -> None:
    assert consent_given(FormAnswer("consent_email", "yes", hidden=True)) is None


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("What's your email address?", "email"),
        ("Email (work)", "email"),
        ("Phone (optional)", "phone"),
        ("Mobile", "phone"),
        ("email 2", "email"),
        ("Organisation", "company"),
        ("Business name", "company"),
        ("Surname", "last_name"),
        ("Company size", "attributes.Company size"),
        ("Friend's email", "attributes.Friend's email"),
        ("Contact", "attributes.Contact"),
    ],
)
def test_a_name_is_known_by_what_is_left_of_it(name: str, field: str) -> None:
    assert form_fields([FormAnswer(name, "x")], MappingSettings()) == {field: "x"}


def test_a_field_takes_the_first_answer_and_the_surest_name() -> None:
    answers = [FormAnswer("Work email", "b"), FormAnswer("Email", "a"), FormAnswer("e-mail", "c")]
    assert form_fields(answers, MappingSettings()) == {
        "email": "a",
        "attributes.Work email": "b",
        "attributes.e-mail": "c",
    }


@pytest.mark.parametrize(
    ("name", "value", "box", "given"),
    [
        ("emailOptIn", "yes", None, (["email"], "granted")),
        ("I agree to receive e-mails and SMS", True, True, (["email", "sms"], "granted")),
        ("I agree to receive text messages", "on", None, (["sms"], "granted")),
        ("consent_whatsapp", "no", None, (["whatsapp"], "denied")),
        ("Consent", "I agree", None, (["email"], "granted")),
        ("Consent", ["I do not agree to receive emails"], None, None),
        ("I do not want to receive emails", True, True, None),
        ("consent_to_calls", "yes", None, None),
        ("I want to unsubscribe from emails", True, True, None),
        ("Consent", "I want to opt-out", None, None),
        ("consent", "perhaps", None, None),
        ("consent", "yes", False, None),
        ("newsletter topics", ["Sales"], None, None),
        ("I accept the privacy policy", True, True, None),
        ("GDPR consent and terms", True, True, None),
        ("likes", "yes", None, None),
    ],
)
def test_consent_is_an_explicit_box(name: str, value: Any, box: bool | None, given: Any) -> None:
    assert consent_given(FormAnswer(name, value, box=box)) == given
