"""Leads over HTTP."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from services.capture.accounts.queries import kept_account
from services.capture.accounts.standings import leads_of
from services.capture.deciding import decided
from services.capture.erasures.domain import Wish
from services.capture.erasures.inputs import ErasureInput, Receipt
from services.capture.facts.domain import API, encode_touch
from services.capture.facts.inputs import latest_allowed
from services.capture.forgotten import Forgotten
from services.capture.leads import queries
from services.capture.leads.erasure import erase
from services.capture.leads.finding import EmailQuery, known_by, lead_with_address
from services.capture.leads.gathering import Gathering
from services.capture.leads.handlers import Captured, LeadCall, capture_lead
from services.capture.leads.identifying import Named
from services.capture.leads.inputs import FieldsOut, LeadInput, LeadOut, MergeInput
from services.capture.leads.merging import merge_by_hand, unmerge_by_hand
from services.capture.leads.telling import Cause
from services.capture.leads.views import fields_out, lead_out, leads_out, receipt_of_erasure
from services.capture.reading import lead_id_of, looks_like_id, read_body
from shared.db import Connection, Tx
from shared.emails import parse_email
from shared.errors import FieldError, Invalid
from shared.ids import LeadId, derived_id
from shared.personal import Encoded
from shared.phones import parse_phone
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, authorise, described_body, make_cursor, read_cursor, requires

JSON = "application/json"
CREATED = 201
OK = 200


def leads_router(runtime: Runtime, forgotten: Forgotten) -> APIRouter:
    """The endpoints about leads."""
    router = Endpoints(tags=["leads"])
    may_read = [Depends(requires("capture:read"))]
    gathering = Gathering(runtime)

    @router.post(
        "/v1/leads",
        status_code=CREATED,
        openapi_extra=described_body(LeadInput),
        responses={CREATED: {"model": LeadOut}, OK: {"model": LeadOut, "description": "The person was known"}},
    )
    async def capture(request: Request) -> Response:
        """Make a lead, or update the one known by any of the identifiers. Consent and a touch may come along."""
        await authorise(request, "capture:write")
        body = await request.body()
        lead = read_body(LeadInput, body)

        now = runtime.clock.now()
        cause = Cause(API, lead.occurred_at or now, now)
        call = LeadCall(named=lead.named(API), told=lead.told(API), cause=cause, consent=lead.words())
        touch_at = _touch_at(lead, cause)

        def touch_of(captured: Captured) -> Encoded | None:
            return _touch(lead, touch_at, captured, cause) if touch_at is not None else None

        async def make(tx: Tx) -> Response:
            captured = await capture_lead(call, tx, runtime)
            assert captured is not None, "nobody is erased since a call that is answered now"
            touches = [touch] if (touch := touch_of(captured)) is not None else []
            await runtime.keys.emit_drafts(tx, touches)
            return _captured(captured, await lead_out(tx.connection, captured.lead_id, runtime))

        if "idempotency-key" in request.headers:
            return await decided(runtime.database, request, body, make)
        return _captured(*await gathering.capture(call, touch_of))

    @router.get("/v1/leads", dependencies=may_read)
    async def list_leads(  # noqa: PLR0913  # the filters
        email: str | None = None,
        phone: str | None = None,
        external_id: Annotated[str | None, Query(min_length=1)] = None,
        source: Annotated[str, Query(description="Whose external_id is meant")] = API,
        anonymous_id: Annotated[str | None, Query(min_length=1)] = None,
        account_id: Annotated[str | None, Query(description="The leads of an account, by id")] = None,
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
                found = await known_by(connection, runtime.ids, named)
                shown = await _page(found, connection)
                return Page(items=[one for one in shown if account_id is None or _is_of(one, account_id)])
            if account_id is not None:
                return await _of_account(account_id, cursor, limit, connection)
            place = read_cursor(runtime.secrets, "leads", cursor)
            after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
            rows = await queries.newest_leads(connection, after, limit + 1)
            items = await _page([lead_id for lead_id, _ in rows[:limit]], connection)
        last = rows[limit - 1] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "leads", [last[1].isoformat(), last[0]]) if last else None
        return Page(items=items, next_cursor=more)

    async def _page(lead_ids: Sequence[LeadId], connection: Connection) -> list[LeadOut]:
        shown = await leads_out(connection, lead_ids, runtime)
        return [shown[lead_id] for lead_id in lead_ids]

    async def _of_account(account_id: str, cursor: str | None, limit: int, connection: Connection) -> Page[LeadOut]:
        after = read_cursor(runtime.secrets, "account-leads", cursor) or ""
        account = await kept_account(connection, account_id.lower()) if looks_like_id(account_id) else None
        rows = await leads_of(connection, account, after, limit + 1) if account else []
        items = await _page(rows[:limit], connection)
        more = make_cursor(runtime.secrets, "account-leads", rows[limit - 1]) if len(rows) > limit else None
        return Page(items=items, next_cursor=more)

    @router.get("/v1/leads/{lead_id}", dependencies=may_read)
    async def get_lead(lead_id: str) -> LeadOut:
        """The profile of the person behind a lead id; that of the survivor where the lead was merged."""
        async with runtime.database.reading() as connection:
            return await lead_out(connection, lead_id_of(lead_id), runtime)

    @router.get("/v1/leads/{lead_id}/fields", dependencies=may_read)
    async def get_fields(lead_id: str) -> FieldsOut:
        """Each field of the person's profile: the value that counts, by which rule, and those that lost against it."""
        async with runtime.database.reading() as connection:
            return await fields_out(connection, lead_id_of(lead_id), runtime.keys)

    @router.get("/v1/leads:fields", dependencies=may_read)
    async def get_fields_by_email(email: EmailQuery) -> FieldsOut:
        """The same by `?email=`."""
        async with runtime.database.reading() as connection:
            return await fields_out(connection, await lead_with_address(connection, runtime.ids, email), runtime.keys)

    @router.post(
        "/v1/leads/{lead_id}:merge", openapi_extra=described_body(MergeInput), responses={OK: {"model": LeadOut}}
    )
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
            return _answer(await lead_out(tx.connection, survivor, runtime))

        return await decided(runtime.database, request, body, make)

    @router.post("/v1/leads/{lead_id}:unmerge", responses={OK: {"model": LeadOut}})
    async def unmerge_lead(request: Request, lead_id: str) -> Response:
        """Undo a merge: the lead stands for itself again and is kept apart. Answers its profile."""
        await authorise(request, "capture:write")

        async def make(tx: Tx) -> Response:
            now = runtime.clock.now()
            await unmerge_by_hand(lead_id_of(lead_id), Cause(API, now, now), tx, runtime)
            return _answer(await lead_out(tx.connection, lead_id_of(lead_id), runtime))

        return await decided(runtime.database, request, await request.body(), make)

    @router.post(
        "/v1/leads/{lead_id}:erase", openapi_extra=described_body(ErasureInput), responses={OK: {"model": Receipt}}
    )
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


def _touch_at(lead: LeadInput, cause: Cause) -> datetime | None:
    """When the touch that comes along occurred. Raises Invalid when that has not happened yet."""
    if lead.touch is None:
        return None
    occurred_at = lead.touch.occurred_at or cause.occurred_at
    if occurred_at > latest_allowed(cause.received_at):
        fault = FieldError("/touch/occurred_at", "lies more than a day in the future")
        raise Invalid("look at /touch/occurred_at", [fault])
    return occurred_at


def _touch(lead: LeadInput, occurred_at: datetime, captured: Captured, cause: Cause) -> Encoded:
    assert lead.touch is not None
    said_when = lead.touch.occurred_at or lead.occurred_at
    default_id = None
    if said_when is not None:
        default_id = derived_id("touch-of-call", captured.attached, lead.touch.type, said_when.isoformat())
    return encode_touch(
        lead.touch,
        lead_id=captured.attached,
        occurred_at=occurred_at,
        received_at=cause.received_at,
        anonymous_id=lead.anonymous_id,
        default_id=default_id,
    )


def _captured(captured: Captured, out: LeadOut) -> Response:
    return Response(out.model_dump_json(), CREATED if captured.created else OK, media_type=JSON)


def _is_of(lead: LeadOut, account_id: str) -> bool:
    return lead.account is not None and lead.account.account_id == account_id.lower()


def _answer(out: LeadOut | Receipt) -> Response:
    return Response(out.model_dump_json(), OK, media_type=JSON)


def _parsed(name: str, value: str | None, parse: Callable[[str], str | None]) -> str | None:
    parsed = parse(value) if value is not None else None
    if value is not None and parsed is None:  # also of an empty one: whoever left it so did not mean everybody
        raise Invalid(f"look at the query parameter {name}", [FieldError(f"query:{name}", "is not valid")])
    return parsed
