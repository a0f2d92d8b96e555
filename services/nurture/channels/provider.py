"""What a provider is, and how messages go over to the next one: only when the first certainly has not taken them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Generic, Protocol, TypeVar, runtime_checkable

from shared.ids import MessageId
from shared.smtp import Outcome
from shared.telemetry import counter, log

FAILURES = 5
"""So many troubles of a provider in a row let it rest."""
REST = timedelta(seconds=30)
LONGEST_REST = timedelta(minutes=10)
CALLS = counter("throughline_nurture_provider_calls_total", "Calls of providers, by outcome", ["provider", "state"])

StillWanted = Callable[[], bool]
Content = TypeVar("Content")
Taken_contra = TypeVar("Taken_contra", contravariant=True)


class Carrier(Protocol[Taken_contra]):
    """Something that takes messages of one channel: a provider, or several as one."""

    async def deliver(self, content: Taken_contra, still_wanted: StillWanted, /) -> Outcome:
        """Hand over a message. Never raises for what the provider or the network does.

        `still_wanted` is asked at the last moment at which nothing has left yet. An outcome with `retry` promises that
        the message was not taken.
        """
        ...


class Provider(Carrier[Taken_contra], Protocol[Taken_contra]):
    """One provider."""

    @property
    def name(self) -> str:
        """How the ledger and the metrics name it."""
        ...


@runtime_checkable
class Searchable(Protocol):
    """A provider that can be asked whether it has a message."""

    async def look_up(self, message_id: MessageId, /) -> str | None:
        """Its id of a message that it has; None where it has none, or does not say."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """A provider that takes the same message once, however often it is handed over within this time."""

    def takes_once_for(self) -> timedelta:
        """Since it was handed over first."""
        ...


@dataclass(slots=True)
class Breaker:
    """Lets a provider rest that is in trouble, twice as long each time; then one message tries it again."""

    now: Callable[[], float]
    failures: int = 0
    rests_until: float = 0.0

    def rest_left(self) -> timedelta:
        """How long it rests yet; zero or less when it may be tried."""
        return timedelta(seconds=self.rests_until - self.now())

    def note(self, outcome: Outcome) -> None:
        """Learn from an outcome. What a provider asks to be left alone for counts at once."""
        if not outcome.in_trouble:
            self.failures, self.rests_until = 0, 0.0
            return
        self.failures += 1
        rest = outcome.pause
        if self.failures >= FAILURES:
            rest = max(rest, min(REST * 2 ** min(self.failures - FAILURES, 10), LONGEST_REST))
        if rest:
            self.rests_until = max(self.rests_until, self.now() + rest.total_seconds())
        if self.failures == FAILURES:
            log.warning("provider_rests", reason=outcome.reason)


class Providers(Generic[Content]):
    """Several providers of one channel as one. Unknown stops the chain: nobody else sends what may be on its way."""

    def __init__(self, providers: Sequence[Provider[Content]], now: Callable[[], float] = time.monotonic) -> None:
        self._providers = [(provider, Breaker(now)) for provider in providers]

    @property
    def only(self) -> str | None:
        """The name of who gets all messages; None where that shows only when they are handed over."""
        return self._providers[0][0].name if len(self._providers) == 1 else None

    async def deliver(self, content: Content, still_wanted: StillWanted) -> Outcome:
        """Hand a message to the first that takes it."""
        declined: list[Outcome] = []
        for provider, breaker in self._providers:
            left = breaker.rest_left()
            if left > timedelta():
                rests = f"{provider.name} rests after troubles"
                declined.append(Outcome("planned", rests, retry=True, in_trouble=True, pause=left))
                continue
            outcome = replace(await provider.deliver(content, still_wanted), provider=provider.name)
            CALLS.labels(provider.name, outcome.state).inc()
            breaker.note(outcome)
            if not outcome.retry or not still_wanted():
                return outcome
            declined.append(outcome)
        reasons = "; ".join(outcome.reason for outcome in declined)
        pause = min(outcome.pause for outcome in declined)
        in_trouble = all(outcome.in_trouble for outcome in declined)
        return replace(declined[-1], reason=reasons, in_trouble=in_trouble, pause=pause, provider=None)

    def takes_once_for(self, name: str | None) -> timedelta:
        """For how long the provider of this name takes the same message once; zero where it may take it again."""
        known = (provider for provider, _ in self._providers if provider.name == name)
        return max((each.takes_once_for() for each in known if isinstance(each, Repeatable)), default=timedelta())

    async def repeat(self, name: str | None, content: Content, still_wanted: StillWanted) -> Outcome | None:
        """Hand a message again to the provider that may have it, and to nobody else; None where it is none of ours."""
        provider = next((provider for provider, _ in self._providers if provider.name == name), None)
        if provider is None:
            return None
        outcome = replace(await provider.deliver(content, still_wanted), provider=provider.name)
        CALLS.labels(provider.name, outcome.state).inc()
        return outcome

    async def look_up(self, message_id: MessageId) -> Outcome | None:
        """Who has a message of which nobody knows; None where nobody says so, which proves nothing."""
        for provider, _ in self._providers:
            if isinstance(provider, Searchable):
                provider_id = await provider.look_up(message_id)
                if provider_id is not None:
                    said = f"{provider.name} has it"
                    return Outcome("sent", said, provider=provider.name, provider_id=provider_id)
        return None
