"""When a rep works: local hours in a time zone, without the time off, exact over daylight-saving changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
HORIZON = timedelta(days=400)
"""How far ahead working time is looked for: longer than any leave, parental leave included."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch of time, UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Calendar:
    """A rep's working time.

    `hours` holds, Monday first, each weekday's stretches in minutes since local midnight (1440 is its end); None means
    always. `off` are the spans of leave, in any order. Hours that begin or end inside the hour that is repeated in
    autumn count from its first time to its last; those inside the hour left out in spring count from where the clock
    jumps.
    """

    zone: ZoneInfo
    hours: tuple[tuple[tuple[int, int], ...], ...] | None = None
    off: tuple[Span, ...] = ()

    def on_leave(self, at: datetime) -> bool:
        """Whether the moment lies in time off."""
        return any(span.start <= at < span.end for span in self.off)

    def works_at(self, at: datetime) -> bool:
        """Whether the moment is working time."""
        return self.next_working(at) == at

    def next_working(self, at: datetime) -> datetime | None:
        """The first working moment at or after this one; None when there is none within the horizon."""
        window = next(self.windows(at), None)
        return None if window is None else window.start

    def back_from_leave(self, at: datetime) -> datetime:
        """The first moment at or after this one that is not time off."""
        for span in sorted(self.off):
            if span.start <= at < span.end:
                at = span.end
        return at

    def after_working(self, at: datetime, minutes: int) -> datetime | None:
        """When so many working minutes have passed; None when they do not fit within the horizon."""
        left = minutes * MINUTE
        for window in self.windows(at):
            if window.end - window.start >= left:
                return window.start + left
            left -= window.end - window.start
        return None

    def windows(self, at: datetime) -> Iterator[Span]:
        """The stretches of working time from this moment on, in order."""
        last_end = at
        for span in _without(self._on_duty(at), sorted(self.off)):
            start = max(span.start, last_end)
            if start < span.end:
                last_end = span.end
                yield Span(start, span.end)

    def _on_duty(self, at: datetime) -> Iterator[Span]:
        """Working hours as if there were no time off; overlaps are possible where clocks are put back."""
        if self.hours is None:
            yield Span(at, at + HORIZON)
            return
        today = at.astimezone(self.zone).date()
        for days in range(-1, HORIZON.days):
            day = today + days * DAY
            for first, last in self.hours[day.weekday()]:
                start, end = _starts(day, first, self.zone), _ends(day, last, self.zone)
                if start < end and at < end:
                    yield Span(max(start, at), end)


def _without(spans: Iterator[Span], gaps: Sequence[Span]) -> Iterator[Span]:
    """The spans with the gaps (sorted) cut out."""
    for span in spans:
        start = span.start
        for gap in gaps:
            if gap.end <= start or gap.start >= span.end:
                continue
            if start < gap.start:
                yield Span(start, gap.start)
            start = gap.end
        if start < span.end:
            yield Span(start, span.end)


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins."""
    return _starts(day, 0, zone)


def _starts(day: date, minute: int, zone: ZoneInfo) -> datetime:
    """The first moment at which the local clock shows this minute of this day, or a later one."""
    wall = datetime.combine(day, datetime.min.time()) + minute * MINUTE
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return instant if _shows(instant, zone, wall) else _jump(wall, zone)


def _ends(day: date, minute: int, zone: ZoneInfo) -> datetime:
    """The last moment until which the local clock shows less than this minute of this day."""
    wall = datetime.combine(day, datetime.min.time()) + minute * MINUTE
    instant = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return instant if _shows(instant, zone, wall) else _jump(wall, zone)


def _shows(instant: datetime, zone: ZoneInfo, wall: datetime) -> bool:
    return instant.astimezone(zone).replace(tzinfo=None) == wall


def _jump(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which the local clock jumps over `wall`, found by halving to the second."""
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # the offset after the jump puts it before the jump
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=int((late - early).total_seconds()) // 2)
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late
