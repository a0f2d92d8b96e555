"""When a rep works: local hours in a time zone, without holidays, time off and what stands in the rep's own calendar.

Exact over daylight-saving changes. Made once for what it is made of, and kept: what was worked out for a day is
remembered, so that asking costs the same however much stands in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.routing.reps.holidays import NO_HOLIDAYS, Holidays
from services.routing.reps.local_time import MINUTE, ends, local_midnight, starts
from services.routing.reps.spans import Span, Spans

Period = Literal["day", "week", "month"]
DAY = timedelta(days=1)
HORIZON = timedelta(days=400)
"""How far ahead working time is looked for: longer than any leave, parental leave included."""
LONGEST_BREAK = 62
"""So many days before a period are looked through for the last one that was worked."""


@dataclass(frozen=True, slots=True, eq=False)
class Calendar:
    """A rep's working time.

    `hours` holds, Monday first, each weekday's stretches in minutes since local midnight (1440 is its end, more is in
    the night after it); None means always. `off` are the spans of leave and `busy` those in which something else is
    done, in any order; a holiday is a local day. Hours that begin or end inside the hour that is repeated in autumn
    count from its first time to its last; those inside the hour left out in spring count from where the clock jumps.
    """

    zone: ZoneInfo
    hours: tuple[tuple[tuple[int, int], ...], ...] | None = None
    off: tuple[Span, ...] = ()
    holidays: Holidays = NO_HOLIDAYS
    busy: tuple[Span, ...] = ()
    _leave: Spans = field(init=False, repr=False)
    _taken: Spans = field(init=False, repr=False)
    _days: dict[date, tuple[Span, ...]] = field(init=False, repr=False, default_factory=dict)
    _closing: dict[date, datetime | None] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_leave", Spans(self.off))
        object.__setattr__(self, "_taken", Spans((*self.off, *self.busy)))

    def on_leave(self, at: datetime) -> bool:
        """Whether the moment lies in time off."""
        return bool(self.off) and self._leave.at(at) is not None

    def works_at(self, at: datetime) -> bool:
        """Whether the moment is working time."""
        return self.next_working(at) == at

    def why_not(self, at: datetime) -> str | None:
        """Why the moment is no working time, without names; None when it is."""
        if self.on_leave(at):
            return "on leave"
        if self.holidays and self.holidays.on(at.astimezone(self.zone).date()) is not None:
            return "on holiday"
        if not any(span.start <= at for span in self.on_duty(at, at + MINUTE)):
            return "outside working hours"
        return None if self._taken.at(at) is None else "busy by their calendar"

    def next_working(self, at: datetime) -> datetime | None:
        """The first working moment at or after this one; None when there is none within the horizon."""
        window = next(self.windows(at), None)
        return None if window is None else window.start

    def back_from_leave(self, at: datetime) -> datetime:
        """The first moment at or after this one that is not time off."""
        span = self._leave.at(at)
        return at if span is None else span.end

    def after_working(self, at: datetime, minutes: int) -> datetime | None:
        """When so many working minutes have passed; None when they do not fit within the horizon."""
        left = minutes * MINUTE
        for window in self.windows(at):
            if window.end - window.start >= left:
                return window.start + left
            left -= window.end - window.start
        return None

    def windows(self, at: datetime, until: datetime | None = None) -> Iterator[Span]:
        """The stretches of working time from this moment on, in order; those that begin before `until`."""
        last_end = at
        for span in self.on_duty(at, until or at + HORIZON):
            start = max(span.start, last_end)  # where clocks are put back, hours can reach into those of the next day
            if start < span.end:
                last_end = span.end
                yield from self._taken.free(start, span.end)

    def period(self, at: datetime, of: Period) -> Span:
        """The working day, or the week or month of working days, that a lead given at this moment counts for.

        What comes in at night or on a free day counts for the next day that is worked, since that is when it is worked
        on. So a period reaches from the end of the last day worked before it to the end of the last day worked in it.
        """
        day = self._worked_day(at)
        first, following = _bounds(day, of)
        return Span(self._last_end_before(first, at), self._last_end_before(following, at))

    def _worked_day(self, at: datetime) -> date:
        """The first local day that is worked on and not over."""
        today = at.astimezone(self.zone).date()
        for days in range(-1, HORIZON.days):
            day = today + days * DAY
            closing = self._end_of(day)
            if closing is not None and closing > at:
                return day
        return today

    def _last_end_before(self, day: date, at: datetime) -> datetime:
        for days in range(1, LONGEST_BREAK):
            before = day - days * DAY
            closing = self._end_of(before)
            if closing is not None:
                return closing
        return min(local_midnight(day, self.zone), at)

    def _end_of(self, day: date) -> datetime | None:
        """When the work of a local day ends; None where it is not worked on. What else is done in it does not count."""
        if day not in self._closing:
            spans = self._hours_on(day)
            worked = any(next(self._leave.free(span.start, span.end), None) is not None for span in spans)
            self._closing[day] = spans[-1].end if worked else None
        return self._closing[day]

    def on_duty(self, at: datetime, until: datetime) -> Iterator[Span]:
        """Working hours without holidays, as if there were no time off; they may overlap where clocks are put back."""
        if self.hours is None and not self.holidays:
            yield Span(at, until)
            return
        day = at.astimezone(self.zone).date() - DAY
        last = until.astimezone(self.zone).date()
        while day <= last:
            for span in self._hours_on(day):
                if at < span.end and span.start < until:
                    yield Span(max(span.start, at), span.end)
            day += DAY

    def _hours_on(self, day: date) -> tuple[Span, ...]:
        """The stretches of work that begin on a local day, without what of them is a holiday."""
        if day not in self._days:
            hours = ((0, 1440),) if self.hours is None else self.hours[day.weekday()]
            spans = (Span(starts(day, first, self.zone), ends(day, last, self.zone)) for first, last in hours)
            closed = Spans(
                Span(local_midnight(each, self.zone), local_midnight(each + DAY, self.zone))
                for each in (day, day + DAY)
                if self.holidays.on(each) is not None
            )
            self._days[day] = tuple(free for span in spans for free in closed.free(span.start, span.end))
        return self._days[day]


def _bounds(day: date, of: Period) -> tuple[date, date]:
    """The first day of the period of a day, and of the one after it."""
    match of:
        case "day":
            return day, day + DAY
        case "week":
            monday = day - day.weekday() * DAY
            return monday, monday + 7 * DAY
        case "month":
            first = day.replace(day=1)
            return first, (first + 31 * DAY).replace(day=1)
