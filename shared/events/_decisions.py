"""Facts that services derive or decide: scores, stages, assignments, deals, messages."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared.events._event import Event
from shared.ids import AssignmentId, ConversionId, DealId, EventId, LeadId, MessageId, RepId, SequenceId, TouchId

Stage = Literal["subscriber", "lead", "mql", "sal", "sql", "opportunity", "customer", "disqualified", "recycled"]
Grade = Literal["A", "B", "C", "D", "F"]
MessageState = Literal["planned", "sent", "failed", "suppressed", "unknown", "delivered", "bounced"]


class LeadScored(Event):
    """A lead's scores after they changed: a whole snapshot, the highest `revision` wins.

    `engagement` is exact at `occurred_at` and decays after it; `total` is engagement plus fit.
    """

    ce_type: ClassVar[str] = "throughline.lead.scored.v1"

    revision: int
    engagement: float
    fit: int
    total: float
    grade: Grade
    stage: Stage
    rules_version: int


class StageChanged(Event):
    """A lead entered another lifecycle stage; the highest `revision` wins. Carries the scores that decided.

    `profile_revision` is that of the newest `LeadCaptured` of the person that scoring had read (0: none), so that who
    decides upon the stage can wait for that profile.
    """

    ce_type: ClassVar[str] = "throughline.stage.changed.v1"

    revision: int
    stage: Stage
    previous: Stage | None = None
    reason: str
    engagement: float
    fit: int
    total: float
    grade: Grade
    rules_version: int
    profile_revision: int | None = None


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
    due_at: datetime | None = None
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


class DealPersonal(BaseModel):
    """What is written about a deal with a person; it travels only encrypted, with the key of the person."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = ""
    reason: str | None = None


class DealChanged(Event):
    """A deal as it stands after a change: a whole snapshot, the highest `revision` wins.

    `status` is `open`, `won` or `lost`; `opened_at` is when it was created, `closed_at` when it was won or lost.
    `recurring_minor` is what it brings every month, part of `value_minor` or not. `teams` are those of the rep,
    `pipeline_stages` the stages of open deals in their order, both as they were at the time of the change. What is
    written about it is encrypted in `personal`, a `DealPersonal`; `name` and `reason` are empty then.
    """

    ce_type: ClassVar[str] = "throughline.deal.changed.v1"

    deal_id: DealId
    revision: int
    external_id: str | None = None
    name: str
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None = None
    rep_id: RepId | None = None
    opened_at: datetime
    closed_at: datetime | None = None
    reason: str | None = None
    conversion_id: ConversionId | None = None
    teams: tuple[str, ...] = ()
    pipeline_stages: tuple[str, ...] = ()
    personal: str | None = None


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
    converted_at: datetime
    model: str
    model_version: int
    revision: int
    currency: str
    value_minor: int
    by_touch: bool = True
    credits: tuple[TouchCredit, ...]


class EnrolmentStarted(Event):
    """A lead began a run of a sequence; `cause_event_id` is the fact that triggered it, `triggered_at` its time."""

    ce_type: ClassVar[str] = "throughline.enrolment.started.v1"

    enrolment_id: str
    sequence_id: SequenceId
    sequence_version: int
    run: int
    cause_event_id: EventId | None = None
    triggered_at: datetime | None = None


class EnrolmentEnded(Event):
    """A run of a sequence came to its end, goal or exit; `reason` says which."""

    ce_type: ClassVar[str] = "throughline.enrolment.ended.v1"

    enrolment_id: str
    sequence_id: SequenceId
    reason: str


class MessageClaimed(Event):
    """A message is about to be handed to a provider: from here on this step is never sent again."""

    ce_type: ClassVar[str] = "throughline.message.claimed.v1"

    message_id: MessageId
    enrolment_id: str
    sequence_id: SequenceId
    step_id: str
    visit: int
    channel: str
    person_id: LeadId
    run: int = 1


class MessageSettled(Event):
    """What became of a message; the later `occurred_at` wins."""

    ce_type: ClassVar[str] = "throughline.message.settled.v1"

    message_id: MessageId
    enrolment_id: str
    sequence_id: SequenceId
    step_id: str
    channel: str
    state: MessageState
    reason: str | None = None
