"""What follows from what is known of a person, without asking anybody: pure, and never kept.

It is worked out each time, so it can never disagree with what it follows from, and what was told stays as it was told.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import phonenumbers
from phonenumbers import timezone

from services.capture.enrichment.countries import country_code
from services.capture.enrichment.names import cased
from services.capture.enrichment.titles import department_of, seniority_of
from shared.emails import company_domain, domain_of, is_disposable, is_free
from shared.phones import country_of

ATTRIBUTE = "attributes."
ATTRIBUTES = ("time_zone", "time_zones", "free_mail", "disposable_mail", "company_domain", "seniority", "department")
MOST_ZONES = 12  # a number of half a continent says nothing about where somebody is
_CODE_LENGTH = 2


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that follows from the field `of`; one that `replaces` is the same, written as it should be."""

    field: str
    value: Any
    by: str
    of: str
    confidence: float
    replaces: bool = False


def derive(known: Mapping[str, Any], off: AbstractSet[str] = frozenset()) -> list[Derived]:
    """What follows from these values, by the built-ins that are not switched off."""
    found: list[Derived] = []
    for name, built_in in _BUILT_IN.items():
        if name not in off:
            found += built_in(known)
    return found


def _of_phone(known: Mapping[str, Any]) -> Iterator[Derived]:
    phone = known.get("phone")
    if not isinstance(phone, str):
        return
    country, zones = _country_and_zones(phone)
    if country is not None and "country" not in known:
        yield Derived("country", country, "phone", "phone", 0.7)
    if zones:
        yield Derived(f"{ATTRIBUTE}time_zones", list(zones), "phone", "phone", 0.7)
    if len(zones) == 1:
        yield Derived(f"{ATTRIBUTE}time_zone", zones[0], "phone", "phone", 0.7)


@lru_cache(maxsize=10_000)
def _country_and_zones(phone: str) -> tuple[str | None, tuple[str, ...]]:
    country = country_of(phone)
    if country is None:
        return None, ()
    zones = tuple(zone for zone in timezone.time_zones_for_number(phonenumbers.parse(phone)) if zone != "Etc/Unknown")
    return country, zones if len(zones) <= MOST_ZONES else ()


def _of_email(known: Mapping[str, Any]) -> Sequence[Derived]:
    email = known.get("email")
    return _of_domain(domain_of(email)) if isinstance(email, str) else ()


@lru_cache(maxsize=10_000)
def _of_domain(domain: str) -> Sequence[Derived]:
    address = f"@{domain}"
    company = company_domain(address)
    return (
        Derived(f"{ATTRIBUTE}free_mail", is_free(address), "email", "email", 1.0),
        Derived(f"{ATTRIBUTE}disposable_mail", is_disposable(address), "email", "email", 1.0),
        *([Derived(f"{ATTRIBUTE}company_domain", company, "email", "email", 0.9)] if company else []),
    )


def _of_names(known: Mapping[str, Any]) -> Iterator[Derived]:
    for field in ("first_name", "last_name"):
        written = known.get(field)
        if isinstance(written, str) and (better := cased(written, family=field == "last_name")) != written:
            yield Derived(field, better, "names", field, 0.9, replaces=True)


def _of_country(known: Mapping[str, Any]) -> Iterator[Derived]:
    written = known.get("country")
    if not isinstance(written, str) or (len(written) == _CODE_LENGTH and written.isupper()):
        return
    if (code := country_code(written)) is not None:
        yield Derived("country", code, "countries", "country", 0.95, replaces=True)


def _of_title(known: Mapping[str, Any]) -> Iterator[Derived]:
    title = known.get("title")
    if not isinstance(title, str):
        return
    for field, value in (("seniority", seniority_of(title)), ("department", department_of(title))):
        if value is not None:
            yield Derived(f"{ATTRIBUTE}{field}", value, "titles", "title", 0.7)


_BUILT_IN: Mapping[str, Callable[[Mapping[str, Any]], Iterable[Derived]]] = {
    "phone": _of_phone,
    "email": _of_email,
    "names": _of_names,
    "countries": _of_country,
    "titles": _of_title,
}
BUILT_IN = tuple(_BUILT_IN)
