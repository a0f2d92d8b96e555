"""Who may be whom, and how much says so: pure, and never a decision.

Two people are compared when they share a key: the surname at one company as it is written or as it sounds, the whole
name whatever its order, the end of a phone number, the part of an email address before the @. What is alike adds
points, what contradicts takes some away; the sum, from 0 to 100, is the score.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jellyfish
from rapidfuzz import fuzz

from services.capture.accounts.names import company_key, plain_words
from services.capture.leads.domain import Profile
from shared.emails import company_domain

Says = Literal["same", "alike", "different"]
PHONE_TAIL = 8
SHORTEST_LOCAL = 5
SUGGESTED_FROM = 60
KEPT_FROM = 40
SAME = 97
ALIKE = 85
DIFFERENT = 60
_ROLES = frozenset(
    {"info", "sales", "office", "contact", "admin", "support", "hello", "kontakt", "mail", "marketing", "billing"}
    | {"service", "team", "accounts", "purchasing", "einkauf", "vertrieb", "jobs", "press", "webmaster", "postmaster"}
)


@dataclass(frozen=True, slots=True)
class Reason:
    """What one field says: how alike the two are in it (0 to 100), and the points it adds or takes away."""

    field: str
    says: Says
    likeness: int
    points: int


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much says that two people are one, and what."""

    score: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class _Traits:
    """What people are compared by."""

    first: str
    last: str
    name: str
    local: str
    company: str | None
    domain: str | None
    phone: str | None
    country: str | None


def keys_of(profile: Profile) -> frozenset[str]:
    """The keys under which a person is found. In clear: to be hashed before they are kept."""
    return frozenset(_keys(_traits(profile)))


def compare(one: Profile, other: Profile) -> Likeness:
    """How alike two people are, the weightiest reason first."""
    a, b = _traits(one), _traits(other)
    reasons = [reason for reason in (_name(a, b), _phone(a, b), _email(a, b), _company(a, b), _country(a, b)) if reason]
    score = max(0, min(100, sum(reason.points for reason in reasons)))
    return Likeness(score, tuple(sorted(reasons, key=lambda reason: -abs(reason.points))))


def _keys(traits: _Traits) -> Iterator[str]:
    at = traits.domain or traits.company
    if traits.last and at:
        yield f"surname\x1f{traits.last}\x1f{at}"
        if sound := jellyfish.metaphone(traits.last):
            yield f"sound\x1f{sound}\x1f{traits.first[:1]}\x1f{at}"
    if traits.first and traits.last:
        yield f"name\x1f{' '.join(sorted(traits.name.split()))}"
    if traits.phone:
        yield f"phone\x1f{traits.phone[-PHONE_TAIL:]}"
    if len(traits.local) >= SHORTEST_LOCAL:
        yield f"local\x1f{traits.local}"


def _traits(profile: Profile) -> _Traits:
    first, last = _plain(profile.first_name), _plain(profile.last_name)
    local, domain = "", None
    if profile.email:
        local = "".join(plain_words(profile.email.rpartition("@")[0].partition("+")[0]))
        domain = company_domain(profile.email)
    company = company_key(profile.company) if profile.company else None
    return _Traits(
        first=first,
        last=last,
        name=f"{first} {last}".strip(),
        local="" if local in _ROLES else local,
        company=company or (domain.partition(".")[0] if domain else None),
        domain=domain,
        phone=profile.phone,
        country=profile.country,
    )


def _plain(name: str | None) -> str:
    return " ".join(plain_words(name)) if name else ""


def _name(a: _Traits, b: _Traits) -> Reason | None:
    if not (a.name and b.name):
        return None
    likeness = round(fuzz.token_sort_ratio(a.name, b.name))
    if likeness >= SAME:
        return Reason("name", "same", likeness, 45 if a.first and a.last else 20)
    if a.last and a.last == b.last and (_is_initial(a.first, b.first) or not (a.first and b.first)):
        return Reason("name", "alike", likeness, 30)
    if likeness >= ALIKE or (a.last == b.last and a.last and _is_short_form(a.first, b.first)) or _sounds_alike(a, b):
        return Reason("name", "alike", likeness, 35)
    if likeness < DIFFERENT or (a.last and a.last == b.last):
        return Reason("name", "different", likeness, -40)
    return Reason("name", "alike", likeness, 0)


def _sounds_alike(a: _Traits, b: _Traits) -> bool:
    sounds = [(jellyfish.metaphone(one.first), jellyfish.metaphone(one.last)) for one in (a, b)]
    return all(sounds[0]) and sounds[0] == sounds[1]


def _is_initial(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) == 1 and long.startswith(short)


def _is_short_form(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) >= 3 and long.startswith(short)  # Tom, Thomas no; Alex, Alexandra yes


def _phone(a: _Traits, b: _Traits) -> Reason | None:
    if not (a.phone and b.phone):
        return None
    if a.phone == b.phone:
        return Reason("phone", "same", 100, 40)
    if a.phone[-PHONE_TAIL:] == b.phone[-PHONE_TAIL:]:
        return Reason("phone", "alike", 90, 30)
    return Reason("phone", "different", 0, -5)


def _email(a: _Traits, b: _Traits) -> Reason | None:
    if not (a.local and b.local):
        return None
    likeness = round(fuzz.ratio(a.local, b.local))
    at_one_company = a.domain is not None and a.domain == b.domain
    if a.local == b.local:
        return Reason("email", "same", likeness, 35 if len(a.local) >= SHORTEST_LOCAL else 10)
    if likeness >= ALIKE:
        return Reason("email", "alike", likeness, 20)
    if at_one_company and likeness < DIFFERENT:
        return Reason("email", "different", likeness, -10)  # one company seldom gives one person two mailboxes
    return None


def _company(a: _Traits, b: _Traits) -> Reason | None:
    if a.domain and a.domain == b.domain:
        return Reason("company", "same", 100, 25)
    if not (a.company and b.company):
        return None
    likeness = round(fuzz.token_sort_ratio(a.company, b.company))
    if likeness >= SAME:
        return Reason("company", "same", likeness, 25)
    if likeness >= ALIKE:
        return Reason("company", "alike", likeness, 15)
    return Reason("company", "different", likeness, -15) if likeness < DIFFERENT else None


def _country(a: _Traits, b: _Traits) -> Reason | None:
    if not (a.country and b.country) or a.country == b.country:
        return None
    return Reason("country", "different", 0, -5)
