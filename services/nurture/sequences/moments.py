"""The moments that runs wait for: a time of day, a date of the lead, in whose time zone. Pure."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any

from services.nurture.permission.zones import whereabouts
from services.nurture.sequences.checking import ATTRIBUTE, known_zone
from services.nurture.sequences.document import PERSONS_ZONE
from services.nurture.sequences.steps import WaitUntilStep

USUAL_TIME = time(9)
"""When a date comes that says no time of day."""
DAY = timedelta(days=1)
WEEK = 7


def field_of(lead: Mapping[str, Any], name: str) -> Any:
    """A field of a lead by its name in documents; None where it is absent."""
    if name.startswith(ATTRIBUTE):
        return lead.get("attributes", {}).get(name.removeprefix(ATTRIBUTE))
    return lead.get(name)


def zone_of(step: WaitUntilStep, lead: Mapping[str, Any]) -> tzinfo:
    """The time zone that a wait goes by; a person's is the one by which their quiet hours go, or else UTC."""
    return whereabouts(lead, "UTC").zone if step.zone == PERSONS_ZONE else known_zone(step.zone) or UTC


def moment_of(step: WaitUntilStep, lead: Mapping[str, Any], since: datetime) -> datetime | None:
    """When a wait that began at `since` is over; None where the lead has no such date."""
    zone = zone_of(step, lead)
    if step.date is None:
        return _next(step, zone, since)
    written = field_of(lead, step.date)
    found = _date(written, zone)
    if found is None:
        return None
    if step.at is not None or found.timetz() == time(0, tzinfo=found.tzinfo):
        found = datetime.combine(found.date(), step.at or USUAL_TIME, zone)
    try:
        return (found + step.offset).astimezone(UTC)
    except OverflowError:
        return None


def _next(step: WaitUntilStep, zone: tzinfo, since: datetime) -> datetime:
    """The first such time of day after `since`. One that a clock change leaves out comes as much later."""
    at = step.at or USUAL_TIME
    day = since.astimezone(zone).date()
    for ahead in range(WEEK + 1):
        each = day + ahead * DAY
        moment = datetime.combine(each, at, zone).astimezone(UTC)
        if moment > since and (not step.weekdays or each.weekday() in step.weekdays):
            return moment
    raise AssertionError("every weekday comes within a week")


def _date(written: Any, zone: tzinfo) -> datetime | None:
    """A date or a time as people and forms write them, by ISO 8601."""
    if not isinstance(written, str):
        return None
    try:
        if len(written.strip()) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(written.strip()), time(0), zone)
        found = datetime.fromisoformat(written.strip())
        return found if found.tzinfo is not None else found.replace(tzinfo=zone)
    except (ValueError, OverflowError):
        return None
