"""The suppression list over HTTP: entries one by one, and whole lists as files."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field, model_validator

from services.nurture.errors import NoSuchSuppression
from services.nurture.parts import Parts
from services.nurture.people.queries import suppression_id
from services.nurture.suppressions import queries
from services.nurture.suppressions.domain import (
    Defaults,
    Format,
    Kind,
    ListChannel,
    NotAnEntry,
    Reason,
    entry_of,
)
from services.nurture.suppressions.handlers import give_out, take_in
from shared.db import Tx
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.ids import LeadId
from shared.phones import Phone
from shared.web import Endpoints, Input, Limit, Page, idempotent, make_cursor, read_cursor, requires

JSON = "application/json"
LARGEST = 20_000_000
_FORMATS: dict[str, Format] = {
    "text/csv": "csv",
    "text/plain": "csv",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
}
_MEDIA = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
Origin = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]


class SuppressionIn(Input):
    """A lead, an address or both; or a phone number, a domain, a role (the part before the @).

    `unsubscribed` bars what is sent unasked, until the person grants something later; every other reason bars
    transactional messages too. Without `channel`: `sms` of a number, else `email`.
    """

    email: Email | None = None
    phone: Phone | None = None
    domain: Annotated[str, Field(min_length=3, max_length=253)] | None = None
    role: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    lead_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    channel: ListChannel | None = None
    reason: Reason = "manual"
    origin: Origin = "api"

    @model_validator(mode="after")
    def _names_somebody(self) -> "SuppressionIn":
        ways = [name for name in ("email", "phone", "domain", "role") if getattr(self, name) is not None]
        if not ways and self.lead_id is None:
            raise ValueError("send email, lead_id or both; or phone, domain or role")
        if len(ways) > 1:
            raise ValueError(f"send {' or '.join(ways)}, not both")
        return self


class SuppressionOut(BaseModel):
    """An entry of the list. The address itself is not kept, only a keyed hash to compare with."""

    suppression_id: str
    lead_id: str | None
    channel: str
    reason: str
    since: datetime
    origin: str
    kind: Kind
    value: str | None


class FaultOut(BaseModel):
    """A row that means nothing here."""

    line: int
    detail: str


class ImportOut(BaseModel):
    """What became of a file: `added` are new, `known` were on the list; the first faults of those `rejected`."""

    rows: int
    added: int
    known: int
    rejected: int
    faults: list[FaultOut]


def suppressions_router(parts: Parts) -> APIRouter:
    """The suppression list."""
    router = Endpoints(tags=["suppressions"])
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))
    may_write = Depends(requires("nurture:write"))

    @router.get("/v1/suppressions", dependencies=[may_read])
    async def list_suppressions(  # noqa: PLR0913  # what a list can be narrowed by
        email: Annotated[
            Email | None, Query(description="Only entries of this address, its domain or its role")
        ] = None,
        phone: Annotated[Phone | None, Query(description="Only entries of this number")] = None,
        channel: ListChannel | None = None,
        reason: Reason | None = None,
        origin: Annotated[str | None, Query(max_length=200)] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[SuppressionOut]:
        """The list, or what it has of one address."""
        after = str(read_cursor(runtime.secrets, "suppressions", cursor) or "")
        hashes = parts.addresses.hashes_of(email, phone) if email or phone else None
        async with runtime.database.reading() as connection:
            rows = await queries.listed(
                connection,
                hashes=hashes,
                channel=channel,
                reason=reason,
                origin=origin,
                after=after,
                limit=limit + 1,
            )
        last = rows[limit - 1]["suppression_id"] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "suppressions", last) if last else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.post("/v1/suppressions", status_code=201, dependencies=[may_write])
    async def suppress(request: Request, body: SuppressionIn) -> Response:
        """Put a lead, an address, a number, a domain or a role on the list."""
        ways = body.model_dump(include={"email", "phone", "domain", "role"}, exclude_none=True)

        async def make(tx: Tx) -> Response:
            defaults = Defaults(body.reason, body.channel, await parts.present(tx.connection), body.origin)
            try:
                entry = entry_of(ways or {"lead_id": body.lead_id}, parts.addresses, defaults)
            except NotAnEntry as exc:
                name = next(iter(ways), "lead_id")
                raise Invalid(f"look at /{name}", [FieldError(f"/{name}", str(exc))]) from exc
            entry = replace(entry, lead_id=LeadId(body.lead_id) if body.lead_id else None)
            await queries.put(tx.connection, [entry])
            row = await queries.read(tx.connection, suppression_id(entry.about, entry.reason, entry.channel))
            return Response(_out(row).model_dump_json(), 201, media_type=JSON)

        return await idempotent(runtime.database, request, await request.body(), make)

    @router.post(
        "/v1/suppressions:import",
        dependencies=[may_write],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {name: {"schema": {"type": "string"}} for name in ("text/csv", "application/x-ndjson")},
            }
        },
        responses={200: {"model": ImportOut}},
    )
    async def import_suppressions(
        request: Request,
        reason: Annotated[Reason, Query(description="Of rows that do not say")] = "manual",
        channel: Annotated[ListChannel | None, Query(description="Of rows that do not say")] = None,
        origin: Annotated[Origin, Query(description="Of rows that do not say")] = "import",
    ) -> Response:
        """Put all of a file on the list, in one transaction: CSV with a header, NDJSON, or one address a line.

        Columns: one of `email`, `phone`, `domain`, `role`, `lead_id`, `address_hash`; and `channel`, `reason`,
        `since`, `origin`. Names that other systems give to them are understood too.
        """
        kind = _FORMATS.get(request.headers.get("content-type", "").partition(";")[0].strip().lower())
        if kind is None:
            fault = FieldError("header:Content-Type", f"is one of {', '.join(_FORMATS)}")
            raise Invalid("look at header:Content-Type", [fault])
        request.scope["body_limit"] = LARGEST
        body = await request.body()
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise Invalid("the file is not UTF-8", [FieldError("", f"byte {exc.start} is not UTF-8")]) from exc

        async def make(tx: Tx) -> Response:
            defaults = Defaults(reason, channel, await parts.present(tx.connection), origin)
            taken = await take_in(tx, parts, text, kind, defaults)
            out = ImportOut(
                rows=taken.rows,
                added=taken.added,
                known=taken.rows - taken.rejected - taken.added,
                rejected=taken.rejected,
                faults=[FaultOut(**fault) for fault in taken.faults],
            )
            return Response(out.model_dump_json(), 200, media_type=JSON)

        return await idempotent(runtime.database, request, body, make)

    @router.get(
        "/v1/suppressions:export",
        dependencies=[Depends(requires("nurture:admin"))],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
    )
    async def export_suppressions(
        kind: Annotated[Format, Query(alias="format")] = "csv",
        channel: ListChannel | None = None,
        reason: Reason | None = None,
    ) -> StreamingResponse:
        """The list as a file that `:import` takes. What no profile has stands in it as a hash."""
        name = {"Content-Disposition": f'attachment; filename="suppressions.{kind}"'}
        return StreamingResponse(give_out(parts, kind, channel, reason), 200, name, _MEDIA[kind])

    @router.delete("/v1/suppressions/{suppression_id}", status_code=204, dependencies=[may_write])
    async def lift(suppression_id: str) -> None:
        """Take an entry off the list."""
        async with runtime.database.transaction() as tx:
            if not await queries.lift(tx.connection, suppression_id):
                raise NoSuchSuppression(f"there is no suppression {suppression_id}")

    return router


def _out(row: Any) -> SuppressionOut:
    named = {name: row[name] for name in ("suppression_id", "lead_id", "channel", "reason", "since", "origin", "value")}
    return SuppressionOut(**named, kind=row["kind"] or ("address" if row["address_hash"] else "lead"))
