"""How a run goes through its steps: what it does where it stands, and where it stands after that. Pure."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.nurture.enrolments.domain import Run
from services.nurture.people.domain import Person
from services.nurture.sequences.document import END
from services.nurture.sequences.domain import Plan
from services.nurture.sequences.graph import reached_from
from services.nurture.sequences.moments import moment_of
from services.nurture.sequences.steps import (
    ActStep,
    BranchStep,
    ExitStep,
    ForkStep,
    GoalStep,
    SendStep,
    SplitStep,
    WaitStep,
    WaitUntilStep,
)
from shared.ids import LeadId, SequenceId
from shared.rules import Evaluation

STANDS_STILL = 1_000
FOR_EVER = timedelta(days=36_500)
"""So long a run waits for a goal that nothing meets."""


@dataclass(frozen=True, slots=True)
class Move:
    """The run stands before another step, due then.

    `waits_at` is the wait that it stands in, begun at `since`; of a `WaitUntilStep` and of a goal that step itself.
    """

    step_id: str
    due_at: datetime
    waits_at: str | None = None
    since: datetime | None = None
    variant: tuple[str, str] | None = None
    """A split and the variant that was drawn there."""
    reached: str | None = None
    """A goal that was reached on the way."""
    jumps: bool = False
    """Whether the run left where it stood for a goal ahead."""
    passed: tuple[str, ...] = field(default=(), compare=False)
    """The steps on the way, in order."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The run is over; `passed` are the steps on the way to its end."""

    reason: str
    passed: tuple[str, ...] = field(default=(), compare=False)


def walk(plan: Plan, run: Run, step_id: str, person: Person, now: datetime) -> Move | Leave | SendStep | ActStep:
    """Through branches to the next step that does something or that time has to pass before."""
    place, passed = _walk(plan, run, step_id, person, now)
    return replace(place, passed=passed) if isinstance(place, Move | Leave) else place


def passed_by(plan: Plan, run: Run, step_id: str, person: Person, now: datetime) -> tuple[str, ...]:
    """The steps on the way that `walk` goes, in order, without the one that it comes to."""
    return _walk(plan, run, step_id, person, now)[1]


def _walk(
    plan: Plan, run: Run, step_id: str, person: Person, now: datetime
) -> tuple[Move | Leave | SendStep | ActStep, tuple[str, ...]]:
    waits_at, start = run.waits_at, step_id
    passed: list[str] = []
    for _ in range(STANDS_STILL):
        if step_id == END:
            return Leave("completed"), tuple(passed)
        step = plan.steps[step_id]
        if isinstance(step, SendStep | ActStep):
            return step, tuple(passed)
        passed.append(step_id)
        onward: str | Move | Leave
        match step:
            case WaitStep() | WaitUntilStep():
                waiting = waits_at == step_id == start and run.waiting_since is not None
                since = run.waiting_since if waiting and run.waiting_since is not None else now
                waits_at = None
                if isinstance(step, WaitUntilStep):
                    onward = _past(step, run, person, since, now)
                elif since + step.span > now and step.then != END:
                    return Move(step.then, since + step.span, step_id, since), tuple(passed)
                else:
                    onward = step.then
            case _:
                onward = _chosen(plan, step, run, person, now)
        if not isinstance(onward, str):
            return onward, tuple(passed)
        step_id = onward
    raise AssertionError(f"{plan.sequence_id} version {plan.version} stands still at {step_id}")


def _chosen(
    plan: Plan, step: BranchStep | ForkStep | SplitStep | GoalStep | ExitStep, run: Run, person: Person, now: datetime
) -> str | Move | Leave:
    evaluation = person.evaluation()
    match step:
        case BranchStep():
            return next((to for when, to in step.turns if when.holds(evaluation)[0]), step.then)
        case ForkStep():
            return step.then
        case SplitStep():
            return _split(plan.sequence_id, step, run, person.person_id, now)
        case GoalStep():
            return _at_goal(step, run, evaluation, now)
        case ExitStep():
            return Leave(f"exit: {step.reason}")


def after(plan: Plan, step: SendStep | ActStep, at: datetime) -> Move | Leave:
    """Where a run stands after a step: before the next one, or in the wait that comes first.

    A wait that is an experiment is entered by whoever looks at the person: it notes who got which variant.
    """
    place = Move(step.then, at)
    while (
        place.since is None
        and place.step_id != END
        and isinstance(waiting := plan.steps[place.step_id], WaitStep)
        and place.step_id not in plan.trials
    ):
        begun = (waiting.step_id, at) if waiting.span else (None, None)
        place = Move(waiting.then, at + waiting.span, *begun)
    return Leave("completed") if place.step_id == END else place


def goal_ahead(plan: Plan, run: Run, step_id: str, person: Person, now: datetime) -> Move | None:
    """Where a run skips forward to, because a goal that it has not reached yet is met."""
    goals = [step for step in plan.steps.values() if isinstance(step, GoalStep) and step.jump]
    if not goals or step_id == END:
        return None
    evaluation, ahead = person.evaluation(), reached_from(plan.steps, step_id)
    for goal in goals:
        lies_ahead = goal.step_id != step_id and (goal.step_id in ahead or _apart(plan, goal.step_id))
        if lies_ahead and not run.visits.get(goal.step_id) and _is_met(goal, run, evaluation):
            return Move(goal.step_id, now, jumps=True)
    return None


def _apart(plan: Plan, step_id: str) -> bool:
    """Whether one comes to a goal by skipping alone."""
    return step_id not in reached_from(plan.steps, plan.first)


def _past(step: WaitUntilStep, run: Run, person: Person, since: datetime, now: datetime) -> str | Move:
    if step.event is not None or step.segment is not None:
        met = run.met.get(step.step_id)
        if (met is not None and met >= since) or (step.segment is not None and step.segment in person.segments):
            return step.then
        over, onward = since + step.timeout, step.otherwise
    else:
        moment = moment_of(step, person.fields, since)
        if moment is None:
            return step.otherwise
        over, onward = moment, step.then
    return onward if over <= now else Move(step.step_id, over, step.step_id, since)


def _split(sequence_id: SequenceId, step: SplitStep, run: Run, person_id: LeadId, now: datetime) -> str | Move:
    known = run.variants.get(step.step_id)
    for share in step.shares:
        if share.variant == known:
            return share.to
    drawn = draw(sequence_id, step, person_id)
    to = next(share.to for share in step.shares if share.variant == drawn)
    return Move(to, now, variant=(step.step_id, drawn))


def draw(sequence_id: SequenceId, step: SplitStep, person_id: LeadId) -> str:
    """A person's variant: by a hash of sequence, step and person, the same wherever and whenever it is asked."""
    digest = hashlib.sha256(f"split\x1f{sequence_id}\x1f{step.step_id}\x1f{person_id}".encode()).digest()
    place = int.from_bytes(digest[:8]) * 100 >> 64
    for share in step.shares:
        if place < share.weight:
            return share.variant
        place -= share.weight
    raise AssertionError("the weights of a split are a hundred together")


def _is_met(goal: GoalStep, run: Run, evaluation: Evaluation) -> bool:
    return goal.when is None or goal.step_id in run.met or goal.when.holds(evaluation)[0]


def _at_goal(goal: GoalStep, run: Run, evaluation: Evaluation, now: datetime) -> str | Move | Leave:
    if _is_met(goal, run, evaluation):
        return Move(goal.then, now, reached=goal.step_id) if goal.jump else Leave(f"goal: {goal.step_id}")
    match goal.unmet:
        case "continue":
            return goal.then
        case "wait":
            return Move(goal.step_id, now + FOR_EVER, goal.step_id, now)
        case "end":
            return Leave(f"exit: the goal {goal.step_id} was not met")
