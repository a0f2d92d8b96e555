"""Exports over HTTP."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from services.capture.deciding import decided
from services.capture.exports import queries
from services.capture.exports.files import ExportKind
from services.capture.exports.handlers import Exports
from services.capture.imports.rows import Format
from services.capture.reading import Strict, read_body
from shared.db import Tx
from shared.service import Runtime
from shared.web import Endpoints, Instant, Principal, authorise, described_body, requires

JSON = "application/json"
CREATED, OK = 201, 200
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
Since = Annotated[Instant | None, Query(description="Only what changed or came in at or after this time")]


class ExportFilter(Strict):
    """Which rows are wanted."""

    since: Instant | None = None


class ExportInput(Strict):
    """What is to be exported, and how it is to be written."""

    kind: ExportKind
    format: Format = "csv"
    filter: ExportFilter | None = None


class ExportOut(BaseModel):
    """Where the file can be read, as often as wanted and as things stand then."""

    kind: ExportKind
    format: Format
    url: str


def exports_router(runtime: Runtime) -> APIRouter:
    """The endpoints about exports."""
    router = Endpoints(tags=["exports"])
    exports = Exports(runtime)

    @router.post(
        "/v1/exports",
        status_code=CREATED,
        openapi_extra=described_body(ExportInput),
        responses={CREATED: {"model": ExportOut}},
    )
    async def create_export(request: Request) -> Response:
        """Say what is to be exported; the answer has the address of the file."""
        await authorise(request, "capture:read")
        body = await request.body()
        asked = read_body(ExportInput, body)
        since = asked.filter.since if asked.filter else None
        query = urlencode({"format": asked.format, **({"since": since.isoformat()} if since else {})})
        base = runtime.settings.public_url.rstrip("/")
        out = ExportOut(kind=asked.kind, format=asked.format, url=f"{base}/capture/v1/exports/{asked.kind}?{query}")

        async def make(_tx: Tx) -> Response:
            return Response(out.model_dump_json(), CREATED, media_type=JSON)

        return await decided(runtime.database, request, body, make)

    @router.get(
        "/v1/exports/{kind}",
        response_class=StreamingResponse,
        responses={OK: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
    )
    async def read_export(
        kind: ExportKind,
        principal: Annotated[Principal, Depends(requires("capture:read"))],
        format: Format = "csv",
        since: Since = None,
    ) -> StreamingResponse:
        """Everything of a kind as one file, as it stands now: merged leads once, erased ones not."""
        await _note(principal, kind, format, since)
        stream = exports.read(kind, format, since)
        first = await anext(stream, b"")
        headers = {"content-disposition": f'attachment; filename="{kind}.{format}"'}
        return StreamingResponse(_whole(first, stream), OK, headers, MEDIA_TYPES[format])

    async def _note(principal: Principal, kind: ExportKind, form: Format, since: datetime | None) -> None:
        detail = {"format": form, "since": since and since.isoformat()}
        async with runtime.database.reading() as connection:
            await connection.execute(queries.AUDIT, principal.subject, kind, detail)

    return router


async def _whole(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
