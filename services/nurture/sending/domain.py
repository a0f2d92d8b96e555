"""What the next step of a run does now, and what a provider's answer means. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.nurture.enrolments.domain import Ending, Fact, Run, ending
from services.nurture.people.domain import Person, why_not
from services.nurture.sequences.domain import Plan, SendStep
from services.nurture.sequences.steps import ActStep
from services.nurture.sequences.walking import Leave, Move, after, goal_ahead, walk
from shared.events import ConsentChannel, MessageState
from shared.ids import LeadId, MessageId, SequenceId, derived_id

__all__ = [
    "TRIES",
    "Deliver",
    "Hold",
    "Leave",
    "Move",
    "NextAct",
    "Pause",
    "Perform",
    "Readiness",
    "Suppress",
    "after",
    "message_id",
    "next_act",
    "pause_before",
]

TRIES = 12
"""So often a message is tried that is put off for its own sake; for a provider in trouble it waits without end."""
LONGEST_PAUSE = timedelta(minutes=30)
OPTINS = SequenceId("double-opt-in")
"""Messages that ask for the confirmation of consent stand in the ledger as this sequence's."""
REPORTS: Mapping[str, MessageState] = {
    "deferred": "sent",
    "sent": "sent",
    "delivered": "delivered",
    "complained": "delivered",
    "blocked": "failed",
    "dropped": "failed",
    "undelivered": "failed",
    "failed": "failed",
    "bounced": "bounced",
}
"""How a message stands by what a provider reports of it; a state further down this table says more than one above."""
TOO_LATE = "and is skipped when it is later than its step allows"
NOT_ACTIVE = "the sequence is not active"


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message may be claimed now."""

    step: SendStep


@dataclass(frozen=True, slots=True)
class Hold:
    """A message is due and must wait: until a time, or else until a second look finds the reason gone.

    Held for this reason at `expires_at`, it is not sent any more.
    """

    step: SendStep
    reason: str
    until: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Suppress:
    """A message is due and must not be sent; the run goes on."""

    step: SendStep
    reason: str


@dataclass(frozen=True, slots=True)
class Perform:
    """A step that acts on something else is due."""

    step: ActStep


@dataclass(frozen=True, slots=True)
class Pause:
    """Such a step is due and must wait until a second look finds the reason gone."""

    reason: str


NextAct = Move | Leave | Deliver | Hold | Suppress | Perform | Pause


@dataclass(frozen=True, slots=True)
class Readiness:
    """What must be so before anything is decided or sent. Each is None, or the sentence that says what is missing.

    `missing` has such a sentence for each channel that is not set up.
    """

    missing: Mapping[ConsentChannel, str] = field(default_factory=dict)
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
    since: datetime | None = None,
) -> NextAct:
    """What a run that stands before `step_id`, due now, does. `live` says that the sequence is active today.

    `since` is when the step was meant to be carried out; what held it up may be an outage, or a hold.
    """
    over: Ending | None = ending(plan, facts, person, run.triggered_at)
    if person.erased:
        return Leave("erased")
    if over is not None:
        return Leave(f"{over.kind}: {over.because}")
    step = goal_ahead(plan, run, step_id, person, now) or walk(plan, run, step_id, person, now)
    if isinstance(step, Leave | Move):
        return step
    if not isinstance(step, SendStep):
        idle = None if live else NOT_ACTIVE
        waits = idle or readiness.ledger
        return Perform(step) if waits is None else Pause(waits)
    if not live:
        return Hold(step, NOT_ACTIVE)
    if since is not None and step.skip_after is not None and now - since > step.skip_after:
        return Suppress(step, f"overdue: it was meant for {since.isoformat(timespec='seconds')}, {TOO_LATE}")
    unsure = readiness.consent or readiness.ledger
    if unsure is None and person.parked:
        unsure = "facts of this person are parked, a refusal may be among them"
    if unsure is not None:
        return Hold(step, unsure)
    refusal = why_not(person, plan.purpose, step.channel)
    if refusal is not None:
        return Suppress(step, refusal)
    missing = readiness.missing.get(step.channel)
    return Deliver(step) if missing is None else Hold(step, missing)


def message_id(lead_id: LeadId, sequence_id: SequenceId, run: int, step_id: str, visit: int) -> MessageId:
    """The same id whenever and wherever this visit of this step is decided."""
    return MessageId(derived_id("message", lead_id, sequence_id, str(run), step_id, str(visit)))


def pause_before(attempt: int) -> timedelta:
    """How long to wait before another try."""
    return min(timedelta(seconds=2 << min(attempt, TRIES)), LONGEST_PAUSE)
