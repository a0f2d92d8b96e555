"""Reps over HTTP."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.routing.assignments import holds
from services.routing.calendars.api import CalendarOut
from services.routing.calendars.domain import as_shown
from services.routing.calendars.queries import calendars_of
from services.routing.fairness.queries import lock_dispatcher
from services.routing.params import PathId, QueryEmail, address, no_such_rep
from services.routing.reps import queries
from services.routing.reps.inputs import RepChange, RepInput
from shared.db import Connection, Tx, agreed_now
from shared.ids import RepId, new_id
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, idempotent, make_cursor, read_cursor, requires

FIRST = (datetime.min.replace(tzinfo=UTC), "")


class RepOut(BaseModel):
    """A rep as stored. `open_leads` counts the leads held now, offered ones included.

    `calendar` says how the rep's own calendar stands, if they have one. `left_at` is when they were deactivated.
    """

    rep_id: str
    name: str
    email: str
    territories: list[str]
    skills: list[str]
    teams: list[str]
    seniority: int | None
    weight: int
    capacity: int | None
    daily_capacity: int | None
    weekly_capacity: int | None
    monthly_capacity: int | None
    manager_id: str | None
    time_zone: str
    working_hours: dict[str, Any] | None
    holidays: dict[str, Any] | None
    time_off: list[dict[str, Any]]
    calendar: CalendarOut | None
    active: bool
    left_at: datetime | None
    left_because: str | None
    open_leads: int
    last_assigned_at: datetime | None
    created_at: datetime
    updated_at: datetime


def router(runtime: Runtime) -> APIRouter:
    """Everything about reps."""
    routes = Endpoints(prefix="/v1/reps", tags=["reps"])
    reading = [Depends(requires("routing:read"))]
    writing = [Depends(requires("routing:write"))]

    @routes.post("", status_code=201, response_model=RepOut, dependencies=writing)
    async def create_rep(told: RepInput, request: Request) -> Response:
        """A new rep. Leads that wait for one are tried again at once."""

        async def make(tx: Tx) -> Response:
            await lock_dispatcher(tx.connection)
            rep_id, at = RepId(new_id()), await agreed_now(tx.connection, runtime.clock)
            await queries.insert_rep(tx.connection, rep_id, told.columns(), at)
            await holds.retry_all(tx.connection, at)
            return _answer(await _rep(tx.connection, rep_id, runtime), 201)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("", dependencies=reading)
    async def list_reps(
        limit: Limit = 50,
        cursor: str | None = None,
        active: bool | None = None,
        email: QueryEmail = None,
    ) -> Page[RepOut]:
        """Reps, the first made first."""
        place = read_cursor(runtime.secrets, "reps", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else FIRST
        async with runtime.database.reading() as connection:
            rows = await queries.rep_rows(connection, after, active, email and address(email), limit + 1)
            items = await _shown(connection, rows[:limit], runtime)
        more = len(rows) > limit
        last = rows[limit - 1] if more else None
        place = last and [last["created_at"].isoformat(), last["rep_id"]]
        return Page(
            items=items,
            next_cursor=make_cursor(runtime.secrets, "reps", place) if place else None,
        )

    @routes.get("/{rep_id}", dependencies=reading)
    async def get_rep(rep_id: PathId) -> RepOut:
        """One rep."""
        async with runtime.database.reading() as connection:
            return await _rep(connection, RepId(rep_id), runtime)

    @routes.patch("/{rep_id}", response_model=RepOut, dependencies=writing)
    async def change_rep(rep_id: PathId, told: RepChange, request: Request) -> Response:
        """Change what is named; null takes away what may be absent. Leads that wait are tried again at once."""

        async def make(tx: Tx) -> Response:
            await lock_dispatcher(tx.connection)
            at = await agreed_now(tx.connection, runtime.clock)
            row = await queries.rep_row(tx.connection, RepId(rep_id), locked=True)
            if row is None:
                raise no_such_rep(rep_id)
            await queries.change_rep(tx.connection, RepId(rep_id), {**row, **told.columns()}, at)
            await holds.retry_all(tx.connection, at)
            return _answer(await _rep(tx.connection, RepId(rep_id), runtime), 200)

        return await idempotent(runtime.database, request, await request.body(), make)

    return routes


async def _rep(connection: Connection, rep_id: RepId, runtime: Runtime) -> RepOut:
    row = await queries.rep_row(connection, rep_id)
    if row is None:
        raise no_such_rep(rep_id)
    return (await _shown(connection, [row], runtime))[0]


async def _shown(connection: Connection, rows: Sequence[asyncpg.Record], runtime: Runtime) -> list[RepOut]:
    known = await calendars_of(connection, [row["rep_id"] for row in rows])
    at = await agreed_now(connection, runtime.clock)
    return [
        RepOut.model_validate({**row, "calendar": as_shown(calendar, at) if calendar is not None else None})
        for row in rows
        for calendar in [known.get(row["rep_id"])]
    ]


def _answer(rep: RepOut, status: int) -> Response:
    return Response(rep.model_dump_json(), status, media_type="application/json")
