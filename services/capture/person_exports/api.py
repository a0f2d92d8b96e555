"""Exports of a person over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.capture.deciding import decided
from services.capture.person_exports.handlers import find_export, request_export
from services.capture.person_exports.inputs import ExportOut
from services.capture.person_exports.views import export_out
from services.capture.reading import lead_id_of
from shared.db import Tx
from shared.service import Runtime
from shared.web import Endpoints, Principal, requires

ACCEPTED = 202
SCOPE = "capture:write"


def person_exports_router(runtime: Runtime) -> APIRouter:
    """The endpoints about exports. They show everything at once, so they ask for more than reading does."""
    router = Endpoints(tags=["exports"])

    @router.post("/v1/leads/{lead_id}:export", status_code=ACCEPTED, responses={ACCEPTED: {"model": ExportOut}})
    async def export_lead(
        request: Request, lead_id: str, principal: Annotated[Principal, Depends(requires(SCOPE))]
    ) -> Response:
        """Ask every service for all that it holds about the person behind a lead id, of all ids they ever had."""

        async def make(tx: Tx) -> Response:
            export = await request_export(lead_id_of(lead_id), principal.subject, tx, runtime)
            out = await export_out(tx.connection, runtime.keys, export)
            return Response(out.model_dump_json(), ACCEPTED, media_type="application/json")

        return await decided(runtime.database, request, await request.body(), make)

    @router.get("/v1/person-exports/{export_id}", dependencies=[Depends(requires(SCOPE))])
    async def get_export(export_id: str) -> ExportOut:
        """The export, once every service has answered; kept 7 days, or until the person is erased."""
        async with runtime.database.reading() as connection:
            return await export_out(connection, runtime.keys, await find_export(connection, export_id, runtime))

    return router
