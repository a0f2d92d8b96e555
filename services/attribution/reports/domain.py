"""Reports out of sums: pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import SeveralCurrencies
from shared.errors import FieldError, Invalid

Interval = Literal["day", "week", "month"]
Against = Literal["previous_period", "previous_year"]


def conversions_of(units: int) -> float:
    """Credited conversions out of `SHARE_UNITS`: a whole number where no conversion was divided."""
    whole, rest = divmod(units, SHARE_UNITS)
    return whole if not rest else round(units / SHARE_UNITS, 6)


@dataclass(frozen=True, slots=True)
class Sum:
    """What is credited to one key: parts of conversions in `SHARE_UNITS`, and their value."""

    units: int = 0
    value_minor: int = 0

    @property
    def conversions(self) -> float:
        """The credited conversions."""
        return conversions_of(self.units)


_DAY = timedelta(days=1)
_INSTANT = timedelta.resolution


Part = tuple[datetime, datetime]
"""From when until before when."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A period as whole days of UTC, from `first` until before `end`, and the parts of days at its ends.

    `parts` are to be added to the whole days; `over` is in these but not in the period.
    """

    first: date | None
    end: date | None
    parts: tuple[Part, ...] = ()
    over: tuple[Part, ...] = ()

    def spans(self, *, by_days: bool = False) -> list["Span"]:
        """The sums that make up the whole days; whole months where single days do not matter."""
        whole = [Span("day", self.first or date.min, self.end or date.max)]
        return [span for span in (whole if by_days else spans_of(self.first, self.end)) if span.first < span.end]


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days from `first` until before `end`, in a time zone; None is open."""

    first: date | None
    end: date | None
    zone: ZoneInfo

    @property
    def in_utc(self) -> bool:
        """Whether its days are days of UTC, which are those that the sums are kept by."""
        return self.zone.key in {"UTC", "Etc/UTC"}

    @property
    def is_utc(self) -> bool:
        """Whether it holds the same as days of UTC."""
        return self.in_utc or (self.first is None and self.end is None)

    @property
    def moments(self) -> tuple[datetime | None, datetime | None]:
        """From when until before when."""
        return self._midnight(self.first), self._midnight(self.end)

    @property
    def cut(self) -> Cut:
        """What of it are whole days of UTC, and what is left beside them."""
        since, until = self.moments
        first = None if since is None else (since + _DAY - _INSTANT).date()
        end = None if until is None else until.date()
        if since and until and first and end and first > end:  # within one day
            return Cut(first, first, ((since, until),))
        starts = [(since, midnight(first))] if since and first else []
        ends = [(midnight(end), until)] if until and end else []
        return Cut(first, end, tuple(part for part in (*starts, *ends) if part[0] < part[1]))

    @property
    def rounded(self) -> Cut:
        """The whole days of UTC that are next to it, and what it differs from these by: at most half a day an end."""
        since, until = self.moments
        first = None if since is None else (since + _DAY / 2).date()
        end = None if until is None else (until + _DAY / 2).date()
        starts = [(since, midnight(first))] if since and first else []
        ends = [(midnight(end), until)] if until and end else []
        edges = (*starts, *ends)
        return Cut(
            first,
            end,
            tuple(edge for edge in edges if edge[0] < edge[1]),
            tuple((later, earlier) for earlier, later in edges if later < earlier),
        )

    def part(self, bucket: date, interval: Interval) -> "Period":
        """What of the period lies in a day, a week or a month, named by its first day."""
        first, end = bucket, nth_bucket(bucket, 1, interval)
        return Period(
            first if self.first is None else max(first, self.first),
            end if self.end is None else min(end, self.end),
            self.zone,
        )

    def before(self, against: Against) -> "Period":
        """The period to set this one against, which must have both ends.

        `previous_period` has as many whole months, if this one consists of whole months, else as many days, and ends
        where this one begins. `previous_year` has the same days of the year before, none for a 29 February alone.
        Raises Invalid.
        """
        if self.first is None or self.end is None:
            fault = FieldError(
                "query:from" if self.first is None else "query:to", "is needed to know what comes before"
            )
            raise Invalid("compare_to needs a period with both ends", [fault])
        if against == "previous_year":
            return Period(_a_year_before(self.first), _a_year_before(self.end), self.zone)
        if self.first.day == self.end.day == 1:
            months = _months(self.end) - _months(self.first)
            return Period(_month(_months(self.first) - months), self.first, self.zone)
        return Period(self.first - (self.end - self.first), self.first, self.zone)

    def _midnight(self, day: date | None) -> datetime | None:
        return datetime.combine(day, time(), self.zone).astimezone(UTC) if day is not None else None


@dataclass(frozen=True, slots=True)
class Span:
    """Sums of one level, from `first` until before `end`."""

    level: Literal["day", "month"]
    first: date
    end: date


def spans_of(first: date | None, end: date | None) -> list[Span]:
    """The sums that make up the days from `first` until before `end`: whole months, and the days at both ends."""
    first, end = first or date.min, end or date.max
    month = first if first.day == 1 else (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    last = end if end == date.max else end.replace(day=1)
    if month >= last:
        return [Span("day", first, end)]
    spans = (Span("day", first, month), Span("month", month, last), Span("day", last, end))
    return [span for span in spans if span.first < span.end]


def midnight(day: date) -> datetime:
    """When a day of UTC begins."""
    return datetime.combine(day, time(), UTC)


def bucket_of(day: date, interval: Interval) -> date:
    """The first day of the day, week or month that a day lies in; weeks begin on Mondays."""
    match interval:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def bucket_number(day: date, interval: Interval) -> int:
    """Days, weeks or months counted through, so that those of two periods can be laid side by side."""
    match interval:
        case "day":
            return day.toordinal()
        case "week":
            return bucket_of(day, "week").toordinal() // 7
        case "month":
            return _months(day)


def nth_bucket(day: date, number: int, interval: Interval) -> date:
    """The first day of the day, week or month so many after the one that a day lies in."""
    match interval:
        case "day":
            return day + timedelta(days=number)
        case "week":
            return bucket_of(day, "week") + timedelta(days=7 * number)
        case "month":
            return _month(_months(day) + number)


def _months(day: date) -> int:
    return day.year * 12 + day.month - 1


def _month(months: int) -> date:
    return date(months // 12, months % 12 + 1, 1)


def _a_year_before(day: date) -> date:
    if (day.month, day.day) == (2, 29):  # so that a period that ends before it keeps the 28th
        return date(day.year - 1, 3, 1)
    return day.replace(year=day.year - 1)


def choose_currency(present: Iterable[str], asked: str | None) -> str | None:
    """The currency of the answer; None when there is nothing to answer.

    Raises SeveralCurrencies, which lists them, when it is not asked for one.
    """
    found = sorted(set(present))
    if asked is not None:
        return asked
    if len(found) > 1:
        listed = ", ".join(found)
        fault = FieldError("query:currency", f"send one of {listed}")
        raise SeveralCurrencies(f"there are amounts in {listed}, and different currencies are never added", [fault])
    return found[0] if found else None
