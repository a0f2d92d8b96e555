"""Periods as the sums can answer them: whole months, the whole days beside them, the moments at their ends. Pure."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from services.attribution.reports.domain import Interval, Period, bucket_number, nth_bucket

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
    """What of a period lies in each day, week from Monday or month, named by the first day of that; else the whole."""
    if interval is None or period.first is None or period.end is None:
        return [(None, period)]
    first, end = (bucket_number(day, interval) for day in (period.first, period.end - DAY))
    buckets = [nth_bucket(period.first, number, interval) for number in range(end - first + 1)]
    return [(bucket, period.part(bucket, interval)) for bucket in buckets]


def midnight(day: date, zone: ZoneInfo | None = None) -> datetime:
    """When a day begins."""
    return datetime.combine(day, time(), zone or UTC)


def _month_from(day: date) -> date:
    """The first day of a month at or after this day."""
    return day if day.day == 1 else (day.replace(day=1) + 32 * DAY).replace(day=1)
