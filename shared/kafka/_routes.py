"""The table of what a consumer reacts to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.db import Tx
from shared.events import Event

E = TypeVar("E", bound=Event)
BatchHandler = Callable[[Sequence[Any], Tx], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler for one kind of fact. `decides` says that it takes decisions, which a rebuild must not take anew.

    Facts for which `only` does not hold for any route of their kind are passed over, and not remembered either. One
    that is not `awaited` may come a moment later, along with others: a service's own decision, read back.
    """

    event_type: type[Event]
    handle: BatchHandler
    decides: bool
    only: Callable[[Any], bool] | None = None
    awaited: bool = True


def on(event_type: type[E], handler: Callable[[E, Tx], Awaitable[None]], *, decides: bool = False) -> Route:
    """React to each fact of a kind, one at a time, in order."""

    async def each(events: Sequence[E], tx: Tx) -> None:
        for event in events:
            tx.caused_by(event)
            await handler(event, tx)

    return Route(event_type, each, decides)


def on_batch(
    event_type: type[E],
    handler: Callable[[Sequence[E], Tx], Awaitable[None]],
    *,
    decides: bool = False,
    only: Callable[[E], bool] | None = None,
    awaited: bool = True,
) -> Route:
    """React to all facts of a kind that a batch holds, at once; to those that pass `only`, where few of many matter."""
    return Route(event_type, handler, decides, only, awaited)
