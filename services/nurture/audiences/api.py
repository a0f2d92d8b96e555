"""Retargeting lists over HTTP."""

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field

from services.nurture.audiences import queries
from services.nurture.audiences.domain import Audience, Identifier, State
from services.nurture.errors import NoSuchAudience
from services.nurture.parts import Parts
from services.nurture.sequences.document import Purpose
from shared.consents import ALL, MARKETING, TRANSACTIONAL
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.ids import new_id
from shared.outbound import AddressRefused, PrivateHosts, check_url, trusted_hosts
from shared.web import Endpoints, Input, Limit, Page, idempotent, make_cursor, read_cursor, requires
from shared.webhooks import key_of, secret_of


def _is_secret(text: str) -> str:
    key_of(text)
    return text


def _is_of_consent(purpose: str) -> str:
    if purpose in (ALL, TRANSACTIONAL):
        raise ValueError(f"is a purpose that people consent to, such as {MARKETING}")
    return purpose


class AudienceIn(Input):
    """A list to be kept at an address. The secret is made when it is not given."""

    name: str = Field(min_length=1, max_length=200)
    url: str = Field(min_length=1, max_length=2_000, examples=["https://example.com/audiences"])
    segment_id: str = Field(min_length=1, max_length=200)
    purpose: Annotated[Purpose, AfterValidator(_is_of_consent)] = MARKETING
    identifiers: list[Identifier] = Field(default=["email"], min_length=1, max_length=2)
    secret: Annotated[str, Field(max_length=200), AfterValidator(_is_secret)] | None = None


class AudienceOut(BaseModel):
    """A list: `people` are in it, of `waiting` its keeper has not been told yet; `reason` says why it is suspended."""

    audience_id: str
    name: str
    url: str
    segment_id: str
    purpose: str
    identifiers: list[Identifier]
    state: State
    reason: str | None
    people: int
    waiting: int
    told_at: datetime | None
    created_at: datetime


class NewAudienceOut(AudienceOut):
    """A new list; its secret is shown this once."""

    secret: str


def audiences_router(parts: Parts) -> APIRouter:
    """Retargeting lists: made, seen, suspended, ended."""
    router = Endpoints(tags=["audiences"])
    runtime = parts.runtime
    may_read, may_write = [Depends(requires("nurture:read"))], [Depends(requires("nurture:write"))]

    @router.post("/v1/audiences", status_code=201, response_model=NewAudienceOut, dependencies=may_write)
    async def create_audience(told: AudienceIn, request: Request) -> Response:
        """A new list: everybody in the segment who allows it is told first."""
        try:
            check_url(told.url, PrivateHosts(trusted_hosts(runtime.settings)))
        except AddressRefused as exc:
            raise Invalid("look at /url", [FieldError("/url", exc.detail)]) from exc

        async def make(tx: Tx) -> Response:
            audience_id = new_id()
            secret = told.secret or secret_of(secrets.token_bytes(32))
            sealed = runtime.keys.seal_request({"secret": secret}, f"audience/{audience_id}")
            identifiers = tuple(dict.fromkeys(told.identifiers))
            made = Audience(
                audience_id, told.name, told.url, sealed, told.segment_id, told.purpose, identifiers, "active", 0
            )
            await queries.add(tx.connection, made)
            await queries.fill(tx.connection, audience_id)
            out = await _audience(tx.connection, audience_id)
            body = NewAudienceOut(**out.model_dump(), secret=secret).model_dump_json()
            return Response(body, 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @router.get("/v1/audiences", dependencies=may_read)
    async def list_audiences(limit: Limit = 50, cursor: str | None = None) -> Page[AudienceOut]:
        """All lists."""
        after = str(read_cursor(runtime.secrets, "audiences", cursor) or "")
        async with runtime.database.reading() as connection:
            rows = await queries.listed(connection, after, limit + 1)
        more = make_cursor(runtime.secrets, "audiences", rows[limit - 1]["audience_id"]) if len(rows) > limit else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/audiences/{audience_id}", dependencies=may_read)
    async def get_audience(audience_id: str) -> AudienceOut:
        """One list."""
        async with runtime.database.reading() as connection:
            return await _audience(connection, audience_id)

    async def changed(audience_id: str, state: State, reason: Literal["by hand"] | None) -> AudienceOut:
        async with runtime.database.transaction() as tx:
            if not await queries.set_state(tx.connection, audience_id, state, reason):
                raise NoSuchAudience(f"there is no audience {audience_id}, or it is ending")
            return await _audience(tx.connection, audience_id)

    @router.post("/v1/audiences/{audience_id}:suspend", dependencies=may_write)
    async def suspend_audience(audience_id: str) -> AudienceOut:
        """Tell nothing for now: neither who enters nor who leaves."""
        return await changed(audience_id, "suspended", "by hand")

    @router.post("/v1/audiences/{audience_id}:resume", dependencies=may_write)
    async def resume_audience(audience_id: str) -> AudienceOut:
        """Tell again, what changed meanwhile first."""
        return await changed(audience_id, "active", None)

    @router.delete("/v1/audiences/{audience_id}", status_code=202, dependencies=may_write)
    async def end_audience(audience_id: str) -> AudienceOut:
        """End a list: everybody is taken out of it, then it is gone."""
        return await changed(audience_id, "ending", None)

    return router


async def _audience(connection: Connection, audience_id: str) -> AudienceOut:
    row = await queries.shown(connection, audience_id)
    if row is None:
        raise NoSuchAudience(f"there is no audience {audience_id}")
    return _out(row)


def _out(row: Any) -> AudienceOut:
    return AudienceOut(**{name: row[name] for name in AudienceOut.model_fields})
