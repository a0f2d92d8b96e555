"""When reps can be given leads, and the company's holidays, over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.routing.assignments import holds
from services.routing.availability import queries
from services.routing.availability.domain import stretches
from services.routing.availability.inputs import CompanyDaysIn, asked_stretch
from services.routing.fairness.queries import lock_dispatcher
from services.routing.params import PathId, no_such_rep
from services.routing.reps.domain import Rep
from services.routing.reps.queries import reps_of
from shared.db import Tx, agreed_now
from shared.ids import RepId
from shared.service import Runtime
from shared.web import Endpoints, idempotent, requires


class CompanyDayOut(BaseModel):
    """A day that is free, or worked although it is a public holiday."""

    date: str
    name: str
    country: str | None = None
    subdivision: str | None = None
    worked: bool = False


class CompanyDaysOut(BaseModel):
    """The company's days in their order."""

    days: list[CompanyDayOut]
    updated_at: datetime | None


class StretchOut(BaseModel):
    """Time in which the rep works, or why not: `name` is the holiday, or the reason of the leave."""

    start: datetime
    end: datetime
    available: bool
    why_not: str | None
    name: str | None


class CapOut(BaseModel):
    """How many leads may be given in a period of the rep's working days, and were."""

    of: str
    most: int
    given: int
    start: datetime
    end: datetime


class AvailabilityOut(BaseModel):
    """A rep's time. `why_no_lead` says why no rule can give them a lead now, `works_next_at` when they work next."""

    rep_id: str
    time_zone: str
    at: datetime
    why_no_lead: str | None
    works_now: bool
    works_next_at: datetime | None
    open_leads: int
    capacity: int | None
    caps: list[CapOut]
    items: list[StretchOut]

    @classmethod
    def of(cls, rep: Rep, at: datetime, start: datetime, end: datetime) -> "AvailabilityOut":
        """What is known of a rep at a moment."""
        return cls(
            rep_id=rep.rep_id,
            time_zone=rep.calendar.zone.key,
            at=at,
            why_no_lead=rep.cannot_take(at),
            works_now=rep.calendar.works_at(at),
            works_next_at=rep.calendar.next_working(at),
            open_leads=rep.open_leads,
            capacity=rep.capacity,
            caps=[
                CapOut(of=cap.of, most=cap.most, given=cap.given, start=cap.period.start, end=cap.period.end)
                for cap in rep.caps
            ],
            items=[
                StretchOut(
                    start=one.start, end=one.end, available=one.why_not is None, why_not=one.why_not, name=one.name
                )
                for one in stretches(rep.calendar, start, end)
            ],
        )


def router(runtime: Runtime) -> APIRouter:
    """Everything about availability."""
    routes = Endpoints(prefix="/v1", tags=["availability"])
    reading = [Depends(requires("routing:read"))]

    @routes.get("/reps/{rep_id}/availability", dependencies=reading)
    async def get_availability(
        rep_id: PathId,
        since: Annotated[str | None, Query(alias="from", description="A time with an offset; now")] = None,
        until: Annotated[str | None, Query(alias="to", description="Excluded; a week later")] = None,
    ) -> AvailabilityOut:
        """When a rep works, and why not in between: hours, holidays, time off and their own calendar."""
        async with runtime.database.reading() as connection:
            at = await agreed_now(connection, runtime.clock)
            start, end = asked_stretch(since, until, at)
            rep = (await reps_of(connection, [RepId(rep_id)], at)).get(RepId(rep_id))
        if rep is None:
            raise no_such_rep(rep_id)
        return AvailabilityOut.of(rep, at, start, end)

    @routes.get("/holidays", dependencies=reading)
    async def get_holidays() -> CompanyDaysOut:
        """The company's own holidays; those by law follow from where each rep is."""
        async with runtime.database.reading() as connection:
            row = await queries.days(connection)
        return _days_out(row["days"] if row else [], row["updated_at"] if row else None)

    @routes.put("/holidays", response_model=CompanyDaysOut, dependencies=[Depends(requires("routing:write"))])
    async def put_holidays(told: CompanyDaysIn, request: Request) -> Response:
        """Say anew which days are free in the company. Leads that wait are tried again at once."""

        async def make(tx: Tx) -> Response:
            await lock_dispatcher(tx.connection)
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.put_days(tx.connection, told.as_json(), at)
            await holds.retry_all(tx.connection, at)
            return Response(_days_out(told.as_json(), at).model_dump_json(), media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    return routes


def _days_out(days: list[dict[str, Any]], updated_at: datetime | None) -> CompanyDaysOut:
    return CompanyDaysOut(days=[CompanyDayOut.model_validate(one) for one in days], updated_at=updated_at)
