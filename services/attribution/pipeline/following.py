"""Follows persons: counts anew what there is to count of them whenever anything of it was told.

What is counted is a function of the set of facts and of nothing else, so counting again is always safe.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from services.attribution.journeys.queries import lock_leads
from services.attribution.pipeline import queries, sums
from services.attribution.pipeline.counting import marks_of
from services.attribution.pipeline.queries import People
from services.attribution.pipeline.stories import stories_of
from services.attribution.pipeline.sums import Counted, counted_of, replace_counted
from shared.contacts import CONTACTS
from shared.db import Connection, Database, Tx
from shared.events import TouchRecorded
from shared.identity import members_of_many, resolve_many
from shared.ids import LeadId

AT_ONCE = 200
"""Persons who are computed without a statement between: PostgreSQL ends a transaction that is idle for long."""


async def follow(connection: Connection, lead_ids: Iterable[LeadId], *, summed: bool = True) -> People:
    """Count anew what there is to count of the persons behind these ids; answers these persons.

    The caller has stored what was told of them; the locks of all their ids are taken here. Who is no person any more,
    having turned out to be somebody else, is no longer counted. What is not `summed` the caller sums up later.
    """
    named = set(lead_ids)
    people = await _lock_people(connection, named)
    before = await counted_of(connection, named | ids_of(people))
    after: dict[LeadId, Counted] = {}
    every = sorted(people)
    for start in range(0, len(every), AT_ONCE):
        some = {person: people[person] for person in every[start : start + AT_ONCE]}
        for person, story in (await stories_of(connection, some)).items():
            if marks := marks_of(story):
                after[person] = (story.circumstances, frozenset(marks))
    await replace_counted(connection, before, after, summed=summed)
    return people


async def _followed(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    await follow(connection, lead_ids)


def put_off(tx: Tx, lead_ids: Iterable[LeadId]) -> None:
    """Follow the persons behind these ids once all facts of the batch are stored: a form alone is three of them.

    A rebuild reads topic after topic, so that each person comes in many batches: there it is done once, at the end.
    """
    if tx.muted:
        tx.put_off("owe", lambda named: queries.owe(tx.connection, named), lead_ids)
    else:
        tx.put_off("follow", lambda named: _followed(tx.connection, named), lead_ids)


async def settle_followed(database: Database) -> None:
    """Follow whom a rebuild has put off, some at a time; sums that there are none of yet are made at the end, at once.

    Who is owed under several ids is followed once.
    """
    async with database.reading() as connection:
        summed = await sums.any_sums(connection)
    last: LeadId | None = None
    while True:
        async with database.transaction() as tx:
            named = await queries.take_owed(tx.connection, last, AT_ONCE)
            if not named:
                break
            people = await follow(tx.connection, named, summed=summed)
            await queries.forgive(tx.connection, _whole(people))
        last = max(named)
    if last is not None and not summed:
        async with database.transaction() as tx:
            await sums.sum_up(tx.connection)


async def follow_touches(
    tx: Tx, events: Sequence[TouchRecorded], moved: Sequence[tuple[LeadId, datetime]] | None
) -> None:
    """Count anew where touches, stored by now, are the first of a person, or a rep's contact with one.

    `moved` are the facts before and after, where any of the touches was a correction. Most touches are neither, and
    most of the rest are of visitors of whom nothing is counted.
    """
    concerned: set[LeadId] = set()
    if moved is not None:
        concerned = await queries.perhaps_followed(tx.connection, dict(moved), first=False)
    elif earliest := _earliest(events):
        contacts = _earliest(event for event in events if event.type in CONTACTS)
        concerned = await queries.perhaps_followed(tx.connection, earliest, first=True)
        if contacts:
            concerned |= await queries.perhaps_followed(tx.connection, contacts, first=False)
    if concerned:
        persons = await _persons_behind(tx.connection, concerned)
        if followed := await queries.followed_among(tx.connection, persons):
            put_off(tx, followed)


def _earliest(events: Iterable[TouchRecorded]) -> dict[LeadId, datetime]:
    """When each id's first of these touches was that no machine made."""
    found: dict[LeadId, datetime] = {}
    for event in events:
        known = found.get(event.lead_id)
        if (known is None or event.occurred_at < known) and not event.automated:
            found[event.lead_id] = event.occurred_at
    return found


def ids_of(people: People) -> set[LeadId]:
    """All ids of persons."""
    return {*people, *(member.lead_id for ids in people.values() for member in ids)}


def _whole(people: People) -> set[LeadId]:
    """The ids of which all facts are those of one of these persons."""
    members = (member for ids in people.values() for member in ids)
    return {member.lead_id for member in members if member.since is None and member.until is None}


async def _lock_people(connection: Connection, lead_ids: set[LeadId]) -> People:
    """All persons to whom facts of these ids belong, with all their ids, those locked.

    While waiting for a lock, somebody else may have joined or parted the persons; so it is asked again until nothing
    is left to lock.
    """
    people: People = {}
    held: set[LeadId] = set()
    needed = lead_ids
    while needed - held:
        await lock_leads(connection, needed - held)
        held |= needed
        people = await members_of_many(connection, await _persons_behind(connection, lead_ids))
        needed = ids_of(people)
    return people


async def _persons_behind(connection: Connection, lead_ids: set[LeadId]) -> list[LeadId]:
    """Everybody to whom any fact of these ids belongs: a browser may have been several people's."""
    facts: list[tuple[LeadId, datetime | None]] = [(lead_id, None) for lead_id in sorted(lead_ids)]
    facts += await queries.linked_at(connection, lead_ids)
    return list(dict.fromkeys(await resolve_many(connection, facts)))
