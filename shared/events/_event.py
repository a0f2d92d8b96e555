"""What every fact has in common."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from shared.ids import EventId, LeadId

_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)


def _within_years(at: datetime) -> datetime:
    if _EARLIEST.year <= at.year <= _LATEST.year:
        return at
    return _EARLIEST if at.year < _EARLIEST.year else _LATEST


Moment = Annotated[datetime, AfterValidator(_within_years)]
"""A time in a fact, as anybody can store it and reckon with it.

What was accepted once stays in the log. A time near the ends of what a datetime holds stands for infinity in
PostgreSQL, and nothing can be added to it: it counts as the first, or the last, of the years that are accepted now.
"""


def _day_within_years(day: date) -> date:
    return min(max(day, _EARLIEST.date()), _LATEST.date())


Day = Annotated[date, AfterValidator(_day_within_years)]
"""A calendar day in a fact, as a `Moment` is a time."""


class Event(BaseModel):
    """A fact that has happened. Frozen; within a version it only ever gains optional fields.

    `position` is the place of the fact in the event log of the service that told it. The relay sets it when it
    publishes, so that all consumers agree which of two corrections was received last.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    ce_type: ClassVar[str]
    waits_behind_parked: ClassVar[bool] = True
    calm: ClassVar[bool] = False
    """Whether nobody waits for any of its kind: they may leave together with what follows within a moment."""

    event_id: EventId
    lead_id: LeadId
    occurred_at: Moment
    received_at: Moment
    position: int = 0

    @property
    def is_calm(self) -> bool:
        """Whether nobody waits for this one."""
        return self.calm

    @property
    def key(self) -> str:
        """The lead's id, so that one lead's facts stay in order."""
        return self.lead_id

    @property
    def subject(self) -> str:
        """What the fact is about: the lead."""
        return self.lead_id

    def encode(self) -> bytes:
        """The JSON value of the Kafka record, without what is absent."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True, exclude={"position"})

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Parse a record's value; raises pydantic.ValidationError."""
        return cls.__pydantic_validator__.validate_json(value)  # type: ignore[no-any-return]  # typed Any by pydantic


def with_position(value: bytes, position: int) -> bytes:
    """The encoded fact with its log position: spliced in, since parsing it again would double the relay's work."""
    return b'%s,"position":%d}' % (value[:-1], position)


@cache
def decoder(kind: type[Event]) -> Callable[[bytes], Any]:
    """The fastest way from bytes to a fact of this kind."""
    return kind.__pydantic_validator__.validate_json


def schema_of(kind: type[Event]) -> dict[str, Any]:
    """The JSON Schema of one kind of fact."""
    schema: dict[str, Any] = json.loads(json.dumps(kind.model_json_schema()))
    schema["$id"] = f"urn:throughline:{kind.ce_type}"
    return schema
