"""Reports are answered once: as long as nothing moved that they read, and by one computation for all who ask."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request, Response

from services.attribution.standing import queries
from services.attribution.standing.domain import Body, State, Until
from shared.db import Connection, Database
from shared.web import wants_sheet

MOST_BYTES = 32 * 2**20
LARGE = MOST_BYTES // 8
"""An answer of more is not kept: it would push all others out."""
OVERHEAD = 2_048
"""What an entry takes beside its bytes, roughly."""
SLOW_S = 0.25
STANDS_S = 5.0
"""How old an answer may be that takes long to compute while facts come in all the time."""
SLOW_AT_ONCE = 2
"""What takes long leaves connections and time to the rest."""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer, and what its `as_of` follows from; it is written with `as_of` null, and without any if it is CSV."""

    response: Response
    until: Until | None


Reading = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens the one snapshot in which an answer is read."""
Make = Callable[[Reading], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer as of a state of the database, read at a moment (of the event loop) and made in so many seconds.

    `least` are the seconds of this time or the one before, the fewer: a process that has just started, or that others
    keep from its work for once, makes no answer one that takes long.
    """

    state: State
    body: Body
    until: Until
    read_at: float
    took: float
    least: float = 0.0

    def told(self, state: State) -> Response:
        return Response(self.body.at(self.until.at(state.moments)), headers=dict(self.body.headers))


@dataclass(frozen=True, slots=True)
class _Flight:
    """A computation that goes on, begun when the database was in a state or later."""

    state: State
    began: float
    task: "asyncio.Task[_Kept]"


class Answers:
    """The answers that one process keeps, the longest unused one dropped first."""

    def __init__(self, database: Database, most_bytes: int = MOST_BYTES) -> None:
        self._database = database
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Hashable, list[_Flight]] = {}
        self._turns = asyncio.Semaphore(SLOW_AT_ONCE)

    async def of(self, request: Request, make: Make, *beside: Hashable) -> Response:
        """The answer to a request, which is all that it depends on beside the database and what is named `beside`.

        One that takes long may be `STANDS_S` old, with its `as_of`, if nothing happened but that facts came in; it is
        then made anew for those who ask next.
        """
        name = (str(request.url), wants_sheet(request, None), *beside)
        loop = asyncio.get_running_loop()
        async with self._database.reading() as connection:
            state = await queries.state(connection)
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            if kept.state.version == state.version:
                return kept.told(state)
            same = kept.state.version.is_firmly(state.version)
            if same and self._is_slow(name) and loop.time() - kept.read_at <= STANDS_S:
                if self._under_way(name, state) is None:
                    self._begin(name, state, make)
                return kept.told(kept.state)
        flight = self._under_way(name, state) or self._begin(name, state, make)
        found = await asyncio.shield(flight.task)
        return found.told(found.state)

    def _under_way(self, name: Hashable, state: State) -> _Flight | None:
        """A computation that sees all that this state does, or one that takes long."""
        now = asyncio.get_running_loop().time()
        for flight in self._flights.get(name, ()):
            slow = self._is_slow(name) or now - flight.began > SLOW_S
            if flight.state.version == state.version or (slow and flight.state.version.is_firmly(state.version)):
                return flight
        return None

    def _is_slow(self, name: Hashable) -> bool:
        """Whether it took long the last two times."""
        kept = self._kept.get(name)
        return kept is not None and kept.least > SLOW_S

    def _begin(self, name: Hashable, state: State, make: Make) -> _Flight:
        """Compute, whoever goes away meanwhile."""
        flight = _Flight(state, asyncio.get_running_loop().time(), asyncio.create_task(self._make(name, make)))
        flights = self._flights.setdefault(name, [])
        flights.append(flight)

        def ended(task: "asyncio.Task[_Kept]") -> None:
            flights.remove(flight)
            if not flights and self._flights.get(name) is flights:
                del self._flights[name]
            if not task.cancelled():
                task.exception()  # whoever waits is told; where nobody does, the next one who asks is

        flight.task.add_done_callback(ended)
        return flight

    async def _make(self, name: Hashable, make: Make) -> _Kept:
        if not self._is_slow(name):
            return await self._made(name, make)
        async with self._turns:
            return await self._made(name, make)

    async def _made(self, name: Hashable, make: Make) -> _Kept:
        loop = asyncio.get_running_loop()
        read: list[tuple[State, float]] = []

        @asynccontextmanager
        async def reading() -> AsyncIterator[Connection]:
            async with (
                self._database.reading() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                at = loop.time()
                read.append((await queries.state(connection), at))
                yield connection

        began = loop.time()
        told = await make(reading)
        ((state, at),) = read
        headers = {name: value for name, value in told.response.headers.items() if name != "content-length"}
        body = Body.of(bytes(told.response.body), headers, has_moment=told.until is not None)
        kept = _Kept(state, body, told.until or Until(), at, loop.time() - began)
        self._keep(name, kept)
        return kept

    def _keep(self, name: Hashable, kept: _Kept) -> None:
        before = self._kept.get(name)
        if before is not None and before.read_at > kept.read_at:
            return
        if before is not None:
            kept = replace(kept, least=min(kept.took, before.took))
            self._drop(name)
        if kept.body.size > min(LARGE, self._most_bytes):
            return
        self._kept[name] = kept
        self._bytes += _cost(name, kept)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: Hashable) -> None:
        self._bytes -= _cost(name, self._kept.pop(name))


def _cost(name: Any, kept: _Kept) -> int:
    return kept.body.size + len(name[0]) + OVERHEAD
