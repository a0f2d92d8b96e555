"""Pauses over HTTP: what pauses marketing to a person, asked for and ended by hand; and the policy."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.takeover import handlers
from services.nurture.takeover.document import STORE, Policy, TakeoverDocument, policy
from services.nurture.takeover.domain import ByHand, Cause, Pause
from shared.db import Connection, Tx
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.identity import find_by_email, resolve
from shared.ids import LeadId, new_id
from shared.rules import documents_router
from shared.web import Endpoints, Input, Instant, Page, Principal, idempotent, requires

LONGEST = timedelta(days=3_660)


class PauseIn(Input):
    """A pause that somebody asks for: until a time, or until somebody ends it."""

    reason: str = Field(min_length=1, max_length=1_000)
    until: Instant | None = None
    pauses: Literal["person", "account"] = "person"


class PauseOut(BaseModel):
    """Marketing is paused. `until` is null where an event or somebody has to end it.

    `pauses` says for whom, `lead_id` whose assignment, reply, meeting or deal it is; `reason` is what somebody gave
    who asked for it. `DELETE` with the id ends it for this lead.
    """

    pause_id: str
    cause: Cause
    why: str
    reason: str | None = None
    since: datetime
    until: datetime | None
    pauses: str
    lead_id: str
    policy_version: int


def takeover_router(parts: Parts) -> APIRouter:
    """Pauses of people."""
    router = Endpoints(tags=["pauses"])
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))
    may_write = requires("nurture:write")

    @router.get("/v1/leads/{lead_id}/pauses", dependencies=[may_read])
    async def pauses_of_lead(lead_id: str) -> Page[PauseOut]:
        """What pauses marketing to a lead now, the longest first."""
        async with runtime.database.reading() as connection:
            return await listed(connection, await known_person(connection, LeadId(lead_id)))

    @router.get("/v1/pauses", dependencies=[may_read])
    async def pauses_by_address(email: Annotated[Email, Query(description="The lead's address")]) -> Page[PauseOut]:
        """What pauses marketing to the lead with this address now, the longest first."""
        async with runtime.database.reading() as connection:
            person_id = await find_by_email(connection, runtime.ids, email)
            return await listed(connection, await known_person(connection, person_id))

    @router.post("/v1/leads/{lead_id}/pauses", status_code=201, response_model=PauseOut)
    async def pause(
        request: Request, lead_id: str, body: PauseIn, principal: Annotated[Principal, Depends(may_write)]
    ) -> Response:
        """Pause marketing to a lead, or to everybody in its company, from now on."""

        async def make(tx: Tx) -> Response:
            now = await parts.present(tx.connection)
            if body.until is not None and not now < body.until <= now + LONGEST:
                raise Invalid("look at /until", [FieldError("/until", "lies behind, or more than ten years ahead")])
            person_id = await known_person(tx.connection, LeadId(lead_id))
            await people.lock_person(tx.connection, person_id)
            asked = ByHand(new_id(), person_id, body.pauses, now, body.until, principal.subject, body.reason)
            await handlers.pause_by_hand(tx, parts, asked)
            current = await parts.takeover.current(tx.connection)
            pauses, _ = await handlers.standing(tx.connection, parts, person_id, now)
            made = next(one for one in pauses if one.pause_id == asked.pause_id)
            return Response(_out(made, current, body.reason).model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @router.delete("/v1/leads/{lead_id}/pauses/{pause_id}", status_code=204)
    async def end_pause(lead_id: str, pause_id: str, principal: Annotated[Principal, Depends(may_write)]) -> None:
        """End a pause for a lead; what waited is looked at now. A new reply, deal or assignment pauses again."""
        async with runtime.database.transaction() as tx:
            await handlers.end_pause(tx, parts, LeadId(lead_id), pause_id, principal.subject)

    async def known_person(connection: Connection, lead_id: LeadId) -> LeadId:
        person_id = await resolve(connection, lead_id)
        if not (await people.load_person(connection, parts.addresses, runtime.keys, person_id)).known:
            raise NoSuchLead(f"nothing is known of a lead {lead_id[:100]}")
        return person_id

    async def listed(connection: Connection, person_id: LeadId) -> Page[PauseOut]:
        current = await parts.takeover.current(connection)
        pauses, _ = await handlers.standing(connection, parts, person_id, await parts.present(connection))
        reasons = await handlers.reasons_of(connection, parts, pauses)
        return Page(items=[_out(one, current, reasons.get(one.pause_id)) for one in pauses])

    return router


def policy_router(parts: Parts) -> APIRouter:
    """The policy: read, save, compare, plan, activate, roll back."""

    def check(document: dict[str, Any]) -> Policy:
        return policy(0, document)

    runtime = parts.runtime
    return documents_router(
        runtime.database,
        runtime.secrets,
        STORE,
        validate=check,
        shape=TakeoverDocument,
        simulate=None,
        path="/v1/takeover",
    )


def _out(pause: Pause, current: Policy, reason: str | None) -> PauseOut:
    return PauseOut(
        pause_id=pause.pause_id,
        cause=pause.cause,
        why=pause.why,
        reason=reason,
        since=pause.since,
        until=pause.until,
        pauses=pause.reach,
        lead_id=pause.lead_id,
        policy_version=current.version,
    )
