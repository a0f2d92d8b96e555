"""Forms over HTTP: their administration, and what was sent with them."""

from datetime import datetime
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.errors import NoSuchForm, NoSuchSubmission
from services.capture.forms import queries
from services.capture.forms.document import FormDocument, read_document
from services.capture.forms.handlers import discard, opened_submission, release
from services.capture.forms.inputs import (
    DiscardInput,
    Embedding,
    FormOut,
    ShownSubmission,
    SubmissionOut,
    SubmissionState,
)
from services.capture.forms.queries import FormRow
from services.capture.reading import read_body
from services.capture.settings import CaptureSettings
from shared.db import Connection, Tx
from shared.ids import new_id
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, authorise, described_body, make_cursor, read_cursor, requires

CREATED = 201
JSON = "application/json"
SCOPE = "capture:write"


def forms_router(runtime: Runtime, settings: CaptureSettings) -> APIRouter:
    """The endpoints of whoever makes forms."""
    router = Endpoints(tags=["forms"])
    may_read = [Depends(requires("capture:read"))]
    may_write = requires(SCOPE)

    @router.post(
        "/v1/forms",
        status_code=CREATED,
        openapi_extra=described_body(FormDocument),
        responses={CREATED: {"model": FormOut}},
    )
    async def create_form(request: Request) -> Response:
        """Make a form. It is there for everybody at its `url` at once."""
        principal = await authorise(request, SCOPE)
        body = await request.body()
        content = read_document(body).model_dump(exclude_none=True, exclude_defaults=True)

        async def make(tx: Tx) -> Response:
            row = await queries.add_form(tx.connection, new_id(), content, principal.subject)
            return Response(_out(row).model_dump_json(), CREATED, media_type=JSON)

        return await decided(runtime.database, request, body, make)

    @router.put("/v1/forms/{form_id}", openapi_extra=described_body(FormDocument), responses={200: {"model": FormOut}})
    async def save_form(request: Request, form_id: str) -> FormOut:
        """Save the next version of a form. What people have open already is taken as they saw it."""
        principal = await authorise(request, SCOPE)
        content = read_document(await request.body()).model_dump(exclude_none=True, exclude_defaults=True)
        async with runtime.database.transaction() as tx:
            row = await queries.save_form(tx.connection, form_id.lower(), content, principal.subject)
        return _out(_there(row, form_id))

    @router.get("/v1/forms", dependencies=may_read)
    async def list_forms(limit: Limit = 50, cursor: str | None = None) -> Page[FormOut]:
        """All forms, as they are now."""
        after = str(read_cursor(runtime.secrets, "forms", cursor) or "")
        async with runtime.database.reading() as connection:
            rows = await queries.forms(connection, after, limit + 1)
        more = make_cursor(runtime.secrets, "forms", rows[limit - 1].form_id) if len(rows) > limit else None
        return Page(items=[_out(row) for row in rows[:limit]], next_cursor=more)

    @router.get("/v1/forms/{form_id}", dependencies=may_read)
    async def get_form(form_id: str) -> FormOut:
        """A form as it is now."""
        async with runtime.database.reading() as connection:
            return _out(_there(await queries.form(connection, form_id.lower()), form_id))

    @router.get("/v1/forms/{form_id}/submissions", dependencies=may_read)
    async def list_submissions(
        form_id: str, state: SubmissionState | None = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[SubmissionOut]:
        """What was sent with a form, newest first; with `state=spam` what somebody has to look at."""
        place = read_cursor(runtime.secrets, "submissions", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else (None, None)
        async with runtime.database.reading() as connection:
            row = _there(await queries.form(connection, form_id.lower()), form_id)
            rows = await connection.fetch(queries.SUBMISSIONS, row.form_id, state, *after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        where = [last["received_at"].isoformat(), last["submission_id"]] if last else None
        more = make_cursor(runtime.secrets, "submissions", where) if where else None
        return Page(items=[SubmissionOut(**dict(each)) for each in rows[:limit]], next_cursor=more)

    @router.get("/v1/forms/{form_id}/submissions/{submission_id}", dependencies=[Depends(requires("capture:admin"))])
    async def get_submission(form_id: str, submission_id: str) -> ShownSubmission:
        """A submission; what waits for a review with what was typed."""
        async with runtime.database.reading() as connection:
            shown = await _submission(connection, form_id, submission_id)
        sealed = shown.pop("sealed")
        kept = opened_submission(str(sealed), submission_id.lower(), runtime) if sealed else None
        return ShownSubmission(
            **shown, values=kept["values"] if kept else None, page=kept["context"]["url"] if kept else None
        )

    @router.post("/v1/forms/{form_id}/submissions/{submission_id}:release", status_code=204)
    async def release_submission(
        request: Request, form_id: str, submission_id: str, principal: Annotated[Principal, Depends(may_write)]
    ) -> Response:
        """Carry out a submission that looked suspicious: a person has looked at it. It counts as of when it came."""

        async def make(tx: Tx) -> Response:
            await release(form_id.lower(), submission_id.lower(), principal.subject, tx, runtime, settings)
            return Response(status_code=204)

        return await decided(runtime.database, request, await request.body(), make)

    @router.post(
        "/v1/forms/{form_id}/submissions/{submission_id}:discard",
        status_code=204,
        openapi_extra=described_body(DiscardInput),
    )
    async def discard_submission(request: Request, form_id: str, submission_id: str) -> Response:
        """Give up on a submission. Who did it, and why, is kept; what was typed is not."""
        principal = await authorise(request, SCOPE)
        asked = read_body(DiscardInput, await request.body())
        async with runtime.database.transaction() as tx:
            await discard(form_id.lower(), submission_id.lower(), principal.subject, asked.reason, tx, runtime)
        return Response(status_code=204)

    async def _submission(connection: Connection, form_id: str, submission_id: str) -> dict[str, Any]:
        row = await connection.fetchrow(queries.SHOW, form_id.lower(), submission_id.lower())
        if row is None:
            raise NoSuchSubmission("the form has no such submission")
        return dict(row)

    def _there(row: FormRow | None, form_id: str) -> FormRow:
        if row is None:
            raise NoSuchForm(f"there is no form {form_id[:40]}")
        return row

    def _out(row: FormRow) -> FormOut:
        url = f"{runtime.settings.public_url.rstrip('/')}/capture/f/{row.form_id}"
        return FormOut(
            form_id=row.form_id,
            version=row.version,
            url=url,
            embed=Embedding(
                script=f'<script async src="{escape(url)}.js"></script>',
                iframe=f'<iframe src="{escape(url)}?embed=1" title="{escape(row.document.name)}" '
                'style="width:100%;height:40rem;border:0"></iframe>',
            ),
            document=row.document.model_dump(mode="json", exclude_none=True),
            author=row.author,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    return router
