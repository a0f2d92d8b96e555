"""Stretches of time, and sorted sets of them that answer by halving."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch of time, UTC. `name` says what it is, where that is known."""

    start: datetime
    end: datetime
    name: str = ""


class Spans:
    """Stretches of time that do not overlap, in order: those it is made of, united where they touch."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[datetime] = []
        self._ends: list[datetime] = []
        for start, end in sorted((span.start, span.end) for span in spans):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            elif start < end:
                self._starts.append(start)
                self._ends.append(end)

    def at(self, at: datetime) -> Span | None:
        """The one that holds this moment."""
        index = bisect_right(self._ends, at)
        if index == len(self._ends) or self._starts[index] > at:
            return None
        return Span(self._starts[index], self._ends[index])

    def free(self, start: datetime, end: datetime) -> Iterator[Span]:
        """What of a stretch lies outside of all of them, in order."""
        for index in range(bisect_right(self._ends, start), len(self._ends)):
            if self._starts[index] >= end:
                break
            if start < self._starts[index]:
                yield Span(start, self._starts[index])
            start = self._ends[index]
        if start < end:
            yield Span(start, end)
