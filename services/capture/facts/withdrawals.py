"""Taking a touch back over HTTP: it turned out not to be a person's."""

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.capture.facts.batches import ACCEPTED, JSON
from services.capture.facts.domain import withdrawal_fact
from services.capture.facts.inputs import WithdrawalInput
from services.capture.facts.queries import audit_withdrawal
from services.capture.reading import read_body, text_faults
from shared.db import Tx
from shared.errors import FieldError, Invalid
from shared.service import Runtime
from shared.web import Endpoints, authorise, described_body, idempotent

SCOPE = "capture:write"
LONGEST_ID = 255


class Withdrawn(BaseModel):
    """The touch that counts no more, once every service has read of it."""

    touch_id: str
    source: str
    reason: str


def withdrawals_router(runtime: Runtime) -> APIRouter:
    """The endpoint that withdraws touches."""
    router = Endpoints(tags=["facts"])

    @router.post(
        "/v1/touches/{touch_id:path}:withdraw",
        status_code=ACCEPTED,
        openapi_extra=described_body(WithdrawalInput),
        responses={ACCEPTED: {"model": Withdrawn}},
    )
    async def withdraw_touch(request: Request, touch_id: str) -> Response:
        """Say that a touch was a machine's, or with the reason `internal` own people's.

        It keeps its place in the journey, and loses its points and credit. It stays withdrawn, whatever is told of it
        later. It need not have arrived yet.
        """
        principal = await authorise(request, SCOPE)
        body = await request.body()
        fact = withdrawal_fact(_touch_id(touch_id), read_body(WithdrawalInput, body), runtime.clock.now())
        out = Withdrawn(touch_id=fact.touch_id, source=fact.origin, reason=fact.reason)

        async def make(tx: Tx) -> Response:
            tx.emit(fact)
            await audit_withdrawal(tx.connection, principal.subject, fact)
            return Response(out.model_dump_json(), ACCEPTED, media_type=JSON)

        return await idempotent(runtime.database, request, body, make)

    return router


def _touch_id(given: str) -> str:
    """A name that a touch can have. Raises Invalid."""
    faults = list(text_faults(given, "path:touch_id"))
    if not 1 <= len(given) <= LONGEST_ID:
        faults.append(FieldError("path:touch_id", f"a touch id has 1 to {LONGEST_ID} characters"))
    if faults:
        raise Invalid("look at path:touch_id", faults)
    return given
