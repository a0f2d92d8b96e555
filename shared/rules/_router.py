"""The life of a rule document over HTTP: read, save, list, simulate, activate."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field, ValidationError, model_validator
from starlette.requests import Request

from shared.clock import present
from shared.db import Connection, Database
from shared.errors import FieldError, Invalid
from shared.rules._activations import expected_version
from shared.rules._documents import Decision, DocumentStore, StoredDocument
from shared.rules._life import NEWEST, Reason, add_life, etag, json_object
from shared.rules._within import sent_within
from shared.secrets import Secrets
from shared.web import (
    Endpoints,
    Input,
    Instant,
    Limit,
    Page,
    Principal,
    described_body,
    invalid,
    make_cursor,
    read_cursor,
    requires,
)

Validate = Callable[[dict[str, Any]], object]
Simulate = Callable[[dict[str, Any], int], Awaitable[dict[str, Any]]]
SLACK = timedelta(minutes=1)
"""How far clocks may differ: a time to come that lies so little behind is now."""


class DocumentOut(BaseModel):
    """One version of a rule document."""

    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]


Tell = Callable[[Connection, StoredDocument], Awaitable[DocumentOut]]


class SimulateIn(Input):
    """What to try on the history of the last `days`: a saved version, or a document that is not saved."""

    version: int | None = Field(default=None, ge=1, le=NEWEST)
    document: dict[str, Any] | None = None
    days: int = Field(default=30, ge=1, le=3_660)

    @model_validator(mode="after")
    def _one_of_them(self) -> "SimulateIn":
        if (self.version is None) == (self.document is None):
            raise ValueError("send either version or document")
        return self


class ActivateIn(Input):
    """Which version counts from now, or from a time to come, and why.

    Where other services act on what follows from the switch, `announce` false keeps it from them.
    """

    version: int = Field(ge=1, le=NEWEST)
    at: Instant | None = None
    reason: Reason = ""
    announce: bool = True


def documents_router(  # noqa: PLR0913  # what a kind of document is made of
    database: Database,
    secrets: Secrets,
    store: DocumentStore,
    *,
    validate: Validate,
    shape: type[BaseModel],
    simulate: Simulate | None,
    path: str = "/v1/rules",
    answer: type[DocumentOut] = DocumentOut,
    tell: Tell | None = None,
) -> APIRouter:
    """The endpoints of a kind with a single document. Reading needs `<service>:read`, changing `<service>:write`.

    `validate` raises `InvalidDocument` or pydantic's ValidationError for a document that cannot work; `shape` is what
    callers are told that one looks like. `simulate` runs a valid document over the last days, without effect, and
    answers who would change and how (None: the kind has an endpoint of its own). `tell` makes the `answer` about a
    version, where there is more to say than the document.
    """
    router = Endpoints(tags=["rules"])

    async def out(connection: Connection, stored: StoredDocument) -> DocumentOut:
        return _out(stored) if tell is None else await tell(connection, stored)

    def check(document: dict[str, Any]) -> None:
        try:
            validate(document)
        except ValidationError as exc:
            raise invalid(exc) from exc

    may_read = Depends(requires(f"{database.service}:read"))
    may_change = requires(f"{database.service}:write")

    @router.get(path, dependencies=[may_read], response_model=answer)
    async def active_document(response: Response) -> DocumentOut:
        """The version that counts now. Its ETag, sent back as If-Match, guards a change against others' changes."""
        async with database.reading() as connection:
            stored = await store.active(connection)
            response.headers["ETag"] = etag(stored.version)
            return await out(connection, stored)

    @router.put(path, response_model=answer, openapi_extra=described_body(shape))
    async def save_document(  # noqa: PLR0913  # what a request is made of
        request: Request,
        response: Response,
        principal: Annotated[Principal, Depends(may_change)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
        reason: Annotated[str, Query(max_length=1_000, description="Why it is made active")] = "",
        announce: Annotated[bool, Query(description="Whether what follows from the switch is told")] = True,
    ) -> DocumentOut:
        """Save a new version and make it active, unless it is a draft."""
        document = json_object(await request.body())
        check(document)
        expected = expected_version(request.headers.get("if-match"))
        decision = Decision(principal.subject, reason, announce, expected)
        async with database.transaction() as tx:
            saved = await store.save(tx.connection, document, decision, draft=draft)
            if saved.active:
                response.headers["ETag"] = etag(saved.version)
            return await out(tx.connection, saved)

    @router.get(f"{path}/versions", dependencies=[may_read])
    async def versions(limit: Limit = 50, cursor: str | None = None) -> Page[DocumentOut]:
        """All versions, the newest first."""
        before = read_cursor(secrets, "rule-versions", cursor) or NEWEST
        async with database.reading() as connection:
            found = await store.versions(connection, before=before, limit=limit + 1)
        more = make_cursor(secrets, "rule-versions", found[limit - 1].version) if len(found) > limit else None
        return Page(items=[_out(version) for version in found[:limit]], next_cursor=more)

    @router.post(f"{path}:activate", response_model=answer)
    async def activate_document(
        body: ActivateIn, request: Request, response: Response, principal: Annotated[Principal, Depends(may_change)]
    ) -> DocumentOut:
        """Switch to a version, also back, or plan it for a time to come."""
        expected = expected_version(request.headers.get("if-match"))
        decision = Decision(principal.subject, body.reason, body.announce, expected)
        async with database.transaction() as tx:
            activated = await store.activate(tx.connection, body.version, decision, at=time_to_come(body.at))
            if activated.active:
                response.headers["ETag"] = etag(activated.version)
            return await out(tx.connection, activated)

    if simulate is not None:
        tried = simulate

        @router.post(f"{path}:simulate", dependencies=[may_read])
        async def simulate_document(body: SimulateIn) -> dict[str, Any]:
            """What a version or a document would have made of the last days, without effect."""
            document = await document_to_try(database, store, body)
            with sent_within(sent=body.version is None):
                validate(document)
            return {"version": body.version, "days": body.days, **await tried(document, body.days)}

    told = _of_the_only_one(out)
    add_life(router, database, secrets, store, path=path, check=check, shape=shape, tell=told, answer=answer)
    return router


def _of_the_only_one(out: Tell) -> Callable[[Connection, StoredDocument, str], Awaitable[DocumentOut]]:
    return lambda connection, stored, _: out(connection, stored)


async def document_to_try(database: Database, store: DocumentStore, body: SimulateIn) -> dict[str, Any]:
    """The document that is to be tried on history: the one sent, or that of a version."""
    if body.version is None:
        return body.document or {}
    async with database.reading() as connection:
        return (await store.version(connection, body.version)).document


def time_to_come(at: datetime | None) -> datetime | None:
    """The time that a switch is planned for; None is now. Raises Invalid for one that lies behind."""
    now = present.now()
    if at is not None and at < now - SLACK:
        raise Invalid("look at /at", [FieldError("/at", f"lies behind; it is {now.isoformat(timespec='seconds')}")])
    return None if at is None or at <= now else at


def _out(stored: StoredDocument) -> DocumentOut:
    return DocumentOut(
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )
