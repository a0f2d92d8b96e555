"""A decision looked at again: taken anew from what it saw, explained, or tried on a lead that has not come in."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.routing.assignments import inputs
from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import Assignment, Case, Choice, Nobody, Pool, choose
from services.routing.assignments.queries import Asked
from services.routing.decisions import queries
from services.routing.decisions.domain import Difference, Scene, case_of, taken_again
from services.routing.decisions.words import Reason, reasons
from services.routing.errors import NoSuchAssignment, NotReplayable
from services.routing.fairness.queries import all_books, lock_dispatcher
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.reps.queries import active_reps
from services.routing.rules.domain import BY_HAND, Rules
from shared.db import Connection, agreed_now
from shared.ids import AssignmentId, LeadId

ALTERNATIVES = 3
AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Replay:
    """A decision taken once more."""

    scene: Scene
    decision: Choice | Nobody
    differences: list[Difference]


@dataclass(frozen=True, slots=True)
class Preview:
    """What rules would make of a lead now, or then; `not_routed` says why they would not look at it."""

    case: Case
    decision: Choice | Nobody
    reasons: list[Reason]
    alternatives: list[Choice]
    not_routed: str | None


async def assignment_named(connection: Connection, assignment_id: AssignmentId) -> Assignment:
    """An assignment. Raises NoSuchAssignment."""
    found = await assignments.one(connection, assignment_id)
    if found is None:
        raise NoSuchAssignment(f"there is no assignment {assignment_id[:100]}")
    return found


async def replayed(connection: Connection, parts: Parts, assignment_id: AssignmentId) -> Replay:
    """The decision that made an assignment, taken again. Raises NoSuchAssignment, NotReplayable."""
    assignment = await assignment_named(connection, assignment_id)
    record = await queries.one(connection, assignment_id)
    if record is None or assignment.inputs is None:
        raise NotReplayable(_why_not(assignment))
    (assignment,) = await inputs.opened(connection, parts.runtime.keys, [assignment])
    scene = Scene(
        assignment=assignment,
        case=case_of(assignment, record),
        rules=await parts.rules.at_version(connection, assignment.rules_version),
        pool=await queries.pool_before(connection, record),
    )
    return Replay(scene, *taken_again(scene))


async def forget_old(parts: Parts, kept: timedelta) -> None:
    """Drop what decisions saw that were taken longer ago: they keep their traces, and cannot be taken again."""
    database = parts.runtime.database
    async with database.reading() as connection:
        before = await agreed_now(connection, parts.runtime.clock) - kept
        number = await queries.last_before(connection, before)
    if number is None:
        return
    while True:
        async with database.transaction() as tx:
            if await queries.forget_decisions(tx.connection, number, AT_ONCE) < AT_ONCE:
                break
    async with database.transaction() as tx:
        await lock_dispatcher(tx.connection)  # who decides meanwhile would go by a profile that is there
        await queries.forget_unused(tx.connection)


async def pool_now(connection: Connection, at: datetime) -> Pool:
    """The active reps and the books as they stand; how much of their limits is used up, at that time."""
    return Pool(await active_reps(connection, at), await all_books(connection))


async def case_now(connection: Connection, person: Person, at: datetime) -> Case:
    """A person's lead as if it came in."""
    return await case_imagined(connection, person.values(), at, person.person_id, person.company)


async def case_imagined(
    connection: Connection, values: dict[str, object], at: datetime, person_id: LeadId, company: str | None
) -> Case:
    """Some inputs as a lead that comes in, with the claims that there are on it."""
    (situation,) = await assignments.situations(connection, [Asked(person_id, company, None, None)], locked=False)
    return Case(values, at, situation.previous_owner, situation.account_owner, previous_at=situation.previous_at)


def preview(case: Case, rules: Rules, pool: Pool) -> Preview:
    """What rules make of a case, whom else they could have chosen, and why not each of the others."""
    decision = choose(case, rules, pool)
    routed, why = rules.route_when.holds(case.values())
    return Preview(
        case=case,
        decision=decision,
        reasons=reasons(case, rules, pool, decision),
        alternatives=list(_alternatives(case, rules, pool, decision)),
        not_routed=None if routed else f"route_when does not hold: {why}",
    )


def _alternatives(case: Case, rules: Rules, pool: Pool, decision: Choice | Nobody) -> Iterator[Choice]:
    """Who would have it if the one before could not, one after the other."""
    for _ in range(ALTERNATIVES):
        if isinstance(decision, Nobody):
            return
        case = replace(case, passed_by=case.passed_by | {decision.rep.rep_id})
        decision = choose(case, rules, pool)
        if isinstance(decision, Choice):
            yield decision


def _why_not(assignment: Assignment) -> str:
    if assignment.trace and assignment.trace[-1].get("rule_id") == BY_HAND:
        return "a person gave it to the rep by hand; the trace says why, and there are no rules to try again"
    if assignment.inputs is None and assignment.cause_id is not None:
        return "the person was erased, and what the rules saw of them with it"
    return (
        "it was made too long ago (THROUGHLINE_ROUTING_REPLAYS_KEPT), by an earlier version, or learnt from Kafka: "
        "what it saw is not kept; the trace stands"
    )
