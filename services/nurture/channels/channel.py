"""What a channel is: it knows where a person is reached, writes a message, and hands it over."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from services.nurture.people.domain import Person
from services.nurture.sequences.domain import Plan, SendStep
from shared.ids import MessageId
from shared.smtp import Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """A message to be written: which one, of which step, to whom. A `trial` is not in the ledger and counts nothing."""

    message_id: MessageId
    plan: Plan
    step: SendStep
    person: Person
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A message written out before it is claimed. `content` is what the channel hands over.

    `provider` is who gets it, where the channel has one only.
    """

    recipient: str
    subject: str | None
    links: tuple[str, ...]
    content: Any
    provider: str | None = None


class CannotWrite(Exception):
    """This message can never be written; the text says why."""


class Channel(Protocol):
    """One way to a person."""

    def address_of(self, person: Person) -> str | None:
        """Where the person is reached; None where nobody knows."""
        ...

    async def write(self, order: Order) -> Draft:
        """The message written out. Raises CannotWrite."""
        ...

    async def deliver(self, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand over a message. Never raises for what the provider or the network does.

        `still_wanted` is asked at the last moment at which nothing has left yet.
        """
        ...


@runtime_checkable
class Reconciling(Protocol):
    """A channel whose providers can be asked whether they have a message."""

    async def look_up(self, message_id: MessageId, claimed_at: datetime) -> Outcome | None:
        """What the provider knows of a message of ours: sent, delivered, bounced or failed; None where it says nothing.

        Never raises for what the provider or the network does.
        """
        ...


@runtime_checkable
class Repeating(Protocol):
    """A channel of whose providers some take the same message once, however often it is handed over for a while."""

    def takes_once_for(self, provider: str | None) -> timedelta:
        """For how long the provider of this name does, since a message was handed over first; zero: not at all."""
        ...

    async def repeat(self, provider: str | None, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome | None:
        """Hand a message over again, to this provider and nobody else; None where it is not set up."""
        ...
