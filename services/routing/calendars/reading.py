"""A process of its own that writes out a calendar's events, since what stands in one is somebody else's.

A rule of repetition can be made to go on for ever, or to fill the memory: this process has a bound of both, and the one
that started it goes on without it. Standard input is the calendar, the arguments are the first day and the one after
the last; standard output is JSON: stretches of being `away` (whole days, and what is marked as out of office) and
`busy`, as days, as times in UTC, or as local times without an offset.
"""

import sys
from datetime import UTC, date, datetime, timedelta
from resource import RLIMIT_AS, RLIMIT_CPU, setrlimit

import icalendar
import orjson
import recurring_ical_events

SECONDS = 10
MEMORY = 1 << 30
MOST = 20_000
FREE = frozenset({"FREE", "WORKINGELSEWHERE"})
A_DAY = timedelta(days=1)
Times = tuple[str, str]


def main(since: str, until: str) -> None:
    """Read, write out, answer."""
    setrlimit(RLIMIT_CPU, (SECONDS, SECONDS))
    setrlimit(RLIMIT_AS, (MEMORY, MEMORY))
    found = busy_times(sys.stdin.buffer.read(), date.fromisoformat(since), date.fromisoformat(until))
    sys.stdout.buffer.write(orjson.dumps(found))


def busy_times(text: bytes, since: date, until: date) -> dict[str, list[Times]]:
    """The stretches that are not free. Raises ValueError for what is no calendar, or stands for too much."""
    calendar = icalendar.Calendar.from_ical(text)
    away: set[Times] = set()
    busy: set[Times] = set()
    for event in recurring_ical_events.of(calendar, skip_bad_series=True).between(since, until):
        if _is_free(event):
            continue
        start, end = _times(event)
        if start >= end:
            continue
        stretch = (_written(start), _written(end))
        (away if _is_away(event, start, end) else busy).add(stretch)
        if len(away) + len(busy) > MOST:
            raise ValueError(f"the calendar stands for more than {MOST} stretches of time")
    return {"away": sorted(away), "busy": sorted(busy)}


def _is_free(event: icalendar.Event) -> bool:
    return (
        str(event.get("STATUS", "")).upper() == "CANCELLED"
        or str(event.get("TRANSP", "")).upper() == "TRANSPARENT"
        or _status(event) in FREE
    )


def _is_away(event: icalendar.Event, start: date, end: date) -> bool:
    """Whether somebody is away and not only busy: all day, a day long, or by their own word."""
    return not isinstance(start, datetime) or end - start >= A_DAY or _status(event) == "OOF"


def _status(event: icalendar.Event) -> str:
    return str(event.get("X-MICROSOFT-CDO-BUSYSTATUS", "")).upper()


def _times(event: icalendar.Event) -> tuple[date, date]:
    """Start and end, in UTC where they have a zone; two days, two times with a zone, or two without."""
    start, end = (_plain(event.decoded(name)) for name in ("DTSTART", "DTEND"))
    if isinstance(start, datetime) is not isinstance(end, datetime):
        raise ValueError("an event begins with a day and ends with a time")
    if isinstance(start, datetime) and isinstance(end, datetime) and (start.tzinfo is None) is not (end.tzinfo is None):
        raise ValueError("an event begins in a zone and ends in none")
    return start, end


def _plain(moment: object) -> date:
    if not isinstance(moment, date):
        raise ValueError("an event begins or ends with what is neither a day nor a time")  # noqa: TRY004  # of the text
    if isinstance(moment, datetime):
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment
    return moment


def _written(moment: date) -> str:
    return moment.isoformat()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (ValueError, KeyError, MemoryError, OverflowError) as exc:
        sys.exit(f"{type(exc).__name__}: {exc}"[:300])
