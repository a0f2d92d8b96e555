"""Whoever's time has come is judged, by a timer."""

import asyncio
from datetime import timedelta

from services.scoring.parts import Parts
from services.scoring.stages import queries
from services.scoring.stages.handlers import PAGE, due_causes, settle, settle_unsettled
from shared.db import Database

AT_ONCE = 2


async def settle_due(database: Database, parts: Parts) -> timedelta | None:
    """Judge all whose time has come, and those marked; answers how long until the next one's time.

    Two pages at a time, of different persons: while the server writes one, the other is computed.
    """
    duties = [_settle_marked(database, parts), *(_settle_due(database, parts) for _ in range(AT_ONCE))]
    for ended in await asyncio.gather(*duties, return_exceptions=True):
        if ended is not None:
            raise ended
    async with database.reading() as connection:
        at = await queries.next_due(connection)
        now = await parts.present(connection)
    return None if at is None else max(at - now, timedelta(milliseconds=10))


async def _settle_due(database: Database, parts: Parts) -> None:
    claimed = PAGE
    while claimed == PAGE:
        async with database.transaction() as tx:
            due = await queries.claim_due(tx.connection, await parts.present_in(tx), PAGE)
            await settle(tx, parts, due_causes(due), replan=True, due=True)
        claimed = len(due)


async def _settle_marked(database: Database, parts: Parts) -> None:
    marked = PAGE
    while marked == PAGE:
        async with database.transaction() as tx:
            marked = await settle_unsettled(tx, parts, "facts changed")
