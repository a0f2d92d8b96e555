"""From a due step to a message that may leave: claim, look, write, decide, enter in the ledger.

Nothing leaves inside a transaction. The ledger row is committed, claimed, before the provider is called.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from services.nurture.acts.handlers import Performing, Words
from services.nurture.channels.channel import CannotWrite, Channel, Draft, Order
from services.nurture.enrolments import handlers as enrolments
from services.nurture.experiments import handlers as experiments
from services.nurture.explaining.recording import record, record_hold, record_turns
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending import queries, turns
from services.nurture.sending.checks import CHECKS, Check
from services.nurture.sending.claiming import Claimed, claim_all
from services.nurture.sending.domain import Deliver, Hold, Leave, Move, Pause, Perform, Suppress, after, message_id
from services.nurture.sending.looking import MISSING, Look, Lookout
from services.nurture.sending.queries import Entry
from services.nurture.sending.settling import Runs, Settlement, put_behind, tell
from services.nurture.sending.turns import Due, Moved
from services.nurture.sequences.domain import SendStep
from services.nurture.sequences.steps import ActStep, NotifyStep
from shared.db import Connection, Tx
from shared.errors import Unavailable
from shared.events import ConsentChannel
from shared.faults import failpoint
from shared.ids import LeadId
from shared.personal import KeysAwaited
from shared.smtp import Outcome
from shared.telemetry import counter, describe, log

HELD = counter("throughline_nurture_held_total", "Times a due message had to wait")
FAULTY = counter("throughline_nurture_faulty_steps_total", "Steps that could not be carried out: a fault of the code")

NO_PROVIDER_PAUSE = timedelta(minutes=10)
LOOK_AGAIN_S = 0.25
ROOM_S = 0.1
CHANGED = "changed while it was looked at"
GOAL_AHEAD = "a goal ahead was met"


class Sender:
    """Carries out due steps: many at once, one message to a person at a time.

    Several may run at once: claims and the ledger keep them apart.
    """

    def __init__(
        self, parts: Parts, channels: Mapping[ConsentChannel, Channel], checks: Sequence[Check] = CHECKS
    ) -> None:
        self._parts = parts
        self._channels = channels
        self._claim = secrets.token_hex(8)
        self._runs = Runs(parts)
        self._settlement = Settlement(parts, channels, self._claim, self._runs)
        self._performing = Performing(parts)
        self.lookout = Lookout(parts, frozenset(channels), checks)
        self._released = False
        self._queue: list[Due] = []
        self._under_way: dict[asyncio.Task[None], LeadId] = {}

    async def run(self) -> timedelta | None:
        """Carry out all steps that are due; answers how long until the next one."""
        try:
            return await self._run()
        except Unavailable:
            self.lookout.connected_since = None  # it may come back as an earlier copy of itself
            raise
        except asyncio.CancelledError:
            await self._wind_up()
            raise

    async def _run(self) -> timedelta | None:
        database, settings = self._parts.runtime.database, self._parts.settings
        if self.lookout.connected_since is None:
            self.lookout.connected_since = time.monotonic()
        if not self._released:
            async with database.reading() as connection:
                for channel in self._channels:
                    await turns.release_held(connection, MISSING[channel])
            self._released = True
        await self._runs.give_up_dead_claims()
        while True:
            taken: list[Due] = []
            if len(self._queue) < settings.claim_batch:
                async with database.reading() as connection:
                    taken = await turns.claim_due(connection, self._claim, settings.claim_for, settings.claim_batch)
                    kinds = [await self._is_written(connection, due) for due in taken]
                self._queue += [due for due, is_written in zip(taken, kinds, strict=True) if is_written]
                quiet = [due for due, is_written in zip(taken, kinds, strict=True) if not is_written]
                await self._one_bears_it(quiet, self._decide_quietly)
            await self._await_room()
            free = settings.send_at_once - len(self._under_way)
            sending, self._queue = self._queue[:free], self._queue[free:]
            await self._one_bears_it(sending, self._send)
            self._look_after_calls()
            if self._under_way and not (taken and free):
                await asyncio.wait(self._under_way, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            elif not taken and not self._queue:
                async with database.reading() as connection:
                    return await turns.next_due(connection)

    async def _await_room(self) -> None:
        """Wait a moment until half of what may be under way can be sent together: each commit costs the same."""
        wanted = min(len(self._queue), self._parts.settings.send_at_once // 2)
        deadline = time.monotonic() + ROOM_S
        while self._parts.settings.send_at_once - len(self._under_way) < wanted and time.monotonic() < deadline:
            await asyncio.wait(self._under_way, timeout=ROOM_S, return_when=asyncio.FIRST_COMPLETED)
            self._look_after_calls()

    def _look_after_calls(self) -> None:
        """Forget the calls that are over; raises what they raised."""
        for task in [task for task in self._under_way if task.done()]:
            del self._under_way[task]
            task.result()

    async def _wind_up(self) -> None:
        """What is under way ends with a known outcome; what is not yet is given back."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        with suppress(Unavailable):
            async with self._parts.runtime.database.reading() as connection:
                await turns.let_go(connection, [due.run.enrolment_id for due in self._queue], self._claim)
        self._queue.clear()

    async def _is_written(self, connection: Connection, due: Due) -> bool:
        """Whether the step has words, which are filled in before anything is locked."""
        plan = await self._parts.catalogue.plan(connection, due.run.sequence_id, due.run.version)
        return isinstance(plan.steps.get(due.step_id), SendStep | NotifyStep)

    async def _one_bears_it(self, dues: Sequence[Due], act: Callable[[Sequence[Due]], Awaitable[None]]) -> None:
        """Carry out steps together; where that fails, one by one, so that only the one at fault has to wait."""
        if not dues:
            return
        (fault,) = await asyncio.gather(act(dues), return_exceptions=True)
        if isinstance(fault, KeysAwaited):
            await self._apart(dues, act, fault.detail)
        elif isinstance(fault, Unavailable) or (fault is not None and not isinstance(fault, Exception)):
            raise fault
        elif fault is not None:  # whatever it is, only the one that caused it is to bear it
            if len(dues) == 1:
                FAULTY.inc()
                log.error("step_failed", enrolment_id=dues[0].run.enrolment_id, fault=describe(fault))
            await self._apart(dues, act, f"a fault: {type(fault).__name__}")

    async def _apart(self, dues: Sequence[Due], act: Callable[[Sequence[Due]], Awaitable[None]], why: str) -> None:
        if len(dues) > 1:
            for due in dues:
                await self._one_bears_it([due], act)
            return
        async with self._parts.runtime.database.reading() as connection:
            await turns.wait_longer(connection, dues[0].run.enrolment_id, why)

    async def _decide_quietly(self, dues: Sequence[Due]) -> None:
        """Carry out steps without words. A run that comes to stand before one that has some is due again at once."""
        async with self._parts.runtime.database.transaction() as tx:
            _, later = await self._decide(tx, dues, {})
        self._queue += later

    async def _send(self, dues: Sequence[Due]) -> None:
        """Write messages, claim them, and begin to hand them over."""
        async with self._parts.runtime.database.reading() as connection:
            looks = await self.lookout.look(connection, dues)
        written = await asyncio.gather(*(self._write(look) for look in looks))
        drafts = {look.due.run.enrolment_id: draft for look, draft in zip(looks, written, strict=True)}
        async with self._parts.runtime.database.transaction() as tx:
            claimed, later = await self._decide(tx, dues, drafts)
        failpoint("after_intent_before_call")
        self._queue += later
        for each in claimed:
            task = asyncio.create_task(self._settlement.hand_over(each))
            self._under_way[task] = each.person_id

    async def _write(self, look: Look) -> Draft | Words | str | None:
        """The message written out, or why it cannot be; None where there is none now."""
        if isinstance(look.act, Perform):
            return await self._performing.write(look.plan, look.act.step, look.person)
        if not isinstance(look.act, Deliver):
            return None
        step = look.act.step
        order = Order(_entry(look, step).message_id, look.plan, step, look.person)
        try:
            return await self._channels[step.channel].write(order)
        except CannotWrite as exc:
            return str(exc)

    async def _decide(
        self, tx: Tx, dues: Sequence[Due], drafts: Mapping[str, Draft | Words | str | None]
    ) -> tuple[list[Claimed], list[Due]]:
        """Decide again, now that nobody else decides about these persons, and write it down.

        Answers what is claimed, and the runs whose person is being decided about or written to for another run.
        """
        owners = await people.lock_persons(tx.connection, {due.run.lead_id for due in dues})
        locked = await turns.lock_claimed(tx.connection, [due.run.enrolment_id for due in dues], self._claim)
        busy = set(self._under_way.values()) if drafts else set()  # where nothing was written nothing leaves
        now: list[Due] = []
        later: list[Due] = []
        for due in locked:
            person_id = owners[due.run.lead_id]
            (later if person_id in busy else now).append(due)
            busy.add(person_id)
        if not now:
            return [], later
        moved, behind, ended, messages = [], [], [], []
        looks = await self.lookout.look(tx.connection, now, owners)
        await record_turns(
            tx.connection, [(each.plan, each.due.run, each.due.step_id, each.act, each.person) for each in looks]
        )
        for look in looks:
            await experiments.take_part(tx, look.plan, look.due, look.person, look.act, look.now)
            match look.act:
                case Move() as place:
                    if place.jumps:
                        tx.emit(*await queries.withdraw(tx.connection, {look.due.run.enrolment_id: GOAL_AHEAD}))
                    moved.append(Moved(look.due.run.enrolment_id, place, look.due.visits))
                case Pause(reason):
                    await turns.wait_longer(tx.connection, look.due.run.enrolment_id, reason)
                case Perform(step):
                    done = await self._perform(tx, look, step, drafts)
                    behind += [done] if done is not None else []
                case Leave(reason):
                    ended.append((look.due.run, reason))
                case Hold() | Suppress() | Deliver():
                    messages.append((look, look.act))
                case _:
                    assert_never(look.act)
        await turns.move_runs(tx.connection, moved)
        await put_behind(tx, behind)
        await enrolments.end_runs(tx, ended)
        return await self._at_messages(tx, messages, drafts), later

    async def _perform(
        self, tx: Tx, look: Look, step: ActStep, drafts: Mapping[str, Draft | Words | str | None]
    ) -> tuple[Due, Move | Leave] | None:
        """Carry out a step that acts on something else; answers where the run stands then. None: not yet."""
        due = replace(look.due, step_id=step.step_id)
        await turns.stand_before(tx.connection, due.run.enrolment_id, step.step_id)
        words = drafts.get(due.run.enrolment_id)
        at = await self._performing.perform(tx, due, look.plan, step, look.person, words)
        return None if at is None else (due, after(look.plan, step, at))

    async def _at_messages(
        self,
        tx: Tx,
        messages: Sequence[tuple[Look, Hold | Suppress | Deliver]],
        drafts: Mapping[str, Draft | Words | str | None],
    ) -> list[Claimed]:
        """Let messages wait, close them, or claim them. Each is another person's."""
        connection = tx.connection
        entries = [_entry(look, act.step) for look, act in messages]
        standings = await queries.standings_of(connection, [entry.message_id for entry in entries])
        had = await queries.had_already(
            connection, [(entry, look.person.ids) for entry, (look, _) in zip(entries, messages, strict=True)]
        )
        wanted: list[tuple[Entry, Draft]] = []
        bases = {entry.message_id: look.basis(act.step) for entry, (look, act) in zip(entries, messages, strict=True)}
        for entry, (look, asked) in zip(entries, messages, strict=True):
            act, standing, draft = asked, standings.get(entry.message_id), drafts.get(entry.run.enrolment_id)
            if look.due.step_id != entry.step_id:
                await turns.stand_before(connection, entry.run.enrolment_id, entry.step_id)
            if entry.message_id in had:
                act = Suppress(act.step, "the person had this under another of their ids")
            if standing is not None and standing.state != "planned":
                await self._go_on(tx, look, entry.step_id)
            elif standing is not None and standing.claimed:
                await turns.wait_longer(connection, entry.run.enrolment_id, "another process has claimed the message")
            elif isinstance(act, Suppress):
                await self._close(tx, look, entry, Outcome("suppressed", act.reason))
            elif isinstance(act, Hold):
                await self._wait(connection, look, entry, act)
            elif isinstance(draft, str):
                await self._close(tx, look, entry, Outcome("failed", draft))
            elif isinstance(draft, Draft) and draft.recipient == self._channels[entry.channel].address_of(look.person):
                wanted.append((entry, draft))
            else:  # it may be sent since a moment ago: look again at once
                await turns.hold_run(connection, entry.run.enrolment_id, timedelta(), CHANGED)
        claimed = await claim_all(tx, self._parts, self._claim, wanted)
        await record(connection, {each.message_id: (bases[each.message_id], "claimed", None) for each in claimed})
        await self._close_doubled(tx, messages, wanted, claimed)
        return claimed

    async def _close_doubled(
        self,
        tx: Tx,
        messages: Sequence[tuple[Look, Hold | Suppress | Deliver]],
        wanted: Sequence[tuple[Entry, Draft]],
        claimed: Sequence[Claimed],
    ) -> None:
        """The person has this visit of this step in the ledger under another message."""
        left = {entry.message_id: entry for entry, _ in wanted}
        for each in claimed:
            del left[each.message_id]
        for look, act in messages:
            entry = left.get(_entry(look, act.step).message_id)
            if entry is not None:
                await self._close(tx, look, entry, Outcome("suppressed", "the person had this already"))

    async def _wait(self, connection: Connection, look: Look, entry: Entry, act: Hold) -> None:
        """Write down that a message is planned, and why it has to wait."""
        HELD.inc()
        if not await queries.plan_messages(connection, [_standing_as(entry, Outcome("planned", act.reason))]):
            await queries.say_why_waiting(connection, entry.message_id, act.reason)
        await record_hold(connection, entry.message_id, look.basis(act.step), act)
        if act.until is not None:
            await turns.hold_run_until(connection, entry.run.enrolment_id, act.until, act.reason)
        elif act.reason in MISSING.values():
            await turns.hold_run(connection, entry.run.enrolment_id, NO_PROVIDER_PAUSE, act.reason)
        else:
            await turns.wait_longer(connection, entry.run.enrolment_id, act.reason)

    async def _close(self, tx: Tx, look: Look, entry: Entry, outcome: Outcome) -> None:
        """Write down that a message will not be sent, and go on."""
        await queries.plan_messages(tx.connection, [_standing_as(entry, outcome)])
        tell(tx, [await queries.close_planned(tx.connection, entry.message_id, outcome)])
        step = look.plan.steps[entry.step_id]
        assert isinstance(step, SendStep)
        await record(tx.connection, {entry.message_id: (look.basis(step), outcome.state, outcome.reason)})
        await self._go_on(tx, look, entry.step_id)

    async def _go_on(self, tx: Tx, look: Look, step_id: str) -> None:
        now = await queries.database_now(tx.connection)
        step = look.plan.steps[step_id]
        assert isinstance(step, SendStep)
        await put_behind(tx, [(replace(look.due, step_id=step_id), after(look.plan, step, now))])


def _entry(look: Look, step: SendStep) -> Entry:
    """The message of a step, as it is entered in the ledger."""
    run, visit = look.due.run, look.due.visit(step.step_id)
    this = message_id(run.lead_id, run.sequence_id, run.run, step.step_id, visit)
    named = experiments.named(look.plan, step.step_id)
    return Entry(this, run, step.step_id, visit, step.channel, look.person.person_id, named=named)


def _standing_as(entry: Entry, outcome: Outcome) -> Entry:
    return replace(entry, state=outcome.state, reason=outcome.reason)
