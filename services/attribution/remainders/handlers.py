"""Journeys that led to nothing so far, counted a moment after their touches came."""

from datetime import timedelta

from services.attribution.cohorts.handlers import count_contacts
from services.attribution.paths.domain import moved
from services.attribution.paths.queries import move_sums
from services.attribution.remainders import queries
from shared.db import Connection, Database
from shared.identity import members_of_many, persons_of
from shared.ids import LeadId
from shared.service import Runtime


async def keep_remainders(database: Database) -> timedelta | None:
    """The next step of the worker; the first time, everyone is looked at."""
    async with database.transaction() as tx:
        await queries.put_all_once(tx.connection)
    return await count_remainders(database)


async def count_remainders(database: Database) -> timedelta | None:
    """Look at the ids that waited longest, in one transaction; answers no wait when there may be more."""
    async with database.transaction() as tx:
        lead_ids = await queries.take_turns(tx.connection)
        if lead_ids:
            await _count(tx.connection, lead_ids)
    return timedelta(0) if lead_ids else None


async def settle(runtime: Runtime) -> None:
    """Look at all that wait, of the projection at hand."""
    while await count_remainders(runtime.database) is not None:
        pass


async def _count(connection: Connection, lead_ids: set[LeadId]) -> None:
    """Count what is left of the journeys of everyone whom facts of these ids may belong to.

    An id that turned out to be somebody else's is nobody any more: nothing is left of it.
    """
    concerned = lead_ids | await queries.linked_to(connection, lead_ids)
    persons = await persons_of(connection, concerned)
    people = await members_of_many(connection, persons)
    await count_contacts(connection, people, concerned)
    found = await queries.remaining(connection, people)
    stored = await queries.stored_remainders(connection, persons | concerned)
    changed = {person: one for person, one in found.items() if stored.get(person) != one}
    gone = stored.keys() - found.keys()
    before = [stored[person].journey for person in {*gone, *(changed.keys() & stored.keys())}]
    await move_sums(connection, moved(before, [one.journey for one in changed.values()]))
    await queries.store_remainders(connection, changed, gone)
