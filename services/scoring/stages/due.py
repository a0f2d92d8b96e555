"""Whoever's time has come is judged, by a timer."""

from datetime import timedelta

from services.scoring.parts import Parts
from services.scoring.stages import queries
from services.scoring.stages.handlers import PAGE, due_causes, settle, settle_unsettled
from shared.db import Database


async def settle_due(database: Database, parts: Parts) -> timedelta | None:
    """Judge all whose time has come, and those marked; answers how long until the next one's time."""
    while True:
        async with database.transaction() as tx:
            due = await queries.claim_due(tx.connection, await parts.present_in(tx), PAGE)
            await settle(tx, parts, due_causes(due), replan=True, due=True)
            marked = await settle_unsettled(tx, parts, "facts changed")
        if len(due) < PAGE and marked < PAGE:
            break
    async with database.reading() as connection:
        at = await queries.next_due(connection)
        now = await parts.present(connection)
    return None if at is None else max(at - now, timedelta(milliseconds=10))
