"""The sending policy, and sequences that the guard paused, over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from services.nurture.errors import NotPaused
from services.nurture.parts import Parts
from services.nurture.permission import handlers, queries
from services.nurture.permission.document import POLICIES, SendingPolicy, checked
from shared.ids import SequenceId
from shared.rules import documents_router
from shared.web import Endpoints, Input, Limit, Page, Principal, make_cursor, read_cursor, requires


class GuardedOut(BaseModel):
    """What the guard did about a sequence: the pause, what it was for, and who ended it."""

    sequence_id: str
    paused: bool
    paused_at: datetime
    reason: str
    taken: int
    bounced: int
    complained: int
    resumed_at: datetime | None
    resumed_by: str | None
    resumed_because: str | None


class ResumeIn(Input):
    """Why a sequence may go on."""

    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


def policy_router(parts: Parts) -> APIRouter:
    """Read, save, list and activate the policy."""
    runtime = parts.runtime
    return documents_router(
        runtime.database,
        runtime.secrets,
        POLICIES,
        validate=checked,
        shape=SendingPolicy,
        simulate=None,
        path="/v1/sending-policy",
    )


def guard_router(parts: Parts) -> APIRouter:
    """Paused sequences."""
    router = Endpoints(tags=["guard"])
    runtime = parts.runtime

    @router.get("/v1/guarded-sequences", dependencies=[Depends(requires("nurture:read"))])
    async def guarded_sequences(
        paused: bool | None = None, limit: Limit = 50, cursor: str | None = None
    ) -> Page[GuardedOut]:
        """Sequences that were paused for complaints or bounces; with `paused=true` those that still are."""
        after = str(read_cursor(runtime.secrets, "guarded", cursor) or "")
        async with runtime.database.reading() as connection:
            rows = await queries.listed(connection, paused, after, limit + 1)
        last = rows[limit - 1]["sequence_id"] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "guarded", last) if last else None
        items = [GuardedOut(**dict(row), paused=row["resumed_at"] is None) for row in rows[:limit]]
        return Page(items=items, next_cursor=more)

    @router.post("/v1/guarded-sequences/{sequence_id}:resume")
    async def resume_sequence(
        sequence_id: str, body: ResumeIn, principal: Annotated[Principal, Depends(requires("nurture:write"))]
    ) -> GuardedOut:
        """Let a sequence go on: somebody has found out what was wrong. What happened before counts no more."""
        async with runtime.database.transaction() as tx:
            now = await parts.present(tx.connection)
            row = await handlers.resume(tx, SequenceId(sequence_id), principal.subject, body.reason, now)
        if row is None:
            raise NotPaused(f"the guard has not paused a sequence {sequence_id}")
        return GuardedOut.model_validate({**row, "paused": False})

    return router
