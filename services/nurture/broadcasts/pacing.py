"""Carrying broadcasts out: whom they mean is listed in pieces, then each comes to the sender at their turn.

Each step is one transaction that holds the broadcast's row and finds it where the one before left it, so a worker that
is killed anywhere leaves nobody out and nobody twice: every person has one row, one run and one message id.
"""

from datetime import timedelta

from services.nurture.broadcasts import queries
from services.nurture.broadcasts.audience import next_piece
from services.nurture.broadcasts.domain import LATE, OVERDUE, TURN_LASTS, WINDOW, Pace, cause_of, pace, run_of
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.enrolments.facts import run_started
from services.nurture.enrolments.handlers import STARTED
from services.nurture.parts import Parts
from services.nurture.sending.queries import database_now
from shared.db import Tx
from shared.faults import failpoint
from shared.ids import EventId, SequenceId

PIECES = 50
"""Of one broadcast before the next one has its turn."""


class Pacer:
    """Carries out all broadcasts that run, one piece of each after another."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self) -> timedelta | None:
        """Do what can be done now; answers when to look again, sooner than usual while any is under way."""
        database = self._parts.runtime.database
        async with database.reading() as connection:
            to_do = await queries.to_do(connection)
        for broadcast_id in to_do:
            for _ in range(PIECES):
                if not await self._step(broadcast_id):
                    break
        return timedelta(milliseconds=200) if to_do else None

    async def _step(self, broadcast_id: SequenceId) -> bool:
        """One piece of one broadcast; False when nothing is to be done about it now."""
        async with self._parts.runtime.database.transaction() as tx:
            broadcast = await queries.lock_to_do(tx.connection, broadcast_id)
            if broadcast is None:
                return False
            if broadcast.state == "cancelled":
                went_on = await self._end(tx, broadcast)
            elif broadcast.listed_at is None:
                went_on = await self._list(tx, broadcast)
            elif broadcast.entered < broadcast.people and await self._give_turns(tx, broadcast):
                went_on = True
            else:
                went_on = await self._end(tx, broadcast)
            failpoint("broadcast_before_commit")
        failpoint("broadcast_after_commit")
        return went_on

    async def _list(self, tx: Tx, broadcast: Broadcast) -> bool:
        """List a piece of those who are meant."""
        connection = tx.connection
        if broadcast.listed_to is None and broadcast.send_at is not None:
            now = await database_now(connection)
            if broadcast.send_at < now - LATE:
                await queries.set_state(connection, broadcast.broadcast_id, "stopped", OVERDUE)
                return False
        piece = await next_piece(connection, self._parts, broadcast.document.audience, broadcast.listed_to)
        added = await queries.add_members(connection, broadcast.broadcast_id, piece.persons)
        await queries.listed(connection, broadcast.broadcast_id, piece.to, len(added), all_of_them=piece.last)
        return True

    async def _give_turns(self, tx: Tx, broadcast: Broadcast) -> bool:
        """Let some come to the sender; False when it has enough of them, or the rate allows no more yet."""
        connection, this = tx.connection, broadcast.broadcast_id
        rate, local, now = broadcast.document.rate, broadcast.document.local_time, await database_now(connection)
        room = WINDOW - await queries.before_the_sender(connection, this, WINDOW)
        if local is None:
            turns = pace(rate.interval if rate else None, broadcast.free_from, now, room)
        else:  # everybody waits for their time, and is given a turn then: this one is over
            turns = Pace(room, now - 2 * TURN_LASTS, timedelta())
        if turns.count <= 0:
            return False
        given = await queries.give_turns(connection, this, turns)
        begun_at = broadcast.started_at or now
        runs = [
            (run_of(this, broadcast.version or 1, turn.lead_id, begun_at, now), turn.at if local is None else now)
            for turn in given
        ]
        begun = await queries.enter(connection, broadcast.document.first_step, runs) if runs else set()
        for run, _ in runs:
            if run.enrolment_id in begun:
                tx.emit(run_started(run, EventId(f"enrolment-started:{run.enrolment_id}"), cause_of(run), now))
        STARTED.labels(this).inc(len(begun))
        # Those who were erased since they were listed have no turn any more.
        people = len(given) if len(given) == turns.count else broadcast.people - broadcast.entered
        await queries.entered(connection, this, people, turns.next if local is None else broadcast.free_from)
        return True

    async def _end(self, tx: Tx, broadcast: Broadcast) -> bool:
        """Once nobody is under way, drop the lists, piece by piece, and finish."""
        connection, this = tx.connection, broadcast.broadcast_id
        if broadcast.state == "running" and broadcast.entered < broadcast.people:
            return False
        if await queries.any_active(connection, this):
            return False
        if await queries.drop_list(connection, this):
            return True
        await queries.finish(connection, this)
        return False
