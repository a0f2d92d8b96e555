"""What it means for a clock that a rep accepted, or was in touch."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import Assignment
from services.routing.reps.queries import reps_of
from services.routing.sla import queries
from services.routing.sla.domain import Clock, worked_between
from services.routing.sla.facts import sla_breached, sla_kept
from shared.db import Tx
from shared.events import SlaBreached, TouchRecorded
from shared.identity import resolve_many


async def answered(tx: Tx, assignment: Assignment, clock: Clock, at: datetime) -> None:
    """Note how fast the rep was, and tell whether that was in time."""
    due_at = assignment.due_at if clock == "accept" else assignment.touch_due_at
    rep = (await reps_of(tx.connection, [assignment.rep_id])).get(assignment.rep_id)
    took = max(at - assignment.assigned_at, timedelta())
    worked = took if rep is None else worked_between(rep.calendar, assignment.assigned_at, at)
    kept = None if due_at is None else at <= due_at
    await queries.answered(tx.connection, assignment, clock, due_at, took, worked, kept)
    if due_at is not None:
        tx.emit(
            sla_kept(assignment, clock, at, due_at, took, worked) if kept else sla_breached(assignment, clock, due_at)
        )


async def in_touch(tx: Tx, assignment: Assignment, at: datetime) -> bool:
    """The rep was in touch with the lead. False when that was known, or was before the rep had it."""
    if not await queries.touch(tx.connection, assignment.assignment_id, at):
        return False
    await answered(tx, assignment, "touch", at)
    return True


async def on_breaches(events: Sequence[SlaBreached], tx: Tx) -> None:
    """Breaches told before: a database restored to an earlier copy does not have reps reminded of them anew."""
    told = [(event.assignment_id, event.clock, event.due_at) for event in events]
    await queries.breaches_told(tx.connection, told)


async def on_contacts(events: Sequence[TouchRecorded], tx: Tx) -> None:
    """Calls, meetings and messages of reps: the first after an assignment ends its clock."""
    contacts = sorted((event for event in events if not event.automated), key=lambda event: event.occurred_at)
    persons = await resolve_many(tx.connection, [(event.lead_id, event.occurred_at) for event in contacts])
    waiting = await queries.untouched_of(tx.connection, sorted(set(persons)))
    current = {one.person_id: one for one in await assignments.locked(tx.connection, waiting)}
    for event, person_id in zip(contacts, persons, strict=True):
        assignment = current.get(person_id)
        if assignment is not None and await in_touch(tx, assignment, event.occurred_at):
            del current[person_id]
