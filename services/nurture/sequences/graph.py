"""How the steps of a sequence hang together: what leads where, and what is wrong with that. Pure."""

from collections.abc import Mapping, Sequence

from services.nurture.sequences.document import END, Step
from services.nurture.sequences.steps import (
    BranchStep,
    ExitStep,
    ForkStep,
    PlanStep,
    SplitStep,
    WaitStep,
    WaitUntilStep,
)
from shared.errors import FieldError


def ways_on(step: PlanStep) -> list[str]:
    """Every step that may come right after this one."""
    match step:
        case BranchStep():
            found = [*(to for _, to in step.turns), step.then]
        case ForkStep():
            found = [*step.ways, step.then]
        case SplitStep():
            found = [share.to for share in step.shares if share.weight]
        case ExitStep():
            found = []
        case WaitUntilStep():
            found = [step.then, step.otherwise]
        case _:
            found = [step.then]
    return list(dict.fromkeys(found))


def reached_from(steps: Mapping[str, PlanStep], first: str) -> set[str]:
    """The step itself, and every one that may come after it, by whatever way."""
    found, todo = {first}, [first]
    while todo:
        for name in ways_on(steps[todo.pop()]):
            if name != END and name not in found:
                found.add(name)
                todo.append(name)
    return found


def unknown_targets(step: Step, place: str, known: set[str]) -> list[FieldError]:
    """The steps it names that do not exist."""
    targets = [(f"{place}/branch/{number}/to", turn.to) for number, turn in enumerate(step.branch or ())]
    targets += [(f"{place}/split/{number}/to", share.to) for number, share in enumerate(step.split or ())]
    targets += [(f"{place}/else", step.otherwise)] if step.otherwise else []
    targets += [(f"{place}/next", step.next)] if step.next else []
    targets += [
        (f"{place}/experiment/variants/{number}/to", variant.to)
        for number, variant in enumerate(step.experiment.variants if step.experiment is not None else ())
        if variant.to is not None
    ]
    if step.wait_until is not None and step.wait_until.otherwise is not None:
        targets.append((f"{place}/wait_until/else", step.wait_until.otherwise))
    return [FieldError(pointer, f"there is no step {target}") for pointer, target in targets if target not in known]


def graph_faults(written: Sequence[Step], steps: Mapping[str, PlanStep]) -> list[FieldError]:
    """Steps that nothing leads to, and loops without a wait."""
    place = {step.id: f"/steps/{index}" for index, step in enumerate(written)}
    reached = reached_from(steps, written[0].id)
    for step in written:
        if step.goal is not None and step.goal.jump:
            reached |= reached_from(steps, step.id)
    faults = [FieldError(place[name], f"no step leads to {name}") for name in steps if name not in reached]
    for name in steps:
        if name in _reached_without_waiting(steps, name):
            faults.append(FieldError(place[name], f"from {name} a loop leads back to it without any wait"))
    return faults


def _is_wait(step: PlanStep) -> bool:
    """Whether time passes here for certain: a date may lie behind, and who waits for a segment may be in it."""
    if isinstance(step, WaitStep):
        return bool(step.span)
    return isinstance(step, WaitUntilStep) and (step.event is not None or (step.date is None and step.at is not None))


def _reached_without_waiting(steps: Mapping[str, PlanStep], start: str) -> set[str]:
    """Where one gets from a step without standing still; the step itself only by a loop."""
    found: set[str] = set()
    todo = [start]
    while todo:
        step = steps[todo.pop()]
        if _is_wait(step):
            continue
        for name in ways_on(step):
            if name != END and name not in found:
                found.add(name)
                todo.append(name)
    return found
