"""Periods as the sums can answer them: whole months, the whole days beside them, the moments at their ends. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from services.attribution.reports.domain import Against, Interval, Period

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Spans:
    """What a period is read from; each span reaches from its first until before its second. All in UTC."""

    months: tuple[tuple[date, date], ...] = ()
    days: tuple[tuple[date, date], ...] = ()
    moments: tuple[tuple[datetime, datetime], ...] = ()


def spans(start: datetime | None, end: datetime | None) -> Spans:
    """The spans of a period; None is open. They cover it, and none meets another."""
    first = date.min if start is None else (start + DAY - timedelta.resolution).astimezone(UTC).date()
    last = date.max if end is None else end.astimezone(UTC).date()
    if first > last and start is not None and end is not None:
        return Spans(moments=((start, end),))
    moments = []
    if start is not None and start < midnight(first):
        moments.append((start, midnight(first)))
    if end is not None and midnight(last) < end:
        moments.append((midnight(last), end))
    month, last_month = _month_from(first), last if end is None else last.replace(day=1)
    if month >= last_month:
        return Spans(days=((first, last),) if first < last else (), moments=tuple(moments))
    days = tuple((one, other) for one, other in ((first, month), (last_month, last)) if one < other)
    return Spans(((month, last_month),), days, tuple(moments))


def pieces(period: Period, interval: Interval | None) -> list[tuple[date | None, Period]]:
    """A period in days, weeks from Monday or months, those at its ends cut off, each with its first day; else whole."""
    if interval is None or period.first is None or period.end is None:
        return [(None, period)]
    return [(first, Period(first, end, period.zone)) for first, end in _cut(period.first, period.end, interval)]


def shifted(period: Period, to: Against) -> Period:
    """The period of as many days just before (of whole months: as many months), or the same days a year earlier."""
    first, end = period.first, period.end
    assert first is not None and end is not None
    if to == "previous_year":
        return Period(_months_before(first, 12), _months_before(end, 12), period.zone)
    if first.day == end.day == 1:
        months = (end.year - first.year) * 12 + end.month - first.month
        return Period(_months_before(first, months), first, period.zone)
    return Period(first - (end - first), first, period.zone)


def midnight(day: date, zone: ZoneInfo | None = None) -> datetime:
    """When a day begins."""
    return datetime.combine(day, time(), zone or UTC)


def _month_from(day: date) -> date:
    """The first day of a month at or after this day."""
    return day if day.day == 1 else (day.replace(day=1) + 32 * DAY).replace(day=1)


def _cut(first: date, end: date, interval: Interval) -> Iterator[tuple[date, date]]:
    while first < end:
        following = min(end, _after(first, interval))
        yield first, following
        first = following


def _after(day: date, interval: Interval) -> date:
    match interval:
        case "day":
            return day + DAY
        case "week":
            return day + (7 - day.weekday()) * DAY
        case "month":
            return _month_from(day + DAY)


def _months_before(day: date, months: int) -> date:
    """The same day so many months earlier; of a month without it, the first of the next."""
    index = day.year * 12 + day.month - 1 - months
    first = date(index // 12, index % 12 + 1, 1)
    return min(first + (day.day - 1) * DAY, _month_from(first + DAY))
