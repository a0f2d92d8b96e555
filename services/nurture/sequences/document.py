"""What a sequence looks like when it is written down: the shape alone, not yet whether it makes sense."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from shared.consents import ALL, MARKETING, WELL_KNOWN
from shared.web import Input

StepId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4_000)]
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description=f"Well known: {', '.join(WELL_KNOWN)}")]
END = "end"


class Shape(Input):
    """A part of a sequence document: no unknown fields, no guessing of types."""

    model_config = ConfigDict(strict=True, str_max_length=100_000, validate_by_name=False, validate_by_alias=True)


class Template(Shape):
    """The text of a message, in Jinja. The part that is absent is made out of the other one."""

    subject: str = Field(min_length=1, max_length=500)
    html: str | None = Field(default=None, min_length=1, max_length=100_000)
    text: str | None = Field(default=None, min_length=1, max_length=100_000)

    @model_validator(mode="after")
    def _has_a_body(self) -> "Template":
        if self.html is None and self.text is None:
            raise ValueError("a template has html, text or both")
        return self


class Send(Shape):
    """A message to the person."""

    channel: Literal["email"]
    template: Template


class Wait(Shape):
    """A span of time, the sum of its parts."""

    days: int = Field(default=0, ge=0, le=3_650)
    hours: int = Field(default=0, ge=0, le=87_600)
    minutes: int = Field(default=0, ge=0, le=5_256_000)

    @property
    def span(self) -> timedelta:
        """How long it is."""
        return timedelta(days=self.days, hours=self.hours, minutes=self.minutes)


class Turn(Shape):
    """One way out of a branch."""

    when: Condition
    to: StepId


class Step(Shape):
    """One step: `send`, `wait` or `branch`. `next` names the step after it; without it that is the one below.

    A branch takes the first turn that holds, otherwise `else`, otherwise the step below. `end` ends the run.
    """

    id: StepId
    send: Send | None = None
    wait: Wait | None = None
    branch: list[Turn] | None = Field(default=None, min_length=1, max_length=20)
    otherwise: StepId | None = Field(default=None, alias="else")
    next: StepId | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> "Step":
        if sum(part is not None for part in (self.send, self.wait, self.branch)) != 1:
            raise ValueError("a step does one thing: send, wait or branch")
        if self.branch is None and self.otherwise is not None:
            raise ValueError("only a branch has an else")
        if self.branch is not None and self.next is not None:
            raise ValueError("a branch has an else, not a next")
        return self


class EveryDays(Shape):
    """A person may enter again this many days after entering last, once out."""

    days: int = Field(ge=1, le=3_650)


class SequenceDocument(Shape):
    """A sequence as it is written, stored and versioned."""

    name: str = Field(min_length=1, max_length=200)
    trigger: Condition
    exit: Condition | None = None
    goal: Condition | None = None
    reentry: Literal["never", "after_exit"] | EveryDays = "never"
    purpose: Purpose = MARKETING
    active: bool = False
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
