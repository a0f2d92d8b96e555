"""Assignments and holds over HTTP."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.routing.assignments import answers, holds, inputs, queries
from services.routing.assignments.domain import Assignment, State
from services.routing.params import PathId, QueryEmail, QueryId, lead_asked_for, the_lead_asked_for
from services.routing.parts import Parts
from services.routing.people.handlers import person
from shared.db import Connection, Tx
from shared.ids import AssignmentId, LeadId, RepId
from shared.service import Runtime
from shared.web import Endpoints, Input, Limit, Page, idempotent, make_cursor, read_cursor, requires

NEWEST = (datetime.max.replace(tzinfo=UTC), "\U0010ffff")
OLDEST = (datetime.min.replace(tzinfo=UTC), "")
Id = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class AcceptIn(Input):
    """With the id of the assignment that was seen, so that another one is not accepted by mistake."""

    assignment_id: Id | None = None


class RejectIn(Input):
    """Why the lead is given back. A bad lead does not count as one received; any other uses up the rep's turn."""

    reason: Reason
    assignment_id: Id | None = None
    bad_lead: bool = True


class ReassignIn(Input):
    """To whom, else to the next by the rules; and why."""

    rep_id: Id | None = None
    reason: Reason


class TrialOut(BaseModel):
    """A rule that was tried; exactly the one that placed the lead has `matched`."""

    rule_id: str
    matched: bool
    why: str


class AssignmentOut(BaseModel):
    """A rep made responsible for a lead. It is the lead's current one until `ended_at`.

    `inputs` are the values that the rules saw, `trace` the rules of version `rules_version` in the order they were
    tried.
    """

    assignment_id: str
    lead_id: str
    state: State
    rep_id: str
    queue: str
    strategy: str
    assigned_at: datetime
    due_at: datetime | None
    touch_due_at: datetime | None
    rules_version: int
    trace: list[TrialOut]
    revision: int
    current: bool
    reason: str | None
    settled_at: datetime | None
    accepted_at: datetime | None = None
    touched_at: datetime | None = None
    ended_at: datetime | None
    end_reason: str | None
    inputs: dict[str, Any] | None
    next_assignment_id: str | None = None

    @classmethod
    def of(cls, assignment: Assignment, *, after: Assignment | None = None) -> "AssignmentOut":
        """From the stored one; `after` is the one that took its place just now."""
        return cls(
            assignment_id=assignment.assignment_id,
            lead_id=assignment.person_id,
            state=assignment.state,
            rep_id=assignment.rep_id,
            queue=assignment.queue,
            strategy=assignment.strategy,
            assigned_at=assignment.assigned_at,
            due_at=assignment.due_at,
            touch_due_at=assignment.touch_due_at,
            rules_version=assignment.rules_version,
            trace=[TrialOut.model_validate(trial) for trial in assignment.trace],
            revision=assignment.revision,
            current=assignment.is_current,
            reason=assignment.reason,
            settled_at=assignment.settled_at,
            accepted_at=assignment.accepted_at,
            touched_at=assignment.touched_at,
            ended_at=assignment.ended_at,
            end_reason=assignment.end_reason,
            inputs=dict(assignment.inputs) if assignment.inputs is not None else None,
            next_assignment_id=after.assignment_id if after is not None else None,
        )


class HoldOut(BaseModel):
    """A lead that waits for a rep, why, since when, and when it is tried again without anything else changing.

    `why` is the kind of the reason: `nobody` can take it, `passed_by` by as many reps as are asked, or its `profile` is
    on the way.
    """

    lead_id: str
    why: holds.Why
    reason: str
    trace: list[TrialOut]
    since: datetime
    retry_at: datetime | None
    attempts: int

    @classmethod
    def of(cls, hold: holds.Hold) -> "HoldOut":
        """From the stored one."""
        return cls(
            lead_id=hold.person_id,
            why=hold.why,
            reason=hold.reason,
            trace=[TrialOut.model_validate(trial) for trial in hold.trace],
            since=hold.since,
            retry_at=hold.retry_at,
            attempts=hold.attempts,
        )


def router(parts: Parts) -> APIRouter:
    """Everything about assignments."""
    routes = Endpoints(prefix="/v1", tags=["assignments"])
    _add_reading(routes, parts.runtime)
    _add_lists(routes, parts.runtime)
    _add_answers(routes, parts)
    return routes


def _add_reading(routes: APIRouter, runtime: Runtime) -> None:
    reading = [Depends(requires("routing:read"))]

    @routes.get("/leads/{lead_id}/assignment", dependencies=reading)
    async def get_assignment(lead_id: PathId) -> AssignmentOut:
        """The lead's current assignment, else its last one, with the rules that were tried and why."""
        async with runtime.database.reading() as connection:
            return await shown_assignment(
                connection, runtime, await answers.latest_assignment(connection, LeadId(lead_id))
            )

    @routes.get("/assignment", dependencies=reading)
    async def get_assignment_by_email(email: QueryEmail = None) -> AssignmentOut:
        """The same by `?email=`."""
        async with runtime.database.reading() as connection:
            lead_id = await the_lead_asked_for(connection, runtime, email)
            return await shown_assignment(connection, runtime, await answers.latest_assignment(connection, lead_id))


def _add_lists(routes: APIRouter, runtime: Runtime) -> None:
    reading = [Depends(requires("routing:read"))]

    async def page_of(  # noqa: PLR0913  # the filters of one list
        lead_id: str | None,
        email: str | None,
        rep_id: str | None,
        state: State | None,
        current: bool | None,
        limit: int,
        cursor: str | None,
    ) -> Page[AssignmentOut]:
        place = read_cursor(runtime.secrets, "assignments", cursor)
        before = (datetime.fromisoformat(place[0]), place[1]) if place else NEWEST
        async with runtime.database.reading() as connection:
            ids = await _person_ids(connection, runtime, lead_id, email)
            found = await queries.listed(connection, before, ids, rep_id, state, current, limit + 1)
            shown = await inputs.opened(connection, runtime.keys, found[:limit])
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.assigned_at.isoformat(), last.assignment_id]
        return Page(
            items=[AssignmentOut.of(one) for one in shown],
            next_cursor=make_cursor(runtime.secrets, "assignments", place) if place else None,
        )

    @routes.get("/leads/{lead_id}/assignments", dependencies=reading)
    async def list_assignments_of_lead(
        lead_id: PathId, limit: Limit = 50, cursor: str | None = None
    ) -> Page[AssignmentOut]:
        """Every assignment of a lead, the newest first."""
        return await page_of(lead_id, None, None, None, None, limit, cursor)

    @routes.get("/assignments", dependencies=reading)
    async def list_assignments(  # noqa: PLR0913  # the filters of one list
        lead_id: QueryId = None,
        email: QueryEmail = None,
        rep_id: QueryId = None,
        state: State | None = None,
        current: Annotated[bool | None, Query(description="Only those that count now, or only others")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[AssignmentOut]:
        """Assignments, the newest first."""
        return await page_of(lead_id, email, rep_id, state, current, limit, cursor)

    @routes.get("/holds", dependencies=reading)
    async def list_holds(  # noqa: PLR0913  # the filters of one list
        lead_id: QueryId = None,
        email: QueryEmail = None,
        why: holds.Why | None = None,
        reason: Annotated[str | None, Query(max_length=2_000, description="Held for exactly this reason")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[HoldOut]:
        """Leads that wait for a rep, those that wait longest first."""
        place = read_cursor(runtime.secrets, "holds", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else OLDEST
        async with runtime.database.reading() as connection:
            ids = await _person_ids(connection, runtime, lead_id, email)
            found = await holds.listed(connection, after, ids, why, reason, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.since.isoformat(), last.person_id]
        return Page(
            items=[HoldOut.of(hold) for hold in found[:limit]],
            next_cursor=make_cursor(runtime.secrets, "holds", place) if place else None,
        )


def _add_answers(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    writing = [Depends(requires("routing:write"))]

    async def answered(request: Request, carry_out: Callable[[Tx], Awaitable[AssignmentOut]]) -> Response:
        async def make(tx: Tx) -> Response:
            return Response((await carry_out(tx)).model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.post("/leads/{lead_id}/assignment:accept", response_model=AssignmentOut, dependencies=writing)
    async def accept(lead_id: PathId, request: Request, told: AcceptIn | None = None) -> Response:
        """The rep takes the lead; 409 when the assignment is no longer current."""
        assignment_id = AssignmentId(told.assignment_id) if told and told.assignment_id else None

        async def carry_out(tx: Tx) -> AssignmentOut:
            accepted = await answers.accept(tx, parts, LeadId(lead_id), assignment_id)
            return await shown_assignment(tx.connection, runtime, accepted)

        return await answered(request, carry_out)

    @routes.post("/leads/{lead_id}/assignment:reject", response_model=AssignmentOut, dependencies=writing)
    async def reject(lead_id: PathId, told: RejectIn, request: Request) -> Response:
        """The rep gives the lead back. Answers the rejected assignment and the id of the one that follows, if any."""
        assignment_id = AssignmentId(told.assignment_id) if told.assignment_id else None

        async def carry_out(tx: Tx) -> AssignmentOut:
            rejected, after = await answers.reject(
                tx, parts, LeadId(lead_id), assignment_id, told.reason, bad_lead=told.bad_lead
            )
            return await shown_assignment(tx.connection, runtime, rejected, after=after)

        return await answered(request, carry_out)

    @routes.post("/leads/{lead_id}/assignment:reassign", response_model=AssignmentOut, dependencies=writing)
    async def reassign(lead_id: PathId, told: ReassignIn, request: Request) -> Response:
        """Give the lead to somebody else. Answers the new assignment."""
        rep_id = RepId(told.rep_id) if told.rep_id else None

        async def carry_out(tx: Tx) -> AssignmentOut:
            given = await answers.reassign(tx, parts, LeadId(lead_id), rep_id, told.reason)
            return await shown_assignment(tx.connection, runtime, given)

        return await answered(request, carry_out)


async def _person_ids(
    connection: Connection, runtime: Runtime, lead_id: str | None, email: str | None
) -> list[LeadId] | None:
    asked = await lead_asked_for(connection, runtime, lead_id, email)
    return None if asked is None else [(await person(connection, asked)).person_id]


async def shown_assignment(
    connection: Connection, runtime: Runtime, assignment: Assignment, *, after: Assignment | None = None
) -> AssignmentOut:
    """An assignment as it is answered, opened."""
    (opened,) = await inputs.opened(connection, runtime.keys, [assignment])
    return AssignmentOut.of(opened, after=after)
