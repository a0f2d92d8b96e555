"""What proves senders that sign nothing, and what they tell under names that an owner typed."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    LeadFact,
    MappingSettings,
    Unmappable,
)
from tests.samples.signed import sample
from tests.unit.capture.forms import form, lead, reason, refused
from tests.unit.capture.told import body_of, fact_of, fact_of_body

BEARER = ["gravityforms", "wpforms", "fillout", "clay", "zapier", "make"]
IN_ADDRESS = ["contact_form_7", "elementor", "jotform", "unbounce"]
OWNERS_NAMES = ["zapier", "make", "clay", "wpforms", "contact_form_7", "gravityforms"]


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


@pytest.mark.parametrize(
    "written", ["s3cret+/=%20x", "s3cret%2B/=%20x", "s3cret%2b%2F%3D%20x", "s3cret+/%3D%20x&token=y"]
)
def test_a_plus_in_the_address_may_be_written_as_it_is(written: str) -> None:
    known = sample("contact_form_7")
    request = replace(known.request, url=f"https://x.example/h?a=b&token={written}")
    adapters()[known.kind].verify(request, ["s3cret+/= x"], known.now)
    refused(known, request, ["s3cret+/=x"])
    assert "s3cret" not in adapters()[known.kind].stored(request, ["s3cret+/= x"]).url


def test_a_delivery_has_the_same_name_before_and_after_it_is_stored() -> None:
    for kind in BEARER + IN_ADDRESS:
        known, adapter = sample(kind), adapters()[kind]
        stored = adapter.stored(known.request, [known.secret])
        assert adapter.delivery_id(stored) == adapter.delivery_id(known.request)


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


@pytest.mark.parametrize("kind", ["zapier", "make", "clay"])
def test_the_id_of_the_body_names_the_delivery_whatever_it_looks_like(kind: str) -> None:
    known = sample(kind)
    for name in ("Zeile 17 \u00fc", "rec/1:2?x=%20", "\u884c-17"):
        assert lead(known, body_of(known) | {"id": f" {name} "}).idempotency_key == f"{kind}:{name}"
    for name in ("a\tb", "\u200b", "x" * 201):
        assert lead(known, body_of(known) | {"id": name}).idempotency_key != f"{kind}:{name}"


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


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        ("I agree to receive email.", {"email": "granted"}),
        ("Yes, please", {"email": "granted"}),
        ("Yes, but no calls", {}),
        ("I do not agree", {}),
        ("I want to opt out", {}),
        ("Yes, unsubscribe me", {}),
        ("Maybe", {}),
    ],
)
def test_a_box_that_the_owner_maps_to_consent_says_what_it_says(value: str, consent: dict[str, str]) -> None:
    known = sample("gravityforms")
    settings = MappingSettings.of({"email": "2", "consent.email": "6.1"}, {})
    assert lead(known, body_of(known) | {"6.1": value}, settings).person.consent == consent


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
