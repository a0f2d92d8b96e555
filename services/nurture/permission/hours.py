"""When it is time in somebody's place: windows of local time by weekday, right across changes of the clock. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_LONGEST_WAIT = 8  # days: the same weekday of next week, where its window does not exist today


@dataclass(frozen=True, slots=True)
class Window:
    """From a time of a local day until another one, in minutes since midnight; the end is not in it."""

    begins: int
    ends: int


Week = Mapping[str, Sequence[Window]]
"""The windows of each weekday; a day without any is quiet."""


def is_open(week: Week, zone: ZoneInfo, at: datetime) -> bool:
    """Whether it is time now, there."""
    return bool(_open_windows(week, at.astimezone(zone)))


def next_open(week: Week, zone: ZoneInfo, at: datetime) -> datetime | None:
    """The first instant, `at` or later, at which it is time there; None for a week that has none.

    A window that begins at a local time that does not exist on that day begins when the clock has jumped over it; of
    one that occurs twice both count.
    """
    if is_open(week, zone, at):
        return at
    later = (one for one in _beginnings(week, zone, at) if one > at and is_open(week, zone, one))
    return min(later, default=None)


def closes_after(week: Week, zone: ZoneInfo, opens: datetime) -> timedelta:
    """How long the window that is open at `opens` stays open; a clock that is set back may end it."""
    ends = max(window.ends for window in _open_windows(week, opens.astimezone(zone)))
    shown = _midnight(opens, zone) + timedelta(minutes=ends)
    closes = min(one for one in _instants(shown, zone) if one > opens)
    if _offset(closes, zone) < _offset(opens, zone):
        changed = _clock_change(opens, closes, zone)
        closes = closes if is_open(week, zone, changed) else changed
    return closes - opens


def _open_windows(week: Week, local: datetime) -> list[Window]:
    minute = local.hour * 60 + local.minute
    return [one for one in week.get(WEEKDAYS[local.weekday()], ()) if one.begins <= minute < one.ends]


def _midnight(at: datetime, zone: ZoneInfo) -> datetime:
    """When the local day began, by the local clock and without its zone."""
    return at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)


def _beginnings(week: Week, zone: ZoneInfo, at: datetime) -> Iterator[datetime]:
    """When windows begin, or the clock is set back, into the middle of one it may be."""
    today = _midnight(at, zone)
    for number in range(_LONGEST_WAIT):
        day = today + number * DAY
        for window in week.get(WEEKDAYS[day.weekday()], ()):
            yield from _instants(day + timedelta(minutes=window.begins), zone)
        since, until = at + number * DAY, at + (number + 1) * DAY
        if _offset(until, zone) < _offset(since, zone):
            yield _clock_change(since, until, zone)


def _instants(local: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """When a local clock shows a time: once, twice, or, where it jumps over it, when it has."""
    both = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    shown = [one for one in dict.fromkeys(both) if one.astimezone(zone).replace(tzinfo=None, fold=0) == local]
    yield from shown or [_clock_change(min(both), max(both), zone)]


def _clock_change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """When the local clock was changed between two instants."""
    while after - before > _SECOND:
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if _offset(middle, zone) == _offset(before, zone):
            before = middle
        else:
            after = middle
    return after


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)
