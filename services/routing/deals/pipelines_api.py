"""The pipelines over HTTP, each with what was measured of its stages."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from services.routing.deals import queries
from services.routing.deals.pipeline import PipelineDocument
from services.routing.deals.stages import Passed, Pipeline, chance, compile_pipeline
from services.routing.errors import NoSuchPipeline
from services.routing.parts import Parts
from shared.db import Connection
from shared.errors import FieldError
from shared.rules import (
    Decision,
    DocumentOut,
    InvalidDocument,
    StoredDocument,
    ValidationOut,
    add_life,
    etag,
    expected_version,
    sent_within,
    time_to_come,
    validation,
)
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

NEWEST = 2**31 - 1
PathPipeline = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Writer = Annotated[Principal, Depends(requires("routing:write"))]
Simulate = Callable[[Pipeline, int], Awaitable[dict[str, Any]]]


class StageOdds(BaseModel):
    """How likely deals in a stage are won: as the document says, and as measured of those that passed it and ended.

    `probability` is the one that counts: `measured` once 50 deals have passed.
    """

    stage: str
    probability: int
    default: int
    measured: float | None
    passed: int
    won: int


class PipelineOut(DocumentOut):
    """One version of a pipeline."""

    pipeline_id: str
    stages: list[StageOdds]


class TryIn(Input):
    """A version of a pipeline, or a document that is not saved, to be tried on the open deals of the last days."""

    version: int | None = Field(default=None, ge=1, le=NEWEST)
    document: dict[str, Any] | None = None
    days: int = Field(default=30, ge=1, le=3_660)


class ActivateIn(Input):
    """Which version counts from now, or from a time to come."""

    version: int = Field(ge=1, le=NEWEST)
    at: Instant | None = None


def router(parts: Parts, simulate: Simulate) -> APIRouter:
    """All pipelines by their ids; `default` is the one that deals are in where none is told."""
    routes = Endpoints(prefix="/v1/pipelines", tags=["pipelines"])
    _add_life(routes, parts)
    _add_reading(routes, parts, simulate)
    _add_writing(routes, parts)
    return routes


def _add_life(routes: APIRouter, parts: Parts) -> None:
    """Check, compare, plan, roll back and look back: before the paths that take whatever stands after the slash."""
    runtime = parts.runtime

    async def named(pipeline_id: PathPipeline) -> str:
        """Which pipeline a path means. Raises NoSuchPipeline."""
        async with runtime.database.reading() as connection:
            await parts.pipelines.current(connection, pipeline_id)
        return pipeline_id

    async def tell(connection: Connection, stored: StoredDocument, pipeline_id: str) -> PipelineOut:
        return await _out(connection, pipeline_id, stored)

    async def try_out(request: Request, document: dict[str, Any]) -> ValidationOut:
        pipeline_id = request.path_params["pipeline_id"]
        told = validation(lambda sent: _compiled(sent, pipeline_id), document)
        if not told.valid:
            return told
        async with runtime.database.reading() as connection:
            try:
                await _refuse_unknown_renewals(connection, parts, _compiled(document, pipeline_id))
            except InvalidDocument as exc:
                return ValidationOut.of(exc.errors)
        return told

    add_life(
        routes,
        runtime.database,
        runtime.secrets,
        parts.pipelines.store,
        path="/{pipeline_id}",
        check=lambda document: _compiled(document, ""),
        shape=PipelineDocument,
        tell=tell,
        answer=PipelineOut,
        named=named,
        try_out=try_out,
    )


def _add_reading(routes: APIRouter, parts: Parts, simulate: Simulate) -> None:
    runtime, store = parts.runtime, parts.pipelines.store
    reading = [Depends(requires("routing:read"))]

    @routes.get("", dependencies=reading)
    async def list_pipelines(limit: Limit = 50, cursor: str | None = None) -> Page[PipelineOut]:
        """All pipelines, by their ids."""
        after = read_cursor(runtime.secrets, "pipelines", cursor) or ""
        async with runtime.database.reading() as connection:
            names = [name for name in await parts.pipelines.names(connection) if name > after]
            items = [await _active(connection, parts, name) for name in names[:limit]]
        more = make_cursor(runtime.secrets, "pipelines", names[limit - 1]) if len(names) > limit else None
        return Page(items=items, next_cursor=more)

    @routes.get("/{pipeline_id}", dependencies=reading)
    async def get_pipeline(pipeline_id: PathPipeline, response: Response) -> PipelineOut:
        """The version that counts now, with what was measured. Its ETag, sent back as If-Match, guards a change."""
        async with runtime.database.reading() as connection:
            active = await _active(connection, parts, pipeline_id)
        response.headers["ETag"] = etag(active.version)
        return active

    @routes.get("/{pipeline_id}/versions", dependencies=reading)
    async def versions(pipeline_id: PathPipeline, limit: Limit = 50, cursor: str | None = None) -> Page[DocumentOut]:
        """All versions, the newest first."""
        before = read_cursor(runtime.secrets, f"pipeline-{pipeline_id}", cursor) or NEWEST
        async with runtime.database.reading() as connection:
            found = await store.versions(connection, pipeline_id, before=before, limit=limit + 1)
        if not found:
            raise NoSuchPipeline(f"there is no pipeline {pipeline_id}")
        place = found[limit - 1].version if len(found) > limit else None
        more = make_cursor(runtime.secrets, f"pipeline-{pipeline_id}", place) if place is not None else None
        return Page(items=[DocumentOut(**_fields(one)) for one in found[:limit]], next_cursor=more)

    @routes.post("/{pipeline_id}:simulate", dependencies=reading)
    async def simulate_pipeline(pipeline_id: PathPipeline, told: TryIn) -> dict[str, Any]:
        """What a version or a document makes of the open deals that changed during the last days, without effect."""
        document = told.document
        if told.version is not None or document is None:
            async with runtime.database.reading() as connection:
                version = told.version or await store.active_version(connection, pipeline_id) or 0
                document = (await store.version(connection, version, pipeline_id)).document
        with sent_within(sent=document is told.document):
            draft = _compiled(document, pipeline_id)
        return {"version": told.version, "days": told.days, **await simulate(draft, told.days)}


def _add_writing(routes: APIRouter, parts: Parts) -> None:
    database, store = parts.runtime.database, parts.pipelines.store

    @routes.put("/{pipeline_id}", openapi_extra=described_body(PipelineDocument))
    async def save_pipeline(  # noqa: PLR0913  # what a request is made of
        pipeline_id: PathPipeline,
        document: dict[str, Any],
        request: Request,
        response: Response,
        principal: Writer,
        draft: Annotated[bool, Query(description="Only save it")] = False,
    ) -> PipelineOut:
        """Save a new pipeline, or a new version of one, and make it active, unless it is a draft.

        `If-Match` with the ETag of a version guards a change against others' changes.
        """
        pipeline = _compiled(document, pipeline_id)
        decision = Decision(principal.subject, expected=expected_version(request.headers.get("if-match")))
        async with database.transaction() as tx:
            await _refuse_unknown_renewals(tx.connection, parts, pipeline)
            saved = await store.save(tx.connection, document, decision, pipeline_id, draft=draft)
            if saved.active:
                response.headers["ETag"] = etag(saved.version)
            return await _out(tx.connection, pipeline_id, saved)

    @routes.post("/{pipeline_id}:activate")
    async def activate_pipeline(
        pipeline_id: PathPipeline, told: ActivateIn, request: Request, response: Response, principal: Writer
    ) -> PipelineOut:
        """Switch to a version, also back."""
        decision = Decision(principal.subject, expected=expected_version(request.headers.get("if-match")))
        at = time_to_come(told.at)
        async with database.transaction() as tx:
            found = await store.activate(tx.connection, told.version, decision, pipeline_id, at=at)
            if found.active:
                response.headers["ETag"] = etag(found.version)
            return await _out(tx.connection, pipeline_id, found)


async def _active(connection: Connection, parts: Parts, pipeline_id: str) -> PipelineOut:
    await parts.pipelines.current(connection, pipeline_id)  # refuses one that is not there, installs what is shipped
    return await _out(connection, pipeline_id, await parts.pipelines.store.active(connection, pipeline_id))


async def _out(connection: Connection, pipeline_id: str, stored: StoredDocument) -> PipelineOut:
    measured = await queries.measured(connection, pipeline_id)
    return PipelineOut(
        **_fields(stored), pipeline_id=pipeline_id, stages=odds(_compiled(stored.document, pipeline_id), measured)
    )


def odds(pipeline: Pipeline, measured: Mapping[str, Passed]) -> list[StageOdds]:
    """What counts of each stage, what the document says, and what was measured."""
    found = []
    for stage in pipeline.stages:
        passed = measured.get(stage.stage_id, Passed(0, 0))
        rate = round(100 * passed.won / passed.closed, 1) if passed.closed else None
        found.append(
            StageOdds(
                stage=stage.stage_id,
                probability=chance(stage, measured),
                default=stage.probability,
                measured=rate,
                passed=passed.closed,
                won=passed.won,
            )
        )
    return found


async def _refuse_unknown_renewals(connection: Connection, parts: Parts, pipeline: Pipeline) -> None:
    renewal = pipeline.renewal
    if renewal is None or renewal.pipeline == pipeline.pipeline_id:
        return
    known = await parts.pipelines.names(connection)
    if renewal.pipeline not in known:
        detail = f"there is no pipeline {renewal.pipeline}; there are {', '.join(known)}"
        raise InvalidDocument("renewals have nowhere to go", [FieldError("/renewal/pipeline", detail)])


def _compiled(document: dict[str, Any], pipeline_id: str) -> Pipeline:
    try:
        return compile_pipeline(0, PipelineDocument.model_validate(document), pipeline_id)
    except ValidationError as exc:
        raise invalid(exc) from exc


def _fields(stored: StoredDocument) -> dict[str, Any]:
    fields: dict[str, int | bool | str | datetime | dict[str, Any]] = {
        "version": stored.version,
        "active": stored.active,
        "author": stored.author,
        "created_at": stored.created_at,
        "document": stored.document,
    }
    return fields
