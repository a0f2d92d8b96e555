"""Receipts of erasures over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from services.capture.erasures import queries
from services.capture.erasures.domain import is_genuine
from services.capture.erasures.inputs import Receipt, SignedReceipt, Verified
from services.capture.erasures.views import KEY, receipt, receipts
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires


def erasures_router(runtime: Runtime) -> APIRouter:
    """The endpoints about receipts. The erasure itself is asked for at the lead."""
    router = Endpoints(tags=["erasures"])
    may_read = [Depends(requires("capture:read"))]

    @router.get("/v1/erasures", dependencies=may_read)
    async def list_receipts(
        reference: Annotated[str | None, Query(max_length=500)] = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[Receipt]:
        """Receipts, the newest erasure first."""
        place = read_cursor(runtime.secrets, "erasures", cursor)
        before = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
        async with runtime.database.reading() as connection:
            rows = await queries.newest(connection, before, limit + 1, reference)
            items = await receipts(connection, runtime.secrets, rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        more = None
        if last is not None:
            more = make_cursor(runtime.secrets, "erasures", [last.erased_at.isoformat(), last.receipt_id])
        return Page(items=items, next_cursor=more)

    @router.get("/v1/erasures/{receipt_id}", dependencies=may_read)
    async def get_receipt(receipt_id: str) -> Receipt:
        """What every service erased of a person and what it kept; `done` when all have reported."""
        async with runtime.database.reading() as connection:
            return await receipt(connection, runtime.secrets, receipt_id)

    @router.post("/v1/erasures:verify", dependencies=may_read)
    async def verify(shown: SignedReceipt) -> Verified:
        """Whether a receipt that somebody shows was given here, exactly so."""
        return Verified(genuine=is_genuine(runtime.secrets.derive(KEY), shown.content(), shown.signature))

    return router
