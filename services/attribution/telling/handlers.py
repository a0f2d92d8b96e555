"""Tells of credits that changed, a moment after they did.

Crediting only notes what changed, in its own transaction. Telling reads what stands and tells that, one process at a
time: so of changes that follow each other closely the last is told, and what is told last is what holds. When another
run of a model serves, all conversions are told by it, bit by bit.
"""

from collections import defaultdict
from datetime import timedelta

from services.attribution.telling import queries
from services.attribution.telling.domain import fact_of
from shared.db import Tx
from shared.ids import ConversionId
from shared.service import Runtime

STEP = 300
"""Conversions told in one transaction when a run begins to serve."""


async def tell_credits(runtime: Runtime) -> timedelta | None:
    """Tell what waits longest; answers no wait when there is more to do."""
    async with runtime.database.transaction() as tx:
        if not await queries.take_turn(tx.connection):
            return None
        serving = await queries.serving_runs(tx.connection, runtime.settings.credits_topic_models)
        more = await _tell_changes(tx, runtime, serving)
        more |= await _tell_all(tx, runtime, serving)
    return timedelta(0) if more else None


async def _tell_changes(tx: Tx, runtime: Runtime, serving: dict[str, int]) -> bool:
    changes = await queries.take_changes(tx.connection)
    changed: dict[int, set[ConversionId]] = defaultdict(set)
    for ids, runs in changes:
        for run in runs:
            changed[run] |= set(ids)
    for run in sorted(serving.values()):
        if run in changed:
            await _tell(tx, runtime, sorted(changed[run]), run)
    return bool(changes)


async def _tell_all(tx: Tx, runtime: Runtime, serving: dict[str, int]) -> bool:
    untold = await queries.next_untold(tx.connection, serving)
    if untold is None:
        return False
    ids = await queries.conversions_after(tx.connection, untold.after, STEP)
    await _tell(tx, runtime, ids, untold.run)
    after = ids[-1] if ids else untold.after
    await queries.advance(tx.connection, untold, after, finished=len(ids) < STEP)
    return True


async def _tell(tx: Tx, runtime: Runtime, ids: list[ConversionId], run: int) -> None:
    revision = await queries.next_revision(tx.connection)
    at = runtime.clock.now()
    tx.emit(*(fact_of(division, revision, at) for division in await queries.divisions(tx.connection, ids, [run])))
