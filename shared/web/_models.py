"""What requests are made of: strict models, times, pages."""

import hmac
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from shared.clock import present
from shared.errors import FieldError, Malformed
from shared.secrets import Secrets

T = TypeVar("T")
D = TypeVar("D", bound=date)
EARLIEST_YEAR, LATEST_YEAR = 1900, 2999
FUTURE = timedelta(days=1)
MAX_DEPTH = 32
SMALLEST, LARGEST = -(2**63), 2**63 - 1
_SIGNED = 8


def _storable(value: Any, depth: int = 0) -> None:
    """Refuse what PostgreSQL or JSON cannot hold, before anything is stored."""
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("contains a NUL character")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("contains half of a surrogate pair")
    elif isinstance(value, int):
        if not SMALLEST <= value <= LARGEST:
            raise ValueError("holds a number of more than 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("holds a number that is not finite")
    elif isinstance(value, dict | list | tuple):
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH}")
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _storable(item, depth + 1)


class Input(BaseModel):
    """Base of request bodies: unknown fields are refused, and so is text that cannot be stored."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=10_000)

    @model_validator(mode="after")
    def _all_text_is_storable(self) -> "Input":
        faults: list[InitErrorDetails] = []
        for name, value in self.__dict__.items():
            try:
                _storable(value)
            except ValueError as exc:
                fault = PydanticCustomError("value_error", "{fault}", {"fault": str(exc)})
                faults.append({"type": fault, "loc": (name,), "input": None})
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self


def _written_out(value: Any) -> Any:
    # Of digits alone, such as 20261127, pydantic makes that many seconds after 1970.
    if not isinstance(value, datetime) and not (isinstance(value, str) and value[4:5] == "-"):
        raise ValueError("is not a time such as 2026-11-27T10:00:00Z")
    return value


def _day_written_out(value: Any) -> Any:
    written = isinstance(value, str) and len(value) == len("2026-11-27") and value[4] == value[7] == "-"
    if not written and (not isinstance(value, date) or isinstance(value, datetime)):
        raise ValueError("is not a day such as 2026-11-27")
    return value


def _within_years(value: D) -> D:
    # The ends of what a date holds stand for infinity in PostgreSQL, and nothing can be added to them.
    if not EARLIEST_YEAR <= value.year <= LATEST_YEAR:
        raise ValueError(f"lies outside of the years {EARLIEST_YEAR} to {LATEST_YEAR}")
    return value


def _in_utc(value: datetime) -> datetime:
    return _within_years(value).astimezone(UTC)


def _not_far_ahead(value: datetime) -> datetime:
    if value > present.now() + FUTURE:
        raise ValueError("lies more than a day in the future")
    return value


Instant = Annotated[
    AwareDatetime,
    Field(strict=False),  # where models are strict, a text that went through a validator would be refused
    BeforeValidator(_written_out),
    AfterValidator(_in_utc),
]
"""A time with an offset; becomes UTC."""
CalendarDay = Annotated[
    date,
    Field(strict=False),
    BeforeValidator(_day_written_out),
    AfterValidator(_within_years),
]
"""A day, whoever's it is: written out, and nothing else."""
ReportDay = Annotated[
    date,
    Field(strict=False, ge=date(1970, 1, 1), le=date(2200, 1, 1)),
    BeforeValidator(_day_written_out),
]
"""A day that a report may begin or end with, or a rate is of: there may be a row for each day between two."""
OccurredAt = Annotated[Instant, AfterValidator(_not_far_ahead)]
"""When something happened by its source's clock: with an offset, at most a day ahead; becomes UTC."""


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = None


Limit = Annotated[int, Query(ge=1, le=200, description="Most items on a page")]


def make_cursor(secrets: Secrets, of: str, place: Any) -> str:
    """An opaque, signed cursor for a place (anything JSON can hold) in the list that `of` names."""
    body = orjson.dumps(place)
    return urlsafe_b64encode(_signature(secrets, of, body) + body).decode().rstrip("=")


def read_cursor(secrets: Secrets, of: str, cursor: str | None) -> Any:
    """The place a cursor stands for; None without one. Raises Malformed for one that was not made for this list."""
    if cursor is None:
        return None
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        if hmac.compare_digest(_signature(secrets, of, raw[_SIGNED:]), raw[:_SIGNED]):
            return orjson.loads(raw[_SIGNED:])
    except ValueError:
        pass
    detail = "is not a cursor of this list; begin again without one"
    raise Malformed("the cursor is not valid", [FieldError("query:cursor", detail)])


def _signature(secrets: Secrets, of: str, body: bytes) -> bytes:
    return hmac.digest(secrets.cursors, of.encode() + b"\x1f" + body, "sha256")[:_SIGNED]
