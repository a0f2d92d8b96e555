"""A rep claims a lead that is open to the members of a queue."""

from services.routing.assignments import holds, queries
from services.routing.assignments.answers import known_person
from services.routing.assignments.dispatch import CLAIMED, dispatching
from services.routing.assignments.domain import Assignment, Choice, Trial
from services.routing.assignments.facts import assignment_accepted
from services.routing.errors import NotClaimable
from services.routing.parts import Parts
from services.routing.rules.domain import sla_of_queue
from services.routing.sla.answering import answered
from shared.db import Tx
from shared.errors import FieldError, Invalid
from shared.ids import LeadId, RepId


async def claim(tx: Tx, parts: Parts, lead_id: LeadId, rep_id: RepId) -> Assignment:
    """Give an open lead to the rep who claims it, accepted; a second time changes nothing.

    Claims wait for one another under the dispatcher's lock, so that one wins. Raises NotClaimable, Invalid.
    """
    keys, rules = parts.runtime.keys, await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        who = await known_person(tx.connection, lead_id, keys)
        current = await queries.current(tx.connection, who.person_id)
        if current is not None:
            if current.rep_id == rep_id and current.strategy == CLAIMED:
                return current
            raise NotClaimable("somebody has the lead by now; GET its assignment says who")
        hold = next(iter(await holds.of_persons(tx.connection, [who.person_id])), None)
        if hold is None or hold.claimants is None or hold.queue is None:
            raise NotClaimable("the lead is not open to be claimed")
        rep = dispatcher.pool.rep(rep_id)
        if rep is None or rep_id not in hold.claimants:
            raise Invalid("look at /rep_id", [FieldError("/rep_id", f"is no active member of {hold.queue}")])
        if (why := rep.cannot_take(dispatcher.at)) is not None:
            raise NotClaimable(f"the rep can take no lead now: {why}")
        situation = await dispatcher.situation(who, hold.entry_id, hold.cause_id)
        trace = (Trial(hold.trace[-1]["rule_id"], True, "claimed it first"),)
        choice = Choice(rep, hold.queue, CLAIMED, sla_of_queue(rules, hold.trace[-1]["rule_id"]), trace)
        made = await dispatcher.assign(who, situation, choice, hold.cause_id, hold.entry_id)
        await dispatcher.save()
        accepted = await queries.accept(tx.connection, made.assignment_id, dispatcher.at)
        if accepted is None:
            raise NotClaimable("the lead was given to somebody else at the same moment")
        tx.emit(assignment_accepted(accepted, dispatcher.at))
        await answered(tx, accepted, "accept", dispatcher.at)
        return accepted
