"""What reps and their managers do with an assignment: accept, reject, reassign."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.routing.assignments import holds, queries
from services.routing.assignments.dispatch import Dispatcher, dispatching
from services.routing.assignments.domain import Assignment, Case, Choice, Nobody, State, by_hand, choose
from services.routing.assignments.facts import assignment_accepted, assignment_rejected
from services.routing.errors import NobodyElse, NotAssigned, NotCurrent
from services.routing.fairness.entries import given
from services.routing.params import no_such_lead
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.people.handlers import person
from services.routing.people.queries import is_known
from services.routing.reps.domain import Rep
from services.routing.reps.queries import unknown_reps
from services.routing.rules.domain import BY_HAND
from services.routing.sla.answering import answered
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import AssignmentId, EventId, LeadId, RepId, new_id
from shared.personal import PersonKeys


async def known_person(connection: Connection, lead_id: LeadId, keys: PersonKeys | None = None) -> Person:
    """The person behind a lead id; opened if there are `keys`. Raises NoSuchLead if nothing was told about it."""
    who = await person(connection, lead_id, keys=keys)
    if not await is_known(connection, who.ids):
        raise no_such_lead(lead_id)
    return who


async def latest_assignment(connection: Connection, lead_id: LeadId) -> Assignment:
    """The lead's current assignment, else its last. Raises NoSuchLead, NotAssigned."""
    who = await known_person(connection, lead_id)
    latest = await queries.latest(connection, [who.person_id])
    if latest is not None:
        return latest
    waiting = await holds.of_persons(connection, [who.person_id])
    why = (
        f"it is held: {waiting[0].reason}" if waiting else f"it was not routed; its stage is {who.stage or 'not known'}"
    )
    raise NotAssigned(f"the lead has no rep; {why}")


async def accept(tx: Tx, parts: Parts, lead_id: LeadId, assignment_id: AssignmentId | None) -> Assignment:
    """The rep takes the lead; a second time changes nothing. Raises NotCurrent when the offer is over."""
    offered = await latest_assignment(tx.connection, lead_id)
    at = await agreed_now(tx.connection, parts.runtime.clock)  # after it was made
    if assignment_id is not None and assignment_id != offered.assignment_id:
        raise _not_current(f"the lead's assignment is {offered.assignment_id}")
    accepted = await queries.accept(tx.connection, offered.assignment_id, at)
    if accepted is not None:
        tx.emit(assignment_accepted(accepted, at))
        await answered(tx, accepted, "accept", at)
        return accepted
    now = await queries.one(tx.connection, offered.assignment_id)
    if now is None or now.state != "accepted":
        raise _not_current(f"it is {now.state if now and now.state != 'offered' else 'over'} by now")
    return now


async def reject(  # noqa: PLR0913  # what an answer is made of
    tx: Tx,
    parts: Parts,
    lead_id: LeadId,
    assignment_id: AssignmentId | None,
    reason: str,
    *,
    bad_lead: bool = True,
    states: Sequence[State] = ("offered", "accepted"),
) -> tuple[Assignment, Assignment | None]:
    """The rep gives the lead back, and it goes to the next one. Answers both; raises NotCurrent.

    A `bad_lead` does not count as one that the rep received. `states` are those in which this is an answer.
    """
    rules = await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        at = dispatcher.at
        latest = await latest_assignment(tx.connection, lead_id)
        if assignment_id is not None and assignment_id != latest.assignment_id:
            raise _not_current(f"the lead's assignment is {latest.assignment_id}")
        rejected = await queries.end(
            tx.connection, latest.assignment_id, at, "rejected", states=states, state="rejected", reason=reason
        )
        if rejected is None:
            now = await queries.one(tx.connection, latest.assignment_id)
            raise _not_current(f"it is {now.state if now else 'over'} by now")
        fact = assignment_rejected(rejected, reason, at)
        tx.emit(fact)
        if bad_lead:
            await dispatcher.give_back(rejected, "rejected", "gave it back")
        who = await person(tx.connection, lead_id, keys=parts.runtime.keys)
        return rejected, await dispatcher.offer_to_next(rejected, who, fact.event_id)


async def reassign(tx: Tx, parts: Parts, lead_id: LeadId, rep_id: RepId | None, reason: str) -> Assignment:
    """Give a lead to this rep, else to the next by the rules. Also places a lead that nobody has.

    Raises Invalid for a rep who cannot be given leads, NobodyElse when the rules find nobody.
    """
    keys, rules = parts.runtime.keys, await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        who = await known_person(tx.connection, lead_id, keys)
        current = await queries.current(tx.connection, who.person_id)
        if current is not None and current.rep_id == rep_id:
            return current
        situation = await dispatcher.situation(who, current.entry_id if current is not None else None)
        case = dispatcher.case(who, situation)
        paid = await dispatcher.give_back(current, "reassigned", "went to another rep") if current is not None else None
        told: dict[str, Any] = {"reason": reason, "instead": "reassigned"}
        cause = EventId(new_id())
        if rep_id is None:
            case = _without(case, current)
            choice = _next_by_the_rules(dispatcher, case)
            return await dispatcher.assign(who, situation, choice, cause, cause, case=case, **told)
        rep = await _rep_by_hand(dispatcher, rep_id)
        queue = current.queue if current is not None else BY_HAND
        choice = by_hand(rep, queue, f"given by hand: {reason}", dispatcher.rules, case)
        assignment = await dispatcher.assign(who, situation, choice, cause, cause, **told)
        if paid is not None and rep_id in dispatcher.pool.books[paid]:
            dispatcher.book(paid, given(assignment, "given", "given by hand", dispatcher.at))
        return assignment


def _without(case: Case, current: Assignment | None) -> Case:
    """The case when it is to be somebody else's than it was."""
    passed_by = case.passed_by | ({current.rep_id} if current is not None else set())
    return replace(case, previous_owner=None, passed_by=passed_by)


def _next_by_the_rules(dispatcher: Dispatcher, case: Case) -> Choice:
    decision = choose(case, dispatcher.rules, dispatcher.pool)
    if isinstance(decision, Nobody):
        raise NobodyElse(decision.reason)
    return decision


async def _rep_by_hand(dispatcher: Dispatcher, rep_id: RepId) -> Rep:
    rep = dispatcher.pool.rep(rep_id)
    if rep is None:
        unknown = await unknown_reps(dispatcher.tx.connection, [rep_id])
        detail = "is not the id of a rep" if unknown else "is a rep who is deactivated"
        raise Invalid("look at /rep_id", [FieldError("/rep_id", detail)])
    return rep


def _not_current(detail: str) -> NotCurrent:
    return NotCurrent(f"{detail}; read the lead's assignment again")
