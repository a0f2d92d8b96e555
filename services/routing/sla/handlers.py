"""What is done when a step of a clock is due, and when a rep says that they were in touch.

A rep who accepts or is in touch at the same moment wins: a lead changes hands only while its assignment, locked, still
waits for an answer. Steps are rows claimed and moved on in one transaction, so that none is taken twice.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.routing.assignments import queries as assignments
from services.routing.assignments.answers import latest_assignment
from services.routing.assignments.dispatch import Dispatcher, dispatching
from services.routing.assignments.domain import MOST_OFFERS, Assignment, Choice, Nobody, choose
from services.routing.assignments.facts import assignment_accepted
from services.routing.assignments.handlers import expire
from services.routing.errors import NotCurrent
from services.routing.notifications.queries import Notice, notice
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.reps.queries import reps_of
from services.routing.sla import queries
from services.routing.sla.answering import answered, in_touch
from services.routing.sla.domain import Clock, Fire, Later, Over, Running, Step, look
from services.routing.sla.facts import contact_made, sla_breached
from services.routing.sla.queries import Due
from shared.contacts import Contact
from shared.db import Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import AssignmentId, EventId, LeadId, derived_id
from shared.telemetry import counter

STEPS = counter("throughline_routing_sla_steps_total", "Steps of clocks that were due, by what they did", ["act"])
AT_ONCE = 1_000
REROUTES_AT_ONCE = 100
ROUNDS = 20


async def run_clocks(parts: Parts) -> datetime | None:
    """Take the steps that are due. Answers when the next one is.

    Who loses a lead at this moment is not reminded of it: what re-routes comes first, and again after reminders that
    were overtaken.
    """
    database, clock = parts.runtime.database, parts.runtime.clock
    async with database.reading() as connection:
        at = await agreed_now(connection, clock)
        due = await queries.next_due(connection)
    if due is None or due > at:
        return due
    await _reroute(parts)
    looked_at = 0
    for _ in range(ROUNDS):
        async with database.transaction() as tx:
            found = await take_steps(tx, at, AT_ONCE)
        looked_at += found
        if found < AT_ONCE:
            break
    if looked_at:
        await _reroute(parts)
    return at


async def _reroute(parts: Parts) -> None:
    for _ in range(ROUNDS):
        async with parts.runtime.database.transaction() as tx:
            rules = await parts.rules.current(tx.connection)
            async with dispatching(tx, rules, parts) as dispatcher:
                if await _take_reroutes(dispatcher, parts) < REROUTES_AT_ONCE:
                    break


async def take_steps(tx: Tx, at: datetime, limit: int) -> int:
    """Take due steps that leave the lead with its rep. Answers how many clocks were looked at."""
    claimed = await queries.due(tx.connection, at, limit, reroutes=False)
    await _carry_on(tx, [(one, step) for one, step in await _settle(tx, claimed, at) if step is not None], at)
    return len(claimed)


async def _take_reroutes(dispatcher: Dispatcher, parts: Parts) -> int:
    tx, at = dispatcher.tx, dispatcher.at
    claimed = await queries.due(tx.connection, at, REROUTES_AT_ONCE, reroutes=True)
    fired = [(one, step) for one, step in await _settle(tx, claimed, at) if step is not None]
    await _carry_on(tx, fired, at)
    for one, _ in fired:
        if one.running.clock == "accept":
            await expire(dispatcher, one.assignment, parts.runtime.keys)
        else:
            await _pass_on(dispatcher, one.assignment, parts)
    return len(claimed)


async def _settle(tx: Tx, claimed: Sequence[Due], at: datetime) -> list[tuple[Due, Step | None]]:
    """Move clocks on. Answers each with the step that is to be taken, if any is."""
    reps = await reps_of(tx.connection, sorted({one.assignment.rep_id for one in claimed}))
    over: list[Running] = []
    going: list[Running] = []
    settled: list[tuple[Due, Step | None]] = []
    for one in claimed:
        rep = reps.get(one.assignment.rep_id)
        decision = Over() if rep is None else look(one.running, one.assignment, rep.calendar, at)
        step: Step | None = None
        match decision:
            case Over():
                over.append(one.running)
            case Later(running=running):
                going.append(running)
            case Fire(step=now_due, after=after):
                step = now_due
                if after is None:
                    over.append(one.running)
                else:
                    going.append(after)
        settled.append((one, step))
    await queries.stop(tx.connection, over)
    await queries.go_on(tx.connection, going)
    return settled


async def _carry_on(tx: Tx, fired: Sequence[tuple[Due, Step]], at: datetime) -> None:
    """Tell of breaches, and those whom the steps name."""
    ends = {(one.assignment.assignment_id, one.running.clock): one for one, step in fired if step.is_breach}
    known: set[tuple[AssignmentId, Clock]] = set()
    if ends:
        rows = [(*key, one.assignment.rep_id, one.assignment.assigned_at, _end_of(one)) for key, one in ends.items()]
        fresh = await queries.breached(tx.connection, rows)
        known = set(ends) - fresh
        tx.emit(*(sla_breached(ends[key].assignment, key[1], _end_of(ends[key])) for key in sorted(fresh)))
    notices = []
    for one, step in fired:
        STEPS.labels(step.act).inc()
        if (one.assignment.assignment_id, one.running.clock) not in known:
            kind = f"{one.running.clock}_{step.act}"
            notices += [
                Notice(one.assignment.assignment_id, kind, step.at, audience, one.assignment.person_id)
                for audience in step.notify
            ]
    await notice(tx.connection, notices, at)


def _end_of(one: Due) -> datetime:
    end = one.assignment.due_at if one.running.clock == "accept" else one.assignment.touch_due_at
    return end if end is not None else one.running.due_at


async def _pass_on(dispatcher: Dispatcher, untouched: Assignment, parts: Parts) -> None:
    """A lead that its rep was not in touch with goes to the next one, if there is one; else it stays."""
    current = await assignments.one(dispatcher.tx.connection, untouched.assignment_id)
    who = await person(dispatcher.tx.connection, untouched.person_id, keys=parts.runtime.keys)
    if current is None or not current.is_current or not dispatcher.routes(who):
        return
    cause = EventId(derived_id("untouched", untouched.assignment_id))
    entry = current.entry_id or cause
    situation = await dispatcher.situation(who, entry, cause)
    if situation.decided or situation.offers >= MOST_OFFERS or situation.current is None:
        return
    case = dispatcher.case(who, situation)
    case = replace(case, previous_owner=None, passed_by=case.passed_by | {current.rep_id})
    if isinstance(choose(case, dispatcher.rules, dispatcher.pool), Nobody):
        return
    await dispatcher.give_back(current, "expired", "was not contacted in time")
    choice = choose(case, dispatcher.rules, dispatcher.pool)
    if isinstance(choice, Choice):
        reason = "the rep before was not in touch in time"
        await dispatcher.assign(who, situation, choice, cause, entry, reason=reason, instead="untouched", case=case)


async def touched(  # noqa: PLR0913  # what is told about a contact
    tx: Tx, parts: Parts, lead_id: LeadId, assignment_id: AssignmentId | None, kind: Contact, when: datetime | None
) -> Assignment:
    """The rep was in touch with the lead, and thereby accepts it. Raises NotCurrent, Invalid."""
    now = await agreed_now(tx.connection, parts.runtime.clock)
    seen = await latest_assignment(tx.connection, lead_id)
    (current,) = await assignments.locked(tx.connection, [seen.assignment_id])
    if assignment_id not in (None, current.assignment_id) or not current.is_current:
        raise NotCurrent(f"the lead's assignment is {current.assignment_id}, {current.state}; read it again")
    at = when or now
    if at < current.assigned_at:
        detail = f"lies before the assignment, which was made at {current.assigned_at:%Y-%m-%dT%H:%M:%SZ}"
        raise Invalid("look at /occurred_at", [FieldError("/occurred_at", detail)])
    accepted = await assignments.accept(tx.connection, current.assignment_id, now)
    if accepted is not None:
        tx.emit(assignment_accepted(accepted, now))
        await answered(tx, accepted, "accept", now)
    if await in_touch(tx, current, at):
        tx.emit(contact_made(current, kind, at, now))
    (changed,) = await assignments.locked(tx.connection, [current.assignment_id])
    return changed
