"""Many calls about people at once, in a constant number of statements, with the results they have one after another.

Calls that share an identifier, or are about one known person, are looked at together. Where it is plain whom each of
them is about they are carried out here; those that tie people together and visitors are left to `capture_lead`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.capture.consent.handlers import tell_words_of_each
from services.capture.leads import queries
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import (
    Identifier,
    Person,
    Profile,
    Statements,
    learn,
    one_after_another,
    profile_of,
    strongest,
)
from services.capture.leads.handlers import Captured, LeadCall, capture_lead
from services.capture.leads.identifying import Identified, identify_each
from services.capture.leads.queries import Family
from services.capture.leads.telling import identity_linked, lead_merged
from shared.db import COPIED_FROM, Tx
from shared.errors import Rejected
from shared.events import IdentifierKind, IdentityLinked
from shared.ids import LeadId
from shared.service import Runtime

LEAD_COLUMNS = ("lead_id", "made_from", "origin", "captured_at", "sealed", "revision")
IDENTIFIER_COLUMNS = ("own_id", "kind", "lead_id")
ATTEMPTS = 2
ADD_LEADS = """
INSERT INTO leads (lead_id, made_from, origin, captured_at, sealed, revision)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::integer[]) AS new (lead_id)
ORDER BY lead_id ON CONFLICT DO NOTHING RETURNING lead_id
"""
ATTACH = """
INSERT INTO identifiers (own_id, kind, lead_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS new (own_id) ORDER BY own_id
ON CONFLICT DO NOTHING RETURNING own_id
"""
SAVE = """
UPDATE leads SET sealed = new.sealed, statements = '{}', captured_at = new.captured_at, revision = new.revision,
    updated_at = clock_timestamp()
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[]) AS new (lead_id, captured_at, sealed, revision)
WHERE leads.lead_id = new.lead_id
"""
LINK = """
INSERT INTO links (anonymous_id, at, lead_id)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS new (anonymous_id, at, lead_id) ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING RETURNING anonymous_id, at, lead_id
"""


class _Outrun(Exception):
    """Others were faster: whoever was not known is by now, or is somebody else."""


@dataclass(slots=True)
class _Person:
    """A person as they stand after the calls so far."""

    lead_id: LeadId
    made_from: IdentifierKind
    origin: str
    captured_at: datetime
    statements: Statements
    revision: int
    known: bool
    profile: Profile
    saved: bool = True


async def capture_leads(calls: Sequence[LeadCall], tx: Tx, runtime: Runtime) -> list[Captured | Rejected | None]:
    """Find or make the lead of each call, and tell what changed: for each what `capture_lead` answers, or raises.

    A call that is rejected leaves nothing behind and does not hold up the others. Deadlocks with calls elsewhere are
    possible: try the transaction again.
    """
    done = await _together(calls, tx, runtime)
    for index, call in enumerate(calls):
        if index not in done:
            done[index] = await _by_itself(call, tx, runtime)
    return [done[index] for index in range(len(calls))]


async def _together(calls: Sequence[LeadCall], tx: Tx, runtime: Runtime) -> dict[int, Captured | Rejected | None]:
    """What became of the calls that could be carried out together; if others were faster, in the light of that."""
    if len({call.may_return for call in calls}) > 1:
        return {}  # one call may bring somebody back whom the next one may then be about
    mark = tx.mark()
    for _ in range(ATTEMPTS):
        try:
            async with tx.connection.transaction():
                return {**await _Batch(calls, tx, runtime).carry_out()}
        except (_Outrun, asyncpg.UniqueViolationError):
            tx.take_back(mark)
        except Rejected:
            tx.take_back(mark)
            break
    return {}


async def _by_itself(call: LeadCall, tx: Tx, runtime: Runtime) -> Captured | Rejected | None:
    mark = tx.mark()
    try:
        async with tx.connection.transaction():
            return await capture_lead(call, tx, runtime)
    except Rejected as exc:
        tx.take_back(mark)
        return exc


class _Batch:
    """The calls of a batch of which it is plain whom they are about."""

    def __init__(self, calls: Sequence[LeadCall], tx: Tx, runtime: Runtime) -> None:
        self._calls = calls
        self._tx = tx
        self._runtime = runtime
        self._identified: dict[int, Identified] = {}
        self._person_of: dict[int, _Person] = {}
        self._attached: dict[int, tuple[Identifier, ...]] = {}
        self._telling: set[int] = set()

    async def carry_out(self) -> dict[int, Captured | None]:
        """What became of them, and of those that are about somebody erased; the others are left."""
        connection = self._tx.connection
        found = await identify_each(connection, self._runtime.ids, [call.sought for call in self._calls])
        self._identified = {index: each for index, each in enumerate(found) if each is not None}
        asked = sorted({each.own_id for one in self._identified.values() for each in _all_of(one)})
        owners = await queries.owners_of(connection, asked)
        await self._find_people(owners)
        order = sorted(self._person_of)
        created = {index for index in order if self._person_of[index].revision == 0}
        changes = [change for index in order if (change := self._learn(index)) is not None]
        await self._save()
        links = await self._link(order)
        self._tell_aliases(order)
        self._tx.emit(*links)
        await tell_changes(changes, self._tx, self._runtime)
        await self._tell_consent(order)
        firsts = self._firsts_of(created)
        return {index: None for index, each in enumerate(found) if each is None} | {
            index: Captured(person.lead_id, person.lead_id, index in firsts, changed=index in self._telling)
            for index, person in self._person_of.items()
        }

    async def _find_people(self, owners: Mapping[LeadId, LeadId]) -> None:
        """Whom the calls are about, where that is plain; with the rows locked of those who are known."""
        groups = [group for group in _groups(self._identified, owners) if not self._has_visitor(group, owners)]
        families = await self._lock({owners[own_id] for group in groups for own_id in self._known_in(group, owners)})
        persons, apart = await self._persons(families, groups, owners)
        people: dict[LeadId, _Person] = {}
        for group in groups:
            known = {own_id: owners[own_id] for own_id in self._known_in(group, owners)}
            if any(len(families[root].rows) > 1 or families[root].root.erased_at for root in known.values()):
                continue
            strong = [self._identified[index].strong for index in group]
            found = one_after_another(strong, {own_id: persons[root] for own_id, root in known.items()}, apart)
            if found is None:
                continue
            for index, (lead_id, identifiers) in zip(group, found, strict=True):
                if lead_id not in people:
                    people[lead_id] = (
                        _known_person(families[lead_id], self._runtime.settings.enrichment_off)
                        if lead_id in families
                        else _new_person(strongest(identifiers), self._calls[index])
                    )
                self._person_of[index] = people[lead_id]
                self._attached[index] = identifiers

    def _has_visitor(self, group: Iterable[int], owners: Mapping[LeadId, LeadId]) -> bool:
        browsers = [self._identified[index].anonymous for index in group]
        return any(browser is not None and browser.own_id in owners for browser in browsers)

    def _known_in(self, group: Iterable[int], owners: Mapping[LeadId, LeadId]) -> set[LeadId]:
        return {one.own_id for index in group for one in self._identified[index].strong if one.own_id in owners}

    async def _lock(self, roots: AbstractSet[LeadId]) -> dict[LeadId, Family]:
        if not roots:
            return {}
        if await queries.lock_roots(self._tx.connection, sorted(roots)) != roots:
            raise _Outrun
        return await queries.families_of(self._tx.connection, self._runtime.keys, sorted(roots))

    async def _persons(
        self, families: Mapping[LeadId, Family], groups: Iterable[Collection[int]], owners: Mapping[LeadId, LeadId]
    ) -> tuple[Mapping[LeadId, Person], frozenset[frozenset[LeadId]]]:
        """Those who are known, with their emails where a phone could contradict them, and who was told apart."""
        connection = self._tx.connection
        apart: frozenset[frozenset[LeadId]] = frozenset()
        if any(len({owners[own_id] for own_id in self._known_in(group, owners)}) > 1 for group in groups):
            members = sorted(lead_id for family in families.values() for lead_id in family.members)
            apart = await queries.told_apart(connection, members)
        if families and any(one.kind == "phone" for each in self._identified.values() for one in each.strong):
            return await queries.persons_of(connection, families), apart
        plain = {root: Person(root, family.root.made_from, family.members) for root, family in families.items()}
        return plain, apart

    def _learn(self, index: int) -> Change | None:
        """Add what a call tells; answers what of it has to be told."""
        person, call = self._person_of[index], self._calls[index]
        cause = call.cause
        learnt = learn(person.statements, call.told, cause.occurred_at, cause.origin, again=call.again)
        profile = (
            person.profile if learnt == person.statements else profile_of(learnt, self._runtime.settings.enrichment_off)
        )
        since = min(person.captured_at, cause.occurred_at)
        changed = person.revision == 0 or profile != person.profile or since != person.captured_at
        person.saved = person.saved and not changed and learnt == person.statements
        before = person.profile if person.revision else None
        person.statements, person.profile, person.captured_at = learnt, profile, since
        if not changed:
            return None
        person.revision += 1
        self._telling.add(index)
        return Change(
            lead_id=person.lead_id,
            made_from=person.made_from,
            revision=person.revision,
            before=before,
            profile=profile,
            captured_at=since,
            cause=cause,
        )

    async def _save(self) -> None:
        people = {person.lead_id: person for person in self._person_of.values()}
        new = [people[lead_id] for lead_id in sorted(people) if not people[lead_id].known]
        told = [people[lead_id] for lead_id in sorted(people) if people[lead_id].known and not people[lead_id].saved]
        connection = self._tx.connection
        texts = {person.lead_id: person.statements for person in (*new, *told)}
        blocks: Mapping[LeadId, str | None] = {}
        if texts:
            blocks = await queries.sealed(self._tx, self._runtime.keys, texts, self._calls[0].cause.received_at)
        gained = [
            (one.own_id, one.kind, self._person_of[index].lead_id)
            for index, identifiers in self._attached.items()
            for one in identifiers
        ]
        await self._add("leads", LEAD_COLUMNS, [_row_of(person, blocks[person.lead_id]) for person in new], ADD_LEADS)
        await self._add("identifiers", IDENTIFIER_COLUMNS, sorted(gained), ATTACH)
        if told:
            rows = [
                (one.lead_id, one.captured_at, blocks[one.lead_id], one.revision)
                for one in sorted(told, key=lambda one: one.lead_id)
            ]
            await connection.execute(SAVE, *(list(column) for column in zip(*rows, strict=True)))

    async def _add(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]], add: str) -> None:
        """Add rows that nobody else may have added meanwhile."""
        if len(rows) >= COPIED_FROM:
            await self._tx.connection.copy_records_to_table(table, records=rows, columns=columns)
        elif rows:
            added = await self._tx.connection.fetch(add, *(list(column) for column in zip(*rows, strict=True)))
            if len(added) < len(rows):
                raise _Outrun

    def _tell_aliases(self, order: Iterable[int]) -> None:
        for index in order:
            lead_id, received_at = self._person_of[index].lead_id, self._calls[index].cause.received_at
            for one in self._attached[index]:
                if one.own_id != lead_id:
                    self._tx.emit(lead_merged(one.own_id, lead_id, received_at, one.kind))
                    self._telling.add(index)

    async def _link(self, order: Iterable[int]) -> list[IdentityLinked]:
        """Say whose browsers are; answers what of it was not known."""
        asked: dict[tuple[LeadId, datetime, LeadId], int] = {}
        for index in order:
            browser = self._identified[index].anonymous
            if browser is not None:
                place = browser.own_id, self._calls[index].cause.occurred_at, self._person_of[index].lead_id
                asked.setdefault(place, index)
        if not asked:
            return []
        rows = await self._tx.connection.fetch(LINK, *(list(column) for column in zip(*asked, strict=True)))
        fresh = {(row["anonymous_id"], row["at"], row["lead_id"]) for row in rows}
        told = []
        for place, index in asked.items():
            if place in fresh:
                self._telling.add(index)
                told.append(identity_linked(place[0], place[2], place[1], self._calls[index].cause.received_at))
        return told

    async def _tell_consent(self, order: Sequence[int]) -> None:
        said = [
            (self._person_of[index].lead_id, self._calls[index].consent, self._calls[index].cause) for index in order
        ]
        fresh = await tell_words_of_each(said, self._tx, self._runtime)
        self._telling |= {index for index, words in zip(order, fresh, strict=True) if words}

    def _firsts_of(self, created: Iterable[int]) -> set[int]:
        """The first call about each person who was not known."""
        firsts: dict[LeadId, int] = {}
        for index in sorted(created):
            firsts.setdefault(self._person_of[index].lead_id, index)
        return set(firsts.values())


def _new_person(first: Identifier, call: LeadCall) -> _Person:
    return _Person(
        lead_id=first.own_id,
        made_from=first.kind,
        origin=call.cause.origin,
        captured_at=call.cause.occurred_at,
        statements={},
        revision=0,
        known=False,
        profile=Profile(),
    )


def _known_person(family: Family, off: AbstractSet[str]) -> _Person:
    row = family.root
    return _Person(
        lead_id=row.lead_id,
        made_from=row.made_from,
        origin=row.origin,
        captured_at=row.captured_at,
        statements=row.statements,
        revision=row.revision,
        known=True,
        profile=profile_of(row.statements, off),
    )


def _row_of(person: _Person, sealed: str | None) -> tuple[object, ...]:
    return (
        person.lead_id,
        person.made_from,
        person.origin,
        person.captured_at,
        sealed,
        person.revision,
    )


def _all_of(identified: Identified) -> list[Identifier]:
    return [*identified.strong, *([identified.anonymous] if identified.anonymous else [])]


def _groups(identified: Mapping[int, Identified], owners: Mapping[LeadId, LeadId]) -> list[list[int]]:
    """The calls, each with all that may have to do with it: that share an identifier, or a person who is known."""
    parents: dict[str, str] = {}

    def top(name: str) -> str:
        parents.setdefault(name, name)
        while parents[name] != name:
            parents[name] = name = parents[parents[name]]
        return name

    for each in identified.values():
        names = [identifier.own_id for identifier in _all_of(each)]
        for name in [*names[1:], *(owners[name] for name in names if name in owners)]:
            parents[top(name)] = top(names[0])
    groups: dict[str, list[int]] = {}
    for index, each in identified.items():
        groups.setdefault(top(_all_of(each)[0].own_id), []).append(index)
    return list(groups.values())
