"""Deals over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.routing.deals import handlers, queries, rotting
from services.routing.deals.domain import Deal
from services.routing.deals.inputs import DealChange, DealInput, Reopening
from services.routing.deals.outputs import DealHistory, DealOut, DealStep, DealWithHistory, history_of
from services.routing.deals.queries import Filters
from services.routing.deals.renewals import follow_contract
from services.routing.deals.sealing import opened
from services.routing.deals.story import Step, steps_of
from services.routing.errors import NoSuchDeal
from services.routing.handoffs.handlers import follow, prepare
from services.routing.params import PathId, QueryEmail, QueryId, lead_asked_for
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.reps.inputs import TimeZone
from shared.db import Tx, agreed_now
from shared.ids import DealId
from shared.rules import etag, expected_version
from shared.web import CalendarDay, Endpoints, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

NEWEST = (datetime.max.replace(tzinfo=UTC), "\U0010ffff")
Writer = Annotated[Principal, Depends(requires("routing:write"))]


def router(parts: Parts) -> APIRouter:
    """Everything about deals."""
    routes = Endpoints(prefix="/v1/deals", tags=["deals"])
    _add_writing(routes, parts)
    _add_reading(routes, parts)
    return routes


def _add_writing(routes: APIRouter, parts: Parts) -> None:
    database = parts.runtime.database

    @routes.post(
        "", status_code=201, response_model=DealOut, responses={200: {"model": DealOut, "description": "It was known"}}
    )
    async def open_deal(told: DealInput, request: Request, principal: Writer) -> Response:
        """A new deal: 201, or 200 when the same deal was told before under its external id."""
        await handlers.await_lead(parts, told.lead)

        async def make(tx: Tx) -> Response:
            deal, is_new = await handlers.open_new_deal(tx, parts, told, principal.subject)
            return _answer(deal, 201 if is_new else 200)

        return await idempotent(database, request, await request.body(), make)

    @routes.patch("/{deal_id}", response_model=DealOut)
    async def change_deal(deal_id: PathId, told: DealChange, request: Request, principal: Writer) -> Response:
        """Change a deal, win it or lose it. A closed deal moves on only once it is reopened (409 until then).

        `If-Match` with the ETag of the deal, its revision, guards the change against others' changes.
        """
        expected = expected_version(request.headers.get("if-match"))

        async def make(tx: Tx) -> Response:
            if told.won:
                await prepare(tx, parts, DealId(deal_id))
            before, after = await handlers.change(tx, parts, DealId(deal_id), told, principal.subject, expected)
            await follow(tx, parts, before, after)
            await follow_contract(tx, parts, before, after)
            return _answer(after, 200)

        return await idempotent(database, request, await request.body(), make)

    @routes.post("/{deal_id}:reopen", response_model=DealOut)
    async def reopen_deal(deal_id: PathId, told: Reopening, request: Request, principal: Writer) -> Response:
        """Open a closed deal again: what it earned is taken back, and winning it again makes the same conversion."""
        expected = expected_version(request.headers.get("if-match"))

        async def make(tx: Tx) -> Response:
            before, after = await handlers.reopen(tx, parts, DealId(deal_id), told, principal.subject, expected)
            await follow(tx, parts, before, after)
            await follow_contract(tx, parts, before, after)
            return _answer(after, 200)

        return await idempotent(database, request, await request.body(), make)


def _add_reading(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    reading = [Depends(requires("routing:read"))]

    @routes.get("", dependencies=reading)
    async def list_deals(  # noqa: PLR0913  # the filters of one list
        lead_id: QueryId = None,
        email: QueryEmail = None,
        rep_id: QueryId = None,
        stage: QueryId = None,
        external_id: Annotated[str | None, Query(max_length=200)] = None,
        status: Annotated[Literal["open", "won", "lost"] | None, Query()] = None,
        pipeline: QueryId = None,
        rotting_only: Annotated[
            bool, Query(alias="rotting", description="Only deals without change for too long")
        ] = False,
        closing_from: Annotated[
            CalendarDay | None, Query(description="Closed, or expected to close, from this day on")
        ] = None,
        closing_to: Annotated[CalendarDay | None, Query(description="The same, before this day")] = None,
        tz: Annotated[TimeZone, Query(description="Whose days these are")] = "UTC",
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[DealOut]:
        """Deals, the newest first. Won and lost ones have the stages `won` and `lost`."""
        place = read_cursor(runtime.secrets, "deals", cursor)
        before = (datetime.fromisoformat(place[0]), place[1]) if place else NEWEST
        async with runtime.database.reading() as connection:
            asked = await lead_asked_for(connection, runtime, lead_id, email)
            filters = Filters(
                lead_ids=None if asked is None else (await person(connection, asked)).ids,
                rep_id=rep_id,
                stage=stage,
                external_id=external_id,
                status=status,
                pipeline_id=pipeline,
                closing_from=closing_from,
                closing_to=closing_to,
                zone=tz,
                silent=await rotting.bounds(connection, parts) if rotting_only else None,
            )
            found = await queries.deals_of(connection, before, filters, limit + 1)
            shown = await opened(connection, runtime.keys, found[:limit])
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.opened_at.isoformat(), last.deal_id]
        return Page(
            items=[DealOut.of(deal) for deal in shown],
            next_cursor=make_cursor(runtime.secrets, "deals", place) if place else None,
        )

    @routes.get("/{deal_id}", dependencies=reading)
    async def get_deal(deal_id: PathId, response: Response) -> DealWithHistory:
        """One deal, with its history. Its ETag, sent back as If-Match, guards a change."""
        deal, steps = await told(deal_id)
        response.headers["ETag"] = etag(deal.revision)
        return DealWithHistory(**DealOut.of(deal).model_dump(), history=[DealStep.of(step) for step in steps])

    @routes.get("/{deal_id}/history", dependencies=reading)
    async def get_history(deal_id: PathId) -> DealHistory:
        """How a deal came to stand as it does, in order of time, and how long it was in each stage."""
        deal, steps = await told(deal_id)
        async with runtime.database.reading() as connection:
            return history_of(deal, steps, await agreed_now(connection, runtime.clock))

    async def told(deal_id: str) -> tuple[Deal, list[Step]]:
        async with runtime.database.reading() as connection:
            deal = await handlers.deal_by_id(connection, runtime.keys, DealId(deal_id))
            if deal is None:
                raise NoSuchDeal(f"there is no deal {deal_id[:100]}")
            return deal, steps_of(deal, await queries.entries(connection, deal))


def _answer(deal: Deal, status: int) -> Response:
    shown = DealOut.of(deal).model_dump_json()
    return Response(shown, status, {"ETag": etag(deal.revision)}, media_type="application/json")
