"""What a form response tells."""

from typing import Any

import pytest

from services.capture.adapters.adapter import Ignored, LeadFact, MappingSettings, Unmappable
from tests.samples.signed import sample
from tests.unit.capture.told import body_of, fact_of_body

KNOWN = sample("typeform")


def answer(kind: str, value: Any, ref: str, question: str = "short_text") -> dict[str, Any]:
    return {"type": kind, kind: value, "field": {"id": f"id_{ref}", "type": question, "ref": ref}}


def lead(*answers: dict[str, Any], hidden: dict[str, Any] | None = None, **defaults: str) -> LeadFact:
    body = body_of(KNOWN)
    body["form_response"] |= {"answers": list(answers), "hidden": hidden or {}}
    fact = fact_of_body(KNOWN, body, MappingSettings.of({}, defaults))
    assert isinstance(fact, LeadFact)
    return fact


EMAIL = answer("email", "Nora@Acme.com", "0c1d-uuid", "email")


def test_questions_without_a_speaking_ref_are_known_by_their_type() -> None:
    person = lead(EMAIL, answer("phone_number", "+14155550140", "1f2e-uuid", "phone_number")).person
    assert (person.email, person.phone, person.attributes) == ("nora@acme.com", "+14155550140", {})


def test_a_ref_goes_before_a_type() -> None:
    friend = answer("email", "friend@acme.com", "friend", "email")
    person = lead(friend, answer("email", "nora@acme.com", "email", "email")).person
    assert person.email == "nora@acme.com"
    assert person.attributes == {"friend": "friend@acme.com"}


def test_a_second_address_is_not_the_first() -> None:
    person = lead(EMAIL, answer("text", "b@acme.com", "email_2"), answer("text", "Nora", "firstName")).person
    assert (person.email, person.first_name) == ("nora@acme.com", "Nora")
    assert person.attributes == {"email_2": "b@acme.com"}


def test_a_whole_name_is_split_at_the_first_blank_unless_there_are_parts() -> None:
    whole = answer("text", "Nora van Dijk", "full_name")
    assert (lead(EMAIL, whole).person.first_name, lead(EMAIL, whole).person.last_name) == ("Nora", "van Dijk")
    parts = lead(EMAIL, answer("text", "Eleonora", "first_name"), whole).person
    assert (parts.first_name, parts.last_name) == ("Eleonora", "van Dijk")


def test_choices_become_their_labels_and_the_free_text() -> None:
    many = answer("choices", {"ids": ["a", "b"], "labels": ["Scoring", "Routing"], "other": "Magic"}, "topics")
    free = answer("choice", {"other": "About forty"}, "size")
    told = lead(EMAIL, many, free, answer("payment", {"amount": "12.50", "last4": "4242"}, "fee")).person.attributes
    assert told == {"topics": ["Scoring", "Routing", "Magic"], "size": "About forty", "fee": "12.50"}


def test_numbers_dates_and_booleans_are_kept_as_they_are() -> None:
    told = lead(
        EMAIL, answer("number", 7, "seats"), answer("date", "2026-05-01", "start"), answer("boolean", False, "crm")
    )
    assert told.person.attributes == {"seats": 7, "start": "2026-05-01", "crm": False}


@pytest.mark.parametrize(
    ("ref", "value", "consent"),
    [
        ("consent_email", True, {"email": "granted"}),
        ("consent_email", False, {"email": "denied"}),
        ("consent_sms", True, {"sms": "granted"}),
        ("whatsapp_ok", True, {"whatsapp": "granted"}),
        ("0c1d-uuid", True, {"email": "granted"}),
        ("terms_and_conditions", True, {}),
        ("privacy_policy", True, {}),
    ],
)
def test_consent_comes_from_a_legal_question(ref: str, value: bool, consent: dict[str, str]) -> None:
    assert lead(EMAIL, answer("boolean", value, ref, "legal")).person.consent == consent


@pytest.mark.parametrize(
    ("title", "consent"),
    [
        ("May we email you?", {"email": "granted"}),
        ("I agree to the privacy policy and to marketing by e-mail", {"email": "granted"}),
        ("I accept the terms and conditions", {}),
        ("I have read the *Privacy Policy*", {}),
    ],
)
def test_a_legal_question_about_terms_alone_allows_no_mail(title: str, consent: dict[str, str]) -> None:
    body = body_of(KNOWN)
    legal = answer("boolean", True, "0c1d-uuid", "legal")
    questions = [{"id": "id_0c1d-uuid", "ref": "0c1d-uuid", "type": "legal", "title": title}]
    body["form_response"] |= {"answers": [EMAIL, legal], "definition": {"fields": questions}}
    fact = fact_of_body(KNOWN, body)
    assert isinstance(fact, LeadFact)
    assert fact.person.consent == consent
    assert ("0c1d-uuid" in fact.person.attributes) is not bool(consent)


def test_a_question_of_an_old_form_without_a_ref_is_named_by_its_label() -> None:
    body = body_of(KNOWN)
    told = [
        {"type": "text", "text": "Blue", "field": {"id": "1", "type": "short_text"}},
        {"type": "text", "text": "Nora", "field": {"id": "2", "type": "short_text"}},
        {"type": "number", "number": 3, "field": {"id": "3", "type": "number"}},
    ]
    questions = [{"id": "1", "title": "Favourite colour?"}, {"id": "2", "title": "First name"}]
    body["form_response"] |= {"answers": [EMAIL, *told], "definition": {"fields": questions}}
    fact = fact_of_body(KNOWN, body)
    assert isinstance(fact, LeadFact)
    assert (fact.person.first_name, fact.person.attributes) == ("Nora", {"Favourite colour?": "Blue", "3": 3})


def test_parts_of_typeforms_contact_question_are_what_they_are_without_a_speaking_ref() -> None:
    body = body_of(KNOWN)
    parts = [{"id": f"id_{n}-uuid", "ref": f"{n}-uuid", "subfield_key": n} for n in ("first_name", "company")]
    questions = [{"id": "c", "ref": "c-uuid", "type": "contact_info", "properties": {"fields": parts}}]
    answers = [EMAIL, answer("text", "Nora", "first_name-uuid"), answer("text", "Acme", "company-uuid")]
    body["form_response"] |= {"answers": answers, "definition": {"fields": questions}}
    fact = fact_of_body(KNOWN, body)
    assert isinstance(fact, LeadFact)
    assert (fact.person.first_name, fact.person.company, fact.person.attributes) == ("Nora", "Acme", {})


def test_consent_never_comes_from_elsewhere() -> None:
    assert lead(EMAIL).person.consent == {}
    assert lead(EMAIL, answer("boolean", True, "do_you_like_email", "yes_no")).person.consent == {}
    assert lead(EMAIL, answer("text", "yes", "consent_email")).person.consent == {}


@pytest.mark.parametrize(
    "names", [("utm_source", "utm_medium"), ("UTM_SOURCE", "Utm_Medium"), ("utmSource", "utmMedium")]
)
def test_utm_parameters_are_hidden_fields_in_any_spelling(names: tuple[str, str]) -> None:
    touch = lead(EMAIL, hidden={names[0]: "google", names[1]: "cpc", "gclid": "Cj0", "utm_id": ""}).touch
    assert touch is not None
    assert (touch.utm, touch.click_ids) == ({"source": "google", "medium": "cpc"}, {"gclid": "Cj0"})


def test_other_hidden_fields_tell_about_the_person() -> None:
    person = lead(EMAIL, hidden={"anonymous_id": "anon_1", "email": "old@acme.com", "plan": "pro", "empty": ""}).person
    assert (person.anonymous_id, person.email, person.attributes) == ("anon_1", "nora@acme.com", {"plan": "pro"})


def test_a_phone_without_country_code_is_from_the_country_of_the_source() -> None:
    local = answer("text", "030 123456", "phone")
    assert lead(EMAIL, local, phone_country="DE").person.phone == "+4930123456"
    unsure = lead(EMAIL, local).person
    assert (unsure.phone, unsure.attributes) == (None, {"phone": "030 123456"})


def test_an_address_that_is_none_is_kept_as_an_attribute() -> None:
    told = lead(answer("text", "ask my boss", "email"), answer("phone_number", "+14155550140", "phone")).person
    assert (told.email, told.attributes) == (None, {"email": "ask my boss"})


def test_a_submission_is_a_touch_of_the_forms_type() -> None:
    touch = lead(EMAIL).touch
    assert touch is not None
    assert (touch.type, touch.touch_id) == ("form_submitted", KNOWN.expected["external_id"])
    demo = lead(EMAIL, touch_type="demo_requested", channel="email").touch
    assert demo is not None
    assert (demo.type, demo.channel) == ("demo_requested", "email")


def test_an_answer_from_nobody_makes_no_lead() -> None:
    body = body_of(KNOWN)
    body["form_response"]["answers"] = [answer("number", 9, "nps")]
    fact = fact_of_body(KNOWN, body)
    assert isinstance(fact, Ignored)
    assert (fact.reason, fact.idempotency_key) == ("no_identifier", KNOWN.expected["idempotency_key"])


def test_a_partial_response_is_ignored() -> None:
    fact = fact_of_body(KNOWN, body_of(KNOWN) | {"event_type": "form_response_partial"})
    assert isinstance(fact, Ignored)
    assert fact.reason == "event_type"


def test_a_response_sent_again_from_the_interface_is_the_same_delivery() -> None:
    again = fact_of_body(KNOWN, body_of(KNOWN) | {"event_id": "01ANOTHER"})
    assert again.idempotency_key == KNOWN.expected["idempotency_key"]


def test_without_a_time_the_time_of_receipt_counts_and_says_so() -> None:
    body = body_of(KNOWN)
    del body["form_response"]["submitted_at"]
    fact = fact_of_body(KNOWN, body)
    assert (fact.occurred_at, fact.timed_by) == (KNOWN.now, "receipt")


@pytest.mark.parametrize(
    "change",
    [
        {"token": None},
        {"answers": "none"},
        {"answers": [1]},
        {"submitted_at": "yesterday"},
        {"submitted_at": "2099-01-01T00:00:00Z"},
        {"submitted_at": "0001-01-01T00:00:00+23:00"},
    ],
)
def test_a_response_that_is_none_cannot_be_mapped(change: dict[str, Any]) -> None:
    body = body_of(KNOWN)
    body["form_response"] |= change
    with pytest.raises(Unmappable):
        fact_of_body(KNOWN, body)
