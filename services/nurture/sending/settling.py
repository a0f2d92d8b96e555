"""What becomes of a message that was claimed: handed over, its outcome noted, what asked for it put behind it.

A row whose claim falls silent becomes `unknown` and is never claimed again, unless a person decides so.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from services.nurture.channels.channel import Channel
from services.nurture.enrolments import handlers as enrolments
from services.nurture.explaining.recording import record_attempt
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending import queries, turns
from services.nurture.sending.claiming import Claimed
from services.nurture.sending.domain import TRIES, Leave, Move, after, pause_before
from services.nurture.sending.turns import Due, Moved
from services.nurture.sequences.domain import Plan, SendStep
from shared.db import Tx
from shared.errors import Unavailable
from shared.events import ConsentChannel, MessageClaimed, MessageSettled
from shared.faults import failpoint
from shared.ids import MessageId
from shared.rules import NoSuchVersion
from shared.smtp import Outcome
from shared.telemetry import counter, describe, log

SETTLED = counter("throughline_nurture_messages_total", "Messages by what became of them", ["sequence", "state"])
DEAD_CLAIM = "the sender fell silent between the claim and the outcome"
RESTORED = "claimed before the database was restored"


class Askers(Protocol):
    """What asked for messages, and goes on, or waits, once it is known what became of them."""

    async def go_on(self, tx: Tx, rows: Sequence[Any]) -> None:
        """Put what asked for these messages behind them."""
        ...

    async def wait(self, tx: Tx, rows: Sequence[tuple[Any, timedelta]]) -> None:
        """These messages did not leave: they are asked for again after a pause."""
        ...


class Settlement:
    """Hands over what one sender has claimed, and writes down what became of it: of many messages in one commit."""

    def __init__(self, parts: Parts, channels: Mapping[ConsentChannel, Channel], claim: str, askers: Askers) -> None:
        self._parts = parts
        self._channels = channels
        self._claim = claim
        self._askers = askers
        self._outcomes: dict[MessageId, tuple[Claimed, Outcome]] = {}
        self._turn = asyncio.Lock()

    async def hand_over(self, claimed: Claimed) -> None:
        """Call the provider, then note the outcome."""
        channel = self._channels[claimed.channel]
        outcome = await channel.deliver(claimed.draft, lambda: time.monotonic() < claimed.lapses_at)
        failpoint("after_call_before_outcome")
        if outcome.retry and not outcome.in_trouble and claimed.attempt >= TRIES:
            outcome = Outcome("failed", f"given up after {claimed.attempt} tries: {outcome.reason}")
        self._outcomes[claimed.message_id] = (claimed, outcome)
        try:
            await self._noted(claimed)
        finally:
            self._outcomes.pop(claimed.message_id, None)

    async def _noted(self, claimed: Claimed) -> None:
        """Wait until the outcome is noted. Only here it is known: forgetting it would make it unknown for good."""
        gives_up_at = claimed.lapses_at + self._parts.settings.claim_for.total_seconds()
        while True:
            try:
                async with self._turn:  # whoever comes first notes what has come meanwhile as well
                    if claimed.message_id in self._outcomes:
                        await self._note_all(claimed.message_id)
                return
            except Unavailable:
                if time.monotonic() > gives_up_at:
                    raise
                await asyncio.sleep(0.5)

    async def _note_all(self, this: MessageId) -> None:
        """Note all outcomes together; where that fails, this one alone: one at fault takes no other with it."""
        (fault,) = await asyncio.gather(self._note(dict(self._outcomes)), return_exceptions=True)
        if isinstance(fault, Unavailable):
            raise fault
        if fault is not None:
            log.error("outcomes_not_noted", number=len(self._outcomes), fault=describe(fault))
            await self._note({this: self._outcomes[this]})

    async def _note(self, noted: Mapping[MessageId, tuple[Claimed, Outcome]]) -> None:
        async with self._parts.runtime.database.transaction() as tx:
            await people.lock_persons(tx.connection, {claimed.lead_id for claimed, _ in noted.values()})
            rows = await queries.settle(
                tx.connection,
                self._claim,
                {this: (outcome, _pause(claimed, outcome)) for this, (claimed, outcome) in sorted(noted.items())},
            )
            tell(tx, rows)
            for row in rows:
                if row["state"] == "bounced" and row["channel"] == "email":
                    claimed, _ = noted[MessageId(row["message_id"])]
                    await self._suppress(tx, claimed, row)
            for row in rows:
                if row["state"] == "planned":
                    await record_attempt(tx.connection, row, noted[MessageId(row["message_id"])][1])
            await self._askers.wait(
                tx,
                [(row, _pause(*noted[MessageId(row["message_id"])])) for row in rows if row["state"] == "planned"],
            )
            await self._askers.go_on(tx, [row for row in rows if row["state"] != "planned"])
        for this in noted:
            self._outcomes.pop(this, None)
        failpoint("after_outcome")

    async def _suppress(self, tx: Tx, claimed: Claimed, row: Any) -> None:
        """Nothing goes to an address any more that the server has refused."""
        address = self._parts.addresses.hash_of(claimed.draft.recipient)
        await people.suppress(tx.connection, claimed.person_id, address, "bounced", row["settled_at"], "nurture")


class Runs:
    """Runs of sequences, which ask for the messages of their steps."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def go_on(self, tx: Tx, rows: Sequence[Any]) -> None:
        """Put the runs that still stand before these messages behind them."""
        messages = {(row["enrolment_id"], row["step_id"], row["visit"]): row for row in rows}
        places = [(run, step_id) for run, step_id, _ in messages]
        behind = []
        for due in await turns.runs_before(tx.connection, places) if places else ():
            row = messages.get((due.run.enrolment_id, due.step_id, due.visit(due.step_id)))
            if row is not None:
                plan = await self._parts.catalogue.plan(tx.connection, due.run.sequence_id, due.run.version)
                at = row["claimed_at"] or row["settled_at"]
                behind.append((due, after(plan, _send_step(plan, due.step_id), at)))
        await put_behind(tx, behind)

    async def wait(self, tx: Tx, rows: Sequence[tuple[Any, timedelta]]) -> None:
        """Let the runs wait before another try."""
        for row, pause in rows:
            if row["resend_at"] is None:
                await turns.hold_run(tx.connection, row["enrolment_id"], pause, row["reason"])

    async def give_up_dead_claims(self) -> None:
        """A claim that fell silent may have been sent or not: it is shown, and never sent again."""
        async with self._parts.runtime.database.reading() as connection:
            dead = await queries.dead_claims(connection)
        if not dead:
            return
        async with self._parts.runtime.database.transaction() as tx:
            await people.lock_persons(tx.connection, {lead_id for _, lead_id in dead})
            rows = await queries.give_up(tx.connection, sorted(this for this, _ in dead), DEAD_CLAIM)
            tell(tx, rows)
            await self.go_on(tx, rows)
        for row in rows:
            log.warning("message_outcome_unknown", message_id=row["message_id"])


async def put_behind(tx: Tx, behind: Sequence[tuple[Due, Move | Leave]]) -> None:
    """Move runs behind a step, or end those that have come to their end. Their persons are locked."""
    moved = [
        Moved(due.run.enrolment_id, place, due.visits | {due.step_id: due.visit(due.step_id)})
        for due, place in behind
        if isinstance(place, Move)
    ]
    await turns.move_runs(tx.connection, moved)
    over = [(due.run, place.reason) for due, place in behind if isinstance(place, Leave)]
    await enrolments.end_runs(tx, over)


def tell(tx: Tx, rows: Sequence[Any]) -> None:
    """Tell how messages stand now."""
    for row in rows:
        SETTLED.labels(row["sequence_id"], row["state"]).inc()
        tx.emit(queries.settled(row))


async def on_claimed(event: MessageClaimed, tx: Tx, parts: Parts) -> None:
    """Our own decision, read back. What is not here was lost with a newer database: it counts as sent."""
    if not await queries.restore_message(tx.connection, event, RESTORED):
        return
    log.warning("message_restored", message_id=event.message_id)
    row = {
        "enrolment_id": event.enrolment_id,
        "step_id": event.step_id,
        "visit": event.visit,
        "claimed_at": event.occurred_at,
    }
    await people.lock_persons(tx.connection, [event.lead_id])
    try:
        await Runs(parts).go_on(tx, [row])
    except NoSuchVersion:
        return  # this version was saved after the copy; its messages are known all the same


async def on_settled(event: MessageSettled, tx: Tx) -> None:
    """Our own fact, read back."""
    await queries.fold_settled(tx.connection, event)


def _pause(claimed: Claimed, outcome: Outcome) -> timedelta:
    """How long to wait before another try: longer each time, and as long as the provider wants."""
    return max(pause_before(claimed.attempt), outcome.pause)


def _send_step(plan: Plan, step_id: str) -> SendStep:
    step = plan.steps[step_id]
    assert isinstance(step, SendStep)
    return step
