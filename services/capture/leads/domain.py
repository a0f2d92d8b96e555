"""Who a call is about, and what is known about a person: every decision, pure.

What was told about a person is kept as statements, a value with its time for each field, in the row of the lead it was
told about. The profile of a person is the newest statement of each field over all rows that belong to them. So a merge
loses nothing, and undoing it gives both profiles back.

What a provider found stands beside what was told, under a name of its own (`found:<provider>:<field>`), so that neither
ever replaces the other; which of them counts is decided when the profile is made. What follows from both, such as the
country of a phone number, is worked out then too and not kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple

from services.capture.enrichment import builtin
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
ATTRIBUTE = builtin.ATTRIBUTE
EXTERNAL = "external_ids."
FOUND = "found:"

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
        if any(are_told_apart(person.members, known.members, apart) for known in group):
            continue
        group.append(person)
        emails |= person.emails
    attach = tuple(identifier for identifier in identifiers if identifier.own_id not in owners)
    if not group:
        return Decision(None, (), attach)
    survivor = survivor_of(group)
    return Decision(survivor, tuple(person for person in group if person is not survivor), attach)


def one_after_another(
    calls: Sequence[Sequence[Identifier]],
    owners: Mapping[LeadId, Person],
    apart: AbstractSet[frozenset[LeadId]] = frozenset(),
) -> list[tuple[LeadId, tuple[Identifier, ...]]] | None:
    """Whom each of several calls is about, and what is new of them by it: what `decide` says of each after the others.

    None where it takes more than that: a call ties people together, or names nothing that says who somebody is.
    """
    persons = {person.lead_id: person for person in owners.values()}
    theirs = {own_id: person.lead_id for own_id, person in owners.items()}
    found: list[tuple[LeadId, tuple[Identifier, ...]]] = []
    for call in calls:
        known = {one.own_id: persons[theirs[one.own_id]] for one in call if one.own_id in theirs}
        decision = decide(call, known, apart)
        if not call or decision.merged:
            return None
        first = decision.survivor or _made_from(strongest(decision.attach))
        emails = first.emails.union(one.own_id for one in decision.attach if one.kind == "email")
        persons[first.lead_id] = replace(first, emails=emails)
        theirs |= {one.own_id: first.lead_id for one in decision.attach}
        found.append((first.lead_id, decision.attach))
    return found


def _made_from(identifier: Identifier) -> Person:
    return Person(identifier.own_id, identifier.kind, frozenset({identifier.own_id}))


def are_told_apart(
    members: AbstractSet[LeadId], others: AbstractSet[LeadId], apart: AbstractSet[frozenset[LeadId]]
) -> bool:
    """Whether somebody told any lead of one person apart from any of another."""
    return any(frozenset((one, other)) in apart for one in members for other in others) if apart else False


class Statement(NamedTuple):
    """What a source told about a field, and when that was so. A value of None takes back what was told before.

    Of what was found, `confidence` is how sure the provider is (0 to 1), `order` its place among the providers, and
    `overwrite` whether it counts even where somebody told something else.
    """

    value: Any
    at: datetime
    origin: str
    confidence: float | None = None
    order: int = 0
    overwrite: bool = False


Statements = Mapping[str, Statement]


def learn(
    known: Statements, told: Mapping[str, Any], at: datetime, origin: str, *, again: bool = False
) -> dict[str, Statement]:
    """The statements after one more call: for each field the newest, of two at one time the one received last.

    What is told `again` is nothing new, so that of two at one time the one that stands there stays.
    """
    statements = dict(known)
    for name, value in told.items():
        before = statements.get(name)
        if before is None or before.at < at or (before.at == at and not again):
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


def found_name(provider: str, name: str) -> str:
    """The name of the statement that holds what a provider found about a field."""
    return f"{FOUND}{provider}:{name}"


def found_field(name: str) -> str | None:
    """The field that a statement of this name was found about; None for what was told."""
    return name.split(":", 2)[2] if name.startswith(FOUND) else None


def counting(statements: Statements) -> dict[str, Statement]:
    """The statement that counts for each field: what was told, unless a provider may overwrite it, then what was found.

    Of several providers the first in their order counts, then the surer one, then the newer one; in whatever order they
    answered. Who takes something back has told that there is nothing, so nothing that was found fills it again.
    """
    if not [name for name in statements if name.startswith(FOUND)]:
        return dict(statements)
    found: dict[str, list[Statement]] = {}
    for name, statement in statements.items():
        field_name = found_field(name)
        if field_name is not None and statement.value is not None:
            found.setdefault(field_name, []).append(statement)
    counts = {name: statement for name, statement in statements.items() if not name.startswith(FOUND)}
    for name, candidates in found.items():
        told = counts.get(name)
        eligible = candidates if told is None else [each for each in candidates if each.overwrite]
        if eligible:
            counts[name] = min(eligible, key=_precedence)
    return counts


def _precedence(found: Statement) -> tuple[bool, int, float, float, str]:
    return not found.overwrite, found.order, -(found.confidence or 0.0), -found.at.timestamp(), found.origin


Told = tuple[LeadId, Statement]
"""A statement with the lead that it was told to, or found about."""
Rule = Literal["only", "newest", "same_time_smaller_id", "found", "overwrites"]


def ranked(rows: Iterable[tuple[LeadId, Statements]]) -> dict[str, list[Told]]:
    """All statements about each field: the one that counts first, then what was told, the newest first, then found."""
    rows = list(rows)
    counts = counting(together(rows))
    fields: dict[str, list[Told]] = {}
    for lead_id, statements in sorted(rows, key=lambda row: row[0]):
        for name, statement in statements.items():
            fields.setdefault(found_field(name) or name, []).append((lead_id, statement))
    return {name: sorted(fields[name], key=lambda one: _rank(one[1], counts.get(name))) for name in sorted(fields)}


def _rank(statement: Statement, counts: Statement | None) -> tuple[bool, bool, float]:
    return statement is not counts, statement.confidence is not None, -statement.at.timestamp()


def why_it_counts(told: Sequence[Told]) -> Rule:
    """The rule by which the first of the ranked statements about a field counts."""
    first, *others = [statement for _, statement in told]
    others = [statement for statement in others if statement.confidence is None]
    if first.confidence is not None:
        return "overwrites" if others else "found"
    if not others:
        return "only"
    return "newest" if first.at > others[0].at else "same_time_smaller_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known about a person. `derived` are attributes that follow from the rest and that nobody told."""

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
    derived: Mapping[str, Any] = field(default_factory=dict)


def profile_of(statements: Statements, off: AbstractSet[str] = frozenset()) -> Profile:
    """The profile that statements make; `off` are the built-in enrichments that are switched off."""
    counts = counting(statements)
    known = {name: statement.value for name, statement in counts.items() if statement.value is not None}
    derived: dict[str, Any] = {}
    for each in builtin.derive(known, off):
        if each.field.startswith(ATTRIBUTE):
            if each.field not in known:
                derived[each.field.removeprefix(ATTRIBUTE)] = each.value
        elif each.replaces or each.field not in counts:
            known[each.field] = each.value
    return Profile(
        **{name: known[name] for name in FIELDS if name in known},
        attributes=_below(ATTRIBUTE, known),
        external_ids=_below(EXTERNAL, known),
        derived=derived,
    )


def _below(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): told[name] for name in sorted([name for name in told if name.startswith(prefix)])
    }


def linked_person(links: Sequence[tuple[datetime, LeadId]], at: datetime) -> LeadId | None:
    """Whom a browser belonged to at a moment: who was linked last at or before it, else who was linked first."""
    if not links:
        return None
    ordered = sorted(links)
    before = [lead_id for linked_at, lead_id in ordered if linked_at <= at]
    return before[-1] if before else ordered[0][1]
