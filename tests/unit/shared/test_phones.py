"""One spelling per phone number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.phones import Phone, country_of, known_country, parse_phone


@pytest.mark.parametrize(
    ("text", "country", "phone"),
    [
        ("+14155550140", None, "+14155550140"),
        ("+1 (415) 555-0140", None, "+14155550140"),
        ("(415) 555-0143", "US", "+14155550143"),
        ("030 123456", "DE", "+4930123456"),
        ("00 44 20 7946 0018", "DE", "+442079460018"),
        ("tel:+49-30-123456", None, "+4930123456"),
        ("15550000000", "US", "+15550000000"),
    ],
)
def test_spellings_of_a_number_are_one(text: str, country: str | None, phone: str) -> None:
    assert parse_phone(text, country) == phone


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("415 555 0140", None),
        ("call me", "US"),
        ("", "US"),
        ("12", "US"),
        ("+999123", None),
        ("1" * 41, "US"),
        ("1", "QQ"),
    ],
)
def test_what_is_no_number_is_none(text: str, country: str | None) -> None:
    assert parse_phone(text, country) is None


@given(st.text(), st.sampled_from([None, "US", "DE", "QQ", ""]))
def test_no_text_breaks_it_and_a_result_stands(text: str, country: str | None) -> None:
    phone = parse_phone(text, country)
    assert phone is None or parse_phone(phone) == phone


def test_a_number_tells_its_country() -> None:
    assert country_of("+4930123456") == "DE"
    assert country_of("+442079460018") == "GB"
    assert country_of("+80012345678") is None
    assert country_of("nonsense") is None


def test_countries_are_known_by_their_iso_code() -> None:
    assert known_country("DE")
    assert not known_country("de")
    assert not known_country("Germany")


def test_the_api_type_wants_a_country_code() -> None:
    phones: TypeAdapter[str] = TypeAdapter(Phone)
    assert phones.validate_python("+49 30 123456") == "+4930123456"
    with pytest.raises(ValidationError, match="country code"):
        phones.validate_python("030 123456")
