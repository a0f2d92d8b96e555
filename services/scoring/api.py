"""Scoring over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from services.scoring.accounts.api import accounts_router
from services.scoring.decisions import api as decisions
from services.scoring.decisions.domain import Move
from services.scoring.parts import make_parts
from services.scoring.people.explain import ScoreOut, explained_score
from services.scoring.predictive import api as predictive
from services.scoring.rules.api import rules_router
from services.scoring.segments.api import members_router, segments_router
from services.scoring.stages.queries import stage_changes
from shared.emails import Email
from shared.events import Grade, Stage
from shared.identity import find_by_email, resolve
from shared.ids import LeadId
from shared.service import Runtime
from shared.web import Endpoints, Instant, Limit, Page, make_cursor, read_cursor, requires

NEWEST = 2**62
LeadIdParam = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]
AsOf = Annotated[
    Instant | None,
    Query(description="Past: as it was by then. To come: what time alone makes of it"),
]
EmailParam = Annotated[Email, Query(description="Instead of a lead id")]


class TouchOut(BaseModel):
    """The touch that moved a lead."""

    event_id: str
    touch_id: str
    type: str
    occurred_at: datetime


class StageChangeOut(BaseModel):
    """A lead entered a stage: why, with which scores, and the fact, the touch or the decision that caused it.

    `move` says whether that was an advance, a step back, being set aside, or what a person decided.
    """

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
    move: Move | None
    until: datetime | None
    touch: TouchOut | None
    decision_id: str | None


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """Scores of leads and accounts, with reasons; stages and decisions; rules; what deals teach; segments."""
    parts = make_parts(runtime)
    return (
        leads_router(runtime),
        *decisions.routers(runtime, parts),
        accounts_router(runtime, parts),
        rules_router(runtime),
        predictive.router(runtime, parts),
        segments_router(runtime, parts),
        members_router(runtime, parts),
    )


def leads_router(runtime: Runtime) -> APIRouter:
    """Scores and stages of leads."""
    parts, database = make_parts(runtime), runtime.database
    router = Endpoints(prefix="/v1/leads", tags=["scores"], dependencies=[Depends(requires("scoring:read"))])

    @router.get("")
    async def score_by_email(email: EmailParam, as_of: AsOf = None) -> ScoreOut:
        """The score of the person with an email address."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            lead_id = await find_by_email(connection, runtime.ids, email)
            return await explained_score(connection, parts, lead_id, as_of)

    @router.get("/{lead_id}")
    async def score(lead_id: LeadIdParam, as_of: AsOf = None) -> ScoreOut:
        """A lead's score at this moment or at another, and every point that makes it."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await explained_score(connection, parts, LeadId(lead_id), as_of)

    @router.get("/{lead_id}/stages")
    async def stages(lead_id: LeadIdParam, limit: Limit = 50, cursor: str | None = None) -> Page[StageChangeOut]:
        """A lead's stage changes, the newest first."""
        before = read_cursor(runtime.secrets, "stage-changes", cursor) or NEWEST
        async with database.reading() as connection:
            person_id = await resolve(connection, LeadId(lead_id))
            rows = await stage_changes(connection, person_id, before, limit + 1)
        more = make_cursor(runtime.secrets, "stage-changes", rows[limit - 1]["revision"]) if len(rows) > limit else None
        return Page(items=[StageChangeOut(**dict(row)) for row in rows[:limit]], next_cursor=more)

    @router.get(":stages")
    async def stages_by_email(email: EmailParam, limit: Limit = 50, cursor: str | None = None) -> Page[StageChangeOut]:
        """The same by `?email=`."""
        async with database.reading() as connection:
            lead_id = await find_by_email(connection, runtime.ids, email)
        return await stages(lead_id, limit, cursor)

    return router
