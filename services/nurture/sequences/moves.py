"""Brings runs under way to another version, as was decided when it was published: some at a time, through any kill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from services.nurture.parts import Parts
from services.nurture.sending import queries as ledger
from services.nurture.sequences import queries
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.inflight import Placed, Standing, placed
from shared.db import Connection, Tx
from shared.ids import SequenceId
from shared.telemetry import log

LINGERS = timedelta(minutes=1)
"""So long runs may still begin by a version that counts no more, in transactions that were under way."""
OTHER_VERSION_WITHDRAWN = "the sequence was changed: the run goes on at another step"


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that stand together, and where they will."""

    standing: Standing
    to: Placed


async def decide(connection: Connection, sequence_id: str, version: int, steps: Mapping[str, str]) -> None:
    """Let all runs under way follow this version; what was decided before about them is no more."""
    await connection.execute(queries.DECIDE_MOVE, sequence_id, version, dict(steps))


async def stop(connection: Connection, sequence_id: str) -> None:
    """Leave runs where they are from now on."""
    await connection.execute(queries.STOP_MOVE, sequence_id)


async def state_of(connection: Connection, sequence_id: str) -> dict[str, Any] | None:
    """The last move of a sequence's runs and how far it is."""
    row = await connection.fetchrow(queries.MOVE_STATE, sequence_id)
    return None if row is None else dict(row)


async def groups(
    connection: Connection, parts: Parts, sequence_id: SequenceId, version: int, steps: Mapping[str, str]
) -> list[Group]:
    """The runs that follow other versions, and where each would stand in this one."""
    new = await parts.catalogue.plan(connection, sequence_id, version)
    found = []
    for row in await connection.fetch(queries.STANDINGS, sequence_id, version):
        standing = Standing(**row)
        old = await parts.catalogue.plan(connection, sequence_id, standing.version)
        found.append(Group(standing, placed(old, new, standing, steps)))
    return found


class Mover:
    """Carries out what was decided. Several may run at once: each move is one's at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Bring every open move to its end, in small transactions."""
        database = self._parts.runtime.database
        async with database.reading() as connection:
            rows = await connection.fetch(queries.OPEN_MOVES, LINGERS)
        for row in rows:
            while await self._bring_on(SequenceId(row["sequence_id"]), row["version"], row["steps"], row["is_old"]):
                pass

    async def _bring_on(self, sequence_id: SequenceId, version: int, steps: Mapping[str, str], is_old: bool) -> bool:
        """Move some runs; False when there is nothing more to do now."""
        async with self._parts.runtime.database.transaction() as tx:
            if not await tx.connection.fetchval(queries.LOCK_MOVE, sequence_id, version):
                return False
            if await SEQUENCES.active_version(tx.connection, sequence_id) != version:
                await stop(tx.connection, sequence_id)
                return False
            found = await groups(tx.connection, self._parts, sequence_id, version, steps)
            if not found and is_old:
                await stop(tx.connection, sequence_id)
                log.info("sequence_runs_moved", sequence_id=sequence_id, version=version)
            moved = 0
            for group in found:
                moved += await self._move(tx, sequence_id, version, group)
            await tx.connection.execute(queries.COUNT_MOVED, sequence_id, moved)
        return moved > 0

    async def _move(self, tx: Tx, sequence_id: SequenceId, version: int, group: Group) -> int:
        standing, to = group.standing, group.to
        key: Sequence[Any] = (sequence_id, standing.version, standing.step_id, standing.waits_at)
        moved = await tx.connection.fetch(queries.MOVE_RUNS, *key, version, to.step_id, to.waits_at, to.span, to.looks)
        ids = [row["enrolment_id"] for row in moved]
        if to.step_id != standing.step_id:
            for enrolment_id in ids:
                tx.emit(*await ledger.withdraw(tx.connection, {enrolment_id: OTHER_VERSION_WITHDRAWN}))
        await tx.connection.execute(queries.REWRITE_MESSAGES, ids, version)
        return len(moved)
