"""What the client has to know of PostgreSQL's types, asked for once a process instead of once a connection.

The client knows few types by itself: of arrays those of text alone. Every connection asks anew about the others that
its statements use, several times, and each answer costs the server more than most statements do. The types that
PostgreSQL brings along have the same numbers everywhere (its `pg_type.dat`): what one connection heard holds for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import asyncpg

FIRST_ASSIGNED_OID = 10_000
"""From here on numbers are given when a database is made (PostgreSQL's `FirstGenbkiObjectId`)."""

_heard: dict[frozenset[int], Any] = {}


class TypedConnection(asyncpg.Connection):
    """A connection that asks about a type only if no other of this process did."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:  # noqa: ASYNC109  # as asyncpg has it
        asked = frozenset(typeoids)
        if (heard := _heard.get(asked)) is not None:
            return heard
        heard = await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]  # the stubs leave it out
        if max(asked) < FIRST_ASSIGNED_OID:
            _heard[asked] = heard
        return heard
