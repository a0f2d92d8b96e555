"""Leads that do not move, over HTTP."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from services.routing.parts import Parts
from services.routing.reps.queries import active_reps
from services.routing.stuck import queries
from services.routing.stuck.domain import Reason, fix_of
from shared.db import agreed_now
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

OLDEST = (datetime.min.replace(tzinfo=UTC), "")


class FixOut(BaseModel):
    """The call that moves the lead."""

    method: str
    path: str
    body: dict[str, Any]


class StuckOut(BaseModel):
    """A lead that does not move, why, since when, and the call that moves it.

    `fix` is null only where there is no rep at all to give the lead to. `grace_until` is when the clock of an offer, or
    of the first contact, goes on by itself, where an outage put it off.
    """

    lead_id: str
    reason: Reason
    detail: str
    since: datetime
    rep_id: str | None
    grace_until: datetime | None
    fix: FixOut | None


def router(parts: Parts) -> APIRouter:
    """The list of leads that do not move."""
    routes, runtime = Endpoints(prefix="/v1", tags=["stuck"]), parts.runtime

    @routes.get("/stuck", dependencies=[Depends(requires("routing:read"))])
    async def list_stuck(reason: Reason | None = None, limit: Limit = 50, cursor: str | None = None) -> Page[StuckOut]:
        """Leads that do not move, the longest first: held, without their profile, not answered, not contacted, with a
        rep who is deactivated, or with a fact that cannot be carried out.
        """
        place = read_cursor(runtime.secrets, "stuck", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else OLDEST
        async with runtime.database.reading() as connection:
            at = await agreed_now(connection, runtime.clock)
            found = await queries.stuck(connection, at, after, reason, limit + 1)
            reps, resting = await active_reps(connection), await queries.resting_rep(connection)
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.since.isoformat(), last.reason + last.place]
        items = []
        for one in found[:limit]:
            fix = fix_of(one, reps, resting, at)
            items.append(
                StuckOut(
                    lead_id=one.lead_id,
                    reason=one.reason,
                    detail=one.detail,
                    since=one.since,
                    rep_id=one.rep_id,
                    grace_until=one.grace_until,
                    fix=None if fix is None else FixOut(method=fix.method, path=fix.path, body=fix.body),
                )
            )
        return Page(items=items, next_cursor=make_cursor(runtime.secrets, "stuck", place) if place else None)

    return routes
