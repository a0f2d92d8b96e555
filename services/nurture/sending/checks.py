"""What may still object to a message that its person allows: asked before it is written, and when it is claimed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from services.nurture.broadcasts.checks import domain_share, in_turn, still_wanted
from services.nurture.channels.limits import domain_limit
from services.nurture.enrolments.domain import Run
from services.nurture.parts import Parts
from services.nurture.people.domain import Person
from services.nurture.permission.checks import guarded, paused, pressure, quiet_hours
from services.nurture.sending.domain import Hold, Leave, Suppress
from services.nurture.sequences.domain import Plan, SendStep
from services.nurture.takeover.check import unless_taken_over
from shared.db import Connection
from shared.identity import Member
from shared.ids import LeadId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked:
    """What the checks of messages that are looked at together have read; `families` are all their people.

    A check is asked about all messages before the next one is: `open` are those that nothing has objected to so far.
    """

    families: Mapping[LeadId, Sequence[Member]] = field(default_factory=dict)
    open: list["Question"] = field(default_factory=list)
    _read: dict[str, Any] = field(default_factory=dict)

    async def once(self, what: str, read: Callable[[], Awaitable[T]]) -> T:
        """What there is to read of this name, read by the first who asks."""
        if what not in self._read:
            self._read[what] = await read()
        found: T = self._read[what]
        return found


@dataclass(frozen=True, slots=True)
class Question:
    """May this message go to this person now? `claiming` says that the person is locked and the answer is final."""

    connection: Connection
    parts: Parts
    plan: Plan
    run: Run
    step: SendStep
    person: Person
    family: Sequence[Member]
    now: datetime
    claiming: bool
    looked: Looked = field(default_factory=Looked)

    @property
    def together(self) -> Sequence["Question"]:
        """All messages that the check at hand is asked about, this one among them."""
        return self.looked.open or [self]


Check = Callable[[Question], Awaitable[Hold | Suppress | Leave | None]]

CHECKS: tuple[Check, ...] = (
    still_wanted,
    guarded,
    paused,
    unless_taken_over,
    pressure,
    quiet_hours,
    domain_limit,
    in_turn,
    domain_share,
)
"""In the order in which they are asked; the first objection counts."""
