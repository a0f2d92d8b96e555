"""Leads over HTTP."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.erasures.domain import Wish
from services.capture.erasures.inputs import ErasureInput, Receipt
from services.capture.facts.domain import API, encode_touch
from services.capture.facts.inputs import latest_allowed
from services.capture.forgotten import Forgotten
from services.capture.leads import queries
from services.capture.leads.erasure import erase
from services.capture.leads.handlers import Captured, LeadCall, capture_lead
from services.capture.leads.identifying import Named, identify
from services.capture.leads.inputs import LeadInput, LeadOut, MergeInput
from services.capture.leads.merging import merge_by_hand, unmerge_by_hand
from services.capture.leads.telling import Cause
from services.capture.leads.views import lead_out, receipt_of_erasure
from services.capture.reading import body_of, lead_id_of, read_body
from shared.db import Connection, Tx
from shared.emails import parse_email
from shared.errors import FieldError, Invalid
from shared.ids import LeadId, derived_id
from shared.phones import parse_phone
from shared.service import Runtime
from shared.web import Limit, Page, Principal, authorise, make_cursor, read_cursor, requires

JSON = "application/json"
CREATED = 201
OK = 200


def leads_router(runtime: Runtime, forgotten: Forgotten) -> APIRouter:
    """The endpoints about leads."""
    router = APIRouter(tags=["leads"])
    may_read = [Depends(requires("capture:read"))]

    @router.post(
        "/v1/leads",
        status_code=CREATED,
        openapi_extra=body_of(LeadInput),
        responses={CREATED: {"model": LeadOut}, OK: {"model": LeadOut, "description": "The person was known"}},
    )
    async def capture(request: Request) -> Response:
        """Make a lead, or update the one known by any of the identifiers. Consent and a touch may come along."""
        await authorise(request, "capture:write")
        body = await request.body()
        lead = read_body(LeadInput, body)

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            cause = Cause(API, lead.occurred_at or now, now)
            call = LeadCall(named=lead.named(API), told=lead.told(API), cause=cause, consent=lead.words())
            captured = await capture_lead(call, tx, runtime)
            assert captured is not None, "nobody is erased since a call that is answered now"
            await _emit_touch(lead, captured, cause, tx)
            out = await lead_out(tx.connection, captured.lead_id)
            return Response(out.model_dump_json(), CREATED if captured.created else OK, media_type=JSON)

        return await decided(runtime.database, request, body, make)

    async def _emit_touch(lead: LeadInput, captured: Captured, cause: Cause, tx: Tx) -> None:
        if lead.touch is None:
            return
        occurred_at = (lead.touch.occurred_at or cause.occurred_at).astimezone(UTC)
        if occurred_at > latest_allowed(cause.received_at):
            fault = FieldError("/touch/occurred_at", "lies more than a day in the future")
            raise Invalid("look at /touch/occurred_at", [fault])
        said_when = lead.touch.occurred_at or lead.occurred_at
        default_id = None
        if said_when is not None:
            default_id = derived_id("touch-of-call", captured.attached, lead.touch.type, said_when.isoformat())
        touch = encode_touch(
            lead.touch,
            lead_id=captured.attached,
            occurred_at=occurred_at,
            received_at=cause.received_at,
            anonymous_id=lead.anonymous_id,
            default_id=default_id,
        )
        await runtime.keys.emit_drafts(tx, [touch])

    @router.get("/v1/leads", dependencies=may_read)
    async def list_leads(  # noqa: PLR0913  # the filters
        email: str | None = None,
        phone: str | None = None,
        external_id: str | None = None,
        source: Annotated[str, Query(description="Whose external_id is meant")] = API,
        anonymous_id: str | None = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[LeadOut]:
        """Leads, newest first; with an identifier, whoever is known by it."""
        named = Named(
            email=_parsed("email", email, parse_email),
            phone=_parsed("phone", phone, parse_phone),
            external_id=external_id,
            anonymous_id=anonymous_id,
            origin=source,
        )
        async with runtime.database.reading() as connection:
            if any((email, phone, external_id, anonymous_id)):
                found = await _known_by(named, connection)
                return Page(items=[await lead_out(connection, lead_id) for lead_id in found])
            place = read_cursor(runtime.secrets, "leads", cursor)
            after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
            rows = await queries.newest_leads(connection, after, limit + 1)
            items = [await lead_out(connection, lead_id) for lead_id, _ in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "leads", [last[1].isoformat(), last[0]]) if last else None
        return Page(items=items, next_cursor=more)

    async def _known_by(named: Named, connection: Connection) -> list[LeadId]:
        identified = await identify(connection, runtime.ids, named, None)
        assert identified is not None, "nothing was stored that could be older than an erasure"
        anonymous = [identified.anonymous] if identified.anonymous else []
        own_ids = [identifier.own_id for identifier in (*identified.strong, *anonymous)]
        roots = set((await queries.owners_of(connection, own_ids)).values())
        for identifier in anonymous:
            linked = {lead_id for _, lead_id in await queries.links_of(connection, identifier.own_id)}
            roots |= {root for lead_id in linked if (root := await queries.root_of(connection, lead_id))}
        return sorted(roots)

    @router.get("/v1/leads/{lead_id}", dependencies=may_read)
    async def get_lead(lead_id: str) -> LeadOut:
        """The profile of the person behind a lead id; that of the survivor where the lead was merged."""
        async with runtime.database.reading() as connection:
            return await lead_out(connection, lead_id_of(lead_id))

    @router.post("/v1/leads/{lead_id}:merge", openapi_extra=body_of(MergeInput), responses={OK: {"model": LeadOut}})
    async def merge_leads(request: Request, lead_id: str) -> Response:
        """Say that two leads are one person. Answers the profile of the one that stands for both."""
        await authorise(request, "capture:write")
        body = await request.body()
        asked = read_body(MergeInput, body)

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            into = LeadId(asked.into.lower()) if asked.into else None
            one, other = lead_id_of(lead_id), LeadId(asked.with_lead.lower())
            survivor = await merge_by_hand(one, other, into, Cause(API, now, now), tx, runtime)
            return _answer(await lead_out(tx.connection, survivor))

        return await decided(runtime.database, request, body, make)

    @router.post("/v1/leads/{lead_id}:unmerge", responses={OK: {"model": LeadOut}})
    async def unmerge_lead(request: Request, lead_id: str) -> Response:
        """Undo a merge: the lead stands for itself again and is kept apart. Answers its profile."""
        await authorise(request, "capture:write")

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            await unmerge_by_hand(lead_id_of(lead_id), Cause(API, now, now), tx, runtime)
            return _answer(await lead_out(tx.connection, lead_id_of(lead_id)))

        return await decided(runtime.database, request, await request.body(), make)

    @router.post("/v1/leads/{lead_id}:erase", openapi_extra=body_of(ErasureInput), responses={OK: {"model": Receipt}})
    async def erase_lead(
        request: Request, lead_id: str, principal: Annotated[Principal, Depends(requires("capture:write"))]
    ) -> Response:
        """Forget the person behind a lead id, everywhere. Counts and credit stay; if they come back they are new.

        Answers the receipt, which the services go on to fill in; the body may be left out.
        """
        body = await request.body()
        asked = read_body(ErasureInput, body) if body.strip() not in (b"", b"null") else ErasureInput()

        async def make(tx: Tx) -> Response:
            wish = Wish(principal.subject, asked.reason, asked.requested_by, asked.reference)
            erased = await erase(lead_id_of(lead_id), wish, tx, runtime)
            return _answer(await receipt_of_erasure(tx.connection, runtime.secrets, erased))

        answer = await decided(runtime.database, request, body, make)
        await forgotten.look_again()
        return answer

    return router


def _answer(out: LeadOut | Receipt) -> Response:
    return Response(out.model_dump_json(), OK, media_type=JSON)


def _parsed(name: str, value: str | None, parse: Callable[[str], str | None]) -> str | None:
    parsed = parse(value) if value else None
    if value and parsed is None:
        raise Invalid(f"look at the query parameter {name}", [FieldError(f"query:{name}", "is not valid")])
    return parsed
