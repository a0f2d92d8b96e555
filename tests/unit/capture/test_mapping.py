"""A mapping is checked when it is saved, and lies over the facts of every kind."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters.adapter import (
    ConversionFact,
    Headers,
    HookRequest,
    LeadFact,
    Person,
    Reading,
    RefundFact,
    TouchFact,
    Unmappable,
)
from services.capture.adapters.bodies import read_json
from services.capture.mapping import MappingSettings, overlay, validate_mapping
from shared.errors import Invalid
from tests.samples.signed import KINDS, sample
from tests.unit.capture.told import fact_of

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
REQUEST = HookRequest("POST", "https://x.example/h?form=demo&form=2", Headers.of({"X-Shop": "acme"}), b"", NOW)


def mapped(mapping: dict[str, Any], body: Any, answers: dict[str, Any] | None = None, **defaults: str) -> LeadFact:
    base = LeadFact(idempotency_key="k", occurred_at=NOW, person=Person(email="a@acme.com", first_name="Ann"))
    (fact,) = overlay(Reading((base,), answers or {}, body), REQUEST, MappingSettings.of(mapping, defaults))
    assert isinstance(fact, LeadFact)
    return fact


@pytest.mark.parametrize(
    ("place", "body", "answers", "found"),
    [
        ("1.3", {"1": {"3": "path"}}, {"1.3": "as written"}, "as written"),
        ("1.3", {"1": {"3": "path"}, "1.3": "as written"}, {}, "as written"),
        ("1.3", {"1": {"3": "path"}}, {}, "path"),
        ("q5_name.full", {}, {"q5_name": {"full": "in an answer"}}, "in an answer"),
        ("a.0.b", {"a": [{"b": "in a list"}]}, {}, "in a list"),
        ("a.1", {"a": ["x"]}, {}, None),
        ("a.b.c", {"a": "x"}, {}, None),
        ("", {}, {}, None),
        ({"cel": "body.a + '-' + query.form + '-' + headers['x-shop']"}, {"a": "b"}, {}, "b-demo-acme"),
        ({"cel": "body.nothing.here"}, {"a": "b"}, {}, None),
        ({"cel": "1 / 0"}, {}, {}, None),
        ({"cel": "body.n * 2"}, {"n": 4}, {}, "8"),
        ({"cel": "body.a == null ? 'none' : 'some'"}, {"a": None}, {}, "none"),
    ],
)
def test_a_place_is_a_key_as_written_then_a_path_or_an_expression(
    place: Any, body: Any, answers: dict[str, Any], found: str | None
) -> None:
    mapping = {"company": place} if place else {}
    assert mapped(mapping, body, answers).person.company == found


def test_what_is_not_there_leaves_the_field_as_it_was() -> None:
    person = mapped({"first_name": "nothing", "email": "blank", "phone": "nil"}, {"blank": "", "nil": None}).person
    assert (person.first_name, person.email, person.phone) == ("Ann", "a@acme.com", None)


def test_values_are_brought_to_their_field() -> None:
    body = {"p": 15550000000, "n": "37", "c": "de", "w": "1,000", "t": ["CTO", "Founder"], "o": {"x": [1.5, 10**30]}}
    person = mapped(
        {
            "phone": "p",
            "employees": "n",
            "country": "c",
            "annual_revenue": "w",
            "title": "t",
            "attributes.o": "o",
            "region": "o",
        },
        body,
        phone_country="US",
    ).person
    assert (person.phone, person.employees, person.country) == ("+15550000000", 37, "DE")
    assert person.title == "CTO, Founder"
    assert person.attributes["annual_revenue"] == "1,000"
    assert person.attributes["o"] == {"x": [1.5, str(10**30)]}
    assert person.region is None


@pytest.mark.parametrize(
    ("value", "employees"), [(12, 12), ("12", 12), (12.0, 12), ("12.00", 12), (12.5, None), ("a dozen", None)]
)
def test_a_whole_number_is_one_however_it_is_written(value: Any, employees: int | None) -> None:
    person = mapped({"employees": "n"}, read_json(json.dumps({"n": value}).encode())).person
    assert (person.employees, "employees" in person.attributes) == (employees, employees is None)


def test_a_phone_number_that_lost_its_plus_is_found() -> None:
    assert mapped({"phone": "p"}, {"p": 14155550140}).person.phone == "+14155550140"


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        (True, "granted"),
        ("1", "granted"),
        ("Yes", "granted"),
        ("opt-in", "granted"),
        (False, "denied"),
        (0, "denied"),
        ("no", "denied"),
    ],
)
def test_a_box_is_ticked_or_not(value: Any, consent: str) -> None:
    assert mapped({"consent.email": "box"}, {"box": value}).person.consent == {"email": consent}


@pytest.mark.parametrize("value", [None, "", "perhaps", "I agree to the terms", [], {}, 2])
def test_what_is_not_clearly_yes_or_no_is_no_consent(value: Any) -> None:
    assert mapped({"consent.email": "box"}, {"box": value}).person.consent == {}


@pytest.mark.parametrize(
    "value", ["soon", "Wed", "March", "04/03/2026", "2026-03-04T11:00:00 CET", "UTC", 7, -1, True, []]
)
def test_what_is_no_time_cannot_be_mapped(value: Any) -> None:
    with pytest.raises(Unmappable):
        mapped({"occurred_at": "t"}, {"t": value})


@pytest.mark.parametrize("fact", [ConversionFact, RefundFact])
def test_money_beyond_what_the_api_takes_cannot_be_mapped(fact: Any) -> None:
    told = {"idempotency_key": "k", "occurred_at": NOW, "external_id": "o", "currency": "EUR"}
    more = {"refund_id": "r"} if fact is RefundFact else {"person": Person(email="a@acme.com")}
    for amount in (10**15, 10**15 + 1):
        reading = Reading((fact(amount_minor=amount, **told, **more),), {}, {})
        if amount == 10**15:
            assert overlay(reading, REQUEST, MappingSettings())
        else:
            with pytest.raises(Unmappable):
                overlay(reading, REQUEST, MappingSettings())


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2026-03-04T11:00:00Z", datetime(2026, 3, 4, 11, tzinfo=UTC)),
        ("2026-03-04T06:28:30.290670248-05:00", datetime(2026, 3, 4, 11, 28, 30, 290670, tzinfo=UTC)),
        ("2026-03-04 10:26:30", datetime(2026, 3, 4, 10, 26, 30, tzinfo=UTC)),
        (1772625870, datetime(2026, 3, 4, 12, 4, 30, tzinfo=UTC)),
        ("1772625870344", datetime(2026, 3, 4, 12, 4, 30, 344000, tzinfo=UTC)),
        ("2026-03-04t11:00:00z", datetime(2026, 3, 4, 11, tzinfo=UTC)),
        ("2026-03-04 11:00:00 UTC", datetime(2026, 3, 4, 11, tzinfo=UTC)),
        ("2026-03-04 06:00:00 -0500", datetime(2026, 3, 4, 11, tzinfo=UTC)),
        ("Wed, 04 Mar 2026 06:00:00 -0500", datetime(2026, 3, 4, 11, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_every_usual_spelling(value: Any, at: datetime) -> None:
    fact = mapped({"occurred_at": "t"}, {"t": value})
    assert (fact.occurred_at, fact.timed_by) == (at, "source")


def test_a_mapped_touch_is_made_where_there_was_none() -> None:
    fact = mapped(
        {"touch.type": "k", "touch.source": "s", "touch.url": "u", "touch.properties.x": "x"},
        {
            "k": "Webinar Registered",
            "s": "partner",
            "u": "https://acme.com/?utm_source=other",
            "x": 3,
        },
    )
    assert fact.touch is not None
    assert (fact.touch.type, fact.touch.touch_id) == ("webinar_registered", "k")
    assert (fact.touch.utm, fact.touch.properties) == ({"source": "partner"}, {"x": 3})


VISITS = [kind for kind in KINDS if sample(kind).expected["kind"] in ("lead", "touch", "conversion")]


@pytest.mark.parametrize("kind", [kind for kind in VISITS if kind != "generic"])
def test_an_override_works_for_every_kind(kind: str) -> None:
    known = sample(kind)
    mapping = {
        **known.told.get("mapping", {}),
        "company": {"cel": "'Acme'"},
        "attributes.from": {"cel": "headers['content-type']"},
        "event": {"cel": "'seen'"},
    }
    fact = fact_of(known, known.request, MappingSettings.of(mapping, {"channel": "referral"}))
    assert isinstance(fact, LeadFact | TouchFact | ConversionFact)
    assert (fact.person.company, fact.person.email, fact.event) == ("Acme", known.expected["email"], "seen")
    assert fact.person.attributes["from"] == known.request.headers.get("content-type")
    if fact.touch is not None:
        assert fact.touch.channel == known.expected.get("channel_hint", "referral")


@pytest.mark.parametrize(
    ("mapping", "defaults", "pointer", "column"),
    [
        ({"shoe": "a"}, {}, "/mapping/shoe", None),
        ({"a/b~": "a"}, {}, "/mapping/a~1b~0", None),
        ({"consent.fax": "a"}, {}, "/mapping/consent.fax", None),
        ({"consent": "a"}, {}, "/mapping/consent", None),
        ({"touch.shoe": "a"}, {}, "/mapping/touch.shoe", None),
        ({"attributes.": "a"}, {}, "/mapping/attributes.", None),
        ({"email": ""}, {}, "/mapping/email", None),
        ({"email": 1}, {}, "/mapping/email", None),
        ({"email": {"cel": 1}}, {}, "/mapping/email", None),
        ({"email": {"cel": "body.a", "x": 1}}, {}, "/mapping/email", None),
        ({"email": {"cel": "body.a +"}}, {}, "/mapping/email/cel", 9),
        ({"email": {"cel": "lead.email"}}, {}, "/mapping/email/cel", 1),
        ({"email": {"cel": "query.a + nope(1)"}}, {}, "/mapping/email/cel", 11),
        ([], {}, "/mapping", None),
        ({}, [], "/defaults", None),
        ({}, {"shoe": "a"}, "/defaults/shoe", None),
        ({}, {"phone_country": "Germany"}, "/defaults/phone_country", None),
        ({}, {"channel": "Paid Social"}, "/defaults/channel", None),
        ({}, {"touch_type": 7}, "/defaults/touch_type", None),
    ],
)
def test_a_fault_is_pointed_at_when_the_source_is_saved(
    mapping: Any, defaults: Any, pointer: str, column: int | None
) -> None:
    (fault,) = validate_mapping(mapping, defaults)
    assert (fault.pointer, fault.column) == (pointer, column)
    with pytest.raises(Invalid) as refused:
        MappingSettings.of(mapping, defaults)
    assert refused.value.errors == (fault,)


def test_a_mapping_without_faults_has_none() -> None:
    mapping = {"name": "n", "email": {"cel": "body.a"}, "touch.gclid": "g", "consent.sms": "c", "attributes.a.b": "x"}
    assert validate_mapping(mapping, {"phone_country": "DE", "channel": "email", "touch_type": "x_y"}) == []


def test_the_settings_of_a_source_are_made_once() -> None:
    mapping = {"email": {"cel": "body.a"}}
    assert MappingSettings.of(mapping, {}) is MappingSettings.of(dict(mapping), {})
