"""One spelling per phone number."""

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.phones import Phone, country_of, known_country, parse_phone, parts_of


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


@given(
    st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)),
    st.from_regex(r"[0-9]{3,13}", fullmatch=True),
)
@example(44, "07946001800")
@example(39, "0612345678")
@example(54, "91123456789")
def test_what_is_read_without_the_grammar_is_read_as_by_it(code: int, digits: str) -> None:
    text = f"+{code}{digits}"
    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        assert parse_phone(text) is None
        return
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    assert parse_phone(text) == (written if phonenumbers.is_possible_number(number) else None)
    if written == text:
        assert parts_of(text) == number


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
