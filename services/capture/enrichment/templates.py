"""Texts with places for what is known of a lead, `https://api.example.com/find?domain={domain}`: only filled."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from services.capture.leads.domain import Profile
from shared.emails import company_domain, domain_of

_PLACE = re.compile(r"\{([^{}]*)\}")
_ATTRIBUTE = re.compile(r"attributes\.[A-Za-z0-9_]{1,100}", re.ASCII)
_ABOUT_PEOPLE = frozenset({"lead_id", "email", "email_hash", "phone", "first_name", "last_name", "title"})
_ABOUT_COMPANIES = frozenset({"email_domain", "domain", "company", "country", "region", "industry"})
PLACES = _ABOUT_PEOPLE | _ABOUT_COMPANIES


class Absent(Exception):
    """Nothing is known of the lead that a place could be filled with."""


def places_in(text: str) -> Iterator[tuple[str, int]]:
    """The names of the places in a text, and the column of each."""
    for place in _PLACE.finditer(text):
        yield place[1], place.start() + 1


def is_place(name: str) -> bool:
    """Whether there is such a place."""
    return name in PLACES or _ATTRIBUTE.fullmatch(name) is not None


def is_personal(name: str) -> bool:
    """Whether what stands in such a place is about one person rather than about their company."""
    return name not in _ABOUT_COMPANIES


def known_places(lead_id: str, profile: Profile) -> dict[str, str]:
    """What can stand in places, for one lead."""
    known: dict[str, Any] = {name: getattr(profile, name, None) for name in PLACES if hasattr(profile, name)} | {
        "lead_id": lead_id
    }
    if profile.email is not None:
        known["email_domain"] = domain_of(profile.email)
        known["email_hash"] = hashlib.sha256(profile.email.encode()).hexdigest()
    domain = profile.attributes.get("company_domain") or (profile.email and company_domain(profile.email))
    known["domain"] = domain if isinstance(domain, str) else None
    known |= {f"attributes.{name}": value for name, value in {**profile.derived, **profile.attributes}.items()}
    return {name: text for name, value in known.items() if (text := _text(value))}


def fill(template: str, known: Mapping[str, str], written: Callable[[str], str] = str) -> str:
    """The text with its places filled. Raises Absent with the names that nothing is known for."""
    absent = sorted({name for name, _ in places_in(template) if name not in known})
    if absent:
        raise Absent(", ".join(absent))
    return _PLACE.sub(lambda place: written(known[place[1]]), template)


def fill_address(template: str, known: Mapping[str, str]) -> str:
    """An address filled so that no value can become another part of it than the one it stands in."""
    return fill(template, known, lambda value: quote(value, safe=""))


def fill_value(template: Any, known: Mapping[str, str]) -> Any:
    """A JSON value whose texts are templates."""
    match template:
        case str():
            return fill(template, known)
        case dict():
            return {name: fill_value(value, known) for name, value in template.items()}
        case list():
            return [fill_value(value, known) for value in template]
        case _:
            return template


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = " ".join(str(value).split())
    return text if text.isprintable() else None
