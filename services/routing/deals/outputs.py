"""How deals are answered."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal, Self

from pydantic import BaseModel

from services.routing.deals.domain import Deal
from services.routing.deals.inputs import Notes, Stakeholder
from services.routing.deals.lines import Line
from services.routing.deals.story import Step


class DealOut(BaseModel):
    """A deal as it stands. `conversion_id` names the conversion that a won deal made.

    `recurring_minor` is what it brings every month, `annual_minor` every year.
    """

    deal_id: str
    lead_id: str
    external_id: str | None
    name: str
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None
    rep_id: str | None
    revision: int
    pipeline_version: int
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None
    reason: str | None
    conversion_id: str | None
    pipeline_id: str
    annual_minor: int | None
    expected_close_on: date | None
    contract_starts_on: date | None
    contract_ends_on: date | None
    lines: list[Line]
    stakeholders: list[Stakeholder]
    notes: Notes
    lost_reason: str | None
    renewal_of: str | None

    @classmethod
    def of(cls, deal: Deal) -> Self:
        """From the stored one."""
        return cls.model_validate({name: getattr(deal, name) for name in cls.model_fields if hasattr(deal, name)})


class DealStep(BaseModel):
    """How a deal stood after a change."""

    revision: int
    at: datetime
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int

    @classmethod
    def of(cls, step: Step) -> Self:
        """From a step of the deal's story."""
        return cls.model_validate(_standing(step))


class HistoryStep(DealStep):
    """A change: until when the deal stood so after it, what was changed, by whom and why.

    `forced` names what a forced move missed. `until` is null for how it stands now.
    """

    until: datetime | None
    pipeline_id: str
    recurring_minor: int | None
    expected_close_on: date | None
    rep_id: str | None
    lost_reason: str | None
    changed: list[str]
    by: str | None
    forced: list[str]
    reason: str | None


class StageTime(BaseModel):
    """How long a deal was in a stage in all, how often it entered it, and whether it is there now."""

    stage: str
    pipeline_id: str
    seconds: float
    entered: int
    first_entered_at: datetime
    now: bool


class DealHistory(BaseModel):
    """How a deal came to stand as it does, in order of time."""

    deal_id: str
    items: list[HistoryStep]
    stages: list[StageTime]


class DealWithHistory(DealOut):
    """A deal and how it came to stand so."""

    history: list[DealStep]


def history_of(deal: Deal, steps: Sequence[Step], now: datetime) -> DealHistory:
    """The history of a deal with the time it spent in each stage, until it was closed or now."""
    ends: list[datetime | None] = [*(step.at for step in steps[1:]), None]
    items = [_history_step(deal, step, until) for step, until in zip(steps, ends, strict=True)]
    return DealHistory(deal_id=deal.deal_id, items=items, stages=_stage_times(steps, ends, now))


def _history_step(deal: Deal, step: Step, until: datetime | None) -> HistoryStep:
    change, stood = step.entry.change, step.deal
    names = [name for name in type(change).model_fields if name in change.model_fields_set and _tells(change, name)]
    return HistoryStep(
        **_standing(step),
        until=until,
        pipeline_id=stood.pipeline_id,
        recurring_minor=stood.recurring_minor,
        expected_close_on=stood.expected_close_on,
        rep_id=stood.rep_id,
        lost_reason=stood.lost_reason,
        changed=[*(name for name in names if name not in ("texts", "forced")), *change.texts],
        by=step.entry.by,
        forced=list(change.forced),
        reason=deal.remarks.get(str(step.entry.number)) or (deal.reason if change.lost else None),
    )


def _tells(change: Any, name: str) -> bool:
    return name not in ("probability", "pipeline_version", "corrects") and getattr(change, name) is not False


def _stage_times(steps: Sequence[Step], ends: Sequence[datetime | None], now: datetime) -> list[StageTime]:
    times: dict[tuple[str, str], StageTime] = {}
    before: tuple[str, str] | None = None
    for step, until in zip(steps, ends, strict=True):
        here = (step.deal.pipeline_id, step.deal.stage) if step.deal.status == "open" else None
        if here is not None:
            known = times.get(here) or StageTime(
                stage=here[1], pipeline_id=here[0], seconds=0, entered=0, first_entered_at=step.at, now=False
            )
            spent = max((until or now) - step.at, timedelta(0)).total_seconds()
            times[here] = known.model_copy(
                update={
                    "seconds": known.seconds + spent,
                    "entered": known.entered + (here != before),
                    "now": until is None,
                }
            )
        before = here
    return list(times.values())


def _standing(step: Step) -> dict[str, Any]:
    names = ("status", "stage", "probability", "value_minor")
    return {"revision": step.entry.number, "at": step.at} | {name: getattr(step.deal, name) for name in names}
