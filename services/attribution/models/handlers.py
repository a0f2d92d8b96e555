"""What happens when another version of a model counts: all conversions are credited by it, then it serves."""

from collections.abc import Sequence
from datetime import timedelta

from services.attribution.conversions.queries import Placed
from services.attribution.credits.crediting import recredit
from services.attribution.debts.queries import owes_runs
from services.attribution.domain import CreditingRun, TotalsModel, is_longer, longest_lookback
from services.attribution.models import queries
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.queries import Run
from shared.db import Connection, Database
from shared.faults import failpoint

STEP = 100
"""Conversions credited in one transaction: short enough to keep nobody waiting."""

STEP_ALONE = 500
"""The same where nobody waits: in a projection that does not serve yet. Sums of days are moved once a step."""

STEP_BACK = 5_000
"""Conversions whose credits by a run that is gone are taken away in one transaction."""


async def walk_models(database: Database, catalogue: Catalogue, step: int = STEP) -> timedelta | None:
    """Take the next step of what is not finished, so many conversions; answers no wait when there is more to do."""
    async with database.transaction() as tx:
        await _follow_documents(tx.connection, catalogue)
    async with database.transaction() as tx:
        await _switch(tx.connection, catalogue)
    async with database.transaction() as tx:
        more = await _walk(tx.connection, catalogue, step)
    async with database.transaction() as tx:
        more |= await _take_back(tx.connection)
    return timedelta(0) if more else None


async def settle_models(database: Database, catalogue: Catalogue) -> None:
    """Credit at once whatever runs still owe to the conversions of the projection at hand.

    One that is built beside the serving one has no runs of its own: it gets the credits of those that began while it
    was built, and loses those of runs that are gone.
    """
    if not database.muted:
        while await walk_models(database, catalogue) is not None:
            pass
        return
    async with database.transaction() as tx:
        await queries.take_strangers(tx.connection)
    after: str | None = ""
    while after is not None:
        async with database.transaction() as tx:
            after = await _settle_next(tx.connection, catalogue, after)


async def _settle_next(connection: Connection, catalogue: Catalogue, after: str) -> str | None:
    runs = await catalogue.crediting(connection)
    numbers = [run.run for run in runs if not isinstance(run.model, TotalsModel)]
    await queries.take_time(connection)
    found = await queries.unsettled_after(connection, after, numbers, longest_lookback(runs), STEP_ALONE)
    await _credit_anew(connection, catalogue, found)
    return found[-1].conversion_id if len(found) == STEP_ALONE else None


async def begin_runs(connection: Connection) -> None:
    """Begin to build each version that counts by now and is neither built nor serving; what was being built is let go.

    Nobody credits meanwhile, until the end of the transaction.
    """
    catalogue = Catalogue()  # its own: a version saved here may be taken back, and another get its number
    reach = await _reach(connection, catalogue, await queries.lock_runs(connection))
    for model in (await catalogue.active(connection)).values():
        runs = await queries.runs_of(connection, model.model_id)
        wanted = [run for run in runs if run.version == model.version and run.state != "retiring"]
        for run in runs:
            if run.state == "building" and run not in wanted:
                await queries.retire(connection, run.run)
        if not wanted:
            splits = not isinstance(model, TotalsModel)
            walk = splits or is_longer(model.lookback, reach)
            await queries.begin_run(connection, model.model_id, model.version, splits=splits, walk=walk)
    await _shorten(connection, catalogue, reach)


async def _follow_documents(connection: Connection, catalogue: Catalogue) -> None:
    """Look whether anything is to be begun or let go, and only then keep those who credit out."""
    runs = await queries.runs(connection)  # first: what is begun meanwhile is not idle
    active = {(model.model_id, model.version) for model in (await catalogue.active(connection)).values()}
    building = {(run.model_id, run.version) for run in runs if run.state == "building"}
    current = {(run.model_id, run.version) for run in runs if run.state != "retiring"}
    if building - active or active - current:
        await begin_runs(connection)
    if await queries.walk_again(connection, everything=False):
        await queries.take_strangers(connection)


async def _switch(connection: Connection, catalogue: Catalogue) -> None:
    """What is built serves from now on, in place of what served."""
    if not await _ready(connection, await queries.runs(connection)):
        return
    runs = await queries.lock_runs(connection)
    before = await _reach(connection, catalogue, runs)
    built = await _ready(connection, runs)  # another may have been built meanwhile, and be owed
    replaced = {run.model_id for run in built}
    for run in runs:
        if run.state == "serving" and run.model_id in replaced:
            await queries.retire(connection, run.run)
    for run in built:
        await queries.serve(connection, run.run)
    await _shorten(connection, catalogue, before)


async def _ready(connection: Connection, runs: Sequence[Run]) -> list[Run]:
    """Those of these runs that are built, unless a conversion owes one of them its credits."""
    built = [run for run in runs if run.is_built]
    if not built or await owes_runs(connection, [run.run for run in built if run.splits]):
        return []
    return built


async def _walk(connection: Connection, catalogue: Catalogue, step: int) -> bool:
    """Credit the next conversions; runs that have come equally far are walked together."""
    if step > STEP:
        await queries.take_time(connection)
    await queries.share_runs(connection)
    walks = await queries.walks(connection)
    if not walks:
        return False
    start = min(walk.after for walk in walks)
    found = await queries.conversions_after(connection, start, step)
    await _credit_anew(connection, catalogue, found)
    finished = len(found) < step
    after = found[-1].conversion_id if found else start
    done = {
        walk.run: sum(one.conversion_id > walk.after for one in found)
        for walk in walks
        if finished or walk.after <= after
    }
    await queries.advance(connection, done, after=after, finished=finished)
    failpoint("model_walk_before_commit")
    return True


async def _shorten(connection: Connection, catalogue: Catalogue, before: timedelta | None) -> None:
    """Walk again where no model looks as far back any more as one did before: all paths become shorter."""
    if is_longer(before, await _reach(connection, catalogue, await queries.runs(connection))):
        await queries.walk_again(connection, everything=True)


async def _credit_anew(connection: Connection, catalogue: Catalogue, found: Sequence[Placed]) -> None:
    if found:
        ids = {one.conversion_id for one in found}
        facts = [(one.lead_id, one.occurred_at) for one in found]
        await recredit(connection, catalogue, facts, lambda conversion, _window: conversion.conversion_id in ids)


async def _reach(connection: Connection, catalogue: Catalogue, runs: list[Run]) -> timedelta | None:
    """How far back the paths reach."""
    return longest_lookback(
        [
            CreditingRun(run.run, await catalogue.model(connection, run.model_id, run.version))
            for run in runs
            if run.state != "retiring"
        ]
    )


async def _take_back(connection: Connection) -> bool:
    """Take away what runs gave that are let go."""
    gone = [run for run in await queries.runs(connection) if run.state == "retiring"]
    return any([not await queries.take_credits(connection, run, STEP_BACK) for run in gone])
