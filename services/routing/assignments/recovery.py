"""Decisions that were published, folded back: how a database restored to an earlier copy learns what it decided.

Normally every fact met here is known and nothing is written. Where the copy had taken a decision anew before it met
the published one, the published one counts: consumers have read it, and took the other for a duplicate.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from services.routing.assignments import queries
from services.routing.assignments.domain import Assignment, State
from services.routing.assignments.turns import settle_turn
from services.routing.reps.queries import active_reps
from shared.db import Tx
from shared.events import AssignmentAccepted, AssignmentExpired, AssignmentRejected, LeadAssigned
from shared.identity import resolve
from shared.telemetry import log

OFFERED: tuple[State, ...] = ("offered",)
OPEN: tuple[State, ...] = ("offered", "accepted")
E = TypeVar("E", AssignmentAccepted, AssignmentRejected, AssignmentExpired)
REPLACED = "replaced"


async def on_leads_assigned(events: Sequence[LeadAssigned], tx: Tx) -> None:
    """Assignments that are not known are taken over; one known with another rep is put right."""
    known = await queries.known(tx.connection, [event.assignment_id for event in events])
    foreign = [event for event in events if event.assignment_id not in known]
    other = [
        event for event in events if known.get(event.assignment_id, {"rep_id": event.rep_id})["rep_id"] != event.rep_id
    ]
    if not foreign and not other:
        return
    await queries.lock_dispatcher(tx.connection)
    for event in other:
        log.warning("assignment_put_right", assignment_id=event.assignment_id)
        await queries.replace_rep(tx.connection, await _assignment(event, tx))
    for event in foreign:
        log.warning("assignment_recovered", assignment_id=event.assignment_id)
        await _take_over(await _assignment(event, tx), tx)


async def on_assignments_accepted(events: Sequence[AssignmentAccepted], tx: Tx) -> None:
    """Offers that were accepted."""
    for event in await _still(events, OFFERED, tx):
        await queries.accept(tx.connection, event.assignment_id, event.occurred_at)


async def on_assignments_rejected(events: Sequence[AssignmentRejected], tx: Tx) -> None:
    """Assignments that were given back."""
    for event in await _still(events, OPEN, tx):
        await queries.end(
            tx.connection,
            event.assignment_id,
            event.occurred_at,
            "rejected",
            state="rejected",
            reason=event.reason,
        )


async def on_assignments_expired(events: Sequence[AssignmentExpired], tx: Tx) -> None:
    """Offers whose time was over."""
    for event in await _still(events, OFFERED, tx):
        await queries.end(
            tx.connection, event.assignment_id, event.occurred_at, "expired", states=OFFERED, state="expired"
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
    await queries.insert(connection, assignment)
    await queries.drop_holds(connection, [assignment.person_id])
    if assignment.strategy == "round_robin":
        await _settle(assignment, tx)


async def _settle(assignment: Assignment, tx: Tx) -> None:
    """Count the turn for the members whose books the queue has."""
    credits = (await queries.all_credits(tx.connection)).get(assignment.queue, {})
    members = [
        (rep.rep_id, rep.weight)
        for rep in await active_reps(tx.connection)
        if rep.weight > 0 and (rep.rep_id in credits or rep.rep_id == assignment.rep_id)
    ]
    if any(rep_id == assignment.rep_id for rep_id, _ in members):
        turn = settle_turn(members, credits, assignment.rep_id)
        await queries.put_credits(tx.connection, assignment.queue, turn.credits)


async def _still(events: Sequence[E], states: Collection[State], tx: Tx) -> list[E]:
    """Those whose assignment is still in one of these states, so that something is to be written."""
    known = await queries.known(tx.connection, [event.assignment_id for event in events])
    return [event for event in events if event.assignment_id in known and known[event.assignment_id]["state"] in states]
