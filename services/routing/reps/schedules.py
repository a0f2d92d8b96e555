"""The calendars of reps, out of what is stored, made once for each thing they are made of."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from services.routing.reps.calendar import DAY, Calendar
from services.routing.reps.holidays import NO_HOLIDAYS, CompanyDay, holidays_of
from services.routing.reps.inputs import WEEKDAYS, minutes_of, moment_at
from services.routing.reps.local_time import local_midnight
from services.routing.reps.spans import Span

MOST_KEPT = 20_000
BY_FEED = "calendar"
Busy = Mapping[str, Sequence[Sequence[str]]]
"""What a rep's own calendar says, as it is stored: stretches of being `away` and of being `busy`."""


class Stored(NamedTuple):
    """What a calendar is made of, as JSON text; long parts by the digest of theirs."""

    time_zone: str
    working_hours: str | None
    time_off: str
    holidays: str | None
    company_digest: str | None
    busy_digest: str | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A calendar, and all that it was made of, which `digest` names: the same is made of it again at any time."""

    digest: str
    calendar: Calendar
    stored: Stored
    company: Sequence[Mapping[str, Any]]
    busy: Busy

    def as_json(self) -> dict[str, Any]:
        """What it was made of."""
        return {"stored": list(self.stored), "company": list(self.company), "busy": dict(self.busy)}


def schedule_of(stored: Stored, company: Sequence[Mapping[str, Any]] = (), busy: Busy | None = None) -> Schedule:
    """The schedule that stored fields describe."""
    digest = hashlib.sha256(orjson.dumps(list(stored))).hexdigest()[:32]
    calendar = calendar_of(stored, company_days(company), busy)
    return Schedule(digest, calendar, stored, company, busy or {})


def schedule_again(made_of: Mapping[str, Any]) -> Schedule:
    """A schedule out of what one was made of."""
    return schedule_of(Stored(*made_of["stored"]), made_of["company"], made_of["busy"])


class KnownCalendars:
    """Calendars that were made already; a process has one of these."""

    def __init__(self) -> None:
        self._made: dict[Stored, Schedule] = {}

    @property
    def none(self) -> bool:
        """Whether nothing was made yet."""
        return not self._made

    def get(self, stored: Stored) -> Schedule | None:
        """The schedule that was made of this."""
        return self._made.get(stored)

    def keep(self, schedule: Schedule) -> None:
        """Remember a schedule; after very many, they are made anew."""
        if len(self._made) >= MOST_KEPT:
            self._made.clear()
        self._made[schedule.stored] = schedule


def calendar_of(stored: Stored, company: Sequence[CompanyDay] = (), busy: Busy | None = None) -> Calendar:
    """The calendar that stored fields describe."""
    zone = ZoneInfo(stored.time_zone)
    hours = None
    if stored.working_hours is not None:
        told = orjson.loads(stored.working_hours)
        hours = tuple(tuple(minutes_of(stretch) for stretch in told.get(day, ())) for day in WEEKDAYS)
    off = [
        Span(moment_at(item["from"], zone), moment_at(item["to"], zone), item.get("reason", ""))
        for item in orjson.loads(stored.time_off)
    ]
    place = orjson.loads(stored.holidays) if stored.holidays else {}
    holidays = holidays_of(place.get("country"), place.get("subdivision"), company)
    spans = busy or {}
    off += [_span(stretch, zone, BY_FEED) for stretch in spans.get("away", ())]
    taken = [_span(stretch, zone, BY_FEED) for stretch in spans.get("busy", ())]
    off += [span for span in taken if _is_a_day(span, zone)]
    busy_only = tuple(span for span in taken if not _is_a_day(span, zone))
    return Calendar(zone, hours, tuple(off), holidays or NO_HOLIDAYS, busy_only)


def company_days(told: Sequence[Mapping[str, Any]]) -> tuple[CompanyDay, ...]:
    """The days of the company as they are stored."""
    return tuple(
        CompanyDay(
            date.fromisoformat(one["date"]),
            one["name"],
            one.get("country"),
            one.get("subdivision"),
            one.get("worked", False),
        )
        for one in told
    )


def _span(stretch: Sequence[str], zone: ZoneInfo, name: str) -> Span:
    start, end = (_moment(text, zone) for text in stretch)
    return Span(start, end, name)


def _is_a_day(span: Span, zone: ZoneInfo) -> bool:
    """Whether a stretch is a day of the rep's own clock, also of one that clocks put forward have made shorter."""
    start, end = (moment.astimezone(zone).replace(tzinfo=None) for moment in (span.start, span.end))
    return end - start >= DAY


def _moment(text: str, zone: ZoneInfo) -> datetime:
    """A moment as a calendar names it: in UTC, or a day or a time of the rep's own."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        return moment
    if len(text) == len("2026-12-24"):
        return local_midnight(moment.date(), zone)
    return moment.replace(tzinfo=zone).astimezone(UTC)
