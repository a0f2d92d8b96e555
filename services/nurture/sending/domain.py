"""What the next step of a run does now, and what a provider's answer means. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from services.nurture.enrolments.domain import Ending, Fact, Run, ending
from services.nurture.people.domain import Person, why_not
from services.nurture.sequences.document import END
from services.nurture.sequences.domain import BranchStep, Plan, SendStep, WaitStep
from shared.events import MessageState
from shared.ids import LeadId, MessageId, SequenceId, derived_id
from shared.rules import Evaluation

TRIES = 12
LONGEST_PAUSE = timedelta(minutes=30)
STANDS_STILL = 1_000


@dataclass(frozen=True, slots=True)
class Move:
    """The run stands before another step, due then."""

    step_id: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Leave:
    """The run is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message may be claimed now."""

    step: SendStep


@dataclass(frozen=True, slots=True)
class Hold:
    """A message is due and must wait, for a reason that has nothing to do with the person."""

    step: SendStep
    reason: str


@dataclass(frozen=True, slots=True)
class Suppress:
    """A message is due and must not be sent; the run goes on."""

    step: SendStep
    reason: str


NextAct = Move | Leave | Deliver | Hold | Suppress


@dataclass(frozen=True, slots=True)
class Readiness:
    """What must be so before anything is decided or sent. Each is None, or the sentence that says what is missing."""

    provider: str | None = None
    consent: str | None = None
    ledger: str | None = None


def next_act(  # noqa: PLR0913  # a decision names its inputs
    plan: Plan,
    run: Run,
    step_id: str,
    person: Person,
    facts: Sequence[Fact],
    readiness: Readiness,
    *,
    live: bool,
    now: datetime,
) -> NextAct:
    """What a run that stands before `step_id`, due now, does. `live` says that the sequence is active today."""
    over: Ending | None = ending(plan, facts, person, run.triggered_at)
    if person.erased:
        return Leave("erased")
    if over is not None:
        return Leave(f"{over.kind}: {over.because}")
    place = walk(plan, step_id, person, now)
    if isinstance(place, Leave) or place.due_at > now:
        return place
    step = plan.steps[place.step_id]
    assert isinstance(step, SendStep)
    if not live:
        return Hold(step, "the sequence is not active")
    unsure = readiness.consent or readiness.ledger
    if unsure is None and person.parked:
        unsure = "facts of this person are parked, a refusal may be among them"
    if unsure is not None:
        return Hold(step, unsure)
    refusal = why_not(person, plan.purpose, "email")
    if refusal is not None:
        return Suppress(step, refusal)
    return Deliver(step) if readiness.provider is None else Hold(step, readiness.provider)


def walk(plan: Plan, step_id: str, person: Person, now: datetime) -> Move | Leave:
    """Through branches and waits to the next step that is a message or lies in the future."""
    due = now
    evaluation = Evaluation(person.values())
    for _ in range(STANDS_STILL):
        if step_id == END:
            return Leave("completed")
        step = plan.steps[step_id]
        if isinstance(step, SendStep):
            return Move(step_id, due)
        if isinstance(step, WaitStep):
            step_id, due = step.then, due + step.span
            if step.span and step_id != END:
                return Move(step_id, due)
        elif isinstance(step, BranchStep):
            step_id = next((to for when, to in step.turns if when.holds(evaluation)[0]), step.then)
    raise AssertionError(f"{plan.sequence_id} version {plan.version} stands still at {step_id}")


def after(plan: Plan, step: SendStep, at: datetime) -> Move | Leave:
    """Where a run stands after a message: before the next step, with the waits that need nobody's profile spent."""
    step_id, due = step.then, at
    while step_id != END and isinstance(waiting := plan.steps[step_id], WaitStep):
        step_id, due = waiting.then, due + waiting.span
    return Leave("completed") if step_id == END else Move(step_id, due)


def message_id(lead_id: LeadId, sequence_id: SequenceId, run: int, step_id: str, visit: int) -> MessageId:
    """The same id whenever and wherever this visit of this step is decided."""
    return MessageId(derived_id("message", lead_id, sequence_id, str(run), step_id, str(visit)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider made of a message. `retry` only when it certainly did not take it."""

    state: MessageState
    reason: str
    retry: bool = False


Phase = Literal["envelope", "recipient", "data"]


def outcome_of_reply(code: int, text: str, phase: Phase) -> Outcome:
    """What an SMTP reply means. A reply is certain in every phase: only its absence is not.

    What is refused before a recipient is named says nothing about the message, and is tried again.
    """
    said = f"{code} {text}".strip()
    if 200 <= code < 300:
        return Outcome("sent", said)
    if code < 500 or phase == "envelope":
        return Outcome("planned", f"the server said {said}", retry=True)
    if phase == "recipient":
        return Outcome("bounced", f"the server refused the address: {said}")
    return Outcome("failed", f"the server said {said}")


def outcome_of_silence(phase: Phase, what: str) -> Outcome:
    """What it means that no reply came: before DATA nothing was sent, afterwards nobody knows."""
    if phase != "data":
        return Outcome("planned", f"the server was not reached: {what}", retry=True)
    return Outcome("unknown", f"no reply came after the message was handed over: {what}")


def pause_before(attempt: int) -> timedelta:
    """How long to wait before another try."""
    return min(timedelta(seconds=2 << attempt), LONGEST_PAUSE)
