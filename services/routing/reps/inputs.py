"""What may be told about a rep, and how working hours and time off are written."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from services.routing.reps.holidays import UnknownPlace, check_place
from services.routing.reps.local_time import local_midnight
from shared.clock import time_zones
from shared.emails import Email
from shared.web import Input

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _known_zone(name: str) -> str:
    if name not in time_zones():
        raise ValueError(f"{name[:60]!r} is not the name of a time zone; write one like Europe/Vienna")
    return name


def _clock(text: str) -> str:
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"{text[:20]!r} is not a time of day from 00:00 to 24:00")
    return text


def _in_order(stretches: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    last = 0
    for stretch in sorted(stretches):
        first, end = minutes_of(stretch)
        if first in (end, 1440):
            raise ValueError(f"{stretch[0]} to {stretch[1]} is no stretch of time; a whole day is 00:00 to 24:00")
        if first < last:
            raise ValueError(f"{stretch[0]} to {stretch[1]} overlaps another stretch")
        last = end
    return tuple(sorted(stretches))


def minutes_of(stretch: Sequence[str]) -> tuple[int, int]:
    """A stretch in minutes since local midnight; one that ends before it begins ends on the next day."""
    first, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in stretch)
    return first, end if end >= first else end + 1440


def _moment(text: str) -> str:
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
        elif datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("has no offset; write a date, or a time like 2026-12-24T12:00:00Z")
    except ValueError as exc:
        detail = str(exc) if "offset" in str(exc) else f"{text[:40]!r} is neither a date nor a time"
        raise ValueError(detail) from None
    return text


ClockTime = Annotated[str, AfterValidator(_clock)]
Stretches = Annotated[
    tuple[tuple[ClockTime, ClockTime], ...],
    Field(max_length=24, examples=[[["09:00", "17:00"]]]),
    AfterValidator(_in_order),
]
Moment = Annotated[str, AfterValidator(_moment)]
TimeZone = Annotated[str, AfterValidator(_known_zone), Field(examples=["Europe/Vienna"])]
CountryCode = Annotated[
    str,
    BeforeValidator(lambda told: told.strip().upper() if isinstance(told, str) else told),
    Field(pattern=r"^[A-Z]{2}$", examples=["DE"]),
]
Cap = Annotated[int, Field(ge=0, le=1_000_000)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
ManagerId = Annotated[
    str | None, Field(pattern=r"^[\x21-\x7e]{1,200}$", description="Another rep, who is told of delays")
]
Labels = Annotated[tuple[Label, ...], Field(max_length=500)]


class WorkingHours(Input):
    """Local hours by weekday; a day left out is free. `["22:00", "06:00"]` is the night that begins on that day."""

    mon: Stretches = ()
    tue: Stretches = ()
    wed: Stretches = ()
    thu: Stretches = ()
    fri: Stretches = ()
    sat: Stretches = ()
    sun: Stretches = ()

    @model_validator(mode="after")
    def _not_empty(self) -> "WorkingHours":
        if not any(getattr(self, day) for day in WEEKDAYS):
            raise ValueError("no day has hours; leave working_hours out for always, or make the rep inactive")
        for day, after in zip(WEEKDAYS, (*WEEKDAYS[1:], WEEKDAYS[0]), strict=True):
            nights = [minutes_of(stretch)[1] - 1440 for stretch in getattr(self, day)]
            mornings = [minutes_of(stretch)[0] for stretch in getattr(self, after)]
            if mornings and max(nights, default=0) > min(mornings):
                raise ValueError(f"the night that begins on {day} reaches into the hours of {after}")
        return self


class PlaceOfHolidays(Input):
    """Whose public holidays are free: an ISO 3166 country, perhaps a part of it."""

    country: CountryCode
    subdivision: Annotated[str, Field(min_length=1, max_length=40, examples=["BY"])] | None = None

    @model_validator(mode="after")
    def _is_known(self) -> "PlaceOfHolidays":
        try:
            check_place(self.country, self.subdivision)
        except UnknownPlace as exc:
            raise ValueError(str(exc)) from None
        return self


class TimeOff(Input):
    """Leave from a date or time until another, which is excluded. Dates are the rep's local days."""

    since: Moment = Field(alias="from", examples=["2026-12-24"])
    until: Moment = Field(alias="to", examples=["2027-01-02"])
    reason: str | None = Field(default=None, max_length=200)

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "TimeOff":
        zone = ZoneInfo("UTC")
        if moment_at(self.until, zone) <= moment_at(self.since, zone):
            raise ValueError("`to` is not after `from`; it is excluded, so a day off ends with the next day's date")
        return self


class RepInput(Input):
    """A new rep. Without `working_hours` the rep always works; without `capacity` there is no limit.

    `capacity` is the most leads held at once; `daily_capacity` and the others are the most given on a working day of
    the rep, and in a week and a month of them. `holidays` says where the rep's public holidays are.
    """

    name: Label
    email: Email
    territories: Labels = ()
    skills: Labels = ()
    teams: Labels = ()
    seniority: int | None = Field(default=None, ge=0, le=1_000)
    weight: int = Field(default=100, ge=0, le=10_000)
    capacity: Cap | None = None
    daily_capacity: Cap | None = None
    weekly_capacity: Cap | None = None
    monthly_capacity: Cap | None = None
    manager_id: ManagerId = None
    time_zone: TimeZone
    working_hours: WorkingHours | None = None
    holidays: PlaceOfHolidays | None = None
    time_off: Annotated[tuple[TimeOff, ...], Field(max_length=500)] = ()
    active: bool = True

    def columns(self) -> dict[str, Any]:
        """What was told, as it is stored."""
        return _columns(self, set(type(self).model_fields))


class RepChange(Input):
    """A change of a rep: what is left out stays; null takes away what may be absent."""

    name: Label = ""
    email: Email = ""
    territories: Labels = ()
    skills: Labels = ()
    teams: Labels = ()
    seniority: int | None = Field(default=None, ge=0, le=1_000)
    weight: int = Field(default=100, ge=0, le=10_000)
    capacity: Cap | None = None
    daily_capacity: Cap | None = None
    weekly_capacity: Cap | None = None
    monthly_capacity: Cap | None = None
    manager_id: ManagerId = None
    time_zone: TimeZone = "UTC"
    working_hours: WorkingHours | None = None
    holidays: PlaceOfHolidays | None = None
    time_off: Annotated[tuple[TimeOff, ...], Field(max_length=500)] = ()
    active: bool = True

    def columns(self) -> dict[str, Any]:
        """What was told, as it is stored."""
        return _columns(self, self.model_fields_set)


def _columns(told: RepInput | RepChange, names: set[str]) -> dict[str, Any]:
    columns = told.model_dump(include=names - {"working_hours", "holidays", "time_off"})
    if "working_hours" in names:
        hours = told.working_hours
        columns["working_hours"] = hours and {day: getattr(hours, day) for day in WEEKDAYS if getattr(hours, day)}
    if "holidays" in names:
        columns["holidays"] = told.holidays and told.holidays.model_dump(exclude_none=True)
    if "time_off" in names:
        columns["time_off"] = [item.model_dump(by_alias=True, exclude_none=True) for item in told.time_off]
    return columns


def moment_at(text: str, zone: ZoneInfo) -> datetime:
    """A date (the beginning of the local day) or time, as written, in UTC."""
    if _DATE.fullmatch(text):
        return local_midnight(date.fromisoformat(text), zone)
    return datetime.fromisoformat(text).astimezone(UTC)
