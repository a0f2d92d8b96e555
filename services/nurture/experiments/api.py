"""Experiments over HTTP: how each variant does, what was ruled, a winner chosen by hand; and what a sequence does."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from services.nurture.errors import NoSuchExperiment, NoSuchSequence, VariantStopped
from services.nurture.experiments import queries
from services.nurture.experiments.domain import (
    Comparison,
    Ruling,
    Standing,
    Trial,
    compare,
    sentence,
    sentence_of_lift,
    state_of,
)
from services.nurture.experiments.handlers import rule
from services.nurture.experiments.statistics import ALPHA, Interval, rate_interval
from services.nurture.experiments.tallies import Counted, tallies_of, tallies_of_holdout
from services.nurture.parts import Parts
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.domain import Plan
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.ids import SequenceId
from shared.money import Currency, Money
from shared.rules import NoSuchVersion
from shared.web import Endpoints, Input, Principal, requires

NEWEST = 2**31 - 1
METHOD = {
    "conversions": "Beta mixture over who converted, valid at every look (Robbins 1970; Lindon and Malek 2022)",
    "revenue": "Asymptotic confidence sequence of money per person, valid at every look (Waudby-Smith et al. 2024)",
    "attributed_revenue": "Asymptotic confidence sequence of money per person (Waudby-Smith et al. 2024)",
}
VersionQuery = Annotated[int | None, Query(ge=1, le=NEWEST, description="Default: the version that counts")]


class MoneyOut(BaseModel):
    """An amount in minor units."""

    currency: str
    value_minor: int


class IntervalOut(BaseModel):
    """Holds the truth at every look at once, with the report's confidence; null: no bound."""

    low: float | None
    high: float | None


class ComparisonOut(BaseModel):
    """A variant against another one: its rate as a multiple, or how many minor units more a person brought."""

    variant_id: str
    better: bool
    p: float
    ratio: IntervalOut | None
    difference_minor: IntervalOut | None


class VariantOut(BaseModel):
    """What the people of a variant were sent, and did. `_raw` counts machines as well. Each person counts once."""

    variant_id: str
    weight: int
    state: Literal["running", "winner", "stopped"]
    people: int
    sent: int
    delivered: int
    bounced: int
    failed: int
    opened: int
    opened_raw: int
    clicked: int
    clicked_raw: int
    replied: int
    unsubscribed: int
    conversions: int
    rate: float | None
    rate_interval: IntervalOut
    revenue: list[MoneyOut]
    attributed_revenue: list[MoneyOut]
    against: list[ComparisonOut]


class RulingOut(BaseModel):
    """What was decided, by whom, and why."""

    kind: str
    variant_id: str
    reason: str
    decided_by: str
    decided_at: datetime


class ExperimentOut(BaseModel):
    """An experiment, as it stands now."""

    sequence_id: str
    sequence_version: int
    experiment_id: str
    step_id: str
    varies: Literal["message", "time", "path"]
    metric: str
    currency: str | None
    window_days: int
    decide: str
    state: Literal["running", "decided", "stopped_by_guard"]
    winner: str | None
    sentence: str
    confidence: float
    method: str
    variants: list[VariantOut]
    history: list[RulingOut]


class ExperimentsOut(BaseModel):
    """The experiments of a version of a sequence, in the order of its steps."""

    items: list[ExperimentOut]


class GroupOut(BaseModel):
    """Those who entered a sequence, or those from whom it was kept."""

    people: int
    conversions: int
    rate: float | None
    rate_interval: IntervalOut
    revenue: list[MoneyOut]


class LiftOut(BaseModel):
    """What a sequence does: those who entered it beside those who would have, and were kept out by chance."""

    sequence_id: str
    sequence_version: int
    percent: int
    window_days: int
    treated: GroupOut
    held_out: GroupOut
    ratio: IntervalOut
    p: float
    revenue_per_person: ComparisonOut | None
    sentence: str
    confidence: float
    method: str


class DecideIn(Input):
    """The variant that everybody new gets from now on."""

    variant: str = Field(min_length=1, max_length=63)
    reason: str = Field(default="chosen by hand", min_length=1, max_length=500)


def experiments_router(parts: Parts) -> APIRouter:
    """Experiments and holdouts."""
    router = Endpoints(tags=["experiments"])
    database = parts.runtime.database
    may_read = Depends(requires("nurture:read"))
    may_write = requires("nurture:write")

    @router.get("/v1/sequences/{sequence_id}/experiments", dependencies=[may_read])
    async def list_experiments(sequence_id: str, version: VersionQuery = None) -> ExperimentsOut:
        """All experiments of a sequence."""
        async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            plan = await plan_of(connection, sequence_id, version)
            return ExperimentsOut(items=[await told(connection, plan, trial) for trial in plan.trials.values()])

    @router.get("/v1/sequences/{sequence_id}/experiments/{experiment_id}", dependencies=[may_read])
    async def get_experiment(sequence_id: str, experiment_id: str, version: VersionQuery = None) -> ExperimentOut:
        """How an experiment stands. It may be looked at as often as wanted: its intervals and p-values allow that."""
        async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            plan = await plan_of(connection, sequence_id, version)
            return await told(connection, plan, _trial(plan, experiment_id))

    @router.post("/v1/sequences/{sequence_id}/experiments/{experiment_id}:decide")
    async def decide(
        sequence_id: str, experiment_id: str, body: DecideIn, principal: Annotated[Principal, Depends(may_write)]
    ) -> ExperimentOut:
        """Choose the winner: everybody new gets it from now on. Choosing it again changes nothing."""
        async with database.transaction() as tx:
            plan = await plan_of(tx.connection, sequence_id, None)
            trial = _trial(plan, experiment_id)
            if trial.variant(body.variant) is None:
                names = ", ".join(variant.id for variant in trial.experiment.variants)
                raise Invalid("there is no such variant", [FieldError("/variant", f"is none of {names}")])
            await queries.take_turn(tx.connection, plan.sequence_id)
            standing = queries.standing_of(await queries.verdicts(tx.connection, plan.sequence_id), trial)
            if body.variant in standing.stopped:
                raise VariantStopped(f"{body.variant} was stopped: run it again under a new experiment id")
            if standing.winner != body.variant:
                ruling = Ruling("winner", body.variant, body.reason)
                await rule(tx, parts, plan.sequence_id, trial, ruling, principal.subject)
            return await told(tx.connection, plan, trial)

    @router.get("/v1/sequences/{sequence_id}/lift", dependencies=[may_read])
    async def lift(
        sequence_id: str,
        version: VersionQuery = None,
        currency: Annotated[Currency | None, Query(description="Compare money per person as well")] = None,
    ) -> LiftOut:
        """What the whole sequence does, measured by those from whom it is kept. It may be looked at at any time."""
        async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            plan = await plan_of(connection, sequence_id, version)
            if plan.holdout is None:
                raise NoSuchExperiment("this version of the sequence has no holdout: give it one, or name a version")
            alike = await versions_alike(connection, plan)
            treated, kept_out = await tallies_of_holdout(connection, plan, alike, currency)
            return _lift_out(plan, treated, kept_out, currency)

    async def plan_of(connection: Connection, sequence_id: str, version: int | None) -> Plan:
        try:
            if version is None:
                version = (await SEQUENCES.active(connection, sequence_id)).version
            return await parts.catalogue.plan(connection, SequenceId(sequence_id), version)
        except NoSuchVersion as exc:
            raise NoSuchSequence(f"there is no sequence {sequence_id}, or no such version of it") from exc

    async def versions_alike(connection: Connection, plan: Plan) -> list[int]:
        """The versions that keep out as many: people of all of them are comparable."""
        newest = await SEQUENCES.versions(connection, plan.sequence_id, before=NEWEST, limit=1_000)
        percent = plan.holdout.percent if plan.holdout is not None else None
        return [one.version for one in newest if (one.document.get("holdout") or {}).get("percent") == percent]

    async def told(connection: Connection, plan: Plan, trial: Trial) -> ExperimentOut:
        counted = await tallies_of(connection, plan.sequence_id, trial)
        found = await queries.verdicts(connection, plan.sequence_id)
        standing = queries.standing_of(found, trial)
        history = found.get((trial.experiment.id, trial.design), [])
        return _experiment_out(plan, trial, counted, standing, history)

    return router


def _trial(plan: Plan, experiment_id: str) -> Trial:
    for trial in plan.trials.values():
        if trial.experiment.id == experiment_id:
            return trial
    raise NoSuchExperiment(
        f"version {plan.version} of the sequence has no experiment {experiment_id}: name another one"
    )


def _experiment_out(
    plan: Plan, trial: Trial, counted: Sequence[Counted], standing: Standing, history: Sequence[queries.Verdict]
) -> ExperimentOut:
    experiment, tallies = trial.experiment, [one.tally for one in counted]
    why = {ruling.variant: ruling.reason for ruling in history}
    return ExperimentOut(
        sequence_id=plan.sequence_id,
        sequence_version=plan.version,
        experiment_id=experiment.id,
        step_id=trial.step_id,
        varies=trial.varies,
        metric=experiment.metric,
        currency=experiment.currency,
        window_days=experiment.window_days,
        decide=experiment.decide,
        state=state_of(trial, standing),
        winner=standing.winner,
        sentence=sentence(trial, tallies, standing, why),
        confidence=1 - ALPHA,
        method=METHOD[experiment.metric],
        variants=[_variant_out(trial, one, counted, standing) for one in counted],
        history=[
            RulingOut(
                kind=one.kind,
                variant_id=one.variant,
                reason=one.reason,
                decided_by=one.decided_by,
                decided_at=one.decided_at,
            )
            for one in history
        ],
    )


def _variant_out(trial: Trial, mine: Counted, counted: Sequence[Counted], standing: Standing) -> VariantOut:
    tally = mine.tally
    name, money = tally.variant_id, trial.experiment.metric != "conversions"
    in_play = [one.tally for one in counted if one.tally.variant_id not in standing.stopped]
    rivals = [one for one in in_play if one.variant_id != name] if name not in standing.stopped else []
    return VariantOut(
        variant_id=name,
        weight=tally.weight,
        state="winner" if name == standing.winner else "stopped" if name in standing.stopped else "running",
        people=tally.people,
        conversions=tally.converted,
        rate=_rate(tally.converted, tally.people),
        rate_interval=_interval(rate_interval(tally.converted, tally.people)),
        revenue=_money(mine.revenue),
        attributed_revenue=_money(mine.credited),
        against=[_comparison(compare(tally, rival, money=money)) for rival in rivals],
        **mine.reached,
    )


def _lift_out(plan: Plan, treated: Counted, kept_out: Counted, currency: str | None) -> LiftOut:
    assert plan.holdout is not None
    found = compare(treated.tally, kept_out.tally, money=False)
    assert found.ratio is not None
    return LiftOut(
        sequence_id=plan.sequence_id,
        sequence_version=plan.version,
        percent=plan.holdout.percent,
        window_days=plan.holdout.window_days,
        treated=_group(treated),
        held_out=_group(kept_out),
        ratio=_interval(found.ratio),
        p=found.p,
        revenue_per_person=(
            _comparison(compare(treated.tally, kept_out.tally, money=True)) if currency is not None else None
        ),
        sentence=sentence_of_lift(found),
        confidence=1 - ALPHA,
        method=METHOD["conversions"],
    )


def _group(counted: Counted) -> GroupOut:
    tally = counted.tally
    return GroupOut(
        people=tally.people,
        conversions=tally.converted,
        rate=_rate(tally.converted, tally.people),
        rate_interval=_interval(rate_interval(tally.converted, tally.people)),
        revenue=_money(counted.revenue),
    )


def _comparison(found: Comparison) -> ComparisonOut:
    return ComparisonOut(
        variant_id=found.against,
        better=found.better,
        p=found.p,
        ratio=None if found.ratio is None else _interval(found.ratio),
        difference_minor=None if found.difference is None else _interval(found.difference),
    )


def _rate(converted: int, people: int) -> float | None:
    return converted / people if people else None


def _interval(found: Interval) -> IntervalOut:
    return IntervalOut(low=found.low, high=found.high)


def _money(amounts: Sequence[Money]) -> list[MoneyOut]:
    return [MoneyOut(currency=one.currency, value_minor=one.minor) for one in amounts]
