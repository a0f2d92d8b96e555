"""From the id a fact came with to the person, and back to all ids of a person.

An alias says that an id turned out to be another one; the newest merge or unmerge of an id counts. A link says that
an anonymous id belongs to a person from a moment on: a touch belongs to the person linked last at or before it
occurred, else to the first one linked.

Capture tells an alias for every identifier of a known lead whose own id differs from the lead's, since touches that
come with only that identifier are keyed by its own id.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db import Connection, Tx
from shared.events import IdentityLinked, LeadErased, LeadMerged, LeadUnmerged
from shared.identity._ids import LeadIds
from shared.ids import LeadId
from shared.kafka import Route, on, on_batch

IdentityChange = IdentityLinked | LeadMerged | LeadUnmerged
Fact = tuple[LeadId, datetime | None]
"""The id that something came with, and when it happened; None for as it stands now."""
OnChange = Callable[[IdentityChange, Tx, set[LeadId]], Awaitable[None]]

WALK = """
WITH RECURSIVE walk AS (
    SELECT id AS origin, id AS here, 0 AS depth FROM unnest($1::text[]) AS id
    UNION ALL
    SELECT walk.origin, alias.into_id, walk.depth + 1
    FROM walk JOIN identity_aliases AS alias ON alias.lead_id = walk.here AND alias.active
    WHERE walk.depth < 64
)
SELECT DISTINCT ON (origin) origin, here FROM walk ORDER BY origin, depth DESC
"""
LINKS = """
SELECT anonymous_lead_id, at, lead_id FROM identity_links
WHERE anonymous_lead_id = ANY($1) ORDER BY anonymous_lead_id, at, lead_id
"""
# Links, with a time, and the persons behind the ids and behind those they are linked to, without one.
RESOLVE = """
WITH RECURSIVE link AS MATERIALIZED (
    SELECT anonymous_lead_id, at, lead_id FROM identity_links WHERE anonymous_lead_id = ANY($1::text[])
), start AS (
    SELECT unnest($1::text[]) AS id UNION SELECT lead_id FROM link
), walk AS (
    SELECT id AS origin, id AS here, 0 AS depth FROM start
    UNION ALL
    SELECT walk.origin, alias.into_id, walk.depth + 1
    FROM walk JOIN identity_aliases AS alias ON alias.lead_id = walk.here AND alias.active
    WHERE walk.depth < 64
)
(SELECT DISTINCT ON (origin) origin AS id, NULL AS at, here AS lead_id FROM walk ORDER BY origin, depth DESC)
UNION ALL
SELECT anonymous_lead_id, at, lead_id FROM link
"""
BELOW = """
WITH RECURSIVE below AS (
    SELECT id AS person_id, id, 0 AS depth FROM unnest($1::text[]) AS id
    UNION
    SELECT below.person_id, alias.lead_id, below.depth + 1
    FROM below JOIN identity_aliases AS alias ON alias.into_id = below.id AND alias.active
    WHERE below.depth < 64
)
SELECT DISTINCT person_id, id FROM below
"""
LINKED_TO = "SELECT DISTINCT anonymous_lead_id FROM identity_links WHERE lead_id = ANY($1)"
PUT_ALIAS = """
INSERT INTO identity_aliases AS known (lead_id, into_id, active, at, event_id) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (lead_id) DO UPDATE
SET into_id = excluded.into_id, active = excluded.active, at = excluded.at, event_id = excluded.event_id
WHERE (known.at, known.event_id) < (excluded.at, excluded.event_id)
"""
PUT_LINK = """
INSERT INTO identity_links (anonymous_lead_id, at, lead_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
PUT_ERASED = """
INSERT INTO identity_erased AS known (lead_id, at) VALUES ($1, $2)
ON CONFLICT (lead_id) DO UPDATE SET at = excluded.at WHERE excluded.at < known.at
"""
ERASED = "SELECT lead_id FROM identity_erased WHERE lead_id = ANY($1)"
SEEN, HELD = "identities seen", "identities held"
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '/identity', 0))"


@dataclass(frozen=True, slots=True)
class Member:
    """An id whose facts belong to a person; for an anonymous id only those in [since, until), None being open."""

    lead_id: LeadId
    since: datetime | None = None
    until: datetime | None = None

    def covers(self, at: datetime) -> bool:
        """Whether a fact of this id that occurred then belongs to the person."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Identities:
    """Who some ids turned out to be, as it stood when it was asked."""

    persons: Mapping[LeadId, LeadId]
    links: Mapping[LeadId, list[tuple[datetime, LeadId]]]

    def owner(self, lead_id: LeadId, at: datetime | None = None) -> LeadId:
        """The person behind an id at a moment (without one: as it stood then)."""
        return self.persons[_owner(self.links.get(lead_id), lead_id, at)]


async def identities(connection: Connection, lead_ids: Iterable[LeadId]) -> Identities:
    """Who ids are now: one statement, however many ids."""
    links: dict[LeadId, list[tuple[datetime, LeadId]]] = {}
    persons: dict[LeadId, LeadId] = {}
    for lead_id, at, found in await connection.fetch(RESOLVE, sorted(set(lead_ids))):
        if at is None:
            persons[lead_id] = LeadId(found)
        else:
            links.setdefault(lead_id, []).append((at, LeadId(found)))
    for its in links.values():
        its.sort()
    return Identities(persons, links)


async def owners_seen(tx: Tx, facts: Sequence[Fact]) -> list[LeadId]:
    """The persons behind facts' ids as this transaction saw them first: for a look before they are locked."""
    seen: dict[LeadId, Identities] = tx.memory.setdefault(SEEN, {})
    absent = {lead_id for lead_id, _ in facts} - seen.keys()
    if absent:
        seen.update(dict.fromkeys(absent, await identities(tx.connection, absent)))
    return [seen[lead_id].owner(lead_id, at) for lead_id, at in facts]


async def owners_again(tx: Tx, facts: Sequence[Fact]) -> list[LeadId]:
    """The persons behind facts' ids, looked at anew but for those that are held."""
    held, seen = tx.memory.get(HELD, {}), tx.memory.get(SEEN, {})
    for lead_id, _ in facts:
        if lead_id not in held:
            seen.pop(lead_id, None)
    return await owners_seen(tx, facts)


def hold_owners(tx: Tx, facts: Sequence[Fact]) -> None:
    """Who the ids of facts seen last are stays so to the end of the transaction: it holds locks without which nobody
    changes it. Of an id with links the lock is on one of several persons, so it goes on being looked at.
    """
    seen = tx.memory[SEEN]
    unlinked = {lead_id for lead_id, _ in facts if lead_id not in seen[lead_id].links}
    tx.memory.setdefault(HELD, {}).update(dict.fromkeys(unlinked))


async def resolve(connection: Connection, lead_id: LeadId, at: datetime | None = None) -> LeadId:
    """The person behind an id at a moment (without one: as it stands now)."""
    return (await resolve_many(connection, [(lead_id, at)]))[0]


async def resolve_many(connection: Connection, facts: Sequence[Fact]) -> list[LeadId]:
    """The persons behind many facts' ids, in the same order: one statement, however many facts."""
    found = await identities(connection, {lead_id for lead_id, _ in facts})
    return [found.owner(lead_id, at) for lead_id, at in facts]


async def persons_behind(connection: Connection, facts: Sequence[Fact]) -> list[LeadId]:
    """The persons behind facts' ids as those stand now: whose a fact was may have turned out to be another since."""
    ids = {lead_id for lead_id, _ in facts}
    while True:
        found = await identities(connection, ids)
        owners = [found.owner(lead_id, at) for lead_id, at in facts]
        if ids.issuperset(owners):
            return [found.owner(owner) for owner in owners]
        ids |= set(owners)


async def members(connection: Connection, person_id: LeadId) -> list[Member]:
    """Every id whose facts belong to the person, itself included."""
    return (await members_of_many(connection, [person_id]))[person_id]


async def members_of_many(connection: Connection, person_ids: Iterable[LeadId]) -> dict[LeadId, list[Member]]:
    """Every id whose facts belong to each of these persons: three statements, however many persons."""
    people: dict[LeadId, list[Member]] = {person: [] for person in person_ids}
    rows = await connection.fetch(BELOW, list(people))
    own = sorted({LeadId(row["id"]) for row in rows})
    anonymous = [row["anonymous_lead_id"] for row in await connection.fetch(LINKED_TO, own)]
    every_link = await _links(connection, sorted({*own, *anonymous}))
    linked: dict[LeadId, list[Member]] = {}
    for anonymous_id, links in every_link.items():
        for index, (_, owner) in enumerate(links):
            since = links[index][0] if index else None
            until = links[index + 1][0] if index + 1 < len(links) else None
            linked.setdefault(owner, []).append(Member(LeadId(anonymous_id), since, until))
    for row in rows:
        if row["id"] not in every_link:
            people[row["person_id"]].append(Member(LeadId(row["id"])))
        people[row["person_id"]] += linked.get(LeadId(row["id"]), ())
    for ids in people.values():
        ids.sort(key=lambda member: (member.lead_id, member.since is not None, member.since))
    return people


async def persons_of(connection: Connection, lead_ids: Iterable[LeadId]) -> set[LeadId]:
    """The persons that ids turned out to be; an anonymous id stands for itself, whoever it is linked to."""
    rows = await connection.fetch(WALK, sorted(set(lead_ids)))
    return {LeadId(row["here"]) for row in rows}


async def find_by_email(connection: Connection, ids: LeadIds, email: str) -> LeadId:
    """The person behind a normalised email address; a new generation after each erasure."""
    generation = 0
    while True:
        lead_id = ids.of_email(email, generation)
        if not await connection.fetch(ERASED, [lead_id]):
            return await resolve(connection, lead_id)
        generation += 1


def identity_routes(on_change: OnChange | None = None) -> tuple[Route, ...]:
    """Fold merges, unmerges, links and erasures; `on_change` learns the persons affected, before and after.

    Changes take turns within a service: of two at once that share an id, each would else miss the other's. To wait
    for its turn a batch must hold no other lock, so these routes stand first in a service's table.
    """

    async def take_turn(_events: Sequence[IdentityChange], tx: Tx) -> None:
        _forget_seen(tx)
        await tx.connection.execute(TAKE_TURN)

    async def on_merge(event: LeadMerged | LeadUnmerged, tx: Tx) -> None:
        before = await persons_of(tx.connection, [event.lead_id, event.from_lead_id])
        active = isinstance(event, LeadMerged)
        await tx.connection.execute(
            PUT_ALIAS, event.from_lead_id, event.lead_id, active, event.occurred_at, event.event_id
        )
        await _tell(event, tx, before | await persons_of(tx.connection, [event.lead_id, event.from_lead_id]))

    async def on_linked(event: IdentityLinked, tx: Tx) -> None:
        facts = [
            link[1]
            for link in (await _links(tx.connection, [event.anonymous_lead_id])).get(event.anonymous_lead_id, [])
        ]
        before = await persons_of(tx.connection, [event.anonymous_lead_id, event.lead_id, *facts])
        await tx.connection.execute(PUT_LINK, event.anonymous_lead_id, event.occurred_at, event.lead_id)
        await _tell(event, tx, before | await persons_of(tx.connection, [event.lead_id]))

    async def on_erased(event: LeadErased, tx: Tx) -> None:
        await tx.connection.execute(PUT_ERASED, event.lead_id, event.occurred_at)

    async def _tell(event: IdentityChange, tx: Tx, affected: set[LeadId]) -> None:
        _forget_seen(tx)
        if on_change is not None:
            await on_change(event, tx, affected)

    return (
        on_batch(IdentityLinked, take_turn),
        on_batch(LeadMerged, take_turn),
        on_batch(LeadUnmerged, take_turn),
        on(LeadMerged, on_merge),
        on(LeadUnmerged, on_merge),
        on(IdentityLinked, on_linked),
        on(LeadErased, on_erased),
    )


async def _links(connection: Connection, lead_ids: Sequence[str]) -> dict[str, list[tuple[datetime, LeadId]]]:
    links: dict[str, list[tuple[datetime, LeadId]]] = {}
    for row in await connection.fetch(LINKS, lead_ids):
        links.setdefault(row["anonymous_lead_id"], []).append((row["at"], LeadId(row["lead_id"])))
    return links


def _forget_seen(tx: Tx) -> None:
    for name in (SEEN, HELD):
        tx.memory.pop(name, None)


def _owner(links: list[tuple[datetime, LeadId]] | None, lead_id: LeadId, at: datetime | None) -> LeadId:
    if not links:
        return lead_id
    if at is None:
        return links[-1][1]
    index = bisect_right(links, at, key=lambda link: link[0])
    return links[max(index - 1, 0)][1]
