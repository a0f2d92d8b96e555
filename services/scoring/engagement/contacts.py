"""Attempts to reach a person: those since somebody was last connected, whatever order they are told in."""

from collections.abc import Iterable
from dataclasses import dataclass

MOST = 500
"""The latest so many attempts are remembered, far more than any cadence makes."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """When somebody was last connected, and the attempts after that in time order; in microseconds."""

    connected_at: int | None = None
    attempts: tuple[int, ...] = ()

    def with_more(self, connections: Iterable[int], attempts: Iterable[int]) -> "Contacts":
        """The same with touches that it did not hold before."""
        known = [] if self.connected_at is None else [self.connected_at]
        connected = max([*known, *connections], default=None)
        made = sorted([*self.attempts, *attempts])
        return Contacts(connected, tuple(at for at in made if connected is None or at > connected)[-MOST:])


NO_CONTACTS = Contacts()
