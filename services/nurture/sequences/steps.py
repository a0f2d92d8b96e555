"""The steps of a compiled sequence, a class for each kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time, timedelta
from typing import Literal

from services.nurture.sequences.document import Channel
from services.nurture.templates.document import Template, TemplateRef
from shared.ids import SequenceId
from shared.rules import Expression


@dataclass(frozen=True, slots=True)
class SendStep:
    """Hand a message to the provider, then go on. One that is later than `skip_after` is skipped.

    One that contact pressure holds expires after `patience`, or as long as the sending policy says.
    """

    step_id: str
    channel: Channel
    template: Template | TemplateRef
    then: str
    skip_after: timedelta | None = None
    patience: timedelta | None = None


@dataclass(frozen=True, slots=True)
class WaitStep:
    """Go on after a span of time."""

    step_id: str
    span: timedelta
    then: str


@dataclass(frozen=True, slots=True)
class WaitUntilStep:
    """Go on at a moment, or after an event or a segment; to `otherwise` when that does not come within `timeout`."""

    step_id: str
    then: str
    otherwise: str
    zone: str
    at: time | None = None
    weekdays: frozenset[int] = frozenset()
    date: str | None = None
    offset: timedelta = timedelta()
    event: Expression | None = None
    segment: str | None = None
    timeout: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class BranchStep:
    """Go where the first turn that holds points, otherwise on."""

    step_id: str
    turns: tuple[tuple[Expression, str], ...]
    then: str


@dataclass(frozen=True, slots=True)
class ForkStep:
    """An experiment on the way on: each person takes one of the ways, which is `then` in a plan of their own."""

    step_id: str
    ways: tuple[str, ...]
    then: str


@dataclass(frozen=True, slots=True)
class Part:
    """A variant of a split, for `weight` of a hundred."""

    variant: str
    weight: int
    to: str


@dataclass(frozen=True, slots=True)
class SplitStep:
    """Go one of several ways, the same at every look for one person."""

    step_id: str
    shares: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class GoalStep:
    """A success: the end, or a place to skip forward to."""

    step_id: str
    when: Expression | None
    jump: bool
    unmet: Literal["continue", "wait", "end"]
    then: str


@dataclass(frozen=True, slots=True)
class ExitStep:
    """The end that is no success."""

    step_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """Say something about the lead."""

    step_id: str
    fields: Mapping[str, str | int | bool | None]
    then: str


@dataclass(frozen=True, slots=True)
class NotifyStep:
    """Tell a rep."""

    step_id: str
    to: str
    template: Template
    then: str


@dataclass(frozen=True, slots=True)
class WebhookStep:
    """Tell another system."""

    step_id: str
    endpoint: str
    fields: tuple[str, ...]
    then: str


@dataclass(frozen=True, slots=True)
class EnrolStep:
    """Let the person enter another sequence."""

    step_id: str
    sequence_id: SequenceId
    then: str


@dataclass(frozen=True, slots=True)
class RemoveStep:
    """Let the person leave another sequence."""

    step_id: str
    sequence_id: SequenceId
    then: str


@dataclass(frozen=True, slots=True)
class AssignStep:
    """Ask for a rep."""

    step_id: str
    reason: str
    then: str


ActStep = UpdateStep | NotifyStep | WebhookStep | EnrolStep | RemoveStep | AssignStep
"""What acts on something else, once per visit."""
PlanStep = SendStep | WaitStep | WaitUntilStep | BranchStep | ForkStep | SplitStep | GoalStep | ExitStep | ActStep
