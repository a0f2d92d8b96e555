"""Exports over HTTP: a file at once, or an export that is written in the background and fetched part by part."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from starlette.responses import Response, StreamingResponse

from services.attribution.errors import ModelNotAvailable, NoSuchExport, NoSuchModel, NoSuchPart, PartErased
from services.attribution.exports import handlers, queries
from services.attribution.exports.domain import ExportKind, Format, State
from services.attribution.exports.files import MEDIA_TYPES, file_name
from services.attribution.exports.queries import Export, Wanted
from services.attribution.models.choosing import serving_run
from shared.clock import Clock
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.service import Runtime
from shared.web import Endpoints, Input, Instant, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

JSON, PACKED = "application/json", "application/gzip"
CREATED, OK, NO_CONTENT, NOT_MODIFIED = 201, 200, 204, 304
BYTES: dict[str, Any] = {"content": {each: {} for each in (*MEDIA_TYPES.values(), PACKED)}}


def _midnight(value: Any) -> Any:
    return f"{value}T00:00:00Z" if isinstance(value, str) and len(value) == len("2026-11-26") else value


Moment = Annotated[Instant, BeforeValidator(_midnight)]
"""A time, or a day of UTC for its first moment."""

ExportId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
PartNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
Model = Annotated[str | None, Query(max_length=100, description="Of credits: by one model, else by all")]
From = Annotated[Moment | None, Query(alias="from", description="Touches or conversions since then")]
To = Annotated[Moment | None, Query(description="Touches or conversions before then")]


class ExportIn(Input):
    """What is to be exported: touches or conversions of a time, `to` excluded; credits perhaps of one model."""

    kind: ExportKind
    format: Format = "parquet"
    model: Annotated[str, Field(max_length=100)] | None = None
    from_at: Moment | None = Field(default=None, alias="from")
    to: Moment | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.model is not None and self.kind != "credits":
            raise ValueError("only credits are of a model")
        if self.from_at is not None and self.to is not None and self.to <= self.from_at:
            raise ValueError("to lies not after from")
        return self


class ExportOut(BaseModel):
    """An export and how far it is written.

    `done` and `total` count touches, or conversions. `snapshots` is 1 where all parts show one and the same state of
    the data; more where the writing was interrupted and went on with a newer one. Parts are numbered from 1, and can be
    fetched at `parts_url`/1 and so on as soon as they are written, for a week after the last.
    """

    export_id: str
    kind: ExportKind
    format: Format
    model: str | None
    from_at: datetime | None = Field(serialization_alias="from")
    to: datetime | None
    state: State
    parts: int
    parts_url: str
    bytes: int
    done: int
    total: int | None
    per_second: float | None
    seconds_left: float | None
    snapshots: int
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class PartOut(BaseModel):
    """A part of an export: a file of its own. `read_at` is the time of the state it shows."""

    number: int
    rows: int
    size: int
    etag: str
    read_at: datetime
    erased: bool
    url: str


def router(runtime: Runtime) -> APIRouter:
    """The endpoints about exports."""
    made = Endpoints(tags=["exports"])
    reads = requires("attribution:read")
    may_read = [Depends(reads)]
    database = runtime.database
    base = f"{runtime.settings.public_url.rstrip('/')}/attribution/v1/exports"
    streams = handlers.Streams(runtime)

    def out(job: Export) -> ExportOut:
        return _out(job, runtime.clock, f"{base}/{job.export_id}/parts")

    @made.post("/v1/exports", status_code=CREATED, responses={CREATED: {"model": ExportOut}})
    async def create_export(
        request: Request, body: ExportIn, principal: Annotated[Principal, Depends(reads)]
    ) -> Response:
        """Have an export written in the background, in parts that can be fetched as soon as they are there."""
        wanted = Wanted(body.kind, body.model, body.from_at, body.to)

        async def make(tx: Tx) -> Response:
            await _check_model(tx.connection, wanted.model, "/model")
            job = await handlers.add_export(wanted, body.format, principal.subject, tx)
            return Response(out(job).model_dump_json(by_alias=True), CREATED, media_type=JSON)

        return await idempotent(database, request, await request.body(), make)

    @made.get("/v1/exports", dependencies=may_read)
    async def list_exports(limit: Limit = 50, cursor: str | None = None) -> Page[ExportOut]:
        """Exports, the newest first."""
        place = read_cursor(runtime.secrets, "exports", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
        async with database.reading() as connection:
            found = await queries.newest_exports(connection, after, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        more = make_cursor(runtime.secrets, "exports", [last.created_at.isoformat(), last.export_id]) if last else None
        return Page(items=[out(job) for job in found[:limit]], next_cursor=more)

    async def stream(principal: Principal, wanted: Wanted, form: Format) -> StreamingResponse:
        if wanted.from_at and wanted.to_at and wanted.to_at <= wanted.from_at:
            raise Invalid("the time is empty", [FieldError("query:to", "lies not after from")])
        async with database.reading() as connection:
            await _check_model(connection, wanted.model, "query:model")
            await queries.note(connection, principal.subject, "export.read", wanted, form)
        pieces = streams.read(wanted, form)
        first = await anext(pieces, b"")
        headers = {"content-disposition": f'attachment; filename="{file_name(wanted.kind, form)}"'}
        return StreamingResponse(_whole(first, pieces), OK, headers, MEDIA_TYPES[form])

    @made.get("/v1/exports/journeys", response_class=StreamingResponse, responses={OK: BYTES})
    async def read_journeys(
        principal: Annotated[Principal, Depends(reads)], format: Format = "ndjson", from_at: From = None, to: To = None
    ) -> StreamingResponse:
        """All touches as one file, a row each, in the order of the ids they came with and of their time."""
        return await stream(principal, Wanted("journeys", None, from_at, to), format)

    @made.get("/v1/exports/conversions", response_class=StreamingResponse, responses={OK: BYTES})
    async def read_conversions(
        principal: Annotated[Principal, Depends(reads)], format: Format = "ndjson", from_at: From = None, to: To = None
    ) -> StreamingResponse:
        """All conversions as one file, with what refunds have left of them."""
        return await stream(principal, Wanted("conversions", None, from_at, to), format)

    @made.get("/v1/exports/credits", response_class=StreamingResponse, responses={OK: BYTES})
    async def read_credits(
        principal: Annotated[Principal, Depends(reads)],
        format: Format = "ndjson",
        model: Model = None,
        from_at: From = None,
        to: To = None,
    ) -> StreamingResponse:
        """What every touch earned from every conversion as one file; place 0 is what nobody earned."""
        return await stream(principal, Wanted("credits", model, from_at, to), format)

    @made.get("/v1/exports/{export_id}", dependencies=may_read)
    async def export(export_id: ExportId) -> ExportOut:
        """An export, and how far it is written."""
        async with database.reading() as connection:
            return out(await _found(connection, export_id))

    @made.delete("/v1/exports/{export_id}", status_code=NO_CONTENT)
    async def drop_export(export_id: ExportId, _: Annotated[Principal, Depends(requires("attribution:write"))]) -> None:
        """Stop writing an export, and remove its parts."""
        async with database.transaction() as tx:
            if not await queries.drop_export(tx.connection, export_id):
                raise NoSuchExport("no export has this id")

    @made.get("/v1/exports/{export_id}/parts", dependencies=may_read)
    async def parts(export_id: ExportId, limit: Limit = 50, cursor: str | None = None) -> Page[PartOut]:
        """The parts that are written, in order."""
        after = int(read_cursor(runtime.secrets, f"parts/{export_id}", cursor) or 0)
        async with database.reading() as connection:
            await _found(connection, export_id)
            rows = await queries.parts_of(connection, export_id, after, limit + 1)
        items = [PartOut(**row, url=f"{base}/{export_id}/parts/{row['number']}") for row in rows[:limit]]
        more = len(rows) > limit
        cursor = make_cursor(runtime.secrets, f"parts/{export_id}", items[-1].number) if more else None
        return Page(items=items, next_cursor=cursor)

    @made.get("/v1/exports/{export_id}/parts/{number}", dependencies=may_read, responses={OK: BYTES})
    async def part(
        export_id: ExportId, number: PartNumber, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """A part, a file of its own; it never changes. Lines come in gzip."""
        async with database.reading() as connection:
            job = await _found(connection, export_id)
            found = await queries.part_of(connection, export_id, number)
        if found is None:
            written = f"{job.parts} parts are written" + (" so far" if job.state in ("waiting", "running") else "")
            raise NoSuchPart(written)
        etag, content = f'"{found[0]}"', found[1]
        if content is None:
            raise PartErased("it may hold touches of somebody who was erased since; make another export")
        name = file_name(job.kind, job.format, number)
        headers = {"etag": etag, "content-disposition": f'attachment; filename="{name}"'}
        if if_none_match is not None and etag in if_none_match:
            return Response(None, NOT_MODIFIED, headers)
        return Response(content, OK, headers, PACKED if job.format == "ndjson" else MEDIA_TYPES[job.format])

    return made


async def _whole(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _found(connection: Connection, export_id: str) -> Export:
    found = await queries.export(connection, export_id)
    if found is None:
        raise NoSuchExport("no export has this id; they are kept for a week")
    return found


async def _check_model(connection: Connection, model: str | None, pointer: str) -> None:
    try:
        if model is not None:
            await serving_run(connection, model)
    except (NoSuchModel, ModelNotAvailable) as exc:
        raise type(exc)(exc.detail, [FieldError(pointer, exc.detail)]) from exc


def _out(job: Export, clock: Clock, parts_url: str) -> ExportOut:
    took = ((job.finished_at or clock.now()) - job.started_at).total_seconds() if job.started_at else 0.0
    rate = job.done / took if job.done and took > 0 else None
    left = max((job.total or 0) - job.done, 0)
    return ExportOut(
        export_id=job.export_id,
        kind=job.kind,
        format=job.format,
        model=job.model,
        from_at=job.from_at,
        to=job.to_at,
        state=job.state,
        parts=job.parts,
        parts_url=parts_url,
        bytes=job.bytes,
        done=job.done,
        total=job.total,
        per_second=round(rate, 1) if rate else None,
        seconds_left=0.0 if job.finished_at else round(left / rate, 1) if rate else None,
        snapshots=job.snapshots,
        created_by=job.created_by,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
