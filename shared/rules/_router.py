"""The life of a rule document over HTTP: read, save, list, simulate, activate."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator
from starlette.requests import Request

from shared.db import Connection, Database
from shared.errors import FieldError, Malformed
from shared.rules._documents import DocumentStore, StoredDocument
from shared.secrets import Secrets
from shared.web import Input, Limit, Page, Principal, invalid, make_cursor, read_cursor, requires

Validate = Callable[[dict[str, Any]], object]
Simulate = Callable[[dict[str, Any], int], Awaitable[dict[str, Any]]]
NEWEST = 2**31 - 1


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
    """Which version counts from now, or from a time to come."""

    version: int = Field(ge=1, le=NEWEST)
    at: AwareDatetime | None = None


def documents_router(  # noqa: PLR0913  # what a kind of document is made of
    database: Database,
    secrets: Secrets,
    store: DocumentStore,
    *,
    validate: Validate,
    simulate: Simulate,
    path: str = "/v1/rules",
    answer: type[DocumentOut] = DocumentOut,
    tell: Tell | None = None,
) -> APIRouter:
    """The endpoints of a kind with a single document. Reading needs `<service>:read`, changing `<service>:write`.

    `validate` raises `InvalidDocument` or pydantic's ValidationError for a document that cannot work. `simulate` runs
    a valid document over the last days, without effect, and answers who would change and how. `tell` makes the
    `answer` about a version, where there is more to say than the document.
    """
    router = APIRouter(tags=["rules"])

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
    async def active_document() -> DocumentOut:
        """The version that counts now."""
        async with database.reading() as connection:
            return await out(connection, await store.active(connection))

    @router.put(path, response_model=answer)
    async def save_document(
        request: Request,
        principal: Annotated[Principal, Depends(may_change)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
    ) -> DocumentOut:
        """Save a new version and make it active, unless it is a draft."""
        document = _json_object(await request.body())
        check(document)
        async with database.transaction() as tx:
            saved = await store.save(tx.connection, document, principal.subject, draft=draft)
            return await out(tx.connection, saved)

    @router.get(f"{path}/versions", dependencies=[may_read])
    async def versions(limit: Limit = 50, cursor: str | None = None) -> Page[DocumentOut]:
        """All versions, the newest first."""
        before = read_cursor(secrets, "rule-versions", cursor) or NEWEST
        async with database.reading() as connection:
            found = await store.versions(connection, before=before, limit=limit + 1)
        more = make_cursor(secrets, "rule-versions", found[limit - 1].version) if len(found) > limit else None
        return Page(items=[_out(version) for version in found[:limit]], next_cursor=more)

    @router.post(f"{path}:simulate", dependencies=[may_read])
    async def simulate_document(body: SimulateIn) -> dict[str, Any]:
        """What a version or a document would have made of the last days, without effect."""
        document = body.document
        if body.version is not None:
            async with database.reading() as connection:
                document = (await store.version(connection, body.version)).document
        check(document or {})
        return {"version": body.version, "days": body.days, **await simulate(document or {}, body.days)}

    @router.post(f"{path}:activate", response_model=answer)
    async def activate_document(body: ActivateIn, principal: Annotated[Principal, Depends(may_change)]) -> DocumentOut:
        """Switch to a version, also back."""
        async with database.transaction() as tx:
            activated = await store.activate(tx.connection, body.version, principal.subject, at=body.at)
            return await out(tx.connection, activated)

    return router


def _out(stored: StoredDocument) -> DocumentOut:
    return DocumentOut(
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
    if not isinstance(document, dict):
        raise Malformed("a rule document is a JSON object", [FieldError("", "is not an object")])
    return document
