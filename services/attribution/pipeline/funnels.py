"""The ways of people and deals through their stages, as marks: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.attribution.channels.domain import NOT_SET
from services.attribution.pipeline.domain import DealStep, Kind, Mark, Owner
from services.attribution.pipeline.lapses import lapse_between
from shared.ids import DealId

LIFECYCLE = ("subscriber", "lead", "mql", "sal", "sql", "opportunity", "customer")
SET_ASIDE = ("disqualified", "recycled")
"""Where leads go who leave the way."""
WON = "won"


@dataclass(frozen=True, slots=True)
class Funnel:
    """The kinds of the marks of one funnel. `next` and `last` are what was reached from a stage: the next, the last."""

    entered: Kind
    skipped: Kind
    next: Kind
    last: Kind
    left: Kind

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All of them."""
        return self.entered, self.skipped, self.next, self.last, self.left


LEADS = Funnel("lead_entered", "lead_skipped", "lead_next", "lead_last", "lead_left")
DEALS = Funnel("deal_entered", "deal_skipped", "deal_next", "deal_last", "deal_left")


def passed_at(order: Sequence[str], entered: Mapping[str, datetime]) -> dict[str, datetime]:
    """When each stage was passed first: entered, or left out on the way to a later one."""
    passed: dict[str, datetime] = {}
    later: datetime | None = None
    for stage in reversed(order):
        at = entered.get(stage)
        if at is not None and (later is None or at < later):
            later = at
        if later is not None:
            passed[stage] = later
    return passed


def way_through(
    funnel: Funnel, order: Sequence[str], entered: Mapping[str, datetime], ref: str, owner: Owner
) -> list[Mark]:
    """A mark for each stage passed, and for the next and the last stage where they were reached from it.

    A stage that was left out, or entered after a later one, is passed together with that one; no time is told from it.
    """
    passed = passed_at(order, entered)
    marks: list[Mark] = []
    for stage, following in zip(order, (*order[1:], None), strict=True):
        if stage not in passed:
            continue
        at = passed[stage]
        skipped = entered.get(stage) != at
        marks.append(Mark(funnel.entered, stage, ref, at, owner))
        if skipped:
            marks.append(Mark(funnel.skipped, stage, ref, at, owner))
        for kind, target in ((funnel.next, following), (funnel.last, following and order[-1])):
            if target is not None and target in passed:
                lapse = None if skipped else lapse_between(at, passed[target])
                marks.append(Mark(kind, stage, ref, at, owner, lapse=lapse))
    return marks


def lead_way(stages: Mapping[str, datetime], owner: Owner) -> list[Mark]:
    """A person's way through the lifecycle, out of the first time that each stage was entered.

    Who is set aside leaves from the furthest stage reached by then.
    """
    marks = way_through(LEADS, LIFECYCLE, stages, "", owner)
    passed = passed_at(LIFECYCLE, stages)
    for at in (stages[stage] for stage in SET_ASIDE if stage in stages):
        stood = [stage for stage in LIFECYCLE if stage in passed and passed[stage] <= at]
        marks.append(Mark(LEADS.left, stood[-1] if stood else LIFECYCLE[0], "", at, owner))
    return marks


def deal_way(deal_id: DealId, steps: Sequence[DealStep], times: Sequence[datetime], owner: Owner) -> list[Mark]:
    """A deal's way through the stages of its pipeline, `won` being the last; `times` are those of its steps.

    The order is the newest that was told. A stage that is not in it was one of an earlier pipeline: it comes first.
    """
    entered: dict[str, datetime] = {}
    for step, at in zip(steps, times, strict=True):
        stage = WON if step.status == "won" else step.stage
        if step.status != "lost":
            entered[stage] = min(at, entered.get(stage, at))
    if steps[-1].status != "won":
        entered.pop(WON, None)
    told = next((step.pipeline_stages for step in reversed(steps) if step.pipeline_stages), ())
    former = {step.stage: None for step in steps if step.status == "open" and step.stage not in told}
    order = tuple(dict.fromkeys((*former, *told, WON)))
    marks = way_through(DEALS, order, entered, deal_id, owner)
    if steps[-1].status == "lost":
        stood = next((step.stage for step in reversed(steps) if step.status == "open"), NOT_SET)
        marks.append(Mark(DEALS.left, stood, deal_id, times[-1], owner))
    return marks
