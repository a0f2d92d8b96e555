"""What follows from what is known of a person, without asking anybody: pure, and never kept.

It is worked out each time, so it can never disagree with what it follows from, and what was told stays as it was told.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from phonenumbers import timezone

from services.capture.enrichment.countries import country_code
from services.capture.enrichment.names import cased
from services.capture.enrichment.titles import department_of, seniority_of
from shared.emails import company_domain, is_disposable, is_free
from shared.phones import country_of, parts_of

ATTRIBUTE = "attributes."
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
    for name, built_ins in _BUILT_IN.items():
        if name not in off:
            for built_in in built_ins:
                found += built_in(known)
    return found


def read_lists() -> None:
    """Read public suffixes, names of countries and plans of phone numbers, which are read once: else a lead waits."""
    derive({"email": "nora@example.com", "phone": "+12125550123", "country": "germany", "title": "head of sales"})


def _of(field: str, follows: Callable[[str], Sequence[Derived]]) -> Callable[[Mapping[str, Any]], Sequence[Derived]]:
    """What follows from one field, if it is told; kept by its value, since every call about a lead asks."""
    kept = lru_cache(maxsize=10_000)(follows)

    def derived(known: Mapping[str, Any]) -> Sequence[Derived]:
        value = known.get(field)
        return kept(value) if isinstance(value, str) else ()

    return derived


def _of_phone(phone: str) -> Sequence[Derived]:
    country = country_of(phone)
    if country is None:
        return ()
    found = timezone.time_zones_for_number(parts_of(phone))
    zones = [zone for zone in found if zone != "Etc/Unknown"]
    derived = [Derived("country", country, "phone", "phone", 0.7)]
    if 0 < len(zones) <= MOST_ZONES:
        derived.append(Derived(f"{ATTRIBUTE}time_zones", zones, "phone", "phone", 0.7))
    if len(zones) == 1:
        derived.append(Derived(f"{ATTRIBUTE}time_zone", zones[0], "phone", "phone", 0.7))
    return derived


def _of_email(email: str) -> Sequence[Derived]:
    company = company_domain(email)
    derived = [
        Derived(f"{ATTRIBUTE}free_mail", is_free(email), "email", "email", 1.0),
        Derived(f"{ATTRIBUTE}disposable_mail", is_disposable(email), "email", "email", 1.0),
    ]
    if company is not None:
        derived.append(Derived(f"{ATTRIBUTE}company_domain", company, "email", "email", 0.9))
    return derived


def _of_name(field: str, written: str) -> Sequence[Derived]:
    better = cased(written, family=field == "last_name")
    return [Derived(field, better, "names", field, 0.9, replaces=True)] if better != written else ()


def _of_country(written: str) -> Sequence[Derived]:
    if len(written) == _CODE_LENGTH and written.isupper():
        return ()
    code = country_code(written)
    return [Derived("country", code, "countries", "country", 0.95, replaces=True)] if code is not None else ()


def _of_title(title: str) -> Sequence[Derived]:
    told = {"seniority": seniority_of(title), "department": department_of(title)}
    return [
        Derived(f"{ATTRIBUTE}{field}", value, "titles", "title", 0.7)
        for field, value in told.items()
        if value is not None
    ]


_BUILT_IN: Mapping[str, Sequence[Callable[[Mapping[str, Any]], Sequence[Derived]]]] = {
    "phone": [_of("phone", _of_phone)],
    "email": [_of("email", _of_email)],
    "names": [
        _of("first_name", lambda written: _of_name("first_name", written)),
        _of("last_name", lambda written: _of_name("last_name", written)),
    ],
    "countries": [_of("country", _of_country)],
    "titles": [_of("title", _of_title)],
}
BUILT_IN = tuple(_BUILT_IN)
