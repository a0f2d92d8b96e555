"""Decisions that were published, folded back: how a database restored to an earlier copy learns what it decided.

Normally every fact met here is known and nothing is written. Where the copy had taken a decision anew before it met
the published one, the published one counts: consumers have read it, and took the other for a duplicate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import orjson

from services.routing.assignments import holds, queries
from services.routing.assignments.domain import Assignment, State
from services.routing.fairness.handlers import give_back, pay_instead
from services.routing.fairness.queries import books_of, lock_dispatcher, write_apart
from services.routing.fairness.turns import settled_turn
from services.routing.reps.queries import active_reps
from services.routing.sla import queries as clocks
from services.routing.sla.domain import known_by_end
from shared.db import Tx
from shared.events import AssignmentAccepted, AssignmentExpired, AssignmentRejected, LeadAssigned
from shared.identity import resolve
from shared.ids import AssignmentId
from shared.telemetry import log

REPLACED = "replaced"
Settled = Literal["accepted", "rejected", "expired"]
OVERRULES: Mapping[Settled, tuple[State, ...]] = {
    "accepted": ("offered",),
    "rejected": ("offered", "accepted"),
    "expired": ("offered",),
}
"""The states that an answer changes; in any other it was known already, or came too late."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an assignment."""

    assignment_id: AssignmentId
    state: Settled
    at: datetime
    reason: str | None = None


async def on_leads_assigned(events: Sequence[LeadAssigned], tx: Tx) -> None:
    """Assignments that are not known are taken over; one known with another rep is put right."""
    known = await queries.known(tx.connection, [event.assignment_id for event in events])
    foreign = [event for event in events if event.assignment_id not in known]
    other = [
        event for event in events if known.get(event.assignment_id, {"rep_id": event.rep_id})["rep_id"] != event.rep_id
    ]
    if not foreign and not other:
        return
    await lock_dispatcher(tx.connection)
    for event in other:
        log.warning("assignment_put_right", assignment_id=event.assignment_id)
        right = await _assignment(event, tx)
        await queries.replace_rep(tx.connection, right)
        await pay_instead(tx.connection, right, known[event.assignment_id]["rep_id"], event.occurred_at)
    for event in foreign:
        log.warning("assignment_recovered", assignment_id=event.assignment_id)
        if await queries.exists(tx.connection, event.assignment_id):
            await _take_over_again(event, tx)
        else:
            await _take_over(await _assignment(event, tx), tx)


async def on_assignments_accepted(events: Sequence[AssignmentAccepted], tx: Tx) -> None:
    """Offers that were accepted."""
    await _fold(tx, [Answer(event.assignment_id, "accepted", event.occurred_at) for event in events])


async def on_assignments_rejected(events: Sequence[AssignmentRejected], tx: Tx) -> None:
    """Assignments that were given back."""
    await _fold(tx, [Answer(event.assignment_id, "rejected", event.occurred_at, event.reason) for event in events])


async def on_assignments_expired(events: Sequence[AssignmentExpired], tx: Tx) -> None:
    """Offers whose time was over."""
    await _fold(tx, [Answer(event.assignment_id, "expired", event.occurred_at) for event in events])


async def _fold(tx: Tx, answers: Sequence[Answer]) -> None:
    known = await queries.known(tx.connection, [answer.assignment_id for answer in answers])
    for answer in answers:
        row = known.get(answer.assignment_id)
        if row is None:  # an answer is told by another log than the assignment, and may be published first
            await queries.keep_early_answer(tx.connection, answer.assignment_id, answer.state, answer.at, answer.reason)
        elif row["state"] in OVERRULES[answer.state]:
            await lock_dispatcher(tx.connection)
            await _settle(tx, answer)


async def _settle(tx: Tx, answer: Answer) -> None:
    connection = tx.connection
    if answer.state == "accepted":
        done = await queries.accept(connection, answer.assignment_id, answer.at)
    else:
        done = await queries.end(
            connection,
            answer.assignment_id,
            answer.at,
            answer.state,
            states=OVERRULES[answer.state],
            state=answer.state,
            reason=answer.reason,
        )
        if done is not None:
            await give_back(connection, done, answer.state, "was heard of later", answer.at)
    if done is None:
        await queries.settle_replaced(
            connection, answer.assignment_id, answer.state, answer.at, answer.reason, REPLACED
        )


async def _assignment(event: LeadAssigned, tx: Tx) -> Assignment:
    return Assignment(
        assignment_id=event.assignment_id,
        lead_id=event.lead_id,
        person_id=await resolve(tx.connection, event.lead_id, event.occurred_at),
        revision=event.revision,
        rep_id=event.rep_id,
        queue=event.queue,
        strategy=event.strategy,
        state="offered",
        assigned_at=event.occurred_at,
        due_at=event.due_at,
        touch_due_at=None,
        rules_version=event.rules_version,
        trace=orjson.loads(event.trace),
        cause_id=None,
        entry_id=None,
        reason=event.reason,
    )


async def _take_over(assignment: Assignment, tx: Tx) -> None:
    connection = tx.connection
    latest = await queries.latest(connection, [assignment.person_id])
    if latest is not None and latest.revision >= assignment.revision:
        assignment = replace(assignment, ended_at=latest.assigned_at, end_reason=REPLACED)
    elif latest is not None and latest.is_current:
        await queries.end(connection, latest.assignment_id, assignment.assigned_at, REPLACED)
    await queries.insert(connection, [assignment])
    await clocks.start(connection, known_by_end(assignment))
    await holds.drop(connection, [assignment.person_id])
    if assignment.strategy == "round_robin":
        await _count_turn(assignment, tx)
    for row in await queries.take_early_answers(connection, assignment.assignment_id):
        await _settle(tx, Answer(assignment.assignment_id, row["state"], row["at"], row["reason"]))


async def _take_over_again(event: LeadAssigned, tx: Tx) -> None:
    """An assignment that was told a second time, since it is the one that goes on after a merge.

    The first telling, whichever comes first, has the id that it was made with; the second has the survivor's.
    """
    kept = await queries.one(tx.connection, event.assignment_id)
    if kept is None:
        return
    if event.revision <= kept.revision:
        await queries.set_lead(tx.connection, kept.assignment_id, event.lead_id)
        return
    await queries.raise_revision(tx.connection, kept.assignment_id, event.revision)
    current = await queries.current(tx.connection, kept.person_id)
    if kept.end_reason == REPLACED and kept.state in OVERRULES["rejected"]:
        if current is not None:
            await queries.end(tx.connection, current.assignment_id, event.occurred_at, REPLACED)
        await queries.reopen(tx.connection, kept.assignment_id)
        await clocks.resume(tx.connection, kept.assignment_id)


async def _count_turn(assignment: Assignment, tx: Tx) -> None:
    """Count the turn for the members whose books the queue has."""
    books = await books_of(tx.connection, assignment.queue)
    weights = tuple(
        (rep.rep_id, books[rep.rep_id].weight or rep.weight if rep.rep_id in books else rep.weight)
        for rep in await active_reps(tx.connection)
        if rep.weight > 0 and (rep.rep_id in books or rep.rep_id == assignment.rep_id)
    )
    if any(rep_id == assignment.rep_id for rep_id, _ in weights):
        turn = settled_turn(weights, books, assignment.rep_id, assignment.assigned_at)
        named = replace(turn, assignment_id=assignment.assignment_id, lead_id=assignment.person_id)
        await write_apart(tx.connection, assignment.queue, [named])
