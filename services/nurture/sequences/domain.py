"""Sequences that make sense: a document compiled into a plan, or every fault of it with its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time, timedelta
from typing import get_args

from services.nurture.experiments.domain import Choice, Trial
from services.nurture.sequences.checking import experiment_faults, step_faults
from services.nurture.sequences.document import (
    END,
    Channel,
    EveryDays,
    Holdout,
    Purpose,
    Send,
    SequenceDocument,
    Step,
    TakeoverCause,
    WaitUntil,
    Weekday,
)
from services.nurture.sequences.graph import graph_faults, unknown_targets
from services.nurture.sequences.steps import (
    ActStep,
    AssignStep,
    BranchStep,
    EnrolStep,
    ExitStep,
    ForkStep,
    GoalStep,
    NotifyStep,
    Part,
    PlanStep,
    RemoveStep,
    SendStep,
    SplitStep,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
    WebhookStep,
)
from services.nurture.templates.check import faults_of_utm
from services.nurture.templates.document import Template, TemplateRef, Utm
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.profiles import LEAD
from shared.rules import (
    BOOLEAN,
    INTEGER,
    OPEN,
    TEXT,
    TEXTS,
    TIME,
    Expression,
    ExpressionFault,
    InvalidDocument,
    Vocabulary,
    compile_expression,
)

__all__ = ["BranchStep", "ForkStep", "Plan", "PlanStep", "SendStep", "WaitStep", "compile_plan"]

WEEKDAYS = get_args(Weekday)
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
    "segment": TEXT,
    "initial": BOOLEAN,
    "conversion_type": TEXT,
    "value_minor": INTEGER,
    "currency": TEXT,
}
PERSON_FIELDS = {"lead": LEAD, "scores": OPEN, "stage": TEXT, "segments": TEXTS}
FACTS = Vocabulary({"event": EVENT, **PERSON_FIELDS})
PERSON = Vocabulary(PERSON_FIELDS)


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a sequence, compiled. Steps are found by their id; `end` is no step but the end.

    `trials` are the experiments by their step. In a plan made for a person these steps are as their `choices` say.
    """

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
    utm: Utm | None = None
    trials: Mapping[str, Trial] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    holdout: Holdout | None = None
    most_entries: int | None = None
    pause_on: frozenset[TakeoverCause] | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        """By which ways its messages go, each once."""
        return tuple(dict.fromkeys(step.channel for step in self.steps.values() if isinstance(step, SendStep)))

    @property
    def conditions(self) -> tuple[Expression, ...]:
        """What is tried on every fact: the trigger, what ends a run, and what runs wait for."""
        ends = tuple(expression for expression in (self.trigger, self.goal, self.exit) if expression is not None)
        return (*ends, *self.watched.values())

    @property
    def watched(self) -> Mapping[str, Expression]:
        """The steps that a fact may meet, with what it is tried on."""
        found: dict[str, Expression] = {}
        for step in self.steps.values():
            if isinstance(step, WaitUntilStep) and step.event is not None:
                found[step.step_id] = step.event
            elif isinstance(step, GoalStep) and step.when is not None:
                found[step.step_id] = step.when
        return found

    @property
    def awaits_segments(self) -> bool:
        """Whether somebody may wait in it to be in a segment."""
        return any(isinstance(step, WaitUntilStep) and step.segment is not None for step in self.steps.values())


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
    faults += faults_of_utm(document.utm, "/utm")
    steps: dict[str, PlanStep] = {}
    known = {step.id for step in document.steps} | {END}
    waits: dict[str, Expression | None] = {}
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
        if step.wait_until is not None:
            waits[step.id] = condition(step.wait_until.event, FACTS, f"{place}/wait_until/event")
        elif step.goal is not None:
            waits[step.id] = condition(step.goal.when, FACTS, f"{place}/goal/when")
        faults += unknown_targets(step, place, known)
        faults += step_faults(step, place, sequence_id)
        steps[step.id] = _plan_step(step, below, tuple(turns), waits.get(step.id), document)
    faults += experiment_faults(document.steps)
    if not faults:
        faults = graph_faults(document.steps, steps)
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
        utm=document.utm,
        trials={
            step.id: Trial(step.id, step.experiment, step.wait.span if step.wait is not None else None)
            for step in document.steps
            if step.experiment is not None
        },
        holdout=document.holdout,
        most_entries=document.most_entries,
        pause_on=None if document.pause_on is None else frozenset(document.pause_on),
    )


def _plan_step(
    step: Step,
    below: str,
    turns: tuple[tuple[Expression, str], ...],
    met_by: Expression | None,
    document: SequenceDocument,
) -> PlanStep:
    then = step.next or below
    if step.send is not None:
        return _send_step(step, step.send, then, document)
    variants = step.experiment.variants if step.experiment is not None else []
    if step.wait is not None:
        # A loop must wait whatever the variant is.
        shortest = min([step.wait.span, *(variant.wait.span for variant in variants if variant.wait is not None)])
        return WaitStep(step.id, shortest if variants else step.wait.span, then)
    if step.is_fork:
        ways = tuple(variant.to for variant in variants if variant.to is not None)
        return ForkStep(step.id, ways, ways[0])
    if step.wait_until is not None:
        return _wait_until(step.id, step.wait_until, met_by, then)
    if step.split is not None:
        return SplitStep(step.id, tuple(Part(share.id, share.weight, share.to) for share in step.split))
    if step.goal is not None:
        return GoalStep(step.id, met_by, step.goal.jump, step.goal.unmet, then)
    if step.exit is not None:
        return ExitStep(step.id, step.exit.reason)
    if step.branch is not None:
        return BranchStep(step.id, turns, step.otherwise or below)
    return _act_step(step, then)


def _send_step(step: Step, send: Send, then: str, document: SequenceDocument) -> SendStep:
    late, pressure = step.overdue or document.overdue, step.pressure or document.pressure
    return SendStep(
        step.id,
        send.channel,
        send.template or TemplateRef(send.template_id or "", send.version),
        then,
        skip_after=None if late == "send" else late.skip_after.span,
        patience=None if pressure is None else pressure.expire_after.span,
    )


def _act_step(step: Step, then: str) -> ActStep:
    if step.update is not None:
        return UpdateStep(step.id, step.update, then)
    if step.notify is not None:
        template = Template(subject=step.notify.subject, text=step.notify.text)
        return NotifyStep(step.id, step.notify.to, template, then)
    if step.webhook is not None:
        return WebhookStep(step.id, step.webhook.endpoint, tuple(step.webhook.fields), then)
    if step.enrol is not None:
        return EnrolStep(step.id, SequenceId(step.enrol.sequence), then)
    if step.remove is not None:
        return RemoveStep(step.id, SequenceId(step.remove.sequence), then)
    assert step.assign is not None
    return AssignStep(step.id, step.assign.reason, then)


def _wait_until(step_id: str, written: WaitUntil, event: Expression | None, then: str) -> WaitUntilStep:
    return WaitUntilStep(
        step_id,
        then,
        written.otherwise or then,
        written.zone,
        at=None if written.time is None else time.fromisoformat(written.time),
        weekdays=frozenset(WEEKDAYS.index(day) for day in written.weekdays or ()),
        date=written.date,
        offset=timedelta(days=written.offset_days),
        event=event,
        segment=written.segment,
        timeout=timedelta() if written.timeout is None else written.timeout.span,
    )
