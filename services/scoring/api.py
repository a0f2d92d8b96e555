"""Scoring over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from services.scoring.parts import make_parts, scoring_documents
from services.scoring.people.explain import ScoreOut, explained_score
from services.scoring.rules import queries as rule_queries
from services.scoring.rules.document import rule_set
from services.scoring.rules.simulation import simulate
from services.scoring.stages.queries import stage_changes
from shared.emails import Email
from shared.events import Grade, Stage
from shared.identity import find_by_email, resolve
from shared.ids import LeadId
from shared.rules import documents_router
from shared.service import Runtime
from shared.web import Limit, Page, make_cursor, read_cursor, requires

NEWEST = 2**62
LeadIdParam = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]
EmailParam = Annotated[Email, Query(description="Instead of a lead id")]


class StageChangeOut(BaseModel):
    """A lead entered a stage: why, with which scores, and the fact that caused it."""

    revision: int
    stage: Stage
    previous: Stage | None
    reason: str
    at: datetime
    engagement: float
    fit: int
    total: float
    grade: Grade
    rules_version: int
    cause: str


class RescoringOut(BaseModel):
    """How far scoring everybody anew has come since other rules became active."""

    rules_version: int
    persons: int
    remaining: int


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """Scores with their reasons, stage histories, and the rules."""
    return (leads_router(runtime), rules_router(runtime))


def leads_router(runtime: Runtime) -> APIRouter:
    """Scores and stages of leads."""
    parts, database = make_parts(runtime), runtime.database
    router = APIRouter(prefix="/v1/leads", tags=["scores"], dependencies=[Depends(requires("scoring:read"))])

    @router.get("")
    async def score_by_email(email: EmailParam) -> ScoreOut:
        """The score of the person with an email address."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await explained_score(connection, parts, await find_by_email(connection, runtime.ids, email))

    @router.get("/{lead_id}")
    async def score(lead_id: LeadIdParam) -> ScoreOut:
        """A lead's score at this moment, and every point that makes it."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await explained_score(connection, parts, LeadId(lead_id))

    @router.get("/{lead_id}/stages")
    async def stages(lead_id: LeadIdParam, limit: Limit = 50, cursor: str | None = None) -> Page[StageChangeOut]:
        """A lead's stage changes, the newest first."""
        before = read_cursor(runtime.secrets, "stage-changes", cursor) or NEWEST
        async with database.reading() as connection:
            person_id = await resolve(connection, LeadId(lead_id))
            rows = await stage_changes(connection, person_id, before, limit + 1)
        more = make_cursor(runtime.secrets, "stage-changes", rows[limit - 1]["revision"]) if len(rows) > limit else None
        return Page(items=[StageChangeOut(**dict(row)) for row in rows[:limit]], next_cursor=more)

    return router


def rules_router(runtime: Runtime) -> APIRouter:
    """The scoring document's life."""
    parts, database = make_parts(runtime), runtime.database

    async def what_if(document: dict[str, Any], days: int) -> dict[str, Any]:
        return await simulate(database, parts, document, days)

    router = documents_router(
        database,
        runtime.secrets,
        scoring_documents(),
        validate=lambda document: rule_set(0, document),
        simulate=what_if,
    )

    @router.get("/v1/rescoring", dependencies=[Depends(requires("scoring:read"))])
    async def rescoring() -> RescoringOut:
        """How far scoring everybody anew has come."""
        async with database.reading() as connection:
            rules = await parts.rules.current(connection)
            persons, remaining = await rule_queries.progress(connection, rules.version)
        return RescoringOut(rules_version=rules.version, persons=persons, remaining=remaining)

    return router
