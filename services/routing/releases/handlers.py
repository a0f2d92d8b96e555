"""A person lets leads go on that wait."""

from dataclasses import replace

from services.routing.assignments import holds
from services.routing.assignments.answers import known_person, reassign
from services.routing.assignments.dispatch import dispatching
from services.routing.assignments.domain import Assignment
from services.routing.assignments.handlers import try_again
from services.routing.assignments.holds import Hold
from services.routing.errors import NotHeld
from services.routing.fairness.queries import lock_dispatcher
from services.routing.parts import Parts
from shared.db import Connection, Tx
from shared.ids import LeadId, RepId


async def release(tx: Tx, parts: Parts, lead_id: LeadId, *, ask_again: bool) -> tuple[Assignment | None, Hold | None]:
    """Try a lead that waits again now. Answers its assignment, or why it goes on waiting; neither: it is not routed.

    Raises NoSuchLead, NotHeld.
    """
    rules = await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        who = await known_person(tx.connection, lead_id, parts.runtime.keys)
        hold = await _held(tx.connection, who.person_id)
        no_more_open = replace(hold, retry_at=dispatcher.at)  # a lead to be claimed goes by the strategy of its queue
        given = await try_again(dispatcher, no_more_open, who, ask_again=ask_again)
    return given, None if given is not None else await holds.locked(tx.connection, who.person_id)


async def assign(tx: Tx, parts: Parts, lead_id: LeadId, rep_id: RepId, reason: str) -> Assignment:
    """Give a lead that waits to this rep. Raises NoSuchLead, NotHeld, and Invalid for who cannot be given leads."""
    await lock_dispatcher(tx.connection)  # before the hold: whoever decides takes them in this order
    who = await known_person(tx.connection, lead_id)
    await _held(tx.connection, who.person_id)
    return await reassign(tx, parts, lead_id, rep_id, reason)


async def _held(connection: Connection, person_id: LeadId) -> Hold:
    hold = await holds.locked(connection, person_id)
    if hold is None:
        raise NotHeld("the lead does not wait for a rep; read its assignment")
    return hold
