"""When a local clock shows something, exact where clocks are changed."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins."""
    return starts(day, 0, zone)


def starts(day: date, minute: int, zone: ZoneInfo) -> datetime:
    """The first moment at which the local clock shows this minute of this day, or a later one."""
    wall = datetime.combine(day, datetime.min.time()) + minute * MINUTE
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return instant if _shows(instant, zone, wall) else _jump(wall, zone)


def ends(day: date, minute: int, zone: ZoneInfo) -> datetime:
    """The last moment until which the local clock shows less than this minute of this day."""
    wall = datetime.combine(day, datetime.min.time()) + minute * MINUTE
    instant = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if not _shows(instant, zone, wall):
        return _jump(wall, zone)
    if (instant - SECOND).astimezone(zone).replace(tzinfo=None) > wall:  # clocks are put back to this very minute
        return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return instant


def _shows(instant: datetime, zone: ZoneInfo, wall: datetime) -> bool:
    return instant.astimezone(zone).replace(tzinfo=None) == wall


def _jump(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which the local clock jumps over `wall`, found by halving to the second."""
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # the offset after the jump puts it before the jump
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    while late - early > SECOND:
        middle = early + timedelta(seconds=int((late - early).total_seconds()) // 2)
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late
