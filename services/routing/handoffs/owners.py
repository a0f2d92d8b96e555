"""Who takes over a new customer: by the pipeline a rep, or the one whose turn it is in a queue of the routing rules."""

from datetime import datetime, timedelta
from typing import assert_never

from services.routing.assignments.dispatch import dispatching
from services.routing.assignments.domain import Case, Choice, Nobody, choose
from services.routing.deals.domain import Deal
from services.routing.deals.gates import values_of
from services.routing.deals.pipeline import OwnerShape
from services.routing.handoffs.domain import Owner
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.reps.queries import rep_row
from services.routing.rules.domain import Rule, Rules
from shared.db import Connection, Tx, agreed_now
from shared.ids import RepId

RULE = "handoff"
AGAIN = timedelta(minutes=1)


async def owner_for(tx: Tx, parts: Parts, deal: Deal, shape: OwnerShape | None) -> Owner:
    """Who has the customer of a deal from now on."""
    at = await agreed_now(tx.connection, parts.runtime.clock)
    if shape is None:
        return await _named(tx.connection, deal.rep_id, "has the deal", at)
    if shape.queue is None:
        return await _named(tx.connection, RepId(shape.rep_id or ""), "is named by the pipeline", at)
    return await _of_queue(tx, parts, deal, shape, at)


async def _named(connection: Connection, rep_id: RepId | None, why: str, at: datetime) -> Owner:
    row = None if rep_id is None else await rep_row(connection, rep_id)
    if row is None or not row["active"]:
        return Owner(
            None, "the deal has no active rep" if row is None else "the rep is deactivated", retry_at=at + AGAIN
        )
    return Owner(rep_id, why)


async def _of_queue(tx: Tx, parts: Parts, deal: Deal, shape: OwnerShape, at: datetime) -> Owner:
    rules = await parts.rules.current(tx.connection)
    queue = rules.queues.get(shape.queue or "")
    if queue is None:
        return Owner(None, f"the rules have no queue {shape.queue}", shape.queue, shape.strategy, at + AGAIN)
    who = await person(tx.connection, deal.lead_id, keys=parts.runtime.keys)
    one = Rules(rules.version, rules.route_when, (), Rule(RULE, shape.strategy, queue))
    async with dispatching(tx, rules, parts) as dispatcher:
        case = Case({**who.values(), "deal": values_of(deal)}, dispatcher.at)
        decision = choose(case, one, dispatcher.pool)
        match decision:
            case Choice():
                for entry in decision.entries:
                    dispatcher.book(decision.queue, entry)
                return Owner(decision.rep.rep_id, decision.trace[-1].why, decision.queue, decision.strategy)
            case Nobody():
                return Owner(None, decision.reason, shape.queue, shape.strategy, at + AGAIN)
            case _:
                assert_never(decision)
