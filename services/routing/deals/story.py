"""What a deal is, out of all that was ever told of it: the changes in the order in which they happened. Pure.

Whatever the order of arrival, the same changes make the same deal. Texts are not part of it: of those the last one told
counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from services.routing.deals.domain import Deal, conversion_id_of
from services.routing.deals.inputs import Stakeholder
from services.routing.deals.lines import Line, amounts_of
from services.routing.deals.pipeline import LOST, WON
from shared.ids import RepId

FIELDS = (
    "value_minor",
    "recurring_minor",
    "expected_close_on",
    "contract_starts_on",
    "contract_ends_on",
    "lines",
    "stakeholders",
    "rep_id",
)
"""What a change sets as it is told."""
AMOUNTS = ("lines", "value_minor", "recurring_minor")
"""What follows from lines, where there are any, whatever was told besides before they were told of."""
ENDS = {WON: 100, LOST: 0}


class Change(BaseModel):
    """One change as it is kept: only what it says is set. `corrects` says that a win was at another time than told.

    `texts` names what was written, `forced` what a forced move missed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: str | None = None
    probability: int | None = None
    pipeline_id: str | None = None
    pipeline_version: int | None = None
    won: bool = False
    lost: bool = False
    reopened: bool = False
    corrects: bool = False
    lost_reason: str | None = None
    value_minor: int = 0
    recurring_minor: int | None = None
    expected_close_on: date | None = None
    contract_starts_on: date | None = None
    contract_ends_on: date | None = None
    lines: tuple[Line, ...] = ()
    stakeholders: tuple[Stakeholder, ...] = ()
    rep_id: RepId | None = None
    texts: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return self.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """A change with its time; `number` counts them as they were told, `by` is who told it."""

    number: int
    at: datetime
    change: Change
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A change that changed something, and how the deal stood after it."""

    entry: Entry
    deal: Deal

    @property
    def at(self) -> datetime:
        """Since when it stood so."""
        return self.deal.changed_at


def steps_of(known: Deal, entries: Sequence[Entry]) -> list[Step]:
    """How a deal came to stand as it does, in order of time. The one told first opened it, whenever it was.

    What no change ever said is as it is `known`.
    """
    opening = min(entries, key=lambda entry: entry.number)
    opened_at = min(entry.at for entry in entries)
    blank = replace(known, status="open", closed_at=None, lost_reason=None, conversion_id=None, passed=())
    state = _after(replace(blank, opened_at=opened_at, changed_at=opened_at), replace(opening, at=opened_at), 0)
    steps = [Step(opening, state)]
    closed_by = opening.number
    rest = sorted((one for one in entries if one is not opening), key=lambda entry: (entry.at, entry.number))
    for entry in rest:
        after = _after(state, entry, closed_by)
        if after.closed_at != state.closed_at:
            closed_by = entry.number
        if after != state or entry.change.texts:
            state = replace(after, changed_at=entry.at)
            steps.append(Step(entry, state))
    return steps


def same_way(steps: Sequence[Step], before: Sequence[Step]) -> bool:
    """Whether steps are, one by one, what they were before."""
    return [(one.at, one.deal) for one in steps] == [(one.at, one.deal) for one in before]


def standing_at(steps: Iterable[Step], at: datetime) -> Deal:
    """How the deal stood at a moment; before it was opened, as it was opened."""
    stood = list(steps)
    return next((step.deal for step in reversed(stood) if step.at <= at), stood[0].deal)


def _after(deal: Deal, entry: Entry, closed_by: int) -> Deal:
    change = entry.change
    deal = replace(deal, **{name: getattr(change, name) for name in FIELDS if name in change.model_fields_set})
    if deal.lines and not change.model_fields_set.isdisjoint(AMOUNTS):
        value_minor, recurring_minor = amounts_of(deal.lines)
        deal = replace(deal, value_minor=value_minor, recurring_minor=recurring_minor)
    if change.reopened and deal.status != "open":
        deal = replace(deal, status="open", closed_at=None, lost_reason=None, conversion_id=None)
        return _in_stage(deal, change)
    if deal.status == "open":
        deal = _in_stage(deal, change)
        if change.won:
            return _ended(replace(deal, status="won", conversion_id=conversion_id_of(deal.deal_id)), WON, entry.at)
        if change.lost:
            return _ended(replace(deal, status="lost", lost_reason=change.lost_reason), LOST, entry.at)
    elif _ends_alike(deal, change):
        if change.lost and change.lost_reason is not None:
            deal = replace(deal, lost_reason=change.lost_reason)
        if change.corrects and entry.number > closed_by:
            deal = replace(deal, closed_at=entry.at)
    return deal


def _ended(deal: Deal, stage: str, at: datetime) -> Deal:
    return replace(deal, stage=stage, probability=ENDS[stage], closed_at=at)


def _in_stage(deal: Deal, change: Change) -> Deal:
    if change.stage is None or change.stage in ENDS:
        return deal
    return replace(
        deal,
        stage=change.stage,
        probability=deal.probability if change.probability is None else change.probability,
        pipeline_id=change.pipeline_id or deal.pipeline_id,
        pipeline_version=deal.pipeline_version if change.pipeline_version is None else change.pipeline_version,
        passed=tuple(dict.fromkeys((*deal.passed, change.stage))),
    )


def _ends_alike(deal: Deal, change: Change) -> bool:
    return (deal.status == "won" and change.won) or (deal.status == "lost" and change.lost)
