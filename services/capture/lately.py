"""What was used lately, remembered: so that a busy door does not ask the database each time, nor fail with it."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shared.db import TRANSIENT
from shared.errors import NotFound, Unavailable

T = TypeVar("T")
MOST = 10_000


class Lately(Generic[T]):
    """Things by their ids, at most `fresh_s` old while PostgreSQL answers; while it is away an old one serves.

    That there is no such thing is never remembered.
    """

    def __init__(self, load: Callable[[str], Awaitable[T]], fresh_s: float) -> None:
        self._load = load
        self._fresh_s = fresh_s
        self._known: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._changes = 0

    async def get(self, name: str) -> T:
        """The thing. Raises what `load` raises: NotFound, or Unavailable when nothing is remembered."""
        now, changes = asyncio.get_running_loop().time(), self._changes
        entry = self._known.get(name)
        if entry is not None and now - entry[0] < self._fresh_s:
            return entry[1]
        try:
            found = await self._load(name)
        except NotFound:
            self._known.pop(name, None)
            raise
        except (Unavailable, *TRANSIENT):
            if entry is None:
                raise
            return entry[1]
        if changes != self._changes:  # what was read may be from before the change
            return found
        self._known[name] = (now, found)
        self._known.move_to_end(name)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return found

    def changed(self, name: str) -> None:
        """Ask the database next time."""
        self._changes += 1
        self._known.pop(name, None)
