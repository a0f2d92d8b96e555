"""Journeys over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from services.attribution.conversions import queries as conversions
from services.attribution.conversions.api import ConversionOut, conversion_out
from services.attribution.domain import Touch
from services.attribution.errors import NoSuchLead
from services.attribution.journeys import queries
from services.attribution.people import LeadIdPath, Whom, find, whom
from shared.identity import Member, members
from shared.ids import LeadId
from shared.service import Runtime
from shared.web import Endpoints, make_cursor, read_cursor, requires

MOST_CONVERSIONS = 1_000
JourneyLimit = Annotated[int, Query(ge=1, le=1_000, description="Most touches on a page")]


class TouchOut(BaseModel):
    """A touch; `channel_rule` is what decided its channel.

    One that a machine made (`automated`) earns nothing; `automated_reason` says how that is known, if it was said.
    """

    touch_id: str
    origin: str
    type: str
    channel: str
    channel_rule: str
    source: str | None
    medium: str | None
    campaign: str | None
    content: str | None
    page: str | None
    automated: bool
    automated_reason: str | None
    occurred_at: datetime
    received_at: datetime


class JourneyOut(BaseModel):
    """A person's touches in order of time, a page of them, and their conversions on every page."""

    lead_id: str
    touches: list[TouchOut]
    conversions: list[ConversionOut]
    next_cursor: str | None = None


def touch_out(touch: Touch) -> TouchOut:
    """A touch as the API tells it."""
    return TouchOut(
        touch_id=touch.touch_id,
        origin=touch.origin,
        type=touch.type,
        channel=touch.channel,
        channel_rule=touch.channel_rule,
        source=touch.source,
        medium=touch.medium,
        campaign=touch.campaign,
        content=touch.content,
        page=touch.page,
        automated=touch.automated,
        automated_reason=touch.automated_reason,
        occurred_at=touch.occurred_at,
        received_at=touch.received_at,
    )


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of journeys."""
    made = Endpoints(tags=["journeys"], dependencies=[Depends(requires("attribution:read"))])

    @made.get("/v1/leads/{lead_id}/journey")
    async def journey_of_lead(lead_id: LeadIdPath, limit: JourneyLimit = 200, cursor: str | None = None) -> JourneyOut:
        """What led a person where they are, whatever ids it came with."""
        return await _journey(runtime, Whom(LeadId(lead_id), None), limit, cursor)

    @made.get("/v1/journey")
    async def journey(
        named: Annotated[Whom, Depends(whom)], limit: JourneyLimit = 200, cursor: str | None = None
    ) -> JourneyOut:
        """The same, for who has only the email address."""
        return await _journey(runtime, named, limit, cursor)

    return made


async def _journey(runtime: Runtime, named: Whom, limit: int, cursor: str | None) -> JourneyOut:
    place = read_cursor(runtime.secrets, "journey", cursor)
    after = (datetime.fromisoformat(place[0]), place[1], place[2]) if place else None
    async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
        person = await find(connection, runtime.ids, named)
        ids = await members(connection, person) or [Member(person)]
        if not await queries.is_known(connection, [member.lead_id for member in ids]):
            raise NoSuchLead("no touch, conversion or profile of this lead has arrived here")
        touches = await queries.journey_page(connection, ids, after=after, limit=limit + 1)
        earned = await conversions.conversions_page(connection, ids, after=None, limit=MOST_CONVERSIONS)
    more = touches[limit - 1].place if len(touches) > limit else None
    return JourneyOut(
        lead_id=person,
        touches=[touch_out(touch) for touch in touches[:limit]],
        conversions=[conversion_out(conversion) for conversion in earned],
        next_cursor=make_cursor(runtime.secrets, "journey", more) if more else None,
    )
