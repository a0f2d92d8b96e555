"""The predictive score over HTTP: trainings, versions with their quality, and what they say of a lead."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from services.scoring.errors import NoSuchLead, NoSuchModel, NoSuchTraining
from services.scoring.parts import Parts
from services.scoring.people.queries import load_people
from services.scoring.predictive import queries
from services.scoring.predictive.advice import threshold_advice
from services.scoring.predictive.domain import did_better
from services.scoring.predictive.handlers import predict
from services.scoring.predictive.queries import StoredModel
from shared.db import Connection
from shared.emails import Email
from shared.identity import find_by_email, resolve
from shared.ids import LeadId, new_id
from shared.service import Runtime
from shared.web import Endpoints, Input, Limit, Page, Principal, make_cursor, read_cursor, requires

NEWEST = 2**31 - 1
CURSOR = "predictive-models"
LeadIdParam = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]
EmailParam = Annotated[Email, Query(description="Instead of a lead id")]
TrainingId = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,64}$")]
Version = Annotated[int, Path(ge=1, le=NEWEST)]


class TrainingOut(BaseModel):
    """A job that learns from deals. `done` made a version; `reason` says why it does not count, or there is none."""

    training_id: str
    state: Literal["queued", "running", "done", "not_enough_data"]
    reason: str | None
    version: int | None
    author: str
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ModelOut(BaseModel):
    """A version: from how many deals it was learnt, and how well its like did on deals that it had not seen.

    `quality` was measured on the newest quarter of the deals after learning from the older ones. `brier` is the mean
    squared error of the chances told, to be held against `brier_of_base_rate`, that of telling everybody's chance of
    everybody. `reliability` sets what was told beside what came of it (`rate_low` to `rate_high`: 95 %), `lift` tells
    which part of all won deals the best tenths held.
    """

    version: int
    active: bool
    author: str
    trained_at: datetime
    deals: int
    won: int
    quality: dict[str, Any]


class FeatureOut(BaseModel):
    """What a feature counts: per unit above what is usual, or for a category.

    What lies outside of `low` to `high`, all that was ever seen, counts as these; older versions know no such bounds.
    """

    feature: str
    category: str | None
    mean: float
    weight: float
    low: float | None = None
    high: float | None = None


class ModelDetails(ModelOut):
    """The same with all that it goes by."""

    usual_log_odds: float
    weights: list[FeatureOut]


class StatusOut(BaseModel):
    """What counts now. `automatic`: the newest version that is better than the mean takes over by itself."""

    active_version: int | None
    automatic: bool
    reason: str | None
    model: ModelOut | None


class ContributionOut(BaseModel):
    """What a feature of the lead adds to its log-odds, above (or below) somebody of whom everything is usual.

    `value` is as the model takes it: a category, or a number, which but for `channels` is log(1 + n).
    """

    feature: str
    value: float | str
    log_odds: float


class PredictionOut(BaseModel):
    """How likely a deal with this lead would be won, by what was learnt from own deals; no part of the score.

    The contributions and `usual_log_odds` sum to `log_odds`, whose probability it is. Without a version that counts
    all is null, and `reason` says why.
    """

    lead_id: LeadId
    probability: float | None
    reason: str | None
    version: int | None
    base_rate: float | None
    log_odds: float | None
    usual_log_odds: float | None
    contributions: list[ContributionOut]
    as_of: datetime


class BarOut(BaseModel):
    """A bar on a score, and which part of those that became opportunities, and of the others, reached it."""

    percentile: int
    value: float
    share_of_opportunities: float
    share_of_others: float | None


class AdviceOut(BaseModel):
    """What the scores at hand-off say about the bars of the stages; what is proposed is the 75th percentile.

    `reason` says why nothing is proposed, or what to do instead.
    """

    enough_data: bool
    reason: str | None
    opportunities: int
    others: int
    won_deals: int
    leads_last_month: int
    proposed_engagement: float | None
    proposed_total: float | None
    engagement: list[BarOut]
    total: list[BarOut]


class ActivateIn(Input):
    """Which version counts from now; null: the newest one that is better than the mean, also of those to come."""

    version: int | None = Field(ge=1, le=NEWEST)


def router(runtime: Runtime, parts: Parts) -> APIRouter:
    """The endpoints of the predictive score."""
    database = runtime.database
    made = Endpoints(tags=["predictive"])
    may_read = Depends(requires("scoring:read"))
    may_change = requires("scoring:write")

    @made.post("/v1/predictive:train", status_code=202)
    async def train(principal: Annotated[Principal, Depends(may_change)]) -> TrainingOut:
        """Learn from all deals that ended; one that waits or runs already is answered instead."""
        async with database.transaction() as tx:
            training_id = await queries.queue(tx.connection, new_id(), principal.subject)
            return await _training(tx.connection, training_id)

    @made.get("/v1/predictive/trainings/{training_id}", dependencies=[may_read])
    async def training(training_id: TrainingId) -> TrainingOut:
        """How far a training is."""
        async with database.reading() as connection:
            return await _training(connection, training_id)

    @made.get("/v1/predictive", dependencies=[may_read])
    async def status() -> StatusOut:
        """The version that counts now, if there is one."""
        async with database.reading() as connection:
            return await _status(connection)

    @made.get("/v1/predictive/models", dependencies=[may_read])
    async def models(limit: Limit = 50, cursor: str | None = None) -> Page[ModelOut]:
        """All versions, the newest first."""
        before = read_cursor(runtime.secrets, CURSOR, cursor) or NEWEST
        async with database.reading() as connection:
            found = await queries.versions(connection, before, limit + 1)
            version, _ = await queries.active(connection)
        more = make_cursor(runtime.secrets, CURSOR, found[limit - 1].version) if len(found) > limit else None
        return Page(items=[ModelOut(**_told(one, version)) for one in found[:limit]], next_cursor=more)

    @made.get("/v1/predictive/models/{version}", dependencies=[may_read])
    async def model(version: Version) -> ModelDetails:
        """A version with everything that it goes by."""
        async with database.reading() as connection:
            found = await _stored(connection, version)
            active, _ = await queries.active(connection)
        weights = [FeatureOut(**weight) for weight in found.model["weights"]]
        return ModelDetails(**_told(found, active), usual_log_odds=found.model["usual"], weights=weights)

    @made.post("/v1/predictive:activate")
    async def activate(body: ActivateIn, principal: Annotated[Principal, Depends(may_change)]) -> StatusOut:
        """Have a version count, also an earlier one; or leave the choice to what newer ones are worth."""
        async with database.transaction() as tx:
            await queries.take_turn(
                tx.connection
            )  # or a training that ends meanwhile would choose over a person's head
            if body.version is not None:
                await _stored(tx.connection, body.version)
                await queries.activate(tx.connection, body.version, principal.subject, by_hand=True)
            else:
                newest = await queries.versions(tx.connection, NEWEST, 1)
                better = [one.version for one in newest if did_better(one.quality)]
                version = better[0] if better else None
                await queries.activate(tx.connection, version, principal.subject, by_hand=False)
            return await _status(tx.connection)

    @made.get("/v1/predictions", dependencies=[may_read])
    async def prediction_by_email(email: EmailParam) -> PredictionOut:
        """The chance of the person with an email address."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await _prediction(connection, parts, await find_by_email(connection, runtime.ids, email))

    @made.get("/v1/leads/{lead_id}/prediction", dependencies=[may_read])
    async def prediction(lead_id: LeadIdParam) -> PredictionOut:
        """How likely a deal with a lead would be won, and what says so."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await _prediction(connection, parts, LeadId(lead_id))

    @made.get("/v1/thresholds/advice", dependencies=[may_read])
    async def advice(days: Annotated[int, Query(ge=60, le=3_660)] = 365) -> AdviceOut:
        """Where the bar of a marketing-qualified lead might be, by the leads that became opportunities."""
        async with database.reading() as connection:
            found = await threshold_advice(connection, await parts.present(connection), days)
        return AdviceOut.model_validate(asdict(found))

    return made


async def _training(connection: Connection, training_id: str) -> TrainingOut:
    row = await queries.training(connection, training_id)
    if row is None:
        raise NoSuchTraining(f"there is no training {training_id}")
    return TrainingOut(**dict(row))


async def _stored(connection: Connection, version: int) -> StoredModel:
    found = await queries.stored(connection, version)
    if found is None:
        raise NoSuchModel(f"no version {version} was learnt")
    return found


async def _status(connection: Connection) -> StatusOut:
    version, by_hand = await queries.active(connection)
    found = await queries.stored(connection, version) if version is not None else None
    return StatusOut(
        active_version=version,
        automatic=not by_hand,
        reason=None if found is not None else await _why_none(connection),
        model=ModelOut(**_told(found, version)) if found is not None else None,
    )


async def _why_none(connection: Connection) -> str:
    last = await queries.last_training(connection)
    if last is None:
        return "nothing was learnt yet: POST /scoring/v1/predictive:train"
    if last["state"] == "not_enough_data":
        return f"not enough data: {last['reason']}"
    return last["reason"] or f"the last training is {last['state']}"


async def _prediction(connection: Connection, parts: Parts, lead_id: LeadId) -> PredictionOut:
    person_id = await resolve(connection, lead_id)
    if person_id not in await load_people(connection, [person_id]):
        raise NoSuchLead(f"nothing was told here about a lead {lead_id[:100]}")
    version, _ = await queries.active(connection)
    stored = await queries.stored(connection, version) if version is not None else None
    now = await parts.present(connection)
    if stored is None:
        return PredictionOut(
            lead_id=person_id,
            probability=None,
            reason=await _why_none(connection),
            version=None,
            base_rate=None,
            log_odds=None,
            usual_log_odds=None,
            contributions=[],
            as_of=now,
        )
    found = await predict(connection, parts, stored, person_id)
    return PredictionOut(
        lead_id=person_id,
        probability=round(found.probability, 6),
        reason=None,
        version=stored.version,
        base_rate=round(stored.won / stored.deals, 6),
        log_odds=found.log_odds,
        usual_log_odds=stored.model["usual"],
        contributions=[ContributionOut(**asdict(one)) for one in found.contributions],
        as_of=now,
    )


def _told(stored: StoredModel, active: int | None) -> dict[str, Any]:
    told = {name: getattr(stored, name) for name in ("version", "author", "trained_at", "deals", "won", "quality")}
    return {**told, "active": stored.version == active}
