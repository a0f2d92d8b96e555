"""A call or delivery told something about a person: find them, decide who they are, save, tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.capture.consent.domain import ConsentWord
from services.capture.consent.handlers import tell_words
from services.capture.errors import Contended
from services.capture.leads import queries
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import (
    Decision,
    Identifier,
    Person,
    decide,
    learn,
    linked_person,
    profile_of,
    strongest,
    together,
)
from services.capture.leads.identifying import Identified, Named, Sought, identify_each
from services.capture.leads.queries import Family, LeadRow
from services.capture.leads.telling import Cause, identity_linked, lead_merged
from shared.db import Connection, Tx
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime

ATTEMPTS = 8
_NAMED_FIRST = {"email": 0, "external": 1, "phone": 2, "anonymous": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadCall:
    """What is told about a person. `stored_at` is when a delivery was stored, None for a call that is answered now.

    What is not allowed to bring an erased person back (`may_return`) is refused until they came on their own; what was
    told before (`again`) does not win over a statement of the same moment.
    What is not `proven` is only somebody's word for it: it may make a lead and link a browser, and changes nobody else.
    """

    named: Named
    told: Mapping[str, Any]
    cause: Cause
    consent: Sequence[ConsentWord] = ()
    stored_at: datetime | None = None
    may_return: bool = True
    again: bool = False

    @property
    def sought(self) -> Sought:
        """What it is to be identified by."""
        return Sought(self.named, self.stored_at, self.may_return)

    proven: bool = True


@dataclass(frozen=True, slots=True)
class Captured:
    """What became of it. `lead_id` stands for the person; facts of this call go to `attached`, which may be merged.

    `changed` says whether anything had to be told.
    """

    lead_id: LeadId
    attached: LeadId
    created: bool
    changed: bool


@dataclass(slots=True)
class _Place:
    """Where what was told belongs, with all rows locked that may change."""

    survivor: Family
    merged: Sequence[Family]
    attached: LeadId


async def capture_lead(call: LeadCall, tx: Tx, runtime: Runtime) -> Captured | None:
    """Find or make the lead of a call, and tell what changed. None if it is about somebody erased since it was stored.

    Calls about one person wait for each other on the row of the lead that stands for them; whoever finds that somebody
    else was faster looks again. Deadlocks between calls that tie several people remain possible: try those again.
    """
    gained: dict[Identifier, LeadId] = {}
    mark = tx.mark()
    for _ in range(ATTEMPTS):
        (identified,) = await identify_each(tx.connection, runtime.ids, [call.sought])
        if identified is None:
            return None
        place = await _find_place(identified, call, tx.connection, runtime.keys, gained)
        if place is not None:
            break
    else:
        raise Contended("too many calls about this person at once")
    for identifier, lead_id in gained.items():
        if identifier.own_id != lead_id:
            tx.emit(lead_merged(identifier.own_id, lead_id, call.cause.received_at, identifier.kind))
    if identified.anonymous is not None and identified.strong:
        linked = identified.anonymous.own_id
        if await queries.link(tx.connection, linked, call.cause.occurred_at, place.attached):
            tx.emit(identity_linked(linked, place.attached, call.cause.occurred_at, call.cause.received_at))
    for family in place.merged:
        await merge(family, place.survivor, tx, call.cause.received_at)
    created = place.survivor.root.revision == 0
    if call.proven or created:
        await _save(place, call, tx, runtime)
    await tell_words(place.attached, call.consent, call.cause, tx, runtime)
    return Captured(place.survivor.root.lead_id, place.attached, created, changed=tx.mark() > mark)


async def merge(family: Family, into: Family, tx: Tx, now: datetime) -> None:
    """Let one person's lead be another's from now on. Both rows must be locked."""
    at = moment_after(family.root, now)
    await queries.set_parent(tx.connection, family.root.lead_id, into.root.lead_id, at)
    tx.emit(lead_merged(family.root.lead_id, into.root.lead_id, at))


def moment_after(row: LeadRow, now: datetime) -> datetime:
    """When a merge or unmerge of a lead is said to happen: after the one before it, however the clocks differ."""
    return now if row.alias_at is None else max(now, row.alias_at + timedelta(microseconds=1))


async def _find_place(
    identified: Identified, call: LeadCall, connection: Connection, keys: PersonKeys, gained: dict[Identifier, LeadId]
) -> _Place | None:
    """Lock what the call is about and give it the call's identifiers. None when others were faster: look again."""
    strong, anonymous = identified.strong, identified.anonymous
    asked = [*strong, *([anonymous] if anonymous else [])]
    owners = await queries.owners_of(connection, [identifier.own_id for identifier in asked])
    linked = None
    if not strong and anonymous is not None:
        strong = (anonymous,)
        linked = linked_person(await queries.links_of(connection, anonymous.own_id), call.cause.occurred_at)
        root = linked and await queries.root_of(connection, linked)
        if root:
            owners[anonymous.own_id] = root
    roots = sorted(set(owners.values()))
    families: dict[LeadId, Family] = {}
    if roots:
        if await queries.lock_roots(connection, roots) != set(roots):
            return None
        families = await queries.families_of(connection, keys, roots)
        if any(family.root.erased_at for family in families.values()):
            return None
    decision = await _decide(strong, owners, families, connection)
    survivor = decision.survivor.lead_id if decision.survivor else strongest(decision.attach).own_id
    if decision.survivor is None and not await _begin(decision, call, connection):
        return None
    ours = await queries.attach(connection, survivor, decision.attach)
    gained |= {identifier: survivor for identifier in decision.attach if identifier.own_id in ours}
    if len(ours) < len(decision.attach):
        return None
    if survivor not in families:
        families |= await queries.families_of(connection, keys, [survivor])
    merged = [families[person.lead_id] for person in decision.merged]
    visitor = families.get(owners[anonymous.own_id]) if anonymous and anonymous.own_id in owners else None
    if call.proven and visitor and visitor.root.made_from == "anonymous" and visitor.root.lead_id != survivor:
        merged.append(visitor)
    place = _Place(families[survivor], merged, survivor)
    if merged or len(place.survivor.rows) > 1:
        place.attached = linked or await _attached(strong, place, connection)
    return place


async def _decide(
    strong: Sequence[Identifier],
    owners: Mapping[LeadId, LeadId],
    families: Mapping[LeadId, Family],
    connection: Connection,
) -> Decision:
    """Who the call is about; emails and separations are only looked up where they can matter."""
    if len(families) > 1 or any(identifier.kind == "phone" for identifier in strong):
        persons = await queries.persons_of(connection, families)
    else:
        persons = {root: Person(root, family.root.made_from, family.members) for root, family in families.items()}
    apart: frozenset[frozenset[LeadId]] = frozenset()
    if len(families) > 1:
        members = sorted(lead_id for family in families.values() for lead_id in family.members)
        apart = await queries.told_apart(connection, members)
    return decide(strong, {own_id: persons[root] for own_id, root in owners.items()}, apart)


async def _begin(decision: Decision, call: LeadCall, connection: Connection) -> bool:
    """Add a lead made from the strongest identifier. False if somebody else did, perhaps without the identifier."""
    first = strongest(decision.attach)
    added = await queries.add_lead(connection, first.own_id, first.kind, call.cause.origin, call.cause.occurred_at)
    if not added:
        await queries.attach(connection, first.own_id, [first])
    return added


async def _attached(strong: Sequence[Identifier], place: _Place, connection: Connection) -> LeadId:
    """The lead of the person that the strongest identifier was given to; so an unmerge gives back what was told."""
    leads = await queries.attached_leads(connection, [identifier.own_id for identifier in strong])
    members = place.survivor.members.union(*(family.members for family in place.merged))
    for identifier in sorted(strong, key=lambda identifier: _NAMED_FIRST[identifier.kind]):
        lead_id = leads.get(identifier.own_id)
        if lead_id in members:
            return lead_id
    return place.survivor.root.lead_id


async def _save(place: _Place, call: LeadCall, tx: Tx, runtime: Runtime) -> None:
    """Save what was told, and tell the profile if it is another one now."""
    root, now = place.survivor.root, call.cause.received_at
    rows = {row.lead_id: row for family in (place.survivor, *place.merged) for row in family.rows}
    before = {row.lead_id: row.statements for row in place.survivor.rows}
    told_to = rows[place.attached]
    learnt = learn(told_to.statements, call.told, call.cause.occurred_at, call.cause.origin, again=call.again)
    after = {lead_id: row.statements for lead_id, row in rows.items()} | {told_to.lead_id: learnt}
    known = profile_of(together(before.items()), runtime.settings.enrichment_off)
    profile = profile_of(together(after.items()), runtime.settings.enrichment_off)
    told_first = min(told_to.captured_at, call.cause.occurred_at)
    captured_at = person_since([*rows.values()], told_to.lead_id, told_first)
    changed = (
        root.revision == 0 or bool(place.merged) or profile != known or captured_at != person_since(place.survivor.rows)
    )
    revision = root.revision + 1 if changed else root.revision
    if told_to.lead_id == root.lead_id:
        if changed or learnt != told_to.statements:
            await queries.save_lead(tx, runtime.keys, root.lead_id, learnt, told_first, revision, now)
    else:
        if learnt != told_to.statements or told_first != told_to.captured_at:
            await queries.save_lead(tx, runtime.keys, told_to.lead_id, learnt, told_first, told_to.revision, now)
        if changed:
            await queries.raise_revision(tx.connection, root.lead_id, revision)
    if changed:
        change = Change(
            lead_id=root.lead_id,
            made_from=root.made_from,
            revision=revision,
            before=known if root.revision else None,
            profile=profile,
            captured_at=captured_at,
            cause=call.cause,
            merged=tuple(family.root.lead_id for family in place.merged),
        )
        await tell_changes([change], tx, runtime)


def person_since(
    rows: Sequence[LeadRow], told_to: LeadId | None = None, told_first: datetime | None = None
) -> datetime:
    """When somebody first told who the person is: not while only their browser was known, if they are known better."""
    since = [
        (row.made_from == "anonymous", told_first if told_first and row.lead_id == told_to else row.captured_at)
        for row in rows
    ]
    return min(since)[1]
