"""Learn from deals, and say what was learnt of a lead. A prediction stands beside the score and changes none."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from services.scoring.parts import Parts
from services.scoring.people.queries import load_people
from services.scoring.predictive import queries
from services.scoring.predictive.domain import Example, Model, NotEnoughData, Prediction, did_better, features_of
from services.scoring.predictive.queries import Closed, StoredModel
from shared.db import Connection, Database
from shared.identity import members_of_many, resolve_many
from shared.ids import LeadId, new_id
from shared.rules import SHIPPED_BY
from shared.telemetry import log

if TYPE_CHECKING:
    from services.scoring.predictive.learning import Learnt

MOST_DEALS = 50_000
PAGE = 500
RETRAIN_AFTER = timedelta(days=7)
RETRAIN_FROM = 10
"""A model is learnt anew by itself every week in which so many more deals ended."""


async def ask_when_due(database: Database, parts: Parts) -> None:
    """Ask for a training when there is enough new to learn from."""
    async with database.transaction() as tx:
        last = await queries.last_training(tx.connection)
        asked_at = last["asked_at"] if last is not None else None
        if asked_at is not None and asked_at > await parts.present(tx.connection) - RETRAIN_AFTER:
            return
        if await queries.closed_since(tx.connection, asked_at) >= RETRAIN_FROM:
            await queries.queue(tx.connection, new_id(), SHIPPED_BY)


async def train_next(database: Database) -> None:
    """Carry out the training that waits, if there is one."""
    while True:
        async with database.transaction() as tx:
            taken = await queries.take(tx.connection)
        if taken is None:
            return
        await _train(database, taken["training_id"], taken["author"])


async def _train(database: Database, training_id: str, author: str) -> None:
    async with database.reading() as connection:
        deals = await queries.closed_deals(connection, MOST_DEALS)
    examples = []
    for start in range(0, len(deals), PAGE):
        async with database.transaction() as tx:
            await queries.keep(tx.connection, training_id)
            examples += await _examples(tx.connection, deals[start : start + PAGE])
    try:
        learnt = await asyncio.to_thread(_learn, examples)
    except NotEnoughData as exc:
        async with database.transaction() as tx:
            await queries.finish(tx.connection, training_id, "not_enough_data", str(exc))
        return
    async with database.transaction() as tx:
        won = sum(example.won for example in examples)
        model, quality = learnt.model.as_json(), learnt.quality
        version = await queries.put_model(tx.connection, author, len(examples), won, model, quality)
        _, by_hand = await queries.active(tx.connection)
        reason = None
        if by_hand:
            reason = "another version was chosen by hand"
        elif not did_better(learnt.quality):
            reason = "on deals that it had not seen it did no better than the mean"
        else:
            await queries.activate(tx.connection, version, author, by_hand=False)
        if not await queries.finish(tx.connection, training_id, "done", reason, version):
            raise RuntimeError("another worker has finished this training")  # the version is not kept
    log.info("predictive_model_learnt", version=version, deals=len(examples), active=reason is None)


def _learn(examples: Sequence[Example]) -> "Learnt":
    """Learn, in a thread: only to load the library takes seconds on a busy machine, and leases lapse meanwhile."""
    from services.scoring.predictive.learning import learn  # noqa: PLC0415  # seldom needed

    return learn(examples)


async def _examples(connection: Connection, deals: Sequence[Closed]) -> list[Example]:
    people = await resolve_many(connection, [(deal.lead_id, None) for deal in deals])
    known = await _features(connection, [(one, deal.opened_at) for one, deal in zip(people, deals, strict=True)])
    return [Example(features, deal.won, deal.closed_at) for features, deal in zip(known, deals, strict=True)]


async def _features(connection: Connection, asked: Sequence[tuple[LeadId, datetime]]) -> list[dict[str, float | str]]:
    """What persons were known by at a moment each; of the profile, what is known of it now."""
    people = sorted({person_id for person_id, _ in asked})
    ids = await members_of_many(connection, people)
    profiles = await load_people(connection, people)
    seen = await queries.seen(connection, [(ids[person_id], at) for person_id, at in asked])
    return [
        features_of(profiles[person_id].lead if person_id in profiles else {}, touches, at)
        for (person_id, at), touches in zip(asked, seen, strict=True)
    ]


async def predict(connection: Connection, parts: Parts, stored: StoredModel, person_id: LeadId) -> Prediction:
    """What a model says of a person at this moment."""
    [features] = await _features(connection, [(person_id, await parts.present(connection))])
    return Model.of(stored.model).predict(features)
