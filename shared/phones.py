"""Phone numbers in E.164, the one spelling under which two sources mean the same person."""

import re
from functools import cache, lru_cache
from typing import Annotated

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumber
from pydantic import AfterValidator, Field

LONGEST = 40  # with blanks, brackets and an extension; past that it is no number somebody typed
_E164 = re.compile(r"\+(?P<digits>[1-9][0-9]{6,14})")
_LONGEST_CODE = 3


@lru_cache(maxsize=10_000)
def parse_phone(text: str, country: str | None = None) -> str | None:
    """The number in E.164, or None if it is none. `country` (ISO 3166) is where one without a country code is from."""
    if len(text) > LONGEST:
        return None
    if _plain(text) is not None:
        return text
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
        region = phonenumbers.region_code_for_number(parts_of(phone))
    except phonenumbers.NumberParseException:
        return None
    return None if region in (None, "001", "ZZ") else str(region)


def parts_of(phone: str) -> PhoneNumber:
    """An E.164 number, taken apart. Raises phonenumbers.NumberParseException."""
    return _plain(phone) or phonenumbers.parse(phone)


@lru_cache(maxsize=1_000)
def _plain(text: str) -> PhoneNumber | None:
    """What nearly every number in E.164 is, ten times faster than the whole grammar; None of all others.

    It has a length that is possible in its country, and does not begin with what is only dialled within it.
    """
    written = _E164.fullmatch(text)
    if written is None:
        return None
    digits = written["digits"]
    for length in range(1, _LONGEST_CODE + 1):
        plan = _plan(int(digits[:length]))
        if plan is not None:
            lengths, dialled = plan
            rest = digits[length:]
            if len(rest) not in lengths or rest[0] == "0" or (dialled and dialled.match(rest)):
                return None
            return PhoneNumber(country_code=int(digits[:length]), national_number=int(rest))
    return None


@cache
def _plan(code: int) -> tuple[frozenset[int], re.Pattern[str] | None] | None:
    """How long the numbers behind a country code are, and what is dialled before them at home; None if it is none."""
    region = phonenumbers.region_code_for_country_code(code)
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    if metadata is None or metadata.general_desc is None:
        return None
    dialled = metadata.national_prefix_for_parsing
    return frozenset(metadata.general_desc.possible_length), re.compile(dialled) if dialled else None


def known_country(country: str) -> bool:
    """Whether numbers can be read as local ones of this country."""
    return country in phonenumbers.SUPPORTED_REGIONS


def _international(text: str) -> str:
    phone = parse_phone(text)
    if phone is None:
        raise ValueError("not a phone number with its country code, such as +14155550140")
    return phone


Phone = Annotated[str, AfterValidator(_international), Field(examples=["+14155550140"])]
