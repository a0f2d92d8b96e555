"""Leads that wait, let go, over HTTP."""

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.routing.assignments import holds
from services.routing.assignments.api import AssignmentOut, HoldOut, shown_assignment
from services.routing.params import PathId
from services.routing.parts import Parts
from services.routing.releases import handlers
from services.routing.releases.inputs import AssignIn, ReleaseIn, ReleaseManyIn
from shared.db import Tx, agreed_now
from shared.ids import LeadId, RepId
from shared.web import Endpoints, idempotent, requires


class ReleaseOut(BaseModel):
    """The assignment that was made, or why the lead goes on waiting. Neither: leads like it are not routed any more."""

    assignment: AssignmentOut | None
    hold: HoldOut | None


class ReasonOut(BaseModel):
    """For what leads wait, and how many."""

    why: holds.Why
    reason: str
    leads: int


class ReleasedOut(BaseModel):
    """How many leads are tried again within seconds, and for what leads were waiting before that."""

    released: int
    waiting: list[ReasonOut]


def router(parts: Parts) -> APIRouter:
    """Everything about letting go."""
    routes = Endpoints(prefix="/v1", tags=["assignments"])
    runtime = parts.runtime
    writing = [Depends(requires("routing:write"))]

    @routes.post("/holds/{lead_id}:release", response_model=ReleaseOut, dependencies=writing)
    async def release_hold(lead_id: PathId, request: Request, told: ReleaseIn | None = None) -> Response:
        """Try a lead that waits again now."""
        ask_again = told is not None and told.ask_again

        async def make(tx: Tx) -> Response:
            given, hold = await handlers.release(tx, parts, LeadId(lead_id), ask_again=ask_again)
            shown = None if given is None else await shown_assignment(tx.connection, runtime, given)
            out = ReleaseOut(assignment=shown, hold=None if hold is None else HoldOut.of(hold))
            return Response(out.model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.post("/holds/{lead_id}:assign", response_model=AssignmentOut, dependencies=writing)
    async def assign_hold(lead_id: PathId, told: AssignIn, request: Request) -> Response:
        """Give a lead that waits to this rep."""

        async def make(tx: Tx) -> Response:
            given = await handlers.assign(tx, parts, LeadId(lead_id), RepId(told.rep_id), told.reason)
            shown = await shown_assignment(tx.connection, runtime, given)
            return Response(shown.model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.post("/holds:release", response_model=ReleasedOut, dependencies=writing)
    async def release_holds(request: Request, told: ReleaseManyIn | None = None) -> Response:
        """Try all leads again that wait for one reason; without any, all that wait."""
        asked = told or ReleaseManyIn()

        async def make(tx: Tx) -> Response:
            waiting = [ReasonOut.model_validate(dict(row)) for row in await holds.reasons(tx.connection)]
            released = await holds.release(
                tx.connection, await agreed_now(tx.connection, runtime.clock), asked.why, asked.reason
            )
            out = ReleasedOut(released=released, waiting=waiting)
            return Response(out.model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    return routes
