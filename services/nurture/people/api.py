"""The suppression list: whom nothing is sent to, whatever a sequence or a consent says."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, model_validator

from services.nurture.errors import NoSuchSuppression
from services.nurture.parts import Parts
from services.nurture.people import queries
from shared.db import Tx
from shared.emails import Email
from shared.ids import LeadId
from shared.web import Input, Limit, Page, idempotent, make_cursor, read_cursor, requires


class SuppressionIn(Input):
    """A lead, an address or both. `manual` and the like bar transactional messages too."""

    email: Email | None = None
    lead_id: str | None = None
    reason: Literal["manual", "bounced", "complained"] = "manual"

    @model_validator(mode="after")
    def _names_somebody(self) -> "SuppressionIn":
        if self.email is None and self.lead_id is None:
            raise ValueError("send email, lead_id or both")
        return self


class SuppressionOut(BaseModel):
    """An entry of the list. The address itself is not kept, only a keyed hash to compare with."""

    suppression_id: str
    lead_id: str | None
    channel: str
    reason: str
    since: datetime
    origin: str


def suppressions_router(parts: Parts) -> APIRouter:
    """The suppression list."""
    router = APIRouter(tags=["suppressions"])
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))
    may_write = Depends(requires("nurture:write"))

    @router.get("/v1/suppressions", dependencies=[may_read])
    async def list_suppressions(
        email: Annotated[Email | None, Query(description="Only entries of this address")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[SuppressionOut]:
        """The list, or what it has of one address."""
        after = str(read_cursor(runtime.secrets, "suppressions", cursor) or "")
        address = parts.addresses.hash_of(email) if email else None
        async with runtime.database.reading() as connection:
            rows = await queries.listed_suppressions(connection, address, after, limit + 1)
        more = (
            make_cursor(runtime.secrets, "suppressions", rows[limit - 1]["suppression_id"])
            if len(rows) > limit
            else None
        )
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.post("/v1/suppressions", status_code=201, dependencies=[may_write])
    async def suppress(request: Request, body: SuppressionIn) -> Response:
        """Put a lead or an address on the list."""
        address = parts.addresses.hash_of(body.email) if body.email else None
        lead_id = LeadId(body.lead_id) if body.lead_id else None

        async def make(tx: Tx) -> Response:
            row = await queries.suppress(tx.connection, lead_id, address, body.reason, runtime.clock.now(), "api")
            return Response(_out(row).model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @router.delete("/v1/suppressions/{suppression_id}", status_code=204, dependencies=[may_write])
    async def lift(suppression_id: str) -> None:
        """Take an entry off the list."""
        async with runtime.database.transaction() as tx:
            if not await queries.lift_suppression(tx.connection, suppression_id):
                raise NoSuchSuppression(f"there is no suppression {suppression_id}")

    return router


def _out(row: Any) -> SuppressionOut:
    return SuppressionOut(
        suppression_id=row["suppression_id"],
        lead_id=row["lead_id"],
        channel=row["channel"],
        reason=row["reason"],
        since=row["since"],
        origin=row["origin"],
    )
