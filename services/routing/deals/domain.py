"""How a deal changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from services.routing.deals.inputs import DealChange, DealInput
from services.routing.deals.pipeline import LOST, WON, Pipeline
from services.routing.errors import DealClosed
from shared.errors import FieldError, Invalid
from shared.events import ConversionRecorded, DealChanged
from shared.ids import ConversionId, DealId, EventId, LeadId, RepId, derived_id, new_id

ORIGIN = "routing"
DEAL_WON = "deal_won"


@dataclass(frozen=True, slots=True)
class Deal:
    """A possible sale. `changed_at` is when the last change occurred, `closed_at` when it was won or lost.

    As it is stored and told, `name` and `reason` are in the block `sealed`.
    """

    deal_id: DealId
    lead_id: LeadId
    revision: int
    external_id: str | None
    name: str
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None
    rep_id: RepId | None
    pipeline_version: int
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None = None
    reason: str | None = None
    conversion_id: ConversionId | None = None
    sealed: str | None = None


def deal_id_of(told: DealInput) -> DealId:
    """The id follows from the caller's own, so that the same deal told twice is one."""
    return DealId(derived_id("deal", told.external_id) if told.external_id is not None else new_id())


def open_deal(deal_id: DealId, told: DealInput, pipeline: Pipeline, rep_id: RepId | None, now: datetime) -> Deal:
    """A new deal. Raises Invalid for a stage that the pipeline does not have."""
    stage = told.stage or pipeline.first
    at = told.occurred_at or now
    return Deal(
        deal_id=deal_id,
        lead_id=told.lead,
        revision=1,
        external_id=told.external_id,
        name=told.name,
        status="open",
        stage=stage,
        probability=_probability(stage, pipeline),
        value_minor=told.value_minor,
        currency=told.currency,
        recurring_minor=told.recurring_minor,
        rep_id=rep_id,
        pipeline_version=pipeline.version,
        opened_at=at,
        changed_at=at,
    )


def change_deal(deal: Deal, told: DealChange, pipeline: Pipeline, now: datetime) -> Deal:
    """The deal after a change; itself when nothing changes.

    Raises DealClosed for a change that would reopen it, Invalid for a stage that the pipeline does not have or a loss
    without a reason. A deal that was told to have ended before it was opened was opened by then.
    """
    at = told.occurred_at or now
    changed = replace(
        deal,
        name=deal.name if told.name is None else told.name,
        value_minor=deal.value_minor if told.value_minor is None else told.value_minor,
        recurring_minor=deal.recurring_minor if told.recurring_minor is None else told.recurring_minor,
    )
    if told.stage is not None:
        changed = _moved(changed, told.stage, pipeline)
    elif told.won:
        changed = _won(changed, told, at)
    elif told.lost:
        changed = _lost(changed, told, at)
    if changed == deal:
        return deal
    return replace(changed, revision=deal.revision + 1, changed_at=at, opened_at=min(deal.opened_at, at))


def deal_changed(deal: Deal, pipeline: Pipeline, teams: Sequence[str], now: datetime) -> DealChanged:
    """The fact that tells how the deal stands, with the teams of its rep."""
    return DealChanged(
        event_id=EventId(derived_id("deal-changed", deal.deal_id, str(deal.revision))),
        lead_id=deal.lead_id,
        occurred_at=deal.changed_at,
        received_at=now,
        deal_id=deal.deal_id,
        revision=deal.revision,
        external_id=deal.external_id,
        name=deal.name,
        status=deal.status,
        stage=deal.stage,
        probability=deal.probability,
        value_minor=deal.value_minor,
        currency=deal.currency,
        recurring_minor=deal.recurring_minor,
        rep_id=deal.rep_id,
        opened_at=deal.opened_at,
        closed_at=deal.closed_at,
        reason=deal.reason,
        conversion_id=deal.conversion_id,
        teams=tuple(teams),
        pipeline_stages=tuple(pipeline.probabilities),
        personal=deal.sealed,
    )


def conversion_of(deal: Deal, now: datetime) -> ConversionRecorded | None:
    """The money a won deal made: always under the same id, so that telling it again corrects it."""
    if deal.conversion_id is None or deal.closed_at is None:
        return None
    return ConversionRecorded(
        event_id=EventId(derived_id("deal-conversion", deal.deal_id, str(deal.revision))),
        lead_id=deal.lead_id,
        occurred_at=deal.closed_at,
        received_at=now,
        origin=ORIGIN,
        conversion_id=deal.conversion_id,
        external_id=deal.deal_id,
        type=DEAL_WON,
        value_minor=deal.value_minor,
        currency=deal.currency,
        deal_id=deal.deal_id,
    )


def earns_anew(before: Deal, after: Deal) -> bool:
    """Whether the money a change tells differs from what was told before."""
    return (before.conversion_id, before.value_minor, before.closed_at) != (
        after.conversion_id,
        after.value_minor,
        after.closed_at,
    )


def _moved(deal: Deal, stage: str, pipeline: Pipeline) -> Deal:
    if deal.status != "open":
        raise _closed(deal)
    if stage == deal.stage:
        return deal
    return replace(deal, stage=stage, probability=_probability(stage, pipeline), pipeline_version=pipeline.version)


def _won(deal: Deal, told: DealChange, at: datetime) -> Deal:
    if deal.status == "lost":
        raise _closed(deal)
    closed_at = at if told.occurred_at is not None or deal.closed_at is None else deal.closed_at
    conversion_id = ConversionId(derived_id("conversion", ORIGIN, deal.deal_id))
    return replace(deal, status="won", stage=WON, probability=100, closed_at=closed_at, conversion_id=conversion_id)


def _lost(deal: Deal, told: DealChange, at: datetime) -> Deal:
    if deal.status == "won":
        raise _closed(deal)
    if told.reason is None:
        raise Invalid("look at /reason", [FieldError("/reason", "is required when a deal is lost")])
    closed_at = at if told.occurred_at is not None or deal.closed_at is None else deal.closed_at
    return replace(deal, status="lost", stage=LOST, probability=0, closed_at=closed_at, reason=told.reason)


def _closed(deal: Deal) -> DealClosed:
    return DealClosed(
        f"the deal was {deal.status} on {deal.closed_at:%Y-%m-%d}; open a new one instead of reopening it"
    )


def _probability(stage: str, pipeline: Pipeline) -> int:
    if stage not in pipeline.probabilities:
        known = ", ".join(pipeline.probabilities)
        ends = "; a deal ends with won or lost" if stage in (WON, LOST) else ""
        raise Invalid("look at /stage", [FieldError("/stage", f"there is no stage {stage}; there are {known}{ends}")])
    return pipeline.probabilities[stage]
