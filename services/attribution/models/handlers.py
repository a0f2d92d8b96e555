"""What happens when another version of a custom model becomes active: all conversions are credited by it."""

from datetime import timedelta

from services.attribution.credits.crediting import recredit
from services.attribution.models import queries
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.custom import CustomModel
from shared.db import Connection, Database

STEP = 100
"""Conversions credited in one transaction: short enough to keep nobody waiting."""


async def backfill_models(database: Database, catalogue: Catalogue) -> timedelta | None:
    """Take the next step of each walk that is not finished; answers no wait when there is more to do."""
    async with database.transaction() as tx:
        models = await catalogue.custom(tx.connection)
    more = False
    for model in models:
        async with database.transaction() as tx:
            more |= await _step(tx.connection, catalogue, model)
    return timedelta(0) if more else None


async def _step(connection: Connection, catalogue: Catalogue, model: CustomModel) -> bool:
    walk = await queries.begin_backfill(connection, model.model_id, model.version)
    if walk.finished_at is not None:
        return False
    found = await queries.conversions_after(connection, walk.after, STEP)
    if found:
        ids = {one.conversion_id for one in found}
        facts = [(one.lead_id, one.occurred_at) for one in found]
        await recredit(connection, catalogue, facts, lambda conversion, _window: conversion.conversion_id in ids)
    finished = len(found) < STEP
    after = found[-1].conversion_id if found else walk.after
    await queries.advance(connection, model.model_id, after=after, credited=len(found), finished=finished)
    return not finished
