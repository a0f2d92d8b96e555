"""Who belongs in a retargeting list, and what its keeper has to be told. Pure."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from services.nurture.people.domain import Person, why_not

Identifier = Literal["email", "phone"]
State = Literal["active", "suspended", "ending"]


@dataclass(frozen=True, slots=True)
class Audience:
    """A list that somebody else keeps, for advertisements say. `attempts` counts tries since the last success."""

    audience_id: str
    name: str
    url: str
    secret: str
    segment_id: str
    purpose: str
    identifiers: tuple[Identifier, ...]
    state: State
    attempts: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What was decided about an id: `may_have` is what the keeper has or may have, `done` that they have `wanted`."""

    lead_id: str
    wanted: frozenset[str] = frozenset()
    may_have: frozenset[str] = frozenset()
    done: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """What the keeper is to be told of an id now, and what they may have from then on."""

    entry: Entry
    add: frozenset[str]
    remove: frozenset[str]


def wanted_of(audience: Audience, person: Person, *, in_segment: bool) -> frozenset[str]:
    """The hashes by which a person is in the list: of each address that may be used for the purpose."""
    if not in_segment or audience.state == "ending":
        return frozenset()
    found = set()
    if "email" in audience.identifiers and person.email and why_not(person, audience.purpose, "email") is None:
        found.add(hashed("email", person.email))
    if "phone" in audience.identifiers and person.phone and why_not(person, audience.purpose, "sms") is None:
        found.add(hashed("phone", person.phone))
    return frozenset(found)


def hashed(kind: Identifier, address: str) -> str:
    """SHA-256 of an address as advertising networks ask for it: trimmed, in lower case; a number in E.164."""
    return f"{kind}_sha256:{hashlib.sha256(address.strip().lower().encode()).hexdigest()}"


def change(entry: Entry, wanted: frozenset[str]) -> Change:
    """From what was decided before to what is wanted now. What may not have arrived is told again."""
    has = entry.may_have if entry.done else frozenset()
    after = Entry(entry.lead_id, wanted, entry.may_have | wanted, done=False)
    return Change(after, wanted - has, entry.may_have - wanted)


def told(audience: Audience, add: Collection[str], remove: Collection[str]) -> dict[str, Any]:
    """What the keeper is told: sets, so that the same again changes nothing."""
    return {
        "audience_id": audience.audience_id,
        "name": audience.name,
        "segment_id": audience.segment_id,
        "add": _by_kind(add),
        "remove": _by_kind(remove),
    }


def _by_kind(hashes: Collection[str]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for kind, _, digest in sorted(one.partition(":") for one in hashes):
        kinds.setdefault(kind, []).append(digest)
    return kinds
