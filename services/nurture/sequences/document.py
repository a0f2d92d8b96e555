"""What a sequence looks like when it is written down: the shape alone, not yet whether it makes sense."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from services.nurture.templates.document import Shape, Template, TemplateId, Utm
from shared.consents import ALL, MARKETING, WELL_KNOWN
from shared.money import Currency

StepId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description=f"Well known: {', '.join(WELL_KNOWN)}")]
Channel = Literal["email", "sms", "whatsapp"]
TakeoverCause = Literal["assignment", "reply", "contact", "meeting", "deal"]
"""What shows that a human has taken over, but for a pause by hand."""
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["09:00"])]
FieldName = Annotated[str, Field(pattern=r"^(attributes\.)?[A-Za-z0-9_][A-Za-z0-9_ -]{0,99}$")]
SegmentName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
PERSONS_ZONE = "person"
END = "end"
WHOLE = 100
WINDOW_DAYS = 30


class Send(Shape):
    """A message to the person: the template itself, or the id of a stored one.

    Without `version` it is the one that counts when the message is written.
    """

    channel: Channel
    template: Template | None = None
    template_id: TemplateId | None = None
    version: int | None = Field(default=None, ge=1, le=2**31 - 1)

    @model_validator(mode="after")
    def _has_one_template(self) -> "Send":
        if (self.template is None) == (self.template_id is None):
            raise ValueError("a message has either a template or a template_id")
        if self.version is not None and self.template_id is None:
            raise ValueError("a version is that of a template_id")
        return self


class Wait(Shape):
    """A span of time, the sum of its parts."""

    days: int = Field(default=0, ge=0, le=3_650)
    hours: int = Field(default=0, ge=0, le=87_600)
    minutes: int = Field(default=0, ge=0, le=5_256_000)

    @property
    def span(self) -> timedelta:
        """How long it is."""
        return timedelta(days=self.days, hours=self.hours, minutes=self.minutes)


def _is_some_time(wait: Wait) -> Wait:
    if not wait.span:
        raise ValueError("give days, hours or minutes")
    return wait


SomeTime = Annotated[Wait, AfterValidator(_is_some_time)]


class SkipAfter(Shape):
    """A message that is found later than this after its time, after an outage or a hold, is not sent any more."""

    skip_after: SomeTime


Overdue = Literal["send"] | SkipAfter


class UnderPressure(Shape):
    """A message that contact pressure has held for so long since it was due is not sent any more."""

    expire_after: SomeTime


class Turn(Shape):
    """One way out of a branch."""

    when: Condition
    to: StepId


class WaitUntil(Shape):
    """A moment to wait for: one of a time of day, a date of the lead, an event, or being in a segment.

    `time` (of the next of `weekdays`) and `date` go by `zone`, an IANA name or `person`: where the lead says where they
    are, else UTC. `offset_days` moves a date; one that lies behind is waited for no more. Events and segments need a
    `timeout`; when it is over the run goes to `else`, as it does where a lead has no such date.
    """

    time: TimeOfDay | None = None
    weekdays: list[Weekday] | None = Field(default=None, min_length=1, max_length=7)
    zone: str = Field(default=PERSONS_ZONE, min_length=1, max_length=64)
    date: FieldName | None = None
    offset_days: int = Field(default=0, ge=-3_650, le=3_650)
    event: Condition | None = None
    segment: SegmentName | None = None
    timeout: Wait | None = None
    otherwise: StepId | None = Field(default=None, alias="else")

    @model_validator(mode="after")
    def _waits_for_one_thing(self) -> "WaitUntil":
        moments = [self.date or self.time, self.event, self.segment]
        if sum(moment is not None for moment in moments) != 1:
            raise ValueError("wait_until waits for one thing: a time or a date, an event, or a segment")
        if self.weekdays is not None and (self.time is None or self.date is not None):
            raise ValueError("weekdays go with a time of day alone")
        if self.offset_days and self.date is None:
            raise ValueError("offset_days goes with a date")
        if (self.event or self.segment) and (self.timeout is None or not self.timeout.span):
            raise ValueError("an event or a segment may never come: say in timeout how long to wait for it")
        if (self.date or self.time) and self.timeout is not None:
            raise ValueError("a time comes of itself: timeout goes with an event or a segment")
        if self.time is not None and self.date is None and self.otherwise is not None:
            raise ValueError("a time of day comes always: else goes with a date, an event or a segment")
        return self


class Share(Shape):
    """One way out of a split, for so many in a hundred. `id` names the variant."""

    id: StepId
    weight: int = Field(ge=0, le=100)
    to: StepId


class Goal(Shape):
    """A success. With neither `when` nor `jump` it is reached by whoever comes here, and ends the run.

    `when` is met by a fact after the trigger, or by what is known of the person. `jump` lets a run skip forward to the
    goal as soon as it is met, and go on behind it. Who comes here before it is met goes on, waits, or ends.
    """

    when: Condition | None = None
    jump: bool = False
    unmet: Literal["continue", "wait", "end"] = "continue"

    @model_validator(mode="after")
    def _jumps_on_something(self) -> "Goal":
        if self.when is None and (self.jump or self.unmet != "continue"):
            raise ValueError("jump and unmet need a when")
        return self


class Exit(Shape):
    """The end of the run that is no success."""

    reason: str = Field(min_length=1, max_length=200)


class Notify(Shape):
    """Tell a rep something: the `owner` of the lead, or a rep by id or address. Text is Jinja, as in messages."""

    to: str = Field(default="owner", min_length=1, max_length=200)
    subject: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=4_000)


class Webhook(Shape):
    """Tell another system, signed, by a webhook endpoint of routing. It learns ids, and these fields of the lead."""

    endpoint: str = Field(min_length=1, max_length=200)
    fields: list[FieldName] = Field(default_factory=list, max_length=50)


class Other(Shape):
    """Another sequence: to be entered, as its reentry allows, or left."""

    sequence: str = Field(min_length=1, max_length=200)


class Assign(Shape):
    """Ask for a rep, by routing's rules; whoever has one keeps them."""

    reason: str = Field(default="", max_length=200)


Update = Annotated[dict[FieldName, str | int | bool | None], Field(min_length=1, max_length=50)]
DOES = ("send", "wait", "wait_until", "branch", "split", "goal", "exit")
ACTS = ("update", "notify", "webhook", "enrol", "remove", "assign")
PARTS = (*DOES, *ACTS)
ENDS_HERE = ("branch", "split", "exit")


class Variant(Shape):
    """One of the ways in which an experiment does a step; without a part of its own it does as the step says."""

    id: StepId
    weight: int = Field(ge=1, le=99, description="Of 100 people")
    template: Template | None = None
    wait: Wait | None = None
    to: StepId | None = None


class Experiment(Shape):
    """Variants of a message, of a wait, or of the way on, each for a share of the people.

    `conversions` counts people who converted within the window after they were given a variant, `revenue` the worth of
    what they did within it, `attributed_revenue` what attribution's `model` credits to opens and clicks of theirs.
    """

    id: StepId
    variants: list[Variant] = Field(min_length=2, max_length=10)
    metric: Literal["conversions", "revenue", "attributed_revenue"] = "conversions"
    currency: Currency | None = Field(default=None, description="Which revenue is compared")
    model: str = Field(default="linear", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    window_days: int = Field(default=WINDOW_DAYS, ge=1, le=365)
    decide: Literal["by_hand", "automatically"] = "by_hand"
    at_least: int = Field(default=100, ge=1, le=10_000_000, description="People of each variant before it is decided")
    guard: bool = Field(default=True, description="Stop a variant of which more unsubscribe, beyond doubt")

    @model_validator(mode="after")
    def _compares_one_thing(self) -> "Experiment":
        if len({variant.id for variant in self.variants}) < len(self.variants):
            raise ValueError("two variants have the same id")
        if sum(variant.weight for variant in self.variants) != WHOLE:
            raise ValueError(f"the weights of the variants do not sum to {WHOLE}")
        if (self.metric == "conversions") != (self.currency is None):
            raise ValueError("revenue is compared in a currency, and conversions in none")
        return self


class Holdout(Shape):
    """So many of 100 people who would enter do not, so that what the sequence does can be measured."""

    percent: int = Field(ge=1, le=50)
    window_days: int = Field(default=WINDOW_DAYS, ge=1, le=365, description="For conversions, since the trigger")


class Step(Shape):
    """One step; it does one thing. `next` names the step after it; without it that is the one below.

    A branch takes the first turn that holds, otherwise `else`, otherwise the step below. `end` ends the run. An
    `experiment` varies the template of a message or the length of a wait; alone, with a `to` in each variant, the way.
    """

    id: StepId
    send: Send | None = None
    wait: Wait | None = None
    wait_until: WaitUntil | None = None
    branch: list[Turn] | None = Field(default=None, min_length=1, max_length=20)
    split: list[Share] | None = Field(default=None, min_length=2, max_length=20)
    goal: Goal | None = None
    exit: Exit | None = None
    update: Update | None = None
    notify: Notify | None = None
    webhook: Webhook | None = None
    enrol: Other | None = None
    remove: Other | None = None
    assign: Assign | None = None
    experiment: Experiment | None = None
    otherwise: StepId | None = Field(default=None, alias="else")
    next: StepId | None = None
    overdue: Overdue | None = None
    pressure: UnderPressure | None = None

    @property
    def is_fork(self) -> bool:
        """Whether the step is an experiment on the way on."""
        return self.experiment is not None and all(variant.to is not None for variant in self.experiment.variants)

    @property
    def kind(self) -> str:
        """What it does."""
        return next((part for part in PARTS if getattr(self, part) is not None), "experiment")

    @model_validator(mode="after")
    def _does_one_thing(self) -> "Step":
        things = sum(getattr(self, part) is not None for part in PARTS)
        if things != (0 if self.is_fork else 1):
            raise ValueError(f"a step does one thing: {', '.join(PARTS[:-1])} or {PARTS[-1]}")
        if self.experiment is not None:
            self._varies_what_it_does(self.experiment)
        if self.is_fork and self.next is not None:
            raise ValueError("the variants say where to go on: there is no next")
        if self.send is None and self.overdue is not None:
            raise ValueError("only a send has a rule for being overdue")
        if self.send is None and self.pressure is not None:
            raise ValueError("only a send comes under contact pressure")
        if self.branch is None and self.otherwise is not None:
            raise ValueError("only a branch has an else")
        if self.branch is not None and self.next is not None:
            raise ValueError("a branch has an else, not a next")
        if self.kind in ENDS_HERE and self.next is not None:
            raise ValueError(f"{self.kind} goes on by itself: it has no next")
        return self

    def _varies_what_it_does(self, experiment: Experiment) -> None:
        for variant in experiment.variants:
            if self.send is None and variant.template is not None:
                raise ValueError("only a message has variants with a template")
            if self.wait is None and variant.wait is not None:
                raise ValueError("only a wait has variants with a wait")
            if not self.is_fork and variant.to is not None:
                raise ValueError("all variants have a to, in a step that does nothing else; or none has")
        if not self.is_fork and self.send is None and self.wait is None:
            raise ValueError(f"a {self.kind} has no experiment: send people to one that chooses the way")


class EveryDays(Shape):
    """A person may enter again this many days after entering last, once out."""

    days: int = Field(ge=1, le=3_650)


class SequenceDocument(Shape):
    """A sequence as it is written, stored and versioned."""

    name: str = Field(min_length=1, max_length=200)
    trigger: Condition
    exit: Condition | None = None
    goal: Condition | None = None
    reentry: Literal["never", "after_exit", "always"] | EveryDays = "never"
    most_entries: int | None = Field(default=None, ge=1, le=1_000_000, description="Nobody enters more often than this")
    purpose: Purpose = MARKETING
    active: bool = False
    holdout: Holdout | None = None
    pause_on: list[TakeoverCause] | None = Field(
        default=None, description="Which takeovers hold its messages; without it all. A pause by hand always does"
    )
    overdue: Overdue = "send"
    pressure: UnderPressure | None = Field(default=None, description="For all its messages; without it the policy's")
    utm: Utm | None = None
    steps: list[Step] = Field(min_length=1, max_length=200)

    @field_validator("purpose")
    @classmethod
    def _is_one_purpose(cls, purpose: str) -> str:
        if purpose == ALL:
            raise ValueError(f"a sequence has one purpose, such as {MARKETING}; {ALL} is for refusals")
        return purpose

    def as_json(self) -> dict[str, Any]:
        """The document as it is stored: defaults spelt out, so that a later default changes no stored sequence."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
