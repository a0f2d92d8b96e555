"""Reps who leave: they get nothing any more, and what they hold goes to others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg

from services.routing.assignments import holds
from services.routing.assignments import queries as assignments
from services.routing.assignments.dispatch import Dispatcher, dispatching
from services.routing.assignments.domain import Assignment, Nobody, choose
from services.routing.departures import queries
from services.routing.departures.domain import AT_ONCE, Became, Moved
from services.routing.errors import StillActive
from services.routing.fairness.queries import lock_dispatcher
from services.routing.params import no_such_rep
from services.routing.parts import Parts
from services.routing.people.handlers import people
from services.routing.reps.queries import rep_row
from shared.db import Connection, Tx, agreed_now
from shared.ids import EventId, RepId, derived_id

LEFT = "the rep left"
Place = tuple[datetime, str]
FIRST: Place = (datetime.min.replace(tzinfo=UTC), "")


@dataclass(frozen=True, slots=True)
class Departure:
    """What became of the leads looked at, and how many the rep still holds; where the next are, if there are more."""

    moved: Sequence[Moved]
    left: int
    next_place: Place | None = None


async def deactivate(tx: Tx, parts: Parts, rep_id: RepId, reason: str) -> None:
    """The rep gets nothing any more; what they hold stays with them. Raises NoSuchRep."""
    await lock_dispatcher(tx.connection)
    await _the_rep(tx.connection, rep_id)
    await queries.leave(tx.connection, rep_id, await agreed_now(tx.connection, parts.runtime.clock), reason)


async def activate(tx: Tx, parts: Parts, rep_id: RepId) -> None:
    """The rep works again; what was not given to others yet stays with them. Raises NoSuchRep."""
    await lock_dispatcher(tx.connection)
    at = await agreed_now(tx.connection, parts.runtime.clock)
    await _the_rep(tx.connection, rep_id)
    await queries.reroute_no_more(tx.connection, rep_id)
    if await queries.come_back(tx.connection, rep_id, at):
        await holds.retry_all(tx.connection, at)


async def reroute(tx: Tx, parts: Parts, rep_id: RepId, reason: str) -> Departure:
    """Give what a rep who left holds to others: the first ones now, the rest by the worker.

    Raises NoSuchRep, and StillActive for one who did not leave.
    """
    await lock_dispatcher(tx.connection)
    if (await _the_rep(tx.connection, rep_id))["active"]:
        raise StillActive("the rep works; deactivate them first")
    done = await _reroute_some(tx, parts, rep_id, reason, FIRST)
    if done.next_place is not None:
        await queries.ask_for_reroute(
            tx.connection, rep_id, reason, await agreed_now(tx.connection, parts.runtime.clock)
        )
    return done


async def go_on(parts: Parts) -> None:
    """Carry on with what was asked for before, a transaction after the other."""
    after = FIRST
    while True:
        async with parts.runtime.database.reading() as connection:
            if await queries.next_asked(connection) is None:
                return
        async with parts.runtime.database.transaction() as tx:
            await lock_dispatcher(tx.connection)
            asked = await queries.next_asked(tx.connection)
            if asked is None:
                return
            rep_id = RepId(asked["rep_id"])
            done = None if asked["active"] else await _reroute_some(tx, parts, rep_id, asked["reason"], after)
            if done is not None and done.next_place is not None:
                after = done.next_place
                continue
            await queries.reroute_no_more(tx.connection, rep_id)
            after = FIRST


async def listed(connection: Connection, rep_id: RepId, after: Place = FIRST, limit: int = AT_ONCE) -> Departure:
    """What a rep holds, as it stands: nothing has become of it. Raises NoSuchRep."""
    rep = await _the_rep(connection, rep_id)
    held = await queries.held(connection, rep_id, after, limit)
    why = "the rep works" if rep["active"] else "it was not asked to give it to others"
    kept = [_moved(one, "kept", why) for one in held]
    return Departure(kept, await queries.count_held(connection, rep_id), _next_place(held, limit))


async def _reroute_some(tx: Tx, parts: Parts, rep_id: RepId, reason: str, after: Place) -> Departure:
    connection = tx.connection
    held = await queries.held(connection, rep_id, after, AT_ONCE)
    persons = await people(connection, [(one.person_id, None) for one in held], parts.runtime.keys)
    moved: list[Moved] = []
    rules = await parts.rules.current(connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        causes = [EventId(derived_id("rerouted", one.assignment_id)) for one in held]
        situations = await dispatcher.situations(
            [(who, one.entry_id, None) for who, one in zip(persons, held, strict=True)]
        )
        for one, who, situation, cause in zip(held, persons, situations, causes, strict=True):
            case = replace(dispatcher.case(who, situation), previous_owner=None)
            decision = choose(case, dispatcher.rules, dispatcher.pool)
            if not isinstance(decision, Nobody):
                await dispatcher.give_back(one, "reassigned", LEFT)
                told: dict[str, Any] = {"reason": reason, "instead": "reassigned", "case": case}
                given = await dispatcher.assign(who, situation, decision, cause, one.entry_id or cause, **told)
                why = decision.trace[-1].why
                moved.append(_moved(one, "rerouted", why, given))
            elif dispatcher.routes(who):
                moved.append(await _hold(dispatcher, one, decision, cause))
            else:
                moved.append(_moved(one, "kept", decision.reason))
    return Departure(moved, await queries.count_held(connection, rep_id), _next_place(held, AT_ONCE))


async def _hold(dispatcher: Dispatcher, one: Assignment, nobody: Nobody, cause: EventId) -> Moved:
    """Nobody can take it now: it waits, and the rep who left has it no more."""
    await dispatcher.give_back(one, "reassigned", LEFT)
    await assignments.end(dispatcher.tx.connection, one.assignment_id, dispatcher.at, "reassigned")
    dispatcher.hold_for_nobody(one.person_id, nobody, cause, one.entry_id or cause)
    return _moved(one, "held", nobody.reason)


def _moved(one: Assignment, became: Became, why: str, given: Assignment | None = None) -> Moved:
    return Moved(
        lead_id=one.person_id,
        assignment_id=one.assignment_id,
        state=one.state,
        became=became,
        rep_id=given.rep_id if given is not None else None,
        next_assignment_id=given.assignment_id if given is not None else None,
        why=why,
    )


def _next_place(held: Sequence[Assignment], limit: int) -> Place | None:
    return (held[-1].assigned_at, held[-1].assignment_id) if len(held) == limit else None


async def _the_rep(connection: Connection, rep_id: RepId) -> asyncpg.Record:
    row = await rep_row(connection, rep_id)
    if row is None:
        raise no_such_rep(rep_id)
    return row
