"""Sequences over HTTP: written, read, saved anew, switched."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError

from services.nurture.errors import NoSuchSequence
from services.nurture.parts import Parts
from services.nurture.sequences import queries
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.document import SequenceDocument
from services.nurture.sequences.domain import compile_plan
from shared.db import Tx
from shared.ids import SequenceId, new_id
from shared.rules import NoSuchVersion, StoredDocument
from shared.web import Input, Limit, Page, Principal, idempotent, invalid, make_cursor, read_cursor, requires

NEWEST = 2**31 - 1


class SequenceOut(BaseModel):
    """One version of a sequence; `active` says that it is the one that counts, `document.active` that it runs."""

    sequence_id: str
    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]


class ActivateIn(Input):
    """Which version counts from now on."""

    version: int = Field(ge=1, le=NEWEST)


def sequences_router(parts: Parts) -> APIRouter:
    """The life of sequences."""
    router = APIRouter(tags=["sequences"])
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))
    may_write = requires("nurture:write")

    @router.post(
        "/v1/sequences",
        status_code=201,
        response_model=SequenceOut,
        openapi_extra=_body_of(SequenceDocument),
    )
    async def create_sequence(request: Request, principal: Annotated[Principal, Depends(may_write)]) -> Response:
        """Save a new sequence. It runs when its document says `active`."""
        body = await request.body()
        document = _read(body)
        sequence_id = SequenceId(new_id())
        compile_plan(sequence_id, 1, document)

        async def make(tx: Tx) -> Response:
            saved = await SEQUENCES.save(tx.connection, document.as_json(), principal.subject, sequence_id)
            return Response(_out(sequence_id, saved).model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, body, make)

    @router.get("/v1/sequences", dependencies=[may_read])
    async def list_sequences(limit: Limit = 50, cursor: str | None = None) -> Page[SequenceOut]:
        """All sequences, each at the version that counts."""
        after = str(read_cursor(runtime.secrets, "sequences", cursor) or "")
        async with runtime.database.reading() as connection:
            found = await queries.listed(connection, after, limit + 1)
            items = [_out(one, await SEQUENCES.active(connection, one)) for one in found[:limit]]
        more = make_cursor(runtime.secrets, "sequences", found[limit - 1]) if len(found) > limit else None
        return Page(items=items, next_cursor=more)

    @router.get("/v1/sequences/{sequence_id}", dependencies=[may_read])
    async def get_sequence(
        sequence_id: str, version: Annotated[int | None, Query(ge=1, le=NEWEST)] = None
    ) -> SequenceOut:
        """A sequence at the version that counts, or at another one."""
        async with runtime.database.reading() as connection:
            try:
                if version is None:
                    return _out(sequence_id, await SEQUENCES.active(connection, sequence_id))
                return _out(sequence_id, await SEQUENCES.version(connection, version, sequence_id))
            except NoSuchVersion as exc:
                raise NoSuchSequence(f"there is no sequence {sequence_id}, or no such version of it") from exc

    @router.put("/v1/sequences/{sequence_id}", openapi_extra=_body_of(SequenceDocument))
    async def save_sequence(
        request: Request,
        sequence_id: str,
        principal: Annotated[Principal, Depends(may_write)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
    ) -> SequenceOut:
        """Save a new version; those who enter from now on follow it, runs under way stay with theirs."""
        document = _read(await request.body())
        compile_plan(SequenceId(sequence_id), 1, document)
        async with runtime.database.transaction() as tx:
            await _check_known(tx, sequence_id)
            saved = await SEQUENCES.save(tx.connection, document.as_json(), principal.subject, sequence_id, draft=draft)
        return _out(sequence_id, saved)

    @router.get("/v1/sequences/{sequence_id}/versions", dependencies=[may_read])
    async def list_versions(sequence_id: str, limit: Limit = 50, cursor: str | None = None) -> Page[SequenceOut]:
        """All versions of a sequence, the newest first."""
        before = read_cursor(runtime.secrets, "sequence-versions", cursor) or NEWEST
        async with runtime.database.reading() as connection:
            found = await SEQUENCES.versions(connection, sequence_id, before=before, limit=limit + 1)
        if not found and cursor is None:
            raise NoSuchSequence(f"there is no sequence {sequence_id}")
        more = (
            make_cursor(runtime.secrets, "sequence-versions", found[limit - 1].version) if len(found) > limit else None
        )
        return Page(items=[_out(sequence_id, stored) for stored in found[:limit]], next_cursor=more)

    @router.post("/v1/sequences/{sequence_id}:activate")
    async def activate_version(
        sequence_id: str, body: ActivateIn, principal: Annotated[Principal, Depends(may_write)]
    ) -> SequenceOut:
        """Switch to a version, also back."""
        async with runtime.database.transaction() as tx:
            await _check_known(tx, sequence_id)
            return _out(
                sequence_id, await SEQUENCES.activate(tx.connection, body.version, principal.subject, sequence_id)
            )

    return router


def _read(body: bytes) -> SequenceDocument:
    try:
        return SequenceDocument.model_validate_json(body)
    except ValidationError as exc:
        raise invalid(exc) from exc


async def _check_known(tx: Tx, sequence_id: str) -> None:
    if await SEQUENCES.active_version(tx.connection, sequence_id) is None:
        raise NoSuchSequence(f"there is no sequence {sequence_id}")


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The request body for OpenAPI, of an endpoint that reads its body as bytes."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _out(sequence_id: str, stored: StoredDocument) -> SequenceOut:
    return SequenceOut(
        sequence_id=sequence_id,
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )
