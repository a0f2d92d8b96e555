"""Broadcasts over HTTP: written, tried, started, stopped, continued, cancelled, watched."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, field_validator, model_validator

from services.nurture.broadcasts import dry_runs, handlers, queries
from services.nurture.broadcasts.document import BroadcastDocument
from services.nurture.broadcasts.domain import Shown, State, shown
from services.nurture.broadcasts.progress import progress_of
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.broadcasts.trials import person_to_fill_in, try_out
from services.nurture.broadcasts.trying import queries as trying
from services.nurture.broadcasts.trying.queries import DryRun
from services.nurture.channels.setup import email_providers, given, make_channels
from services.nurture.errors import NoSuchBroadcast
from services.nurture.parts import Parts
from services.nurture.permission.queries import why_paused
from services.nurture.sending.queries import database_now
from services.nurture.templates.check import LEAD_FIELDS
from shared.clock import present
from shared.db import Connection, Tx
from shared.emails import Email
from shared.rules import FaultOut
from shared.web import (
    Endpoints,
    Input,
    Instant,
    Limit,
    Page,
    Principal,
    described_body,
    idempotent,
    make_cursor,
    read_body,
    read_cursor,
    requires,
)

AT_ONCE_S = 2.0
"""A dry run that is done by then is answered at once."""
FARTHEST = timedelta(days=366)
PhoneNumber = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{5,14}$")]
ImaginedValue = str | int | dict[str, Any]


class StartIn(Input):
    """When to begin: now, or then. A time that has passed is now."""

    send_at: Instant | None = None

    @field_validator("send_at")
    @classmethod
    def _within_a_year(cls, send_at: datetime | None) -> datetime | None:
        if send_at is not None and send_at > present.now() + FARTHEST:
            raise ValueError("lies more than a year in the future")
        return send_at


class TestIn(Input):
    """Where a test goes, and whom it is filled in with: a real lead, or the fields of one that is imagined."""

    to: list[Email | PhoneNumber] = Field(min_length=1, max_length=10)
    lead_id: str | None = Field(default=None, min_length=1, max_length=100)
    lead: dict[str, ImaginedValue] = Field(default_factory=dict, max_length=50)

    @field_validator("lead")
    @classmethod
    def _known_fields(cls, lead: dict[str, ImaginedValue]) -> dict[str, ImaginedValue]:
        if unknown := sorted(set(lead) - LEAD_FIELDS):
            raise ValueError(f"has no {', '.join(unknown)}; there are {', '.join(sorted(LEAD_FIELDS))}")
        return lead

    @model_validator(mode="after")
    def _one_lead(self) -> "TestIn":
        if self.lead_id is not None and self.lead:
            raise ValueError("send lead_id or lead, not both")
        return self


class TriedOut(BaseModel):
    """What became of a test at one address."""

    to: str
    state: Literal["sent", "failed", "suppressed", "unknown", "bounced"]
    reason: str | None


class TestOut(BaseModel):
    """What became of a test, by address."""

    items: list[TriedOut]


class ExampleOut(BaseModel):
    """Somebody who is held back."""

    lead_id: str
    reason: str


class HeldBackOut(BaseModel):
    """How many are held back for a reason: `refused` would not get it at all, `delayed` later."""

    verdict: Literal["refused", "delayed"]
    reason: str
    people: int
    examples: list[ExampleOut]


class DryRunOut(BaseModel):
    """What a broadcast would do if it left now; while `state` is `running`, of those who have been looked at."""

    broadcast_id: str
    state: Literal["running", "done"]
    people: int
    would_get: int
    held_back: list[HeldBackOut]
    started_at: datetime
    finished_at: datetime | None


class WhyOut(BaseModel):
    """How many messages stand as they do for a reason, its times and numbers left out."""

    state: str
    reason: str
    messages: int


class ProgressOut(BaseModel):
    """How far it is. `messages` counts the ledger by state, `responses` messages that people responded to."""

    people: int
    finished: int
    remaining: int
    messages: dict[str, int]
    reasons: list[WhyOut]
    responses: dict[str, int]
    per_minute: float
    seconds_left: int | None


class BroadcastOut(BaseModel):
    """A broadcast; its messages stand in the ledger under its id as the id of a sequence.

    `warnings`, when it is written, are what may be a mistake in it.
    """

    broadcast_id: str
    state: Shown
    reason: str | None
    author: str
    created_at: datetime
    send_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    document: dict[str, Any]
    warnings: list[FaultOut] = Field(default_factory=list)


class BroadcastProgressOut(BroadcastOut):
    """A broadcast with how far it is."""

    progress: ProgressOut


def broadcasts_router(parts: Parts) -> APIRouter:
    """The life of broadcasts."""
    router = Endpoints(tags=["broadcasts"])
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))
    may_write = requires("nurture:write")
    writer = Annotated[Principal, Depends(may_write)]
    writers = [Depends(may_write)]
    providers = given(parts)
    channels = make_channels(providers, email_providers(providers))

    @router.post(
        "/v1/broadcasts", status_code=201, response_model=BroadcastOut, openapi_extra=described_body(BroadcastDocument)
    )
    async def create_broadcast(request: Request, principal: writer) -> Response:
        """Save a draft: nothing is sent before `:start`."""
        body = await request.body()
        document = read_body(BroadcastDocument, body)
        await handlers.tried(parts, document)

        async def make(tx: Tx) -> Response:
            made = await handlers.create(tx, document, principal.subject)
            return _answer(await written(tx.connection, made, made.created_at), 201)

        return await idempotent(runtime.database, request, body, make)

    @router.get("/v1/broadcasts", dependencies=[may_read])
    async def list_broadcasts(
        state: Annotated[State | None, Query(description="Only those in this state")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[BroadcastOut]:
        """All broadcasts, the newest first."""
        place = read_cursor(runtime.secrets, "broadcasts", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else None
        async with runtime.database.reading() as connection:
            found = await queries.newest(connection, state, after, limit + 1)
            now = await database_now(connection)
        last = found[limit - 1] if len(found) > limit else None
        more = [last.created_at.isoformat(), last.broadcast_id] if last else None
        return Page(
            items=[_out(one, now) for one in found[:limit]],
            next_cursor=make_cursor(runtime.secrets, "broadcasts", more) if more else None,
        )

    @router.get("/v1/broadcasts/{broadcast_id}", dependencies=[may_read])
    async def get_broadcast(broadcast_id: str) -> BroadcastProgressOut:
        """A broadcast and how far it is."""
        async with runtime.database.reading() as connection:
            return await _watched(connection, await handlers.found(connection, broadcast_id))

    @router.put("/v1/broadcasts/{broadcast_id}", openapi_extra=described_body(BroadcastDocument), dependencies=writers)
    async def change_broadcast(request: Request, broadcast_id: str) -> BroadcastOut:
        """Replace what a draft says."""
        document = read_body(BroadcastDocument, await request.body())
        await handlers.tried(parts, document)
        async with runtime.database.transaction() as tx:
            changed = await handlers.change(tx, broadcast_id, document)
            return await written(tx.connection, changed, await database_now(tx.connection))

    @router.post("/v1/broadcasts/{broadcast_id}:test-send", dependencies=writers)
    async def test_send(broadcast_id: str, body: TestIn) -> TestOut:
        """Send it to own addresses, marked as a test: not in the ledger, not counted, its links as they are written."""
        async with runtime.database.reading() as connection:
            broadcast = await handlers.found(connection, broadcast_id)
            person = await person_to_fill_in(connection, parts, body.lead_id, body.lead)
        tried = await try_out(parts, channels, broadcast, person, list(dict.fromkeys(body.to)))
        return TestOut(items=[TriedOut.model_validate(one, from_attributes=True) for one in tried])

    @router.post("/v1/broadcasts/{broadcast_id}:dry-run", status_code=202, dependencies=writers)
    async def dry_run(broadcast_id: str) -> DryRunOut:
        """Count who would get it now and who is held back, and why; what takes longer the worker goes on with."""
        async with runtime.database.transaction() as tx:
            await dry_runs.begin(tx.connection, await handlers.found(tx.connection, broadcast_id))
        until = time.monotonic() + AT_ONCE_S
        while time.monotonic() < until and await dry_runs.go_on(parts, broadcast_id):
            pass
        return await last_dry_run(broadcast_id)

    @router.get("/v1/broadcasts/{broadcast_id}/dry-run", dependencies=[may_read])
    async def last_dry_run(broadcast_id: str) -> DryRunOut:
        """The last dry run, also while it is under way."""
        async with runtime.database.reading() as connection:
            await handlers.found(connection, broadcast_id)
            found = await trying.dry_run_of(connection, broadcast_id)
        if found is None:
            raise NoSuchBroadcast(f"no dry run was made of {broadcast_id}: make one with :dry-run")
        return _dry_run_out(found)

    @router.post("/v1/broadcasts/{broadcast_id}:start", response_model=BroadcastProgressOut)
    async def start(request: Request, broadcast_id: str, principal: writer, body: StartIn | None = None) -> Response:
        """Begin now or at `send_at`. Whom it means is fixed when it begins."""
        async with runtime.database.reading() as connection:
            broadcast = await handlers.found(connection, broadcast_id)
        await handlers.tried(parts, broadcast.document)  # its templates may have changed since it was written

        async def make(tx: Tx) -> Response:
            begun = await handlers.start(tx, broadcast_id, principal.subject, body.send_at if body else None)
            return _answer(await _watched(tx.connection, begun), 200)

        return await idempotent(runtime.database, request, await request.body(), make)

    @router.post("/v1/broadcasts/{broadcast_id}:stop", dependencies=writers)
    async def stop(broadcast_id: str) -> BroadcastProgressOut:
        """Let nothing leave from now on; what has been handed over or is being handed over is not called back."""
        return await act(handlers.stop, broadcast_id)

    @router.post("/v1/broadcasts/{broadcast_id}:continue", dependencies=writers)
    async def go_on(broadcast_id: str) -> BroadcastProgressOut:
        """Go on where it stopped."""
        return await act(handlers.go_on, broadcast_id)

    @router.post("/v1/broadcasts/{broadcast_id}:cancel", dependencies=writers)
    async def cancel(broadcast_id: str) -> BroadcastProgressOut:
        """End it for good: whoever has not got it does not."""
        return await act(handlers.cancel, broadcast_id)

    async def written(connection: Connection, broadcast: Broadcast, now: datetime) -> BroadcastOut:
        warnings = FaultOut.of(await handlers.warnings_about(connection, broadcast.document))
        return _out(broadcast, now).model_copy(update={"warnings": warnings})

    async def act(change: Callable[[Tx, str], Awaitable[Broadcast]], broadcast_id: str) -> BroadcastProgressOut:
        async with runtime.database.transaction() as tx:
            return await _watched(tx.connection, await change(tx, broadcast_id))

    return router


def _answer(out: BaseModel, status: int) -> Response:
    return Response(out.model_dump_json(), status, media_type="application/json")


def _out(broadcast: Broadcast, now: datetime) -> BroadcastOut:
    return BroadcastOut(
        broadcast_id=broadcast.broadcast_id,
        state=shown(broadcast.state, broadcast.send_at, broadcast.listed_at, now),
        reason=broadcast.reason,
        author=broadcast.author,
        created_at=broadcast.created_at,
        send_at=broadcast.send_at,
        started_at=broadcast.started_at,
        finished_at=broadcast.finished_at,
        document=broadcast.document.as_json(),
    )


async def _watched(connection: Connection, broadcast: Broadcast) -> BroadcastProgressOut:
    now = await database_now(connection)
    progress = await progress_of(connection, broadcast, now)
    paused = await why_paused(connection, broadcast.broadcast_id) if broadcast.state == "running" else None
    return BroadcastProgressOut(
        **{**_out(broadcast, now).model_dump(), "reason": paused or broadcast.reason},
        progress=ProgressOut.model_validate(progress, from_attributes=True),
    )


def _dry_run_out(dry_run: DryRun) -> DryRunOut:
    held_back = sorted(dry_run.held_back, key=lambda row: (-row["people"], row["reason"]))
    return DryRunOut(
        broadcast_id=dry_run.broadcast_id,
        state="done" if dry_run.state == "done" else "running",
        people=dry_run.people,
        would_get=dry_run.would_get,
        held_back=[HeldBackOut.model_validate(row) for row in held_back],
        started_at=dry_run.started_at,
        finished_at=dry_run.finished_at,
    )
