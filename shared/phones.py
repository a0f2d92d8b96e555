"""Phone numbers in E.164, the one spelling under which two sources mean the same person."""

from functools import lru_cache
from typing import Annotated

import phonenumbers
from pydantic import AfterValidator, Field

LONGEST = 40  # with blanks, brackets and an extension; past that it is no number somebody typed


@lru_cache(maxsize=10_000)
def parse_phone(text: str, country: str | None = None) -> str | None:
    """The number in E.164, or None if it is none. `country` (ISO 3166) is where one without a country code is from."""
    if len(text) > LONGEST:
        return None
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return None
    # Possible, not valid: numbering plans change faster than the library, and documentation uses unassigned numbers.
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_assigned(phone: str) -> bool:
    """Whether an E.164 number is of a block that somebody has numbers from, as far as the library knows."""
    return phonenumbers.is_valid_number(phonenumbers.parse(phone))


def country_of(phone: str) -> str | None:
    """The ISO 3166 code of the country an E.164 number is from; None where a number has none (satellite, freephone)."""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(phone))
    except phonenumbers.NumberParseException:
        return None
    return None if region in (None, "001", "ZZ") else str(region)


def known_country(country: str) -> bool:
    """Whether numbers can be read as local ones of this country."""
    return country in phonenumbers.SUPPORTED_REGIONS


def _international(text: str) -> str:
    phone = parse_phone(text)
    if phone is None:
        raise ValueError("not a phone number with its country code, such as +14155550140")
    return phone


Phone = Annotated[str, AfterValidator(_international), Field(examples=["+14155550140"])]
