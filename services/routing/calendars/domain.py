"""What is kept of a rep's calendar, and when it is looked for again: pure.

Of a calendar's text only the times of its events are kept. Titles, places and guests are nobody's business here.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

Source = Literal["feed", "upload"]
State = Literal["waiting", "good", "failing"]
EVERY = timedelta(minutes=5)
LATEST = timedelta(hours=6)
LARGEST = 5_000_000
MOST_EVENTS = 5_000
BEHIND = timedelta(days=62)
AHEAD = timedelta(days=460)
"""So far a calendar's repeating events are written out, from the month on: beyond where working time is looked for."""
_OF_EVENTS = (
    *("BEGIN", "END", "UID", "SEQUENCE", "DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID"),
    *("TRANSP", "STATUS", "X-MICROSOFT-CDO-BUSYSTATUS"),
)
_LEFT_OUT = frozenset({"VALARM", "VTODO", "VJOURNAL", "VFREEBUSY"})
_LINE = re.compile(r"([A-Za-z0-9-]+)[;:]")
_DAY = re.compile(r":(\d{8})")


class NotACalendar(ValueError):
    """The text cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Content:
    """The times of a calendar's events, as iCalendar text (RFC 5545)."""

    text: str
    events: int

    @property
    def digest(self) -> str:
        """Names the content."""
        return digest_of(self.text)


@dataclass(frozen=True, slots=True)
class RepCalendar:
    """A rep's calendar as it is kept; see the table `rep_calendars`."""

    rep_id: str
    version: int
    source: Source
    address: str | None
    host: str | None
    etag: str | None
    last_modified: str | None
    content: str | None
    content_digest: str | None
    expanded_on: date | None
    events: int | None
    read_at: datetime | None
    checked_at: datetime | None
    error: str | None
    failing_since: datetime | None
    failures: int
    next_at: datetime

    @property
    def state(self) -> State:
        """Whether what is known is what the calendar says."""
        if self.error is not None:
            return "failing"
        return "good" if self.read_at is not None else "waiting"


def content_of(raw: bytes, email: str, today: date) -> Content:
    """The times in a calendar's text; without events that are long over, and those that this address declined.

    Raises NotACalendar.
    """
    if len(raw) > LARGEST:
        raise NotACalendar(f"the calendar has more than {LARGEST} bytes")
    lines = list(_unfolded(raw.decode("utf-8-sig", "replace").replace("\x00", "")))
    if not lines or lines[0].strip().upper() != "BEGIN:VCALENDAR":
        raise NotACalendar("this is no calendar: it does not begin with BEGIN:VCALENDAR")
    if lines[-1].strip().upper() != "END:VCALENDAR":
        raise NotACalendar("the calendar is not whole: it does not end with END:VCALENDAR")
    kept: list[str] = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Throughline//Busy times//EN"]
    events = 0
    for block in _blocks(lines[1:-1]):
        if block[0].upper() == "BEGIN:VEVENT":
            event = _event(block, email.casefold(), today.replace(day=1) - BEHIND)
            events += bool(event)
            kept += event
        else:
            kept += block
    if events > MOST_EVENTS:
        raise NotACalendar(f"the calendar has more than {MOST_EVENTS} events that are not over")
    return Content("\r\n".join([*kept, "END:VCALENDAR", ""]), events)


def month_of(at: datetime) -> date:
    """The first day of the month: what is written out from there on is the same from one day to the next."""
    return at.date().replace(day=1)


def digest_of(text: str) -> str:
    """A short name for what a text says."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def wait_after(failures: int, asked_s: int | None = None) -> timedelta:
    """How long until a calendar is looked for again: rarer, the longer it fails, and as late as the other side asks."""
    wait = min(EVERY * (1 << min(failures, 10)), LATEST)
    return max(wait, timedelta(seconds=asked_s or 0))


def _unfolded(text: str) -> Iterator[str]:
    """The lines of a text; one that begins with a blank goes on with the one before it."""
    line = ""
    for piece in re.split(r"\r\n|\n|\r", text):
        if piece[:1] in (" ", "\t"):
            line += piece[1:]
            continue
        if line.strip():
            yield line
        line = piece
    if line.strip():
        yield line


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """The time zones and events, whole, and what is said of the zone of all."""
    block: list[str] = []
    inside: list[str] = []
    for line in lines:
        word = line.strip().upper()
        if word.startswith("BEGIN:"):
            inside.append(word[6:])
        if not inside:
            if word.startswith("X-WR-TIMEZONE"):
                yield [line]
            continue
        if not _LEFT_OUT & set(inside):
            block.append(line)
        if word.startswith("END:"):
            if word[4:] != inside.pop():
                raise NotACalendar(f"the calendar is not well formed at {line[:40]!r}")
            if not inside:
                if block:
                    yield block
                block = []
    if inside:
        raise NotACalendar(f"the calendar is not whole: {inside[-1][:40]} does not end")


def _event(block: list[str], email: str, since: date) -> list[str]:
    lines = {line: found[1].upper() for line in block if (found := _LINE.match(line))}
    names = set(lines.values())
    if any(name == "ATTENDEE" and _declined(line, email) for line, name in lines.items()):
        return []
    if not names & {"DTSTART", "RECURRENCE-ID"}:  # begins never; the rest of the calendar is as good
        return []
    ending = [line for line, name in lines.items() if name == ("DTEND" if "DTEND" in names else "DTSTART")]
    over = ending and (day := _DAY.search(ending[0])) and day[1] < since.strftime("%Y%m%d")
    if over and not names & {"RRULE", "RDATE", "DURATION", "RECURRENCE-ID"}:
        return []
    return [line for line in block if (found := _LINE.match(line)) and found[1].upper() in _OF_EVENTS]


def _declined(line: str, email: str) -> bool:
    said = line.casefold()
    return "partstat=declined" in said and f"mailto:{email}" in said


def as_shown(calendar: RepCalendar, at: datetime) -> dict[str, Any]:
    """A calendar as the API shows it: nothing of what stands in it, and not its address, which is a secret."""
    return {
        "source": calendar.source,
        "state": calendar.state,
        "host": calendar.host,
        "read_at": calendar.read_at,
        "age_seconds": None if calendar.read_at is None else max(int((at - calendar.read_at).total_seconds()), 0),
        "checked_at": calendar.checked_at,
        "error": calendar.error,
        "failing_since": calendar.failing_since,
        "next_at": calendar.next_at if calendar.source == "feed" else None,
        "events": calendar.events,
    }
