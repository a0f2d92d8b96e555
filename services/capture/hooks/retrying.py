"""Deliveries that could not be mapped, tried again: the mapping was corrected, or the code was."""

from collections.abc import Sequence

from services.capture.hooks import queries
from services.capture.hooks.handlers import handle_delivery
from services.capture.hooks.sealing import kept_delivery
from services.capture.sources.inputs import RetriedOut
from services.capture.sources.known import source_in
from shared.ids import SourceId
from shared.service import Runtime

MOST_AT_ONCE = 1_000


async def retry_unmapped(source_id: SourceId, runtime: Runtime, chosen: Sequence[str] | None) -> RetriedOut:
    """Map a source's deliveries anew that are not mapped yet, those chosen or the next, a transaction each."""
    async with runtime.database.reading() as connection:
        waiting = list(chosen) if chosen is not None else await queries.unmapped(connection, source_id, MOST_AT_ONCE)
    tried = still = 0
    for delivery_id in waiting:
        async with runtime.database.transaction() as tx:
            row = await tx.connection.fetchrow(queries.TAKE_UNMAPPED, source_id, delivery_id)
            if row is None:
                continue
            source = await source_in(tx.connection, source_id, runtime.keys)
            handled = await handle_delivery(kept_delivery(row), source, tx, runtime)
        tried += 1
        still += handled.unmapped
    return RetriedOut(tried=tried, still_quarantined=still)
