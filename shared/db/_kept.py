"""A connection that one duty keeps, with plans that hold for a while."""

from __future__ import annotations

import asyncio

import asyncpg

from shared.db._database import Database

FIRST_PLANS_S = 1.0


class KeptConnection:
    """The connection of one duty that looks everything up by key. Its plans hold for a time that grows fourfold.

    A plan is of the tables as they were: what was made while one was empty may be wrong once it is not. PostgreSQL
    makes plans anew by itself when it has analysed a table, a minute after that has grown; until then nobody else does.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._plans_s = FIRST_PLANS_S
        self._plans_end = 0.0

    async def connected(self) -> asyncpg.Connection[asyncpg.Record]:
        """The connection, made anew where there is none any more. Raises what is transient."""
        now = asyncio.get_running_loop().time()
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect(plan_once=True)
            self._plans_s = FIRST_PLANS_S
        elif now < self._plans_end:
            return self._connection
        else:
            await self._connection.execute("DISCARD PLANS")
            self._plans_s *= 4
        self._plans_end = now + self._plans_s
        return self._connection

    def hang_up(self) -> None:
        """End it at once; what was under way is rolled back."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
