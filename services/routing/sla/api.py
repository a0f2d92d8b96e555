"""First contacts, and how fast reps are, over HTTP."""

from datetime import UTC, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import asyncpg
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.routing.assignments.api import AssignmentOut, shown_assignment
from services.routing.errors import NoSuchRep
from services.routing.params import PathId
from services.routing.parts import Parts
from services.routing.reps.inputs import TimeZone, moment_at
from services.routing.reps.queries import rep_row, rep_rows
from services.routing.sla import queries
from services.routing.sla.handlers import touched
from services.routing.sla.queries import Interval
from shared.contacts import Contact
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import AssignmentId, LeadId, RepId
from shared.web import Endpoints, Input, Limit, OccurredAt, Page, idempotent, make_cursor, read_cursor, requires

FIRST = (datetime.min.replace(tzinfo=UTC), "")
USUAL = timedelta(days=30)
Day = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="A date in `tz`")]


class TouchedIn(Input):
    """How the rep was in touch, and when (default: now)."""

    type: Contact = "call_connected"
    occurred_at: OccurredAt | None = None
    assignment_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")] | None = None


class ClockOut(BaseModel):
    """How fast: seconds from the assignment, all of them and those that were working time of the rep.

    `kept_share` is of those that had a limit and are settled: `kept` in time, `breached` not.
    """

    answered: int
    median_s: float | None
    p90_s: float | None
    median_worked_s: float | None
    p90_worked_s: float | None
    kept: int
    breached: int
    kept_share: float | None


class PeriodOut(BaseModel):
    """Acceptance and first contact of what was assigned in a period; `period` is its beginning, null for all."""

    period: datetime | None
    accept: ClockOut
    touch: ClockOut


class SpeedOut(BaseModel):
    """How fast a rep is, from one moment to another, which is excluded."""

    rep_id: str
    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")
    periods: list[PeriodOut]


def router(parts: Parts) -> APIRouter:
    """First contacts and speed to lead."""
    routes = Endpoints(prefix="/v1", tags=["sla"])
    _add_touched(routes, parts)
    _add_speed(routes, parts)
    return routes


def _add_touched(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime

    @routes.post(
        "/leads/{lead_id}/assignment:touched",
        response_model=AssignmentOut,
        dependencies=[Depends(requires("routing:write"))],
    )
    async def mark_touched(lead_id: PathId, request: Request, told: TouchedIn | None = None) -> Response:
        """The rep was in touch: an offer is accepted by it, the first contact's clock ends, the touch is told.

        409 when the lead is somebody else's by now.
        """
        asked = told or TouchedIn()
        assignment_id = AssignmentId(asked.assignment_id) if asked.assignment_id else None

        async def make(tx: Tx) -> Response:
            changed = await touched(tx, parts, LeadId(lead_id), assignment_id, asked.type, asked.occurred_at)
            shown = await shown_assignment(tx.connection, runtime, changed)
            return Response(shown.model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)


def _add_speed(routes: APIRouter, parts: Parts) -> None:
    runtime, reading = parts.runtime, [Depends(requires("routing:read"))]

    async def span(connection: Connection, since: str | None, until: str | None, tz: str) -> tuple[datetime, datetime]:
        zone = ZoneInfo(tz)
        end = _moment("to", until, zone)
        if end is None:
            today = (await agreed_now(connection, runtime.clock)).astimezone(zone).date()
            end = datetime.combine(today + timedelta(days=1), time(), zone).astimezone(UTC)
        begin = _moment("from", since, zone) or end - USUAL
        if begin >= end:
            raise Invalid("look at query:from", [FieldError("query:from", "is not before `to`, which is excluded")])
        return begin, end

    @routes.get("/reps/{rep_id}/speed", dependencies=reading)
    async def get_speed(
        rep_id: PathId,
        since: Annotated[Day, Query(alias="from")] = None,
        until: Annotated[Day, Query(alias="to")] = None,
        interval: Interval | None = None,
        tz: TimeZone = "UTC",
    ) -> SpeedOut:
        """How fast a rep accepts and is first in touch, of what was assigned in the last 30 days or another time."""
        async with runtime.database.reading() as connection:
            if await rep_row(connection, RepId(rep_id)) is None:
                raise NoSuchRep(f"there is no rep {rep_id[:100]}")
            begin, end = await span(connection, since, until, tz)
            rows = await queries.speed(connection, begin, end, [RepId(rep_id)], interval, tz)
        return _speed(rep_id, begin, end, rows)

    @routes.get("/speed", dependencies=reading)
    async def list_speed(  # noqa: PLR0913  # the filters of one report
        since: Annotated[Day, Query(alias="from")] = None,
        until: Annotated[Day, Query(alias="to")] = None,
        interval: Interval | None = None,
        tz: TimeZone = "UTC",
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[SpeedOut]:
        """The same for every rep, the first made first."""
        place = read_cursor(runtime.secrets, "speed", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else FIRST
        async with runtime.database.reading() as connection:
            begin, end = await span(connection, since, until, tz)
            reps = await rep_rows(connection, after, None, None, limit + 1)
            shown = [RepId(rep["rep_id"]) for rep in reps[:limit]]
            rows = await queries.speed(connection, begin, end, shown, interval, tz)
        last = reps[limit - 1] if len(reps) > limit else None
        place = last and [last["created_at"].isoformat(), last["rep_id"]]
        return Page(
            items=[_speed(rep_id, begin, end, [row for row in rows if row["rep_id"] == rep_id]) for rep_id in shown],
            next_cursor=make_cursor(runtime.secrets, "speed", place) if place else None,
        )


def _moment(name: str, text: str | None, zone: ZoneInfo) -> datetime | None:
    if text is None:
        return None
    try:
        moment = moment_at(text, zone)
        _ = moment - USUAL  # what is shown where no `from` is told begins then, and has to be a time too
    except (ValueError, OverflowError):
        raise Invalid(f"look at query:{name}", [FieldError(f"query:{name}", "is not a date")]) from None
    return moment


def _speed(rep_id: str, since: datetime, until: datetime, rows: list[asyncpg.Record]) -> SpeedOut:
    periods = [
        PeriodOut(period=row["period"], accept=_clock(row, "accept"), touch=_clock(row, "touch")) for row in rows
    ]
    return SpeedOut(rep_id=rep_id, since=since, until=until, periods=periods)


def _clock(row: asyncpg.Record, clock: str) -> ClockOut:
    values = {name.removeprefix(f"{clock}_"): value for name, value in row.items() if name.startswith(f"{clock}_")}
    settled = values["kept"] + values["breached"]
    return ClockOut(**values, kept_share=values["kept"] / settled if settled else None)
