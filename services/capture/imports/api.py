"""Imports over HTTP."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from services.capture.deciding import decided
from services.capture.imports import handlers, queries
from services.capture.imports.columns import Kind
from services.capture.imports.files import StoredFile, drop_file, store_file
from services.capture.imports.inputs import ImportInput, ImportOut, ImportPatch, ImportPreview, StartInput
from services.capture.imports.queries import Import, State
from services.capture.imports.rows import Format
from services.capture.imports.views import bad_rows, import_out
from services.capture.reading import read_body
from shared.db import Tx
from shared.errors import FieldError, Invalid
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, authorise, described_body, make_cursor, read_cursor, requires

JSON = "application/json"
CREATED, OK = 201, 200
MEDIA_TYPES: dict[Format, str] = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
FORMAT_OF: dict[str, Format] = {
    "text/csv": "csv",
    "text/plain": "csv",
    "text/tab-separated-values": "csv",
    "application/csv": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
}
A_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            each: {"schema": {"type": "string", "format": "binary"}} for each in ("text/csv", "application/x-ndjson")
        },
    }
}
JSON_OR_A_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": described_body(ImportInput)["requestBody"]["content"] | A_FILE["requestBody"]["content"],
    }
}


def imports_router(runtime: Runtime) -> APIRouter:
    """The endpoints about imports."""
    router = Endpoints(tags=["imports"])
    may_read = [Depends(requires("capture:read"))]

    def shown(job: Import, status: int = OK) -> Response:
        out = import_out(job, runtime.settings.public_url)
        return Response(out.model_dump_json(), status, media_type=JSON)

    async def stored(request: Request, encoding: str | None) -> StoredFile:
        request.scope["body_limit"] = runtime.settings.import_limit
        request.scope["unpacks"] = True
        return await store_file(request, encoding, runtime)

    @router.post(
        "/v1/imports",
        status_code=CREATED,
        openapi_extra=JSON_OR_A_FILE,
        responses={CREATED: {"model": ImportOut}},
    )
    async def create_import(  # noqa: PLR0913  # what a file cannot say of itself
        request: Request,
        kind: Annotated[Kind, Query(description="Of a file as the body: what its rows are")] = "leads",
        format: Annotated[Format | None, Query(description="By default that of the Content-Type")] = None,  # its name
        name: Annotated[str | None, Query(max_length=200)] = None,
        source: Annotated[str, Query(min_length=1, max_length=255)] = "api",
        delimiter: str | None = None,
        encoding: str | None = None,
        mapping: Annotated[str | None, Query(description="JSON")] = None,
        defaults: Annotated[str | None, Query(description="JSON")] = None,
        dry_run: bool = False,
    ) -> Response:
        """Make an import. With JSON it then waits for its file; with the file itself as the body it starts at once."""
        principal = await authorise(request, "capture:write")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type in ("", JSON) and format is None:
            body = await request.body()
            asked = read_body(ImportInput, body)

            async def make(tx: Tx) -> Response:
                return shown(await handlers.add_import(asked, principal.subject, tx), CREATED)

            return await decided(runtime.database, request, body, make)
        said = {
            "kind": kind,
            "format": format or FORMAT_OF.get(media_type, "csv"),
            "name": name,
            "source": source,
            "delimiter": delimiter,
            "encoding": encoding,
            "mapping": _object("mapping", mapping),
            "defaults": _object("defaults", defaults) or {},
            "dry_run": dry_run,
        }
        asked = read_body(ImportInput, orjson.dumps(said))
        return await _import_at_once(asked, request, principal)

    async def _import_at_once(asked: ImportInput, request: Request, principal: Principal) -> Response:
        file = await stored(request, asked.encoding)
        taken = False

        async def make(tx: Tx) -> Response:
            nonlocal taken
            job = await handlers.add_import(asked, principal.subject, tx)
            await handlers.set_file(job.import_id, file, tx)
            job = await handlers.start_import(job.import_id, None, principal.subject, tx, runtime)
            taken = True
            return shown(job, CREATED)

        try:
            fingerprint = orjson.dumps([asked.model_dump(), file.sha256])
            return await decided(runtime.database, request, fingerprint, make)
        finally:
            if not taken:
                await drop_file(file.file_id, runtime)

    @router.get("/v1/imports", dependencies=may_read)
    async def list_imports(state: State | None = None, limit: Limit = 50, cursor: str | None = None) -> Page[ImportOut]:
        """Imports, newest first."""
        place = read_cursor(runtime.secrets, "imports", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
        async with runtime.database.reading() as connection:
            jobs = await queries.newest_imports(connection, state, after, limit + 1)
        last = jobs[limit - 1] if len(jobs) > limit else None
        more = make_cursor(runtime.secrets, "imports", [last.created_at.isoformat(), last.import_id]) if last else None
        return Page(items=[import_out(job, runtime.settings.public_url) for job in jobs[:limit]], next_cursor=more)

    @router.get("/v1/imports/{import_id}:preview", dependencies=[Depends(requires("capture:write"))])
    async def preview_import(import_id: str) -> ImportPreview:
        """How the file is read, and what its first rows would make or why not. Nothing is stored."""
        return await handlers.preview_import(import_id, runtime)

    @router.get("/v1/imports/{import_id}", dependencies=may_read)
    async def get_import(import_id: str) -> ImportOut:
        """An import, and how far it is."""
        async with runtime.database.reading() as connection:
            job = await handlers.found_import(connection, import_id)
        return import_out(job, runtime.settings.public_url)

    @router.patch(
        "/v1/imports/{import_id}", openapi_extra=described_body(ImportPatch), responses={OK: {"model": ImportOut}}
    )
    async def change_import(request: Request, import_id: str) -> Response:
        """Change how the file is read, before the import starts."""
        await authorise(request, "capture:write")
        asked = read_body(ImportPatch, await request.body())
        async with runtime.database.transaction() as tx:
            job = await handlers.change_import(import_id, asked, tx)
        return shown(job)

    @router.put("/v1/imports/{import_id}/file", openapi_extra=A_FILE, responses={OK: {"model": ImportOut}})
    async def put_file(request: Request, import_id: str) -> Response:
        """Send the file, plain or with `Content-Encoding: gzip`. Before the start it may be sent again."""
        await authorise(request, "capture:write")
        async with runtime.database.reading() as connection:
            job = handlers.open_to_change(await handlers.found_import(connection, import_id))
        file = await stored(request, job.encoding)
        taken = False
        try:
            async with runtime.database.transaction() as tx:
                job = await handlers.set_file(import_id, file, tx)
            taken = True
        finally:
            if not taken:
                await drop_file(file.file_id, runtime)
        return shown(job)

    @router.post(
        "/v1/imports/{import_id}:start", openapi_extra=described_body(StartInput), responses={OK: {"model": ImportOut}}
    )
    async def start_import(request: Request, import_id: str) -> Response:
        """Start an import; its progress is at the import itself."""
        principal = await authorise(request, "capture:write")
        body = await request.body()
        asked = read_body(StartInput, body or b"{}")

        async def make(tx: Tx) -> Response:
            return shown(await handlers.start_import(import_id, asked.dry_run, principal.subject, tx, runtime))

        return await decided(runtime.database, request, body, make)

    @router.post("/v1/imports/{import_id}:cancel", responses={OK: {"model": ImportOut}})
    async def cancel_import(request: Request, import_id: str) -> Response:
        """End an import where it is. What its rows have told stays told."""
        principal = await authorise(request, "capture:write")

        async def make(tx: Tx) -> Response:
            return shown(await handlers.cancel_import(import_id, principal.subject, tx))

        return await decided(runtime.database, request, await request.body(), make)

    @router.get(
        "/v1/imports/{import_id}/errors",
        dependencies=[Depends(requires("capture:write"))],
        response_class=StreamingResponse,
        responses={OK: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
    )
    async def get_errors(import_id: str) -> StreamingResponse:
        """The bad rows, each with its line and the reason, in the format of the file: correct them and import that."""
        async with runtime.database.reading() as connection:
            job = await handlers.found_import(connection, import_id)
        headers = {"content-disposition": f'attachment; filename="errors-{job.import_id}.{job.format}"'}
        return StreamingResponse(bad_rows(job, runtime), OK, headers, MEDIA_TYPES[job.format])

    return router


def _object(parameter: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        fault = FieldError(f"query:{parameter}", "is not JSON")
        raise Invalid(f"look at the query parameter {parameter}", [fault]) from exc
