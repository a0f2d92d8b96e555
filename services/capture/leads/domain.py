"""Who a call is about, and what is known about a person: every decision, pure.

What was told about a person is kept as statements, a value with its time for each field, in the row of the lead it was
told about. The profile of a person is the newest statement of each field over all rows that belong to them. So a merge
loses nothing, and undoing it gives both profiles back.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shared.events import IdentifierKind
from shared.ids import LeadId

STRENGTH: Mapping[IdentifierKind, int] = {"email": 0, "phone": 1, "external": 2, "anonymous": 3}
FIELDS = (
    "email",
    "phone",
    "first_name",
    "last_name",
    "title",
    "company",
    "country",
    "region",
    "industry",
    "employees",
    "annual_revenue",
    "use_case",
)
ATTRIBUTE = "attributes."
EXTERNAL = "external_ids."

# A phone is shared in families and offices, so it says less about who somebody is than the id of a record.
_MATCHES_FIRST: Mapping[IdentifierKind, int] = {"email": 0, "external": 1, "phone": 2, "anonymous": 3}


@dataclass(frozen=True, slots=True)
class Identifier:
    """Something that tells a person apart; `own_id` is the lead id made from it."""

    kind: IdentifierKind
    own_id: LeadId


@dataclass(frozen=True, slots=True)
class Person:
    """A known person: the lead that stands for them, the ids of all their leads, and those made from their emails."""

    lead_id: LeadId
    made_from: IdentifierKind
    members: frozenset[LeadId]
    emails: frozenset[LeadId] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """Who a call is about: `survivor` (None: nobody known), who turned out to be the same, and what is new of them."""

    survivor: Person | None
    merged: tuple[Person, ...]
    attach: tuple[Identifier, ...]


def strongest(identifiers: Iterable[Identifier]) -> Identifier:
    """The identifier that a new lead's id is made from."""
    return min(identifiers, key=lambda identifier: STRENGTH[identifier.kind])


def survivor_of(persons: Iterable[Person]) -> Person:
    """Which of several persons' leads stands for all of them: the same whatever the order of calls."""
    return min(persons, key=lambda person: (STRENGTH[person.made_from], person.lead_id))


def decide(
    identifiers: Sequence[Identifier],
    owners: Mapping[LeadId, Person],
    apart: AbstractSet[frozenset[LeadId]] = frozenset(),
) -> Decision:
    """Who a call with these identifiers is about. `owners` are the persons known by one of them, by its own id.

    All who are known by one are the same person, except that a phone alone never ties people with different emails,
    and that those whom somebody has told apart (`apart`, pairs of lead ids) stay so. A phone that belongs to somebody
    else stays theirs.
    """
    group: list[Person] = []
    emails = {identifier.own_id for identifier in identifiers if identifier.kind == "email"}
    for identifier in sorted(identifiers, key=lambda identifier: _MATCHES_FIRST[identifier.kind]):
        person = owners.get(identifier.own_id)
        if person is None or any(person.lead_id == known.lead_id for known in group):
            continue
        if identifier.kind == "phone" and emails and person.emails and emails.isdisjoint(person.emails):
            continue
        if any(_told_apart(person, known, apart) for known in group):
            continue
        group.append(person)
        emails |= person.emails
    attach = tuple(identifier for identifier in identifiers if identifier.own_id not in owners)
    if not group:
        return Decision(None, (), attach)
    survivor = survivor_of(group)
    return Decision(survivor, tuple(person for person in group if person is not survivor), attach)


def _told_apart(one: Person, other: Person, apart: AbstractSet[frozenset[LeadId]]) -> bool:
    return any(frozenset((a, b)) in apart for a in one.members for b in other.members) if apart else False


@dataclass(frozen=True, slots=True)
class Statement:
    """What a source told about a field, and when that was so. A value of None takes back what was told before."""

    value: Any
    at: datetime
    origin: str


Statements = Mapping[str, Statement]


def learn(known: Statements, told: Mapping[str, Any], at: datetime, origin: str) -> dict[str, Statement]:
    """The statements after one more call: for each field the newest, of two at one time the one received last."""
    statements = dict(known)
    for name, value in told.items():
        before = statements.get(name)
        if before is None or before.at <= at:
            statements[name] = Statement(value, at, origin)
    return statements


def together(rows: Iterable[tuple[str, Statements]]) -> dict[str, Statement]:
    """The newest statements over all rows of a person, each with its lead id; in whatever order they come."""
    newest: dict[str, Statement] = {}
    for _, statements in sorted(rows, key=lambda row: row[0]):
        for name, statement in statements.items():
            if name not in newest or newest[name].at < statement.at:
                newest[name] = statement
    return newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known about a person."""

    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    title: str | None = None
    company: str | None = None
    country: str | None = None
    region: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    use_case: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    external_ids: Mapping[str, str] = field(default_factory=dict)


def profile_of(statements: Statements) -> Profile:
    """The profile that statements make."""
    told = {name: statement.value for name, statement in statements.items() if statement.value is not None}
    return Profile(
        **{name: told[name] for name in FIELDS if name in told},
        attributes=_below(ATTRIBUTE, told),
        external_ids=_below(EXTERNAL, told),
    )


def _below(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): told[name] for name in sorted(told) if name.startswith(prefix)}


def linked_person(links: Sequence[tuple[datetime, LeadId]], at: datetime) -> LeadId | None:
    """Whom a browser belonged to at a moment: who was linked last at or before it, else who was linked first."""
    if not links:
        return None
    ordered = sorted(links)
    before = [lead_id for linked_at, lead_id in ordered if linked_at <= at]
    return before[-1] if before else ordered[0][1]
