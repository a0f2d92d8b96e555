"""Facts that services decide: assignments, credit, messages."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared.events._event import Event, Moment
from shared.ids import (
    AssignmentId,
    ConversionId,
    EventId,
    LeadId,
    MessageId,
    RepId,
    SequenceId,
    TouchId,
)

MessageState = Literal["planned", "sent", "failed", "suppressed", "unknown", "delivered", "bounced"]


class LeadAssigned(Event):
    """A rep is responsible for this lead from now on (state `offered`); it replaces the assignment before it.

    `revision` counts the assignments of the lead. `trace` is JSON text: the rules tried, and why. `teams` are the rep's
    at the time.
    """

    ce_type: ClassVar[str] = "throughline.lead.assigned.v1"

    assignment_id: AssignmentId
    revision: int
    rep_id: RepId
    queue: str
    strategy: str
    rules_version: int
    due_at: Moment | None = None
    reason: str | None = None
    trace: str = "[]"
    teams: tuple[str, ...] = ()


class AssignmentAccepted(Event):
    """The rep took the lead."""

    ce_type: ClassVar[str] = "throughline.assignment.accepted.v1"

    assignment_id: AssignmentId
    rep_id: RepId


class AssignmentRejected(Event):
    """The rep gave the lead back."""

    ce_type: ClassVar[str] = "throughline.assignment.rejected.v1"

    assignment_id: AssignmentId
    rep_id: RepId
    reason: str


class AssignmentExpired(Event):
    """The rep neither accepted nor rejected in time."""

    ce_type: ClassVar[str] = "throughline.assignment.expired.v1"

    assignment_id: AssignmentId
    rep_id: RepId


class SlaKept(Event):
    """The rep accepted the lead, or was first in touch with it, within the time for that (`clock`).

    Told after an `SlaBreached` of the same clock it corrects it: the contact was in time, and heard of late.
    `took_s` are the seconds since the assignment, `worked_s` those of them that were working time of the rep.
    """

    ce_type: ClassVar[str] = "throughline.sla.kept.v1"

    assignment_id: AssignmentId
    rep_id: RepId
    clock: Literal["accept", "touch"]
    due_at: Moment
    took_s: int
    worked_s: int


class SlaBreached(Event):
    """The time in which the rep was to accept the lead, or to be in touch with it, is over, and neither happened."""

    ce_type: ClassVar[str] = "throughline.sla.breached.v1"

    assignment_id: AssignmentId
    rep_id: RepId
    clock: Literal["accept", "touch"]
    due_at: Moment


class TouchCredit(BaseModel):
    """What a touch earned from a conversion, or what nobody did; units are of 10,000,000,000 for all of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    touch_id: TouchId | None = None
    origin: str | None = None
    channel: str
    source: str
    medium: str
    campaign: str
    units: int
    value_minor: int


class CreditsChanged(Event):
    """Who earned a conversion by a model, after that changed: a whole snapshot, the highest `revision` wins.

    `lead_id` is the person's, `converted_at` the time of the conversion. The credits sum to its value, but for those of
    `participation`. Where `by_touch` is false the touches were too many to name, and each credit is of all that have
    the same channel, source, medium and campaign.
    """

    ce_type: ClassVar[str] = "throughline.credits.changed.v1"

    conversion_id: ConversionId
    conversion_type: str
    converted_at: Moment
    model: str
    model_version: int
    revision: int
    currency: str
    value_minor: int
    by_touch: bool = True
    credits: tuple[TouchCredit, ...]


class EnrolmentStarted(Event):
    """A lead began a run of a sequence; `cause_event_id` is the fact that triggered it, `triggered_at` its time.

    `held_out`: they would have, and are kept out so that what the sequence does can be measured. Nothing is sent.
    """

    ce_type: ClassVar[str] = "throughline.enrolment.started.v1"

    enrolment_id: str
    sequence_id: SequenceId
    sequence_version: int
    run: int
    cause_event_id: EventId | None = None
    triggered_at: Moment | None = None
    held_out: bool = False


class EnrolmentEnded(Event):
    """A run of a sequence came to its end, goal or exit; `reason` says which."""

    ce_type: ClassVar[str] = "throughline.enrolment.ended.v1"

    enrolment_id: str
    sequence_id: SequenceId
    reason: str


class StepPerformed(Event):
    """A step let a person enter another sequence or leave it; `act_id` names it, `came_to` says what came of it."""

    ce_type: ClassVar[str] = "throughline.step.performed.v1"

    act_id: EventId
    kind: Literal["enrol", "remove"]
    enrolment_id: str
    sequence_id: SequenceId
    sequence_version: int
    run: int
    step_id: str
    visit: int
    person_id: LeadId
    came_to: str


class PauseAsked(Event):
    """Somebody paused marketing to a person, or to everybody in its company, from `occurred_at` on.

    Without `until` it lasts until somebody ends it. `personal` opens to `PausePersonal`.
    """

    ce_type: ClassVar[str] = "throughline.pause.asked.v1"

    pause_id: str
    pauses: Literal["person", "account"]
    until: Moment | None = None
    author: str
    personal: str | None = None


class PausePersonal(BaseModel):
    """Why somebody paused marketing to a person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str


class PauseEnded(Event):
    """Somebody ended a pause: `wholly` one that was asked for, else any for this person alone."""

    ce_type: ClassVar[str] = "throughline.pause.ended.v1"

    pause_id: str
    wholly: bool
    author: str


class MessageClaimed(Event):
    """A message is about to be handed to a provider: from here on this step is never sent again.

    `variant` is the one of the experiment at its step.
    """

    ce_type: ClassVar[str] = "throughline.message.claimed.v1"

    message_id: MessageId
    enrolment_id: str
    sequence_id: SequenceId
    step_id: str
    visit: int
    channel: str
    person_id: LeadId
    run: int = 1
    experiment_id: str | None = None
    variant: str | None = None


class MessageSettled(Event):
    """What became of a message; the later `occurred_at` wins. `provider` has it or may have it, as `provider_id`."""

    ce_type: ClassVar[str] = "throughline.message.settled.v1"

    message_id: MessageId
    enrolment_id: str
    sequence_id: SequenceId
    step_id: str
    channel: str
    state: MessageState
    reason: str | None = None
    provider: str | None = None
    provider_id: str | None = None


class MessageReported(Event):
    """What a provider tells of a message to `lead_id`'s address, whoever had it sent. One report may be told twice.

    `event` is one of `delivered bounced blocked deferred dropped complained`, and of text messages also `sent
    undelivered failed`. `message_id` is our own where the provider gives it back, else the provider's; `origin` the
    source. `permanent` says that trying again is of no use, `code` is the provider's word for why.
    """

    ce_type: ClassVar[str] = "throughline.message.reported.v1"
    waits_behind_parked: ClassVar[bool] = False

    origin: str
    channel: str
    event: str
    message_id: str | None = None
    permanent: bool | None = None
    code: str | None = None


class VariantAssigned(Event):
    """A person takes part in an experiment from now on, by this variant. `design` are its variants and weights."""

    ce_type: ClassVar[str] = "throughline.variant.assigned.v1"

    sequence_id: SequenceId
    experiment_id: str
    design: str
    variant: str
    enrolment_id: str


class ExperimentRuled(Event):
    """A variant won and is given to everybody new, or was stopped and is given to nobody new.

    Of several winners the one ruled last counts; what was stopped stays so.
    """

    ce_type: ClassVar[str] = "throughline.experiment.ruled.v1"

    lead_id: LeadId = LeadId("")
    sequence_id: SequenceId
    experiment_id: str
    design: str
    ruling: Literal["winner", "stopped"]
    variant: str
    reason: str
    decided_by: str

    @property
    def key(self) -> str:
        """The sequence: it is about no lead."""
        return self.sequence_id

    @property
    def subject(self) -> str:
        """The sequence."""
        return self.sequence_id
