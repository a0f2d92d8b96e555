"""What a message tells by the default mapping."""

from typing import Any

import pytest

from services.capture.adapters.adapter import Ignored, LeadFact, MappingSettings, Unmappable
from tests.samples.signed import sample
from tests.unit.capture.told import fact_of, fact_of_body

KNOWN = sample("standard_webhooks")


def lead(body: dict[str, Any], mapping: dict[str, Any] | None = None, **defaults: str) -> LeadFact:
    fact = fact_of_body(KNOWN, body, MappingSettings.of(mapping or {}, defaults))
    assert isinstance(fact, LeadFact)
    return fact


def test_the_record_names_the_person_at_the_source() -> None:
    fact = lead({"type": "contact.created", "data": {"id": 42, "email": "a@acme.com"}})
    assert (fact.external_id, fact.person.external_id, fact.person.attributes) == ("42", "42", {})
    named = lead({"type": "contact.created", "data": {"id": 42, "external_id": "crm-7", "email": "a@acme.com"}})
    assert (named.external_id, named.person.external_id) == ("42", "crm-7")


def test_the_type_of_the_message_is_that_of_the_touch() -> None:
    touch = lead({"type": "contact.created", "data": {"email": "a@acme.com"}}).touch
    assert touch is not None
    assert (touch.type, touch.touch_id) == ("contact_created", "msg_0cf93deb")
    set_by_owner = lead({"data": {"email": "a@acme.com"}}, touch_type="webinar_registered", channel="referral").touch
    assert set_by_owner is not None
    assert (set_by_owner.type, set_by_owner.channel) == ("webinar_registered", "referral")


def test_data_has_the_fields_of_a_lead_and_the_rest_are_attributes() -> None:
    data = {
        "email": "a@acme.com",
        "country": "de",
        "employees": "37",
        "consent": {"email": "granted", "sms": False, "fax": "granted", "whatsapp": "maybe"},
        "attributes": {"plan": "pro"},
        "shoe": 43,
        "page_url": "https://acme.com/a?utm_source=news&gclid=1",
    }
    fact = lead({"data": data})
    assert (fact.person.country, fact.person.employees) == ("DE", 37)
    assert fact.person.consent == {"email": "granted", "sms": "denied"}
    assert fact.person.attributes == {"plan": "pro", "shoe": 43}
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "news"}, {"gclid": "1"})


def test_the_mapping_of_the_owner_goes_before_the_default() -> None:
    body = {"type": "x", "data": {"email": "a@acme.com", "who": {"mail": "b@acme.com"}, "when": 1772625870}}
    fact = lead(body, {"email": "data.who.mail", "occurred_at": "data.when", "event": "type"})
    assert (fact.person.email, fact.event) == ("b@acme.com", "x")
    assert fact.occurred_at.isoformat() == "2026-03-04T12:04:30+00:00"


@pytest.mark.parametrize("data", [None, [], {"id": None}, {"first_name": "Nora"}])
def test_a_message_about_nobody_makes_no_lead(data: Any) -> None:
    fact = fact_of_body(KNOWN, {"type": "contact.created", "data": data})
    assert isinstance(fact, Ignored)
    assert fact.reason == "no_identifier"


@pytest.mark.parametrize("body", [b"[]", b"null", b"email=a%40acme.com", b'{"data": {}, "data": {}}'])
def test_what_is_no_object_cannot_be_mapped(body: bytes) -> None:
    with pytest.raises(Unmappable):
        fact_of(KNOWN, KNOWN.with_body(body))


MESSAGE = {"type": "contact.created", "data": {"email": "a@acme.com"}}


@pytest.mark.parametrize(
    "said",
    [
        {"type": "ping"},
        {"type": "Test"},
        {"is_test": True},
        {"test": "yes"},
        {"data": {"email": "a@acme.com", "is_test": 1}},
    ],
)
def test_a_try_creates_nothing(said: dict[str, Any]) -> None:
    fact = fact_of_body(KNOWN, MESSAGE | said)
    assert isinstance(fact, Ignored)
    assert fact.reason == "test"
    assert lead(MESSAGE | {"is_test": False}).person.email == "a@acme.com"
