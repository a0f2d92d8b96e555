"""Decisions about stages over HTTP, and the reasons that may be given."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.scoring.decisions import queries
from services.scoring.decisions.domain import Kind
from services.scoring.decisions.handlers import Wish, decide
from services.scoring.decisions.reasons import ReasonsIn, reasons, reasons_documents
from services.scoring.parts import Parts
from services.scoring.stages.queries import load_stood
from shared.db import Connection, Tx, agreed_now
from shared.emails import Email
from shared.events import Stage
from shared.exports import opened
from shared.identity import find_by_email, resolve
from shared.ids import LeadId
from shared.rules import ActiveDocument, documents_router
from shared.service import Runtime
from shared.web import Endpoints, Input, Instant, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

Author = Annotated[Principal, Depends(requires("scoring:write"))]
NEWEST = (datetime.max.replace(tzinfo=UTC), "\U0010ffff")
LeadIdPath = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]
EmailQuery = Annotated[Email, Query(description="Instead of a lead id")]
Reason = Annotated[str, Field(min_length=1, max_length=100)]
Note = Annotated[str | None, Field(max_length=4_000)]


class BecauseIn(Input):
    """Why, by a reason of the list, and more about it where that is wanted. Notes are erased with the person."""

    reason: Reason
    note: Note = None


class RecycleIn(BecauseIn):
    """And when the lead returns at the latest; by itself after the days that the rules say."""

    until: Instant | None = None


class SetStageIn(BecauseIn):
    """And where to. Backwards is possible, and is told as what it is."""

    stage: Stage


class StandingOut(BaseModel):
    """Where a lead stands after a decision. `until` is when it returns at the latest, if it was set aside."""

    lead_id: LeadId
    stage: Stage
    stage_since: datetime | None
    stage_reason: str
    furthest_stage: Stage
    stage_by_rules: Stage
    decision_id: str | None
    until: datetime | None


class DecisionOut(BaseModel):
    """A decision about the stage of a lead: by whom, why, since when, and what ended it."""

    decision_id: str
    lead_id: LeadId
    kind: Kind
    stage: Stage
    reason: str
    note: str | None
    author: str
    since: datetime
    until: datetime | None
    ended_at: datetime | None
    end_reason: str
    ended_by: str | None


class _Decisions:
    """What the endpoints share."""

    def __init__(self, runtime: Runtime, parts: Parts) -> None:
        self._runtime = runtime
        self._parts = parts
        self._reasons = ActiveDocument(reasons_documents(), reasons)

    async def by_email(self, email: str) -> LeadId:
        """The lead with an address."""
        async with self._runtime.database.reading() as connection:
            return await find_by_email(connection, self._runtime.ids, email)

    async def taken(self, request: Request, lead_id: str, wish: Wish) -> Response:
        """Carry out a wish, once for an Idempotency-Key; answers where the lead stands."""

        async def make(tx: Tx) -> Response:
            listed = await self._reasons.current(tx.connection)
            person_id = await decide(tx, self._parts, listed, LeadId(lead_id), wish)
            out = await _standing(tx.connection, person_id)
            return Response(out.model_dump_json(), media_type="application/json")

        return await idempotent(self._runtime.database, request, await request.body(), make)

    async def listed(self, lead_id: str, limit: int, cursor: str | None) -> Page[DecisionOut]:
        """A page of the decisions about a lead, notes opened."""
        place = read_cursor(self._runtime.secrets, "decisions", cursor)
        before = (datetime.fromisoformat(place[0]), place[1]) if place else NEWEST
        async with self._runtime.database.reading() as connection:
            person_id = await resolve(connection, LeadId(lead_id))
            rows = [dict(row) for row in await queries.of_person(connection, person_id, before, limit + 1)]
            shown = await opened(connection, rows[:limit], self._runtime.keys)
        last = rows[limit - 1] if len(rows) > limit else None
        more = [last["since"].isoformat(), last["decision_id"]] if last else None
        items = [DecisionOut(**row, note=(row["sealed"] or {}).get("note")) for row in shown]
        return Page(items=items, next_cursor=make_cursor(self._runtime.secrets, "decisions", more) if more else None)


def routers(runtime: Runtime, parts: Parts) -> tuple[APIRouter, ...]:
    """Decisions, by lead id and by `?email=`, and the list of reasons."""
    decisions = _Decisions(runtime, parts)
    routes = Endpoints(prefix="/v1/leads", tags=["stages"])
    _add_calls(routes, decisions)
    _add_list(routes, decisions)
    return routes, _reasons_router(runtime)


def _add_calls(routes: APIRouter, decisions: _Decisions) -> None:
    @routes.post("/{lead_id}:disqualify", response_model=StandingOut)
    async def disqualify(lead_id: LeadIdPath, told: BecauseIn, request: Request, who: Author) -> Response:
        """Set a lead aside for good: until it is requalified, whatever the rules say."""
        return await decisions.taken(request, lead_id, Wish("disqualify", told.reason, who.subject, told.note))

    @routes.post("/{lead_id}:recycle", response_model=StandingOut)
    async def recycle(lead_id: LeadIdPath, told: RecycleIn, request: Request, who: Author) -> Response:
        """Set a lead aside for a time: it returns then, or when it asks to be contacted."""
        wish = Wish("recycle", told.reason, who.subject, told.note, until=told.until)
        return await decisions.taken(request, lead_id, wish)

    @routes.post("/{lead_id}:set-stage", response_model=StandingOut)
    async def set_stage(lead_id: LeadIdPath, told: SetStageIn, request: Request, who: Author) -> Response:
        """Put a lead at a stage by hand, until the rules bring it further than that."""
        wish = Wish("set_stage", told.reason, who.subject, told.note, stage=told.stage)
        return await decisions.taken(request, lead_id, wish)

    @routes.post("/{lead_id}:requalify", response_model=StandingOut)
    async def requalify(lead_id: LeadIdPath, told: BecauseIn, request: Request, who: Author) -> Response:
        """End what was decided about a lead: from now on it is where the rules say."""
        return await decisions.taken(request, lead_id, Wish("requalify", told.reason, who.subject, told.note))

    @routes.post(":disqualify", response_model=StandingOut)
    async def disqualify_by_email(email: EmailQuery, told: BecauseIn, request: Request, who: Author) -> Response:
        """The same by `?email=`."""
        return await disqualify(await decisions.by_email(email), told, request, who)

    @routes.post(":recycle", response_model=StandingOut)
    async def recycle_by_email(email: EmailQuery, told: RecycleIn, request: Request, who: Author) -> Response:
        """The same by `?email=`."""
        return await recycle(await decisions.by_email(email), told, request, who)

    @routes.post(":set-stage", response_model=StandingOut)
    async def set_stage_by_email(email: EmailQuery, told: SetStageIn, request: Request, who: Author) -> Response:
        """The same by `?email=`."""
        return await set_stage(await decisions.by_email(email), told, request, who)

    @routes.post(":requalify", response_model=StandingOut)
    async def requalify_by_email(email: EmailQuery, told: BecauseIn, request: Request, who: Author) -> Response:
        """The same by `?email=`."""
        return await requalify(await decisions.by_email(email), told, request, who)


def _add_list(routes: APIRouter, decisions: _Decisions) -> None:
    @routes.get("/{lead_id}/decisions", dependencies=[Depends(requires("scoring:read"))])
    async def decisions_of_lead(lead_id: LeadIdPath, limit: Limit = 50, cursor: str | None = None) -> Page[DecisionOut]:
        """What was decided about a lead, the newest first."""
        return await decisions.listed(lead_id, limit, cursor)

    @routes.get(":decisions", dependencies=[Depends(requires("scoring:read"))])
    async def decisions_by_email(email: EmailQuery, limit: Limit = 50, cursor: str | None = None) -> Page[DecisionOut]:
        """The same by `?email=`."""
        return await decisions.listed(await decisions.by_email(email), limit, cursor)


def _reasons_router(runtime: Runtime) -> APIRouter:
    """The list of reasons has the life of a rule document; tried out, it says which reasons in use it leaves out."""

    async def used(document: dict[str, Any], days: int) -> dict[str, Any]:
        listed = reasons(0, document)
        async with runtime.database.reading() as connection:
            since = await agreed_now(connection, runtime.clock) - timedelta(days=days)
            rows = await queries.used_reasons(connection, since)
        return {
            "items": [
                {
                    "kind": row["kind"],
                    "reason": row["reason"],
                    "decisions": row["number"],
                    "listed": any(one.id == row["reason"] for one in listed.of(row["kind"])),
                }
                for row in rows
            ]
        }

    return documents_router(
        runtime.database,
        runtime.secrets,
        reasons_documents(),
        validate=lambda document: reasons(0, document),
        shape=ReasonsIn,
        simulate=used,
        path="/v1/stage-reasons",
    )


async def _standing(connection: Connection, person_id: LeadId) -> StandingOut:
    stood = (await load_stood(connection, [person_id]))[person_id]
    standing = stood.decision if stood.verdict.decision is not None else None
    return StandingOut(
        lead_id=person_id,
        stage=stood.verdict.stage,
        stage_since=stood.since,
        stage_reason=stood.verdict.reason,
        furthest_stage=stood.furthest,
        stage_by_rules=stood.verdict.by_rules.stage,
        decision_id=stood.verdict.decision,
        until=standing.until if standing is not None else None,
    )
