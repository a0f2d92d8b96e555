"""The wall clock as an argument, so that a test can hold it still."""

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Protocol
from zoneinfo import available_timezones

NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})
"""Files of a machine's zone data that name no zone: `localtime` is another one on every machine."""
PROMPT_S = 0.25


class Clock(Protocol):
    """Tells the time: aware, UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class AgreedClock(SystemClock):
    """The time that all processes agree on: a server's, carried on by the machine's counter, which never steps.

    Until a server was heard it is the machine's.
    """

    def __init__(self) -> None:
        self._heard: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        if self._heard is None:
            return super().now()
        at, counted = self._heard
        return at + timedelta(seconds=time.monotonic() - counted)

    def hear(self, at: datetime, asked: float) -> None:
        """Go by a server's answer to a question asked at `asked` (`time.monotonic`); one that took long says little."""
        if self._heard is None or time.monotonic() - asked < PROMPT_S:
            self._heard = at, asked


present = AgreedClock()
"""The clock of this process; every connection to a database sets it."""


@cache
def time_zones() -> frozenset[str]:
    """The names of time zones, each the same on every machine."""
    return frozenset(available_timezones()) - NO_PLACES
