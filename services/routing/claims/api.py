"""Claim queues over HTTP."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.routing.assignments import holds
from services.routing.assignments.api import AssignmentOut, shown_assignment
from services.routing.claims.handlers import claim
from services.routing.errors import NoSuchQueue
from services.routing.params import PathId, QueryId
from services.routing.parts import Parts
from shared.db import Tx
from shared.ids import LeadId, RepId
from shared.web import Endpoints, Input, Limit, Page, idempotent, make_cursor, read_cursor, requires

OLDEST = (datetime.min.replace(tzinfo=UTC), "")


class ClaimIn(Input):
    """Who claims the lead."""

    rep_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]


class ClaimableOut(BaseModel):
    """A lead that is open to be claimed, by whom, and until when; after that the queue's strategy decides."""

    lead_id: str
    queue: str
    claimants: list[str]
    since: datetime
    until: datetime | None


def router(parts: Parts) -> APIRouter:
    """What is open, and claiming it."""
    routes, runtime = Endpoints(prefix="/v1", tags=["claims"]), parts.runtime

    @routes.get("/queues/{queue_id}/claimable", dependencies=[Depends(requires("routing:read"))])
    async def list_claimable(
        queue_id: PathId, rep_id: QueryId = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[ClaimableOut]:
        """Leads that are open to be claimed, the longest first; with `rep_id` only those that this rep may claim."""
        place = read_cursor(runtime.secrets, "claimable", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else OLDEST
        async with runtime.database.reading() as connection:
            rules = await parts.rules.current(connection)
            if queue_id not in rules.queue_ids:
                raise NoSuchQueue(f"the active rules have no queue {queue_id[:100]}")
            found = await holds.claimable(connection, queue_id, rep_id, after, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.since.isoformat(), last.person_id]
        return Page(
            items=[
                ClaimableOut(
                    lead_id=hold.person_id,
                    queue=queue_id,
                    claimants=list(hold.claimants or ()),
                    since=hold.since,
                    until=hold.retry_at,
                )
                for hold in found[:limit]
            ],
            next_cursor=make_cursor(runtime.secrets, "claimable", place) if place else None,
        )

    @routes.post(
        "/leads/{lead_id}/assignment:claim",
        response_model=AssignmentOut,
        dependencies=[Depends(requires("routing:write"))],
    )
    async def claim_lead(lead_id: PathId, told: ClaimIn, request: Request) -> Response:
        """Claim a lead that is open to the members of a queue; 409 when somebody was faster."""

        async def make(tx: Tx) -> Response:
            claimed = await claim(tx, parts, LeadId(lead_id), RepId(told.rep_id))
            shown = await shown_assignment(tx.connection, runtime, claimed)
            return Response(shown.model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    return routes
