"""Answers of reports that still stand: pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pydantic import TypeAdapter

_MOMENT = TypeAdapter(datetime | None)
_AS_OF = b'"as_of":null'


class Version(NamedTuple):
    """What a snapshot of the database shows of all that reports read: two that are equal show the same.

    `moves` counts the transactions that changed any of it, `firm` those that somebody decided or that erased somebody.
    """

    projection: int
    server_since: datetime
    moves: int
    firm: int

    def is_firmly(self, other: "Version") -> bool:
        """Whether nothing lies between the two but facts that came in."""
        return self._replace(moves=other.moves) == other


@dataclass(frozen=True, slots=True)
class Moments:
    """Until when all that was told is in sums of credits, in what is left of journeys, and in the pipeline; None:
    nobody knows.
    """

    credits: datetime | None
    journeys: datetime | None
    pipeline: datetime | None


@dataclass(frozen=True, slots=True)
class State:
    """What is to be known to tell whether an answer stands, and until when it holds what was told."""

    version: Version
    moments: Moments


@dataclass(frozen=True, slots=True)
class Until:
    """What the `as_of` of an answer is the least of: of what was read, and moments that are known already."""

    credits: bool = False
    journeys: bool = False
    pipeline: bool = False
    known: frozenset[datetime | None] = frozenset()

    def __or__(self, other: "Until") -> "Until":
        return Until(
            self.credits or other.credits,
            self.journeys or other.journeys,
            self.pipeline or other.pipeline,
            self.known | other.known,
        )

    def at(self, moments: Moments) -> datetime | None:
        """The moment; None where any is not known."""
        read = (
            (self.credits, moments.credits),
            (self.journeys, moments.journeys),
            (self.pipeline, moments.pipeline),
        )
        parts = {*self.known, *(moment for counts, moment in read if counts)}
        least = [part for part in parts if part is not None]
        return min(least) if len(least) == len(parts) and least else None


CREDITS = Until(credits=True)
JOURNEYS = Until(journeys=True)
PIPELINE = Until(pipeline=True)


@dataclass(frozen=True, slots=True)
class Body:
    """An answer but for its moment, which goes where it is cut."""

    head: bytes
    tail: bytes | None
    headers: Mapping[str, str]

    @classmethod
    def of(cls, text: bytes, headers: Mapping[str, str], *, has_moment: bool) -> "Body":
        """An answer that was written without its moment, which stands before all that comes from outside."""
        if not has_moment:
            return cls(text, None, headers)
        head, cut, tail = text.partition(_AS_OF)
        if not cut:
            raise ValueError("the answer has no moment")
        return cls(head, tail, headers)

    def at(self, moment: datetime | None) -> bytes:
        """The answer whole."""
        if self.tail is None:
            return self.head
        return b'%s"as_of":%s%s' % (self.head, _MOMENT.dump_json(moment), self.tail)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.head) + len(self.tail or b"")
