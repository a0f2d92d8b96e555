"""What may be told about the company's holidays, and what is asked of a rep's time."""

import datetime as dt
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError, model_validator

from services.routing.availability.domain import LONGEST
from services.routing.reps.holidays import UnknownPlace, check_place
from services.routing.reps.inputs import CountryCode
from shared.errors import FieldError, Invalid
from shared.web import Input

MOST_DAYS = 2_000
EARLIEST, LATEST = 1970, 2199
A_WEEK = dt.timedelta(days=7)


def _real_day(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text} is no day of the calendar") from None


WrittenDay = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2026-12-24"]), AfterValidator(_real_day)]


class CompanyDayIn(Input):
    """A day that is free in the company, or with `worked` one that is worked although it is a public holiday.

    Everywhere, or only for reps whose holidays are those of `country`, or of its `subdivision`.
    """

    date: WrittenDay
    name: Annotated[str, Field(min_length=1, max_length=200)]
    country: CountryCode | None = None
    subdivision: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    worked: bool = False

    @model_validator(mode="after")
    def _has_a_place(self) -> "CompanyDayIn":
        if self.country is None:
            if self.subdivision is not None:
                raise ValueError("a subdivision is named together with its country")
            return self
        try:
            check_place(self.country, self.subdivision)
        except UnknownPlace as exc:
            raise ValueError(str(exc)) from None
        return self


class CompanyDaysIn(Input):
    """All the days; what was told before and is not among them is forgotten."""

    days: Annotated[tuple[CompanyDayIn, ...], Field(max_length=MOST_DAYS)]

    @model_validator(mode="after")
    def _each_once(self) -> "CompanyDaysIn":
        seen: set[tuple[Any, ...]] = set()
        for one in self.days:
            place = (one.date, one.country, one.subdivision)
            if place in seen:
                raise ValueError(f"{one.date} stands there twice for the same place")
            seen.add(place)
        return self

    def as_json(self) -> list[dict[str, Any]]:
        """As it is stored: general days first, so that what is said of a place counts there."""
        ordered = sorted(self.days, key=lambda one: (one.date, one.country is not None, one.subdivision is not None))
        return [one.model_dump(mode="json", exclude_none=True) for one in ordered]


_MOMENT: TypeAdapter[dt.datetime] = TypeAdapter(AwareDatetime)


def asked_stretch(since: str | None, until: str | None, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The time that is asked about: from now, and for a week, where nothing else is said. Raises Invalid."""
    faults: list[FieldError] = []
    start = _moment(since, "query:from", faults) or now
    end = _moment(until, "query:to", faults) or start + A_WEEK
    if not faults and end <= start:
        faults.append(FieldError("query:to", "is not after query:from"))
    if not faults and end - start > LONGEST:
        faults.append(FieldError("query:to", f"is more than {LONGEST.days} days after query:from"))
    if faults:
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults)}", faults)
    return start, end


def _moment(text: str | None, pointer: str, faults: list[FieldError]) -> dt.datetime | None:
    if text is None:
        return None
    try:
        moment = _MOMENT.validate_python(text.replace(" ", "+")).astimezone(dt.UTC)
    except (ValidationError, OverflowError):
        faults.append(FieldError(pointer, "is not a time with an offset, such as 2026-12-24T12:00:00Z"))
        return None
    if not EARLIEST <= moment.year <= LATEST:
        faults.append(FieldError(pointer, f"is not between the years {EARLIEST} and {LATEST}"))
        return None
    return moment
