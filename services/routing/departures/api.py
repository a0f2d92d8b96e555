"""Reps who leave and come back, over HTTP."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.routing.departures import handlers, queries
from services.routing.departures.domain import Became
from services.routing.departures.handlers import FIRST, Departure
from services.routing.params import PathId
from services.routing.parts import Parts
from services.routing.reps.queries import rep_row
from shared.db import Connection, Tx
from shared.ids import RepId
from shared.web import Endpoints, Input, Limit, Page, idempotent, make_cursor, read_cursor, requires

Reason = Annotated[str, Field(min_length=1, max_length=500)]
MOST_DEALS = 200


class DeactivateIn(Input):
    """Why the rep leaves, and whether what they hold is given to others now."""

    reason: Reason
    reroute: bool = False


class RerouteIn(Input):
    """Why what a rep holds is given to others."""

    reason: Reason


class MovedOut(BaseModel):
    """A lead of the rep, and what became of it: `why` says why it went there, waits, or stays."""

    lead_id: str
    assignment_id: str
    state: str
    became: Became
    rep_id: str | None
    next_assignment_id: str | None
    why: str


class OpenDealOut(BaseModel):
    """An open deal of the rep; it stays theirs until somebody gives it to another."""

    deal_id: str
    lead_id: str
    external_id: str | None
    stage: str
    value_minor: int
    currency: str
    opened_at: datetime


class DepartureOut(BaseModel):
    """How a rep stands, and what became of what they hold.

    `leads` are the first 100. `left` counts those that the rep still holds: with `going_on` the worker gives them to
    others, else they are listed by `GET /v1/reps/{rep_id}/held` and given to others by `:reroute`.
    """

    rep_id: str
    active: bool
    left_at: datetime | None
    reason: str | None
    leads: list[MovedOut]
    left: int
    going_on: bool
    deals: list[OpenDealOut]


def router(parts: Parts) -> APIRouter:
    """Everything about reps who leave."""
    routes = Endpoints(prefix="/v1/reps", tags=["reps"])
    runtime = parts.runtime
    writing = [Depends(requires("routing:write"))]

    @routes.post("/{rep_id}:deactivate", response_model=DepartureOut, dependencies=writing)
    async def deactivate_rep(rep_id: PathId, told: DeactivateIn, request: Request) -> Response:
        """The rep gets nothing any more; with `reroute` what they hold goes to others by the rules."""

        async def make(tx: Tx) -> Response:
            rep = RepId(rep_id)
            await handlers.deactivate(tx, parts, rep, told.reason)
            if told.reroute:
                return await _answer(
                    tx.connection, rep, await handlers.reroute(tx, parts, rep, told.reason), going=True
                )
            return await _answer(tx.connection, rep, await handlers.listed(tx.connection, rep))

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.post("/{rep_id}:reroute", response_model=DepartureOut, dependencies=writing)
    async def reroute_leads(rep_id: PathId, told: RerouteIn, request: Request) -> Response:
        """Give what a deactivated rep holds to others."""

        async def make(tx: Tx) -> Response:
            rep = RepId(rep_id)
            return await _answer(tx.connection, rep, await handlers.reroute(tx, parts, rep, told.reason), going=True)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.post("/{rep_id}:activate", response_model=DepartureOut, dependencies=writing)
    async def activate_rep(rep_id: PathId, request: Request) -> Response:
        """The rep works again, with what was not given to others. Leads that wait are tried again at once."""

        async def make(tx: Tx) -> Response:
            await handlers.activate(tx, parts, RepId(rep_id))
            return await _answer(tx.connection, RepId(rep_id), await handlers.listed(tx.connection, RepId(rep_id)))

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("/{rep_id}/held", dependencies=[Depends(requires("routing:read"))])
    async def list_held(rep_id: PathId, limit: Limit = 50, cursor: str | None = None) -> Page[MovedOut]:
        """The leads that a rep holds now, the longest first."""
        place = read_cursor(runtime.secrets, f"held {rep_id}", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else FIRST
        async with runtime.database.reading() as connection:
            held = await handlers.listed(connection, RepId(rep_id), after, limit)
        place = held.next_place and [held.next_place[0].isoformat(), held.next_place[1]]
        return Page(
            items=[MovedOut.model_validate(asdict(one)) for one in held.moved],
            next_cursor=make_cursor(runtime.secrets, f"held {rep_id}", place) if place else None,
        )

    return routes


async def _answer(connection: Connection, rep_id: RepId, departure: Departure, *, going: bool = False) -> Response:
    rep = await rep_row(connection, rep_id)
    assert rep is not None  # it is locked
    out = DepartureOut(
        rep_id=rep_id,
        active=rep["active"],
        left_at=rep["left_at"],
        reason=rep["left_because"],
        leads=[MovedOut.model_validate(asdict(one)) for one in departure.moved],
        left=departure.left,
        going_on=going and departure.next_place is not None,
        deals=[
            OpenDealOut.model_validate(dict(row)) for row in await queries.open_deals(connection, rep_id, MOST_DEALS)
        ],
    )
    return Response(out.model_dump_json(), media_type="application/json")
