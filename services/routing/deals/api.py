"""Deals over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.routing.deals import handlers, queries
from services.routing.deals.domain import Deal
from services.routing.deals.inputs import DealChange, DealInput
from services.routing.deals.sealing import opened
from services.routing.errors import NoSuchDeal
from services.routing.params import PathId, QueryEmail, QueryId, lead_asked_for
from services.routing.parts import Parts
from services.routing.people.handlers import person
from shared.db import Tx
from shared.ids import DealId
from shared.web import Limit, Page, idempotent, make_cursor, read_cursor, requires

NEWEST = (datetime.max.replace(tzinfo=UTC), "\U0010ffff")


class DealOut(BaseModel):
    """A deal as it stands. `conversion_id` names the conversion that a won deal made."""

    deal_id: str
    lead_id: str
    external_id: str | None
    name: str
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int
    currency: str
    recurring_minor: int | None
    rep_id: str | None
    revision: int
    pipeline_version: int
    opened_at: datetime
    changed_at: datetime
    closed_at: datetime | None
    reason: str | None
    conversion_id: str | None

    @classmethod
    def of(cls, deal: Deal) -> "DealOut":
        """From the stored one."""
        return cls.model_validate(deal, from_attributes=True)


class DealStep(BaseModel):
    """How a deal stood after a change."""

    revision: int
    at: datetime
    status: Literal["open", "won", "lost"]
    stage: str
    probability: int
    value_minor: int


class DealWithHistory(DealOut):
    """A deal and how it came to stand so."""

    history: list[DealStep]


def router(parts: Parts) -> APIRouter:
    """Everything about deals."""
    runtime = parts.runtime
    routes = APIRouter(prefix="/v1/deals", tags=["deals"])
    reading = [Depends(requires("routing:read"))]
    writing = [Depends(requires("routing:write"))]

    @routes.post("", status_code=201, response_model=DealOut, dependencies=writing)
    async def open_deal(told: DealInput, request: Request) -> Response:
        """A new deal: 201, or 200 when the same deal was told before under its external id."""
        await handlers.await_lead(parts, told.lead)

        async def make(tx: Tx) -> Response:
            deal, is_new = await handlers.open_new_deal(tx, parts, told)
            return _answer(deal, 201 if is_new else 200)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.patch("/{deal_id}", response_model=DealOut, dependencies=writing)
    async def change_deal(deal_id: PathId, told: DealChange, request: Request) -> Response:
        """Change a deal, win it or lose it. A closed deal is not reopened (409); its value can be corrected."""

        async def make(tx: Tx) -> Response:
            return _answer(await handlers.change(tx, parts, DealId(deal_id), told), 200)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("", dependencies=reading)
    async def list_deals(  # noqa: PLR0913  # the filters of one list
        lead_id: QueryId = None,
        email: QueryEmail = None,
        rep_id: QueryId = None,
        stage: QueryId = None,
        external_id: Annotated[str | None, Query(max_length=200)] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[DealOut]:
        """Deals, the newest first. Won and lost ones have the stages `won` and `lost`."""
        place = read_cursor(runtime.secrets, "deals", cursor)
        before = (datetime.fromisoformat(place[0]), place[1]) if place else NEWEST
        async with runtime.database.reading() as connection:
            asked = await lead_asked_for(connection, runtime, lead_id, email)
            ids = None if asked is None else (await person(connection, asked)).ids
            found = await queries.deals_of(connection, before, ids, rep_id, stage, external_id, limit + 1)
            shown = await opened(connection, runtime.keys, found[:limit])
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.opened_at.isoformat(), last.deal_id]
        return Page(
            items=[DealOut.of(deal) for deal in shown],
            next_cursor=make_cursor(runtime.secrets, "deals", place) if place else None,
        )

    @routes.get("/{deal_id}", dependencies=reading)
    async def get_deal(deal_id: PathId) -> DealWithHistory:
        """One deal, with its history."""
        async with runtime.database.reading() as connection:
            deal = await handlers.deal_by_id(connection, runtime.keys, DealId(deal_id))
            if deal is None:
                raise NoSuchDeal(f"there is no deal {deal_id[:100]}")
            steps = await queries.history(connection, deal.deal_id)
        history = [DealStep.model_validate(dict(step)) for step in steps]
        return DealWithHistory(**DealOut.of(deal).model_dump(), history=history)

    return routes


def _answer(deal: Deal, status: int) -> Response:
    return Response(DealOut.of(deal).model_dump_json(), status, media_type="application/json")
