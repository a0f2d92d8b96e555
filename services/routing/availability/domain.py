"""When a rep can be given leads, stretch by stretch, and why not in between."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from services.routing.reps.calendar import DAY, Calendar
from services.routing.reps.local_time import local_midnight

LONGEST = timedelta(days=92)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time in which a rep works, or does not: `why_not`, and the `name` of what is in the way."""

    start: datetime
    end: datetime
    why_not: str | None
    name: str | None = None


def stretches(calendar: Calendar, start: datetime, end: datetime) -> list[Stretch]:
    """All of the time from `start` to `end`, in order; neighbours differ."""
    edges = sorted({start, end, *(edge for edge in _edges(calendar, start, end) if start < edge < end)})
    found: list[Stretch] = []
    for opens, closes in pairwise(edges):
        why_not = calendar.why_not(opens)
        name = None if why_not is None else _name(calendar, opens, why_not)
        if found and (found[-1].why_not, found[-1].name) == (why_not, name):
            found[-1] = Stretch(found[-1].start, closes, why_not, name)
        else:
            found.append(Stretch(opens, closes, why_not, name))
    return found


def _edges(calendar: Calendar, start: datetime, end: datetime) -> Iterator[datetime]:
    """Every moment at which something may change."""
    for span in (*calendar.on_duty(start, end), *calendar.windows(start, end), *calendar.off, *calendar.busy):
        yield span.start
        yield span.end
    if calendar.holidays:
        day = start.astimezone(calendar.zone).date()
        while day <= end.astimezone(calendar.zone).date():
            yield local_midnight(day, calendar.zone)
            day += DAY


def _name(calendar: Calendar, at: datetime, why_not: str) -> str | None:
    if why_not == "on holiday":
        return calendar.holidays.on(at.astimezone(calendar.zone).date())
    if why_not == "on leave":
        return next((span.name for span in calendar.off if span.start <= at < span.end), None) or None
    return None
