"""Sequences that make sense: a document compiled into a plan, or every fault of it with its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from services.nurture.sequences.document import END, EveryDays, Purpose, SequenceDocument, Step, Template
from services.nurture.templates.check import template_faults
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.profiles import LEAD
from shared.rules import (
    INTEGER,
    OPEN,
    TEXT,
    TIME,
    Expression,
    ExpressionFault,
    InvalidDocument,
    Vocabulary,
    compile_expression,
)

EVENT = {
    "type": TEXT,
    "occurred_at": TIME,
    "origin": TEXT,
    "channel": TEXT,
    "source": TEXT,
    "medium": TEXT,
    "campaign": TEXT,
    "content": TEXT,
    "page": TEXT,
    "referrer_host": TEXT,
    "properties": OPEN,
    "stage": TEXT,
    "previous": TEXT,
    "conversion_type": TEXT,
    "value_minor": INTEGER,
    "currency": TEXT,
}
FACTS = Vocabulary({"event": EVENT, "lead": LEAD, "stage": TEXT})
PERSON = Vocabulary({"lead": LEAD, "stage": TEXT})


@dataclass(frozen=True, slots=True)
class SendStep:
    """Hand a message to the provider, then go on."""

    step_id: str
    template: Template
    then: str


@dataclass(frozen=True, slots=True)
class WaitStep:
    """Go on after a span of time."""

    step_id: str
    span: timedelta
    then: str


@dataclass(frozen=True, slots=True)
class BranchStep:
    """Go where the first turn that holds points, otherwise on."""

    step_id: str
    turns: tuple[tuple[Expression, str], ...]
    then: str


PlanStep = SendStep | WaitStep | BranchStep


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a sequence, compiled. Steps are found by their id; `end` is no step but the end."""

    sequence_id: SequenceId
    version: int
    name: str
    purpose: Purpose
    active: bool
    reentry: str | EveryDays
    trigger: Expression
    goal: Expression | None
    exit: Expression | None
    first: str
    steps: Mapping[str, PlanStep]

    @property
    def conditions(self) -> tuple[Expression, ...]:
        """What is tried on every fact: the trigger and what ends a run."""
        return tuple(expression for expression in (self.trigger, self.goal, self.exit) if expression is not None)


def compile_plan(sequence_id: SequenceId, version: int, document: SequenceDocument) -> Plan:
    """Make sense of a document; raises InvalidDocument that lists every fault with its place."""
    faults: list[FieldError] = []

    def condition(source: str | None, vocabulary: Vocabulary, pointer: str) -> Expression | None:
        if source is None:
            return None
        try:
            return compile_expression(source, vocabulary, pointer)
        except ExpressionFault as fault:
            faults.append(FieldError(fault.pointer, fault.detail, fault.column))
            return None

    trigger = condition(document.trigger, FACTS, "/trigger")
    goal = condition(document.goal, FACTS, "/goal")
    leave = condition(document.exit, FACTS, "/exit")
    steps: dict[str, PlanStep] = {}
    known = {step.id for step in document.steps} | {END}
    for index, step in enumerate(document.steps):
        place = f"/steps/{index}"
        if step.id in steps or step.id == END:
            why = "is a reserved word" if step.id == END else "is the id of an earlier step as well"
            faults.append(FieldError(f"{place}/id", f"{step.id} {why}"))
        below = document.steps[index + 1].id if index + 1 < len(document.steps) else END
        turns: list[tuple[Expression, str]] = []
        for number, turn in enumerate(step.branch or ()):
            when = condition(turn.when, PERSON, f"{place}/branch/{number}/when")
            if when is not None:
                turns.append((when, turn.to))
        faults += _unknown_targets(step, place, known)
        faults += _template_faults(step, place)
        steps[step.id] = _plan_step(step, below, tuple(turns))
    if not faults:
        faults = _graph_faults(document.steps, steps)
    if faults or trigger is None:
        raise InvalidDocument(f"the sequence has {len(faults)} faults", errors=faults)
    return Plan(
        sequence_id=sequence_id,
        version=version,
        name=document.name,
        purpose=document.purpose,
        active=document.active,
        reentry=document.reentry,
        trigger=trigger,
        goal=goal,
        exit=leave,
        first=document.steps[0].id,
        steps=steps,
    )


def _plan_step(step: Step, below: str, turns: tuple[tuple[Expression, str], ...]) -> PlanStep:
    if step.send is not None:
        return SendStep(step.id, step.send.template, step.next or below)
    if step.wait is not None:
        return WaitStep(step.id, step.wait.span, step.next or below)
    return BranchStep(step.id, turns, step.otherwise or below)


def _unknown_targets(step: Step, place: str, known: set[str]) -> list[FieldError]:
    targets = [(f"{place}/branch/{number}/to", turn.to) for number, turn in enumerate(step.branch or ())]
    targets += [(f"{place}/else", step.otherwise)] if step.otherwise else []
    targets += [(f"{place}/next", step.next)] if step.next else []
    return [FieldError(pointer, f"there is no step {target}") for pointer, target in targets if target not in known]


def _template_faults(step: Step, place: str) -> list[FieldError]:
    if step.send is None:
        return []
    template = step.send.template
    parts = {"subject": template.subject, "html": template.html, "text": template.text}
    return [
        FieldError(f"{place}/send/template/{part}", f"line {line}: {detail}")
        for part, source in parts.items()
        if source is not None
        for line, detail in template_faults(source)
    ]


def ways_on(step: PlanStep) -> list[str]:
    """Every step that may come right after this one."""
    turns = [to for _, to in step.turns] if isinstance(step, BranchStep) else []
    return list(dict.fromkeys([*turns, step.then]))


def _graph_faults(written: Sequence[Step], steps: Mapping[str, PlanStep]) -> list[FieldError]:
    place = {step.id: f"/steps/{index}" for index, step in enumerate(written)}
    reached = _reached(steps, written[0].id)
    faults = [FieldError(place[name], f"no step leads to {name}") for name in steps if name not in reached]
    for name in steps:
        if name in _reached_without_waiting(steps, name):
            faults.append(FieldError(place[name], f"from {name} a loop leads back to it without any wait"))
    return faults


def _reached(steps: Mapping[str, PlanStep], first: str) -> set[str]:
    found, todo = {first}, [first]
    while todo:
        for name in ways_on(steps[todo.pop()]):
            if name != END and name not in found:
                found.add(name)
                todo.append(name)
    return found


def _reached_without_waiting(steps: Mapping[str, PlanStep], start: str) -> set[str]:
    """Where one gets from a step without standing still; the step itself only by a loop."""
    found: set[str] = set()
    todo = [start]
    while todo:
        step = steps[todo.pop()]
        if isinstance(step, WaitStep) and step.span:
            continue
        for name in ways_on(step):
            if name != END and name not in found:
                found.add(name)
                todo.append(name)
    return found
