"""What the submissions of form builders, sheets and automation tools tell, and what proves them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    Headers,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
    Unmappable,
)
from services.capture.adapters.form_answers import FormAnswer, consent_given
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import body_of, fact_of, fact_of_body

BEARER = ["gravityforms", "wpforms", "fillout", "clay", "zapier", "make"]
IN_ADDRESS = ["contact_form_7", "elementor", "jotform", "unbounce"]
OWNERS_NAMES = ["zapier", "make", "clay", "wpforms", "contact_form_7", "gravityforms"]


def lead(known: Sample, body: Mapping[str, Any], settings: MappingSettings | None = None) -> LeadFact:
    fact = fact_of_body(known, body, settings or MappingSettings())
    assert isinstance(fact, LeadFact)
    return fact


def form(known: Sample, fields: Mapping[str, Any]) -> HookRequest:
    headers = known.with_headers(content_type="application/x-www-form-urlencoded").headers
    return replace(known.request, headers=headers, raw_body=urlencode(fields, doseq=True).encode())


def reason(fact: object) -> str:
    assert isinstance(fact, Ignored)
    return fact.reason


def refused(known: Sample, request: HookRequest, secrets: list[str] | None = None) -> None:
    with pytest.raises(BadSignature):
        adapters()[known.kind].verify(request, secrets or [known.secret], known.now)


# The secret in the request


@pytest.mark.parametrize("kind", BEARER)
def test_a_secret_in_a_header_is_needed(kind: str) -> None:
    known = sample(kind)
    refused(known, known.with_headers(authorization=None))
    refused(known, known.with_headers(authorization="Bearer wrong"))
    refused(known, known.request, ["another-secret"])
    adapters()[kind].verify(known.request, ["newer-secret", known.secret], known.now)


@pytest.mark.parametrize("kind", BEARER + IN_ADDRESS)
def test_the_secret_may_come_in_the_address(kind: str) -> None:
    known = sample(kind)
    bare = known.with_headers(authorization=None)
    address = bare.url.partition("?")[0]
    request = replace(bare, url=f"{address}?token={known.secret}")
    adapters()[kind].verify(request, ["newer-secret", known.secret], known.now)
    stored = adapters()[kind].stored(request, [known.secret])
    assert known.secret.encode() not in stored.dump() + stored.raw_body
    refused(known, replace(bare, url=f"{address}?token=wrong"))
    refused(known, replace(bare, url=address))


def test_a_delivery_has_the_same_name_before_and_after_it_is_stored() -> None:
    for kind in BEARER + IN_ADDRESS:
        known, adapter = sample(kind), adapters()[kind]
        stored = adapter.stored(known.request, [known.secret])
        assert adapter.delivery_id(stored) == adapter.delivery_id(known.request)


# Names that an owner typed


@pytest.mark.parametrize("kind", OWNERS_NAMES)
def test_a_try_tells_nothing(kind: str) -> None:
    known = sample(kind)
    for name in ("test", "is_test"):
        assert reason(fact_of_body(known, body_of(known) | {name: True})) == "test"


@pytest.mark.parametrize("kind", ["zapier", "make", "clay"])
def test_without_an_id_the_body_names_the_delivery(kind: str) -> None:
    known = sample(kind)
    body = body_of(known) | {"id": ""}
    first, second = lead(known, body), lead(known, body | {"company": "Acme"})
    assert first.external_id is None
    assert first.idempotency_key != second.idempotency_key
    assert first.idempotency_key == lead(known, body).idempotency_key
    assert lead(known, body | {"id": 17}).idempotency_key == f"{kind}:17"


def test_automation_takes_forms_and_other_spellings() -> None:
    known = sample("zapier")
    fact = fact_of(known, form(known, {"id": "7", "Work Email": "Nora@Acme.com", "Full name": "Nora van Dijk"}))
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.person.first_name, fact.person.last_name) == ("nora@acme.com", "Nora", "van Dijk")
    assert (fact.occurred_at, fact.timed_by, fact.external_id) == (known.now, "receipt", "7")


def test_automation_keeps_empty_texts_out_and_numbers_as_text_in() -> None:
    known = sample("make")
    body = body_of(known) | {"first_name": "", "last_name": " ", "employees": "40", "plan": "pro", "note": ""}
    person = lead(known, body).person
    assert (person.first_name, person.last_name, person.employees) == (None, None, 40)
    assert person.attributes == {"plan": "pro"}


def test_automation_passes_on_consent_and_the_visit() -> None:
    known = sample("clay")
    body = {"email": "a@acme.com", "consent_sms": "yes", "consent": True, "utm": {"source": "x"}, "gclid": "Cj0"}
    fact = lead(known, body)
    assert fact.person.consent == {"sms": "granted", "email": "granted"}
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "x"}, {"gclid": "Cj0"})


@pytest.mark.parametrize("body", [[], ["a"], "x"])
@pytest.mark.parametrize("kind", ["zapier", "wpforms", "contact_form_7", "gravityforms"])
def test_a_body_that_is_no_object_cannot_be_mapped(kind: str, body: Any) -> None:
    known = sample(kind)
    with pytest.raises(Unmappable):
        fact_of(known, known.with_body(json.dumps(body).encode()))


def test_a_time_that_is_none_is_for_the_owner_of_a_zap_to_see() -> None:
    with pytest.raises(Unmappable):
        lead(sample("zapier"), body_of(sample("zapier")) | {"occurred_at": "yesterday"})


def test_entries_of_wpforms_have_their_own_date_if_it_can_be_read() -> None:
    known = sample("wpforms")
    fact = lead(known, body_of(known) | {"entry_date": "March 4, 2026"})
    assert (fact.occurred_at, fact.timed_by) == (known.now, "receipt")


def test_an_entry_without_a_form_still_has_a_name() -> None:
    known = sample("wpforms")
    body = body_of(known)
    del body["form_id"]
    assert lead(known, body).idempotency_key == "wpforms:4405"


# Gravity Forms


def test_gravity_forms_without_a_mapping_are_about_nobody() -> None:
    known = sample("gravityforms")
    assert reason(fact_of_body(known, body_of(known))) == "no_identifier"


def test_gravity_forms_are_known_by_the_names_of_chosen_fields() -> None:
    known = sample("gravityforms")
    body = {"id": 9, "form_id": 3, "email": "a@acme.com", "Team size": "11-50", "7": "x", "date_created": ""}
    fact = lead(known, body)
    assert (fact.idempotency_key, fact.external_id, fact.timed_by) == ("gravityforms:3:9", "9", "receipt")
    assert fact.person.attributes == {"Team size": "11-50"}


def test_gravity_forms_say_nothing_by_an_unticked_box() -> None:
    known = sample("gravityforms")
    assert lead(known, body_of(known) | {"5.1": ""}, known.settings).person.consent == {}


def test_gravity_forms_come_as_a_form_too() -> None:
    known = sample("gravityforms")
    fields = {name: value for name, value in body_of(known).items() if value is not None}
    adapter = adapters()[known.kind]
    (fact,) = adapter.facts(form(known, fields), known.settings)
    assert isinstance(fact, LeadFact)
    assert (fact.person.email, fact.idempotency_key) == (known.expected["email"], known.expected["idempotency_key"])


def test_spam_makes_no_lead() -> None:
    known = sample("gravityforms")
    assert reason(fact_of_body(known, body_of(known) | {"status": "spam"}, known.settings)) == "status"


# Contact Form 7


def test_contact_form_7_has_tags_with_numbers() -> None:
    known = sample("contact_form_7")
    person = lead(known, {"email-123": "a@acme.com", "tel-7": "+14155550144", "menu-1": ["Scoring"]}).person
    assert (person.email, person.phone, person.attributes) == ("a@acme.com", "+14155550144", {"menu-1": ["Scoring"]})


def test_contact_form_7_keeps_what_was_written_with_the_touch() -> None:
    known = sample("contact_form_7")
    fact = lead(known, body_of(known) | {"_wpcf7_version": "6.0", "_url": "https://x.example/a"})
    assert fact.touch is not None
    assert fact.touch.properties == {"message": "Please call me back.\r\nThanks!"}
    assert (fact.touch.url, fact.person.attributes) == ("https://x.example/a", {})


@pytest.mark.parametrize("name", ["acceptance-123", "acceptance-terms", "accept-privacy"])
def test_accepting_terms_is_no_consent(name: str) -> None:
    assert lead(sample("contact_form_7"), {"your-email": "a@acme.com", name: "1"}).person.consent == {}


def test_two_identical_forms_are_one_delivery() -> None:
    known = sample("contact_form_7")
    first, later = known.request, replace(known.request, received_at=known.now + timedelta(hours=1))
    assert fact_of(known, first).idempotency_key == fact_of(known, later).idempotency_key


# Elementor


def advanced(**fields: tuple[str, str, str]) -> dict[str, str]:
    parts = {
        f"fields[{name}][{part}]": value
        for name, (kind, title, value) in fields.items()
        for part, value in (("id", name), ("type", kind), ("title", title), ("value", value), ("raw_value", value))
    }
    return {"form[id]": "90f", "form[name]": "Demo", **parts}


def elementor(fields: Mapping[str, Any]) -> LeadFact:
    known = sample("elementor")
    fact = fact_of(known, form(known, fields))
    assert isinstance(fact, LeadFact)
    return fact


def test_elementor_without_advanced_data_has_labels() -> None:
    fields = {"Name": "Nora van Dijk", "E-mail": "a@acme.com", "No Label phone": "+14155550146", "Team size": "7"}
    fact = elementor({**fields, "form_id": "90f", "form_name": "Demo", "Page URL": "https://x.example/?utm_source=g"})
    assert (fact.person.first_name, fact.person.email, fact.person.phone) == ("Nora", "a@acme.com", "+14155550146")
    assert fact.person.attributes == {"Team size": "7"}
    assert fact.touch is not None
    assert fact.touch.utm == {"source": "g"}
    assert fact.touch.properties == {"form_id": "90f", "form_name": "Demo"}


def test_elementor_knows_fields_by_type_and_title() -> None:
    fact = elementor(
        advanced(
            field_1=("email", "Where to?", "a@acme.com"),
            field_2=("text", "Company", "Acme"),
            field_3=("tel", "", "+14155550146"),
            field_4=("acceptance", "I agree to receive emails", "on"),
            field_5=("acceptance", "I accept the terms", "on"),
        )
    )
    assert (fact.person.email, fact.person.company, fact.person.phone) == ("a@acme.com", "Acme", "+14155550146")
    assert (fact.person.consent, fact.person.attributes) == ({"email": "granted"}, {"field_5": "on"})


def test_elementor_boxes_are_consent_only_if_ticked() -> None:
    assert elementor(advanced(email=("email", "", "a@a.com"), consent=("acceptance", "", ""))).person.consent == {}
    assert elementor(advanced(email=("email", "", "a@a.com"), consent=("text", "", "yes"))).person.consent == {}


def test_elementor_has_several_choices_as_a_list() -> None:
    fields = advanced(email=("email", "", "a@acme.com"), topics=("checkbox", "Topics", "A, B"))
    del fields["fields[topics][raw_value]"]
    fields |= {"fields[topics][raw_value][0]": "A", "fields[topics][raw_value][1]": "B"}
    assert elementor(fields).person.attributes == {"topics": ["A", "B"]}


@pytest.mark.parametrize("name", ["a" + "[b]" * 20, "fields[email]", "fields[email][value][x]"])
def test_brackets_that_contradict_each_other_cannot_be_mapped(name: str) -> None:
    with pytest.raises(Unmappable):
        elementor(advanced(email=("email", "", "a@acme.com")) | {name: "x"})


# Webflow


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
    fact = webflow(data=data, pageUrl="https://x.example/?utm_source=g&gclid=Cj0")
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


# Tally


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


# Jotform


def jotform(raw: Mapping[str, Any], settings: MappingSettings | None = None) -> LeadFact:
    known = sample("jotform")
    fields = {"formID": "1", "submissionID": "99", "pretty": "Email:x", "rawRequest": json.dumps(raw)}
    fact = fact_of(known, form(known, fields), settings or MappingSettings())
    assert isinstance(fact, LeadFact)
    return fact


def test_jotform_repeats_its_address_and_that_is_blanked() -> None:
    known = sample("jotform")
    request, adapter = known.request, adapters()["jotform"]
    spelled = request.raw_body.replace(b"?token=b", b"?token=%62")
    for body in (request.raw_body, spelled, request.raw_body.replace(b"\r\n\r\nhttps", b"\r\nX-A: b\r\n\r\nhttps")):
        stored = adapter.stored(replace(request, raw_body=body), [known.secret])
        assert b"webhookURL" in stored.raw_body
        assert b"367ab542fc7b9e0f4187bb8" not in stored.dump() + stored.raw_body
        assert [fact.idempotency_key for fact in adapter.facts(stored)] == [known.expected["idempotency_key"]]
    as_form = adapter.stored(form(known, {"webhookURL": request.url, "submissionID": "9"}), [known.secret])
    assert known.secret.encode() not in as_form.raw_body


def test_jotform_answers_are_known_behind_their_numbers() -> None:
    fact = jotform(
        {
            "q1_fullName7": {"prefix": "Dr", "first": "Nora", "last": "van Dijk"},
            "q22_workEmail": "a@acme.com",
            "q5_phoneNumber": {"area": "415", "phone": "555-0148"},
            "q8_emailConsent": ["I agree to receive emails"],
            "q9_agreeTerms": ["I accept the terms"],
            "q10_teamSize": "11-50",
            "q11_empty": "",
            "utm_source": "google",
            "slug": "submit/1",
        },
        MappingSettings.of({}, {"phone_country": "US"}),
    )
    person = fact.person
    assert (person.first_name, person.last_name, person.email) == ("Nora", "van Dijk", "a@acme.com")
    assert (person.phone, person.consent) == ("+14155550148", {"email": "granted"})
    assert person.attributes == {"agreeTerms": ["I accept the terms"], "teamSize": "11-50"}
    assert fact.touch is not None
    assert fact.touch.utm == {"source": "google"}
    assert (fact.timed_by, fact.external_id) == ("receipt", "99")


def test_jotform_without_readable_answers_cannot_be_mapped() -> None:
    known = sample("jotform")
    for fields in ({"submissionID": "1"}, {"submissionID": "1", "rawRequest": "{"}, {"rawRequest": "[]"}):
        with pytest.raises(Unmappable):
            fact_of(known, form(known, fields))


# Fillout


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


# Unbounce


def unbounce(data: Any) -> LeadFact:
    known = sample("unbounce")
    request = form(known, {"page_id": "p1", "page_url": "https://x.example/?utm_source=g", "data.json": data})
    fact = fact_of(known, request)
    assert isinstance(fact, LeadFact)
    return fact


def test_unbounce_answers_are_arrays() -> None:
    fact = unbounce(json.dumps({"email": ["a@acme.com"], "size": ["7"], "topics": ["A", "B"], "none": [], "name": ""}))
    assert (fact.person.email, fact.person.attributes) == ("a@acme.com", {"size": "7", "topics": ["A", "B"]})
    assert (fact.timed_by, fact.external_id) == ("receipt", None)
    assert fact.touch is not None
    assert fact.touch.utm == {"source": "g"}


@pytest.mark.parametrize("time", ["10:47 AM EST", "late", ""])
def test_unbounce_is_timed_by_receipt_unless_it_says_utc(time: str) -> None:
    data = {"email": ["a@acme.com"], "date_submitted": ["2026-03-04"], "time_submitted": [time]}
    assert unbounce(json.dumps(data)).timed_by == "receipt"


def test_unbounce_in_json() -> None:
    known = sample("unbounce")
    fact = lead(known, {"page_url": "https://x.example/", "data.json": {"email": ["a@acme.com"]}})
    assert fact.person.email == "a@acme.com"


@pytest.mark.parametrize("data", ["", "[]", "{", "null"])
def test_unbounce_without_readable_answers_cannot_be_mapped(data: str) -> None:
    with pytest.raises(Unmappable):
        unbounce(data)


# Google Sheets


def sheets(values: Any, **changed: Any) -> object:
    known = sample("google_sheets")
    body = body_of(known) | changed
    body["data"] |= {"values": values}
    return fact_of_body(known, body)


def test_sheets_cells_may_be_numbers() -> None:
    fact = sheets({"E-mail": "a@acme.com", "Phone number": 14155550156, "Seats": 7.5, "": "x", "Blank": ""})
    assert isinstance(fact, LeadFact)
    assert (fact.person.phone, fact.person.attributes) == ("+14155550156", {"Seats": 7.5})


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


# Consent


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
