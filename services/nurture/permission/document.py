"""The sending policy: hours, contact pressure, the guard, soft bounces; as it is written and checked."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from importlib import resources
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from services.nurture.permission.hours import WEEKDAYS, Week, Window
from services.nurture.permission.zones import zone_named
from services.nurture.templates.document import Shape
from shared.events import ConsentChannel
from shared.rules import DocumentStore

_MINUTES = 1_440
Clock = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$", examples=["08:00"])]


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _ordered(stretch: list[str]) -> list[str]:
    if _minutes(stretch[0]) >= _minutes(stretch[1]):
        raise ValueError("ends before it begins; a night is two stretches, one of each day")
    return stretch


Stretch = Annotated[list[Clock], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
Stretches = Annotated[list[Stretch], Field(max_length=10)]


class Hours(Shape):
    """When unasked messages may go out, in the local time of whom they are for; a day that is left out is quiet."""

    mon: Stretches = Field(default_factory=list)
    tue: Stretches = Field(default_factory=list)
    wed: Stretches = Field(default_factory=list)
    thu: Stretches = Field(default_factory=list)
    fri: Stretches = Field(default_factory=list)
    sat: Stretches = Field(default_factory=list)
    sun: Stretches = Field(default_factory=list)

    @property
    def week(self) -> Week:
        """The same, to reckon with."""
        return {
            day: [Window(_minutes(begins), _minutes(ends)) for begins, ends in getattr(self, day)] for day in WEEKDAYS
        }


class PressureLimit(Shape):
    """At most this many unasked messages in any `days` of 24 hours; over one channel, or all together."""

    messages: int = Field(ge=1, le=1_000)
    days: int = Field(ge=1, le=366)
    channel: ConsentChannel | None = None

    @property
    def span(self) -> timedelta:
        """How long what was sent counts."""
        return timedelta(days=self.days)


class Pressure(Shape):
    """How much one person gets of all sequences and channels together.

    What is over it waits, at most `expire_after_hours` since it was due; then it is not sent. `priorities` by sequence
    (0 where none is given): of messages that wait for their turn the highest goes first.
    """

    limits: list[PressureLimit] = Field(default_factory=list, max_length=20)
    gap_minutes: int = Field(default=0, ge=0, le=44_640)
    expire_after_hours: int = Field(default=72, ge=1, le=8_784)
    priorities: dict[Annotated[str, Field(max_length=200)], Annotated[int, Field(ge=-1_000, le=1_000)]] = Field(
        default_factory=dict, max_length=1_000
    )


class Guard(Shape):
    """When a sequence is paused: by the share of its messages of the last `days` that brought complaints or bounces."""

    days: int = Field(default=7, ge=1, le=90)
    min_messages: int = Field(default=100, ge=1, le=1_000_000)
    complaint_percent: float = Field(default=0.3, gt=0, le=100)
    bounce_percent: float = Field(default=5, gt=0, le=100)


class SoftBounces(Shape):
    """How many bounces that are not for good, in how many days, make an address one that nothing is sent to."""

    count: int = Field(default=3, ge=1, le=100)
    days: int = Field(default=7, ge=1, le=366)


class SendingPolicy(Shape):
    """All of it. A channel without `hours` has no quiet ones.

    What is sent within `answer_within_minutes` of a touch that began the run is an answer: it waits neither for hours
    nor for pressure, and counts for it. Transactional messages do not wait, nor do they count.
    """

    hours: dict[ConsentChannel, Hours] = Field(default_factory=dict)
    default_time_zone: str = "UTC"
    spread_minutes: int = Field(default=0, ge=0, le=240)
    answer_within_minutes: int = Field(default=0, ge=0, le=1_440)
    pressure: Pressure = Field(default_factory=Pressure)
    guard: Guard = Field(default_factory=Guard)
    soft_bounces: SoftBounces = Field(default_factory=SoftBounces)

    @field_validator("default_time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        if zone_named(name) is None:
            raise ValueError("is no time zone, such as Europe/Berlin")
        return name

    @field_validator("hours")
    @classmethod
    def _is_ever_time(cls, hours: dict[ConsentChannel, Hours]) -> dict[ConsentChannel, Hours]:
        for channel, given in hours.items():
            if not any(given.week.values()):
                raise ValueError(f"nothing would ever go over {channel}; leave it out for always")
        return hours

    @cached_property
    def weeks(self) -> Mapping[ConsentChannel, Week]:
        """The hours of each channel that has any."""
        return {channel: hours.week for channel, hours in self.hours.items()}


def shipped() -> dict[str, Any]:
    """The policy that comes with the product."""
    source = resources.files("services.nurture").joinpath("shipped", "sending_policy.json").read_text()
    document: dict[str, Any] = json.loads(source)
    return document


def checked(document: dict[str, Any]) -> SendingPolicy:
    """The document, when it can work. Raises pydantic's ValidationError."""
    return SendingPolicy.model_validate(document)


POLICIES = DocumentStore("sending-policy", shipped())
