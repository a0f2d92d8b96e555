"""Where runs under way stand when they follow another version from now on. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from services.nurture.sequences.document import END
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.graph import ways_on
from services.nurture.sequences.steps import PlanStep, WaitStep, WaitUntilStep
from shared.errors import FieldError


@dataclass(frozen=True, slots=True)
class Standing:
    """Where runs of a version stand: before a step, in a wait, if in any that is not over. `runs` counts them."""

    version: int
    step_id: str
    waits_at: str | None
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where such runs stand after the move.

    With `span` they wait for so long from when their wait began; `looks` says that they look at once what to do there.
    """

    step_id: str
    waits_at: str | None
    span: timedelta | None = None
    looks: bool = False


def placed(old: Plan, new: Plan, standing: Standing, given: Mapping[str, str]) -> Placed:
    """Where runs go on: at the same step, at the one given for a step that is gone, or at the next that still exists.

    The time that a run has waited counts; a wait that is gone is over.
    """
    in_a_wait = standing.waits_at is not None and standing.waits_at != standing.step_id
    name = standing.waits_at if in_a_wait and standing.waits_at is not None else standing.step_id
    to = name if name in new.steps or name == END else given.get(name) or next_living(old, new, name)
    if to != name:
        return Placed(to, None, looks=True)
    step = new.steps.get(name)
    counts = isinstance(step, WaitStep | WaitUntilStep) and not (in_a_wait and _is_of_the_clock(step))
    if in_a_wait and isinstance(step, WaitStep) and name not in old.trials and name not in new.trials:
        return Placed(step.then, name, span=step.span)
    if standing.waits_at is not None:  # by whose run it is, where that decides how long
        return Placed(name, name if counts else None, looks=True)
    return Placed(name, None)


def _is_of_the_clock(step: PlanStep) -> bool:
    """Whether it waits for a time of day or a date, which means the next one from now on."""
    return isinstance(step, WaitUntilStep) and step.event is None and step.segment is None


def next_living(old: Plan, new: Plan, name: str) -> str:
    """The nearest step after one that is gone which the new version still has; the end where there is none."""
    seen, todo = {name}, [name]
    while todo:
        step = old.steps.get(todo.pop(0))
        for onward in [] if step is None else ways_on(step):
            if onward in new.steps:
                return onward
            if onward != END and onward not in seen:
                seen.add(onward)
                todo.append(onward)
    return END


def mapping_faults(new: Plan, given: Mapping[str, str]) -> list[FieldError]:
    """What is wrong with the steps that were given for those that are gone."""
    faults = []
    for name, to in given.items():
        if name in new.steps:
            faults.append(FieldError(f"/steps/{name}", "is a step of this version still: runs before it stay there"))
        if to != END and to not in new.steps:
            faults.append(FieldError(f"/steps/{name}", f"this version has no step {to}"))
    return faults
