"""Reps' own calendars over HTTP."""

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from services.routing.assignments import holds
from services.routing.calendars import handlers, queries
from services.routing.calendars.domain import NotACalendar, Source, State, as_shown, content_of
from services.routing.errors import NoCalendar
from services.routing.fairness.queries import lock_dispatcher
from services.routing.params import PathId, no_such_rep
from services.routing.reps.queries import rep_row
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import RepId
from shared.outbound import AddressRefused
from shared.service import Runtime
from shared.web import Endpoints, Input, idempotent, invalid, requires

ICALENDAR = "text/calendar"


class FeedIn(Input):
    """The address of a calendar: what calendars offer as their secret address in iCal format."""

    url: Annotated[str, Field(min_length=1, max_length=4_000, examples=["https://calendar.example.com/ann.ics"])]


class CalendarOut(BaseModel):
    """What is known of a rep's calendar. `failing` says in `error` why; what was read last, at `read_at`, counts on.

    `events` are those that are not long over. `next_at` is when it is looked for again.
    """

    source: Source
    state: State
    host: str | None
    read_at: datetime | None
    age_seconds: int | None
    checked_at: datetime | None
    error: str | None
    failing_since: datetime | None
    next_at: datetime | None
    events: int | None


BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": FeedIn.model_json_schema()},
            ICALENDAR: {"schema": {"type": "string"}},
        },
    }
}


def router(runtime: Runtime) -> APIRouter:
    """Everything about reps' calendars."""
    routes = Endpoints(prefix="/v1/reps/{rep_id}", tags=["availability"])
    reading = [Depends(requires("routing:read"))]
    writing = [Depends(requires("routing:write"))]

    async def shown(connection: Connection, rep_id: RepId) -> CalendarOut:
        calendar = (await queries.calendars_of(connection, [rep_id])).get(rep_id)
        if calendar is None:
            raise NoCalendar("the rep has no calendar; put one there")
        return CalendarOut.model_validate(as_shown(calendar, await agreed_now(connection, runtime.clock)))

    async def changed(tx: Tx, rep_id: RepId) -> Response:
        await holds.retry_all(tx.connection, await agreed_now(tx.connection, runtime.clock))
        return Response((await shown(tx.connection, rep_id)).model_dump_json(), media_type="application/json")

    @routes.get("/calendar", dependencies=reading)
    async def get_calendar(rep_id: PathId) -> CalendarOut:
        """How the rep's calendar stands: how old what is known of it is, and what is wrong with it."""
        async with runtime.database.reading() as connection:
            await _the_rep(connection, RepId(rep_id))
            return await shown(connection, RepId(rep_id))

    @routes.put("/calendar", response_model=CalendarOut, dependencies=writing, openapi_extra=BODIES)
    async def put_calendar(rep_id: PathId, request: Request) -> Response:
        """Read the rep's calendar from an address (JSON), or take it as it is sent (text/calendar)."""
        body = await request.body()
        rep = RepId(rep_id)
        async with runtime.database.reading() as connection:
            email = (await _the_rep(connection, rep))["email"]
            at = await agreed_now(connection, runtime.clock)
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == ICALENDAR:
            try:
                content = await asyncio.to_thread(content_of, body, email, at.date())
                busy = await handlers.written_out(content.text, at)
            except NotACalendar as exc:
                raise Invalid(str(exc), [FieldError("", str(exc))]) from None

            async def take(tx: Tx) -> Response:
                await _locked(tx, rep)
                await handlers.put_upload(rep, content, busy, tx, runtime)
                return await changed(tx, rep)

            return await idempotent(runtime.database, request, body, take)
        address = _address(body, runtime)

        async def follow(tx: Tx) -> Response:
            await _locked(tx, rep)
            await handlers.put_feed(rep, address, tx, runtime)
            return await changed(tx, rep)

        return await idempotent(runtime.database, request, body, follow)

    @routes.post("/calendar:refresh", dependencies=writing)
    async def refresh_calendar(rep_id: PathId) -> CalendarOut:
        """Look for the calendar now and not in a few minutes."""
        async with runtime.database.transaction() as tx:
            await _the_rep(tx.connection, RepId(rep_id))
            await queries.refresh(tx.connection, RepId(rep_id), await agreed_now(tx.connection, runtime.clock))
            return await shown(tx.connection, RepId(rep_id))

    @routes.delete("/calendar", status_code=204, dependencies=writing)
    async def delete_calendar(rep_id: PathId) -> None:
        """Forget the calendar: nothing in it keeps the rep from work any more."""
        async with runtime.database.transaction() as tx:
            await _locked(tx, RepId(rep_id))
            if not await queries.remove(tx.connection, RepId(rep_id)):
                raise NoCalendar("the rep has no calendar")
            await holds.retry_all(tx.connection, await agreed_now(tx.connection, runtime.clock))

    return routes


async def _the_rep(connection: Connection, rep_id: RepId) -> Any:
    row = await rep_row(connection, rep_id)
    if row is None:
        raise no_such_rep(rep_id)
    return row


async def _locked(tx: Tx, rep_id: RepId) -> None:
    await lock_dispatcher(tx.connection)
    if await rep_row(tx.connection, rep_id, locked=True) is None:
        raise no_such_rep(rep_id)


def _address(body: bytes, runtime: Runtime) -> Any:
    try:
        return handlers.feed_address(FeedIn.model_validate_json(body).url, runtime)
    except ValidationError as exc:
        raise invalid(exc) from exc
    except AddressRefused as exc:
        raise Invalid("look at /url", [FieldError("/url", exc.detail)]) from exc
