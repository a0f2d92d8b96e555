"""Tokens that are taken back before they expire: each process knows them all, and looks every two seconds for more."""

import asyncio
from collections.abc import Iterable
from itertools import chain, repeat
from typing import NamedTuple

from shared.db import TRANSIENT, Database
from shared.errors import Unavailable

LOOK_EVERY_S = 2.0
REVOKED = "SELECT kind, name, extract(epoch FROM issued_before)::float8 AS issued_before FROM revoked_tokens"


class Revocation(NamedTuple):
    """A `token` by its id, or those of a `subject` that were made before a moment, in seconds since 1970."""

    kind: str
    name: str
    issued_before: float | None


class Revocations:
    """Which tokens are revoked, as this process knows it."""

    def __init__(self) -> None:
        self.number = 0
        """Grows with each change: what was found good before may be so no longer."""
        self._all: frozenset[Revocation] = frozenset()
        self._tokens: frozenset[str] = frozenset()
        self._subjects: dict[str, float] = {}

    def cover(self, token_id: str, subject: str, issued_at: float) -> bool:
        """Whether a token is revoked; `issued_at` 0 where it does not say when it was made."""
        before = self._subjects.get(subject)
        return token_id in self._tokens or (before is not None and not issued_at >= before)

    def learn(self, revocations: Iterable[Revocation]) -> None:
        """Go by these and no others from now on."""
        found = frozenset(revocations)
        if found != self._all:
            self._all = found
            self._tokens = frozenset(each.name for each in found if each.issued_before is None)
            self._subjects = {each.name: each.issued_before for each in found if each.issued_before is not None}
            self.number += 1

    async def look(self, database: Database) -> bool:
        """Learn all that is revoked. Answers whether PostgreSQL did: while it is away, what was known stays so."""
        try:
            async with database.reading() as connection:
                self.learn([Revocation(*row) for row in await connection.fetch(REVOKED)])
        except (Unavailable, *TRANSIENT):
            return False
        return True

    async def know(self, database: Database) -> None:
        """Wait until it is known: nothing is served before."""
        for wait in chain((0.0,), repeat(0.5)):
            await asyncio.sleep(wait)
            if await self.look(database):
                return

    async def follow(self, database: Database) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look(database)
