"""The wall clock as an argument, so that a test can hold it still."""

from datetime import UTC, datetime
from functools import cache
from typing import Protocol
from zoneinfo import available_timezones

NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})
"""Files of a machine's zone data that name no zone: `localtime` is another one on every machine."""


class Clock(Protocol):
    """Tells the time: aware, UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@cache
def time_zones() -> frozenset[str]:
    """The names of time zones, each the same on every machine."""
    return frozenset(available_timezones()) - NO_PLACES
