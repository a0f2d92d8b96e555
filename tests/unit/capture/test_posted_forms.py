"""What forms tell that come in a form of their own: Elementor, Jotform, Unbounce."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    LeadFact,
    MappingSettings,
    Unmappable,
)
from services.capture.adapters.told import told
from tests.samples.signed import sample
from tests.unit.capture.forms import form, lead
from tests.unit.capture.test_odd_requests import JSON
from tests.unit.capture.told import fact_of

pytestmark = pytest.mark.slow


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


def test_a_signature_that_jotform_sends_as_an_image_is_no_attribute() -> None:
    raw = {"q4_email": "a@acme.com", "q5_signature": "data:image/png;base64,iVBORw0KGgo", "q6_note": "data: none"}
    assert jotform(raw).person.attributes == {"note": "data: none"}


def test_files_of_jotform_are_known_by_their_addresses() -> None:
    """As captured elsewhere: the question is numbered in `temp_upload` alone."""
    raw = {
        "q4_email": "a@acme.com",
        "temp_upload": {"q22_fileUpload": ["brief.pdf#jotformfs-1"]},
        "file_server": "jotformfs-1",
        "fileUpload": ["https://www.jotform.com/uploads/a/1/2/brief.pdf"],
        "path": "/submit/1",
    }
    assert jotform(raw).person.attributes == {"fileUpload": ["https://www.jotform.com/uploads/a/1/2/brief.pdf"]}


def test_jotform_without_readable_answers_cannot_be_mapped() -> None:
    known = sample("jotform")
    for fields in ({"submissionID": "1"}, {"submissionID": "1", "rawRequest": "{"}, {"rawRequest": "[]"}):
        with pytest.raises(Unmappable):
            fact_of(known, form(known, fields))


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


NAMES = st.sampled_from(
    ["q3_name", "q4_email", "q5_phoneNumber", "q6_consent", "utm_source", "email", "name", "page_url"]
)


@pytest.mark.parametrize(("kind", "place"), [("jotform", "rawRequest"), ("unbounce", "data.json")])
@settings(max_examples=40, deadline=None)
@given(answers=st.dictionaries(NAMES | st.text(max_size=8), JSON, max_size=5))
def test_odd_answers_are_mapped_or_not(kind: str, place: str, answers: dict[str, Any]) -> None:
    known, adapter = sample(kind), adapters()[kind]
    with suppress(Unmappable):
        for fact in adapter.facts(form(known, {place: json.dumps(answers)}), known.settings):
            orjson.dumps(told(fact), default=dict)


@settings(max_examples=40, deadline=None)
@given(fields=st.dictionaries(st.text("fiedsmta[]", max_size=20), st.text(max_size=8), max_size=5))
def test_odd_brackets_are_mapped_or_not(fields: dict[str, str]) -> None:
    known, adapter = sample("elementor"), adapters()["elementor"]
    with suppress(Unmappable):
        for fact in adapter.facts(form(known, advanced(email=("email", "", "a@acme.com")) | fields)):
            orjson.dumps(told(fact), default=dict)
