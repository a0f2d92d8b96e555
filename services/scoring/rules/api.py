"""The scoring document over HTTP: its life, its simulations, and how far a switch has come."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from services.scoring.parts import make_parts, scoring_documents
from services.scoring.rules.document import ScoringDocument, rule_set
from services.scoring.rules.jobs import Simulation, Simulations
from services.scoring.rules.progress import RescoringOut, rescoring_progress
from services.scoring.rules.simulation import Asked
from shared.db import Tx
from shared.errors import Unavailable
from shared.jobs import State
from shared.rules import SimulateIn, document_to_try, documents_router, sent_within
from shared.service import Runtime
from shared.web import Principal, idempotent, requires

LOCATION = "/scoring/v1/simulations"
WAIT = timedelta(seconds=20)
"""How long an answer waits for its simulation, unless the request says otherwise (`Prefer: wait=5`)."""
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,3})")
SimulationId = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,64}$")]


class ScoringSimulateIn(SimulateIn):
    """What to try on the people who were active in the last `days`: on all of them, or on a `sample` of so many."""

    sample: int | None = Field(default=None, ge=1, le=10_000_000)


class SimulationOut(BaseModel):
    """A simulation, and how far it is. `report` is there when it is done, `problem` when it failed."""

    simulation_id: str
    state: State
    version: int | None
    days: int
    author: str
    asked_at: datetime
    finished_at: datetime | None
    persons: int
    done: int
    report: dict[str, Any] | None
    problem: str | None


def rules_router(runtime: Runtime) -> APIRouter:
    """The scoring document's life."""
    parts, database = make_parts(runtime), runtime.database
    store = scoring_documents()
    simulations = Simulations(database, parts, runtime.settings)
    may_read = requires("scoring:read")
    router = documents_router(
        database,
        runtime.secrets,
        store,
        validate=lambda document: rule_set(0, document),
        shape=ScoringDocument,
        simulate=None,
    )

    @router.post("/v1/rules:simulate", response_model=dict[str, Any], responses={202: {"model": SimulationOut}})
    async def simulate_document(
        body: ScoringSimulateIn, request: Request, principal: Annotated[Principal, Depends(may_read)]
    ) -> Response:
        """What a version or a document would have made of the last days, without effect.

        Answers 202 with the job's address when it takes longer than the request waits.
        """
        document = await document_to_try(database, store, body)
        with sent_within(sent=body.version is None):
            rule_set(0, document)
        asked = Asked(document, body.days, body.sample)

        async def make(tx: Tx) -> Response:
            made = await simulations.ask(tx.connection, asked, body.version, principal.subject)
            return JSONResponse({"simulation_id": made})

        noted = await idempotent(database, request, await request.body(), make)
        simulation_id = str(orjson.loads(noted.body)["simulation_id"])
        if "idempotency-replayed" not in noted.headers:
            simulations.start(simulation_id, asked)
        found = await simulations.finished(simulation_id, _patience(request.headers.get("prefer")))
        if found.state == "done":
            head = {"simulation_id": simulation_id, "version": found.version, "days": found.days}
            return JSONResponse({**head, **(found.report or {})})
        if found.state == "failed":
            raise Unavailable(f"simulation {simulation_id} failed: {found.problem}")
        location = {"Location": f"{LOCATION}/{simulation_id}", "Retry-After": "1"}
        return Response(_out(found).model_dump_json(), 202, location, media_type="application/json")

    @router.get("/v1/simulations/{simulation_id}", dependencies=[Depends(may_read)])
    async def simulation(simulation_id: SimulationId) -> SimulationOut:
        """How far a simulation is, and what came out."""
        return _out(await simulations.get(simulation_id))

    @router.delete("/v1/simulations/{simulation_id}", dependencies=[Depends(may_read)])
    async def call_off_simulation(simulation_id: SimulationId) -> SimulationOut:
        """End a simulation; one that is over stays."""
        return _out(await simulations.call_off(simulation_id))

    @router.get("/v1/rescoring", dependencies=[Depends(may_read)])
    async def rescoring() -> RescoringOut:
        """How far scoring everybody anew has come."""
        async with database.reading() as connection:
            return await rescoring_progress(connection, parts)

    return router


def _patience(prefer: str | None) -> timedelta:
    """How long a request wants to wait (RFC 7240), at most as long as it may."""
    if prefer is None:
        return WAIT
    if found := _WAIT.search(prefer):
        return min(timedelta(seconds=int(found[1])), WAIT)
    return timedelta(0) if "respond-async" in prefer else WAIT


def _out(found: Simulation) -> SimulationOut:
    return SimulationOut.model_validate(found, from_attributes=True)
