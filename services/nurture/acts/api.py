"""What steps did for a lead beside sending messages, and what came of it."""

from datetime import UTC, datetime
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from services.nurture.acts import queries
from services.nurture.acts.domain import Kind
from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from shared.emails import Email
from shared.identity import find_by_email, resolve
from shared.ids import LeadId
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

END_OF_TIME = (datetime(9999, 1, 1, tzinfo=UTC), "")


class ActOut(BaseModel):
    """A step that acted: `came_to` is `told` where another service carries it out, by the id of the act."""

    act_id: str
    kind: Kind
    enrolment_id: str
    sequence_id: str
    sequence_version: int
    run: int
    step_id: str
    visit: int
    at: datetime
    came_to: str | None


def acts_router(parts: Parts) -> APIRouter:
    """The ledger of acts."""
    router = Endpoints(tags=["acts"], dependencies=[Depends(requires("nurture:read"))])
    runtime = parts.runtime

    @router.get("/v1/leads/{lead_id}/acts")
    async def acts_of_lead(lead_id: str, limit: Limit = 50, cursor: str | None = None) -> Page[ActOut]:
        """What steps did about a lead, the last first."""
        place = read_cursor(runtime.secrets, "acts", cursor)
        before = (datetime.fromisoformat(place[0]), str(place[1])) if place else END_OF_TIME
        async with runtime.database.reading() as connection:
            person_id = await resolve(connection, LeadId(lead_id))
            person = await people.load_person(connection, parts.addresses, runtime.keys, person_id)
            rows = await queries.listed(connection, person.ids, before, limit + 1)
            if not rows and not person.known:
                raise NoSuchLead(f"nothing is known of a lead {lead_id}")
        last = rows[limit - 1] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "acts", [last["at"].isoformat(), last["act_id"]]) if last else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/acts")
    async def acts_by_address(
        email: Annotated[Email, Query(description="The lead's address")], limit: Limit = 50, cursor: str | None = None
    ) -> Page[ActOut]:
        """The same of the lead with this address."""
        async with runtime.database.reading() as connection:
            lead_id = await find_by_email(connection, runtime.ids, email)
        return await acts_of_lead(lead_id, limit, cursor)

    return router


def _out(row: asyncpg.Record) -> ActOut:
    told = dict(row)
    return ActOut(sequence_version=told.pop("version"), **told)
