"""A clock that only moves when told to."""

from datetime import UTC, datetime, timedelta


class FrozenClock:
    """Tells the same time until moved."""

    def __init__(self, at: datetime | None = None) -> None:
        self._at = at or datetime.now(UTC)

    def now(self) -> datetime:
        return self._at

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self._at += by
