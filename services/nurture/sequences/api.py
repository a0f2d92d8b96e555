"""Sequences over HTTP: written, read, compared, published, rolled back, and those who are in them moved along."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from services.nurture.errors import NoSuchSequence
from services.nurture.parts import Parts
from services.nurture.sequences import moves, queries
from services.nurture.sequences.catalogue import SEQUENCES
from services.nurture.sequences.document import SequenceDocument, StepId
from services.nurture.sequences.domain import compile_plan
from services.nurture.sequences.inflight import mapping_faults
from services.nurture.sequences.simulation_api import add_simulations
from services.nurture.sequences.written import NEWEST, check_outside, plan_of, read, tried, warnings_about
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid
from shared.ids import SequenceId, new_id
from shared.rules import (
    Decision,
    FaultOut,
    NoSuchVersion,
    StoredDocument,
    TryOut,
    ValidationOut,
    add_life,
    etag,
    expected_version,
    json_object,
    time_to_come,
    unwrapped,
)
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

InFlight = Literal["keep", "migrate"]
PATH = "/v1/sequences/{sequence_id}"
Reason = Annotated[str, Query(max_length=1_000, description="Why it is made active")]
Mapped = dict[StepId, StepId]


class InFlightOut(BaseModel):
    """What becomes of those who follow another version: how many they were at the moment of the decision."""

    choice: InFlight
    runs: int


class SequenceOut(BaseModel):
    """One version of a sequence; `active` says that it is the one that counts, `document.active` that it runs.

    `warnings`, when it is saved, are what may be a mistake in it.
    """

    sequence_id: str
    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]
    in_flight: InFlightOut | None = None
    warnings: list[FaultOut] = Field(default_factory=list)


class ActivateIn(Input):
    """Which version counts from now, or from a time to come, and why.

    `in_flight` says what becomes of those who are in the sequence: they `keep` their version, or `migrate` to this one,
    where `steps` names for steps that it has no more the ones to go on at (default: the next that still exists).
    """

    version: int = Field(ge=1, le=NEWEST)
    at: Instant | None = None
    reason: str = Field(default="", max_length=1_000)
    in_flight: InFlight = "keep"
    steps: Mapped = Field(default_factory=dict, max_length=200)


class MoveIn(Input):
    """Those who are in the sequence, by the version that they would follow: what would become of them."""

    version: int = Field(ge=1, le=NEWEST)
    steps: Mapped = Field(default_factory=dict, max_length=200)


class MovedOut(BaseModel):
    """So many runs stand before `from_step_id` (in the wait `waits_at`) and would stand before `to_step_id`."""

    from_version: int
    from_step_id: str
    waits_at: str | None
    to_step_id: str
    looks_at_once: bool
    runs: int


class PreviewOut(BaseModel):
    """How many a migration concerns, and where they would go on."""

    version: int
    runs: int
    groups: list[MovedOut]


class MoveStateOut(BaseModel):
    """How far the last migration is: `moved` runs until now, `left` to move."""

    version: int
    moved: int
    left: int
    decided_at: datetime
    finished_at: datetime | None


def sequences_router(parts: Parts) -> APIRouter:
    """The life of sequences."""
    router = Endpoints(tags=["sequences"])
    runtime = parts.runtime

    async def named(sequence_id: str) -> str:
        """Which sequence a path means. Raises NoSuchSequence."""
        async with runtime.database.reading() as connection:
            if not await SEQUENCES.versions(connection, sequence_id, limit=1):
                raise NoSuchSequence(f"there is no sequence {sequence_id}")
        return sequence_id

    async def tell(_: Connection, stored: StoredDocument, name: str) -> SequenceOut:
        return _out(name, stored)

    async def try_out(request: Request, document: dict[str, Any]) -> ValidationOut:
        async with runtime.database.reading() as connection:
            return await tried(connection, parts, request.path_params.get("sequence_id", ""), document)

    add_life(
        router,
        runtime.database,
        runtime.secrets,
        SEQUENCES,
        path=PATH,
        shape=SequenceDocument,
        check=lambda document: plan_of("", document),
        tell=tell,
        answer=SequenceOut,
        named=named,
        normal=lambda document: read(document).as_json(),
        try_out=try_out,
    )
    _add_writing(router, parts, try_out)
    _add_reading(router, parts)
    _add_moving(router, parts)
    add_simulations(router, parts)
    return router


def _add_writing(router: APIRouter, parts: Parts, try_out: TryOut) -> None:
    runtime = parts.runtime
    may_write = requires("nurture:write")

    @router.post(
        "/v1/sequences",
        status_code=201,
        response_model=SequenceOut,
        openapi_extra=described_body(SequenceDocument),
    )
    async def create_sequence(request: Request, principal: Annotated[Principal, Depends(may_write)]) -> Response:
        """Save a new sequence. It runs when its document says `active`."""
        body = await request.body()
        document = read_body(SequenceDocument, body)
        sequence_id = SequenceId(new_id())
        compile_plan(sequence_id, 1, document)
        await check_outside(parts, document)

        async def make(tx: Tx) -> Response:
            saved = await SEQUENCES.save(tx.connection, document.as_json(), principal.subject, sequence_id)
            headers = {"ETag": etag(saved.version)}
            told = _out(sequence_id, saved)
            told.warnings = await warnings_about(tx.connection, document)
            return Response(told.model_dump_json(), 201, headers, media_type="application/json")

        return await idempotent(runtime.database, request, body, make)

    @router.post("/v1/sequences:validate", dependencies=[Depends(requires("nurture:read"))])
    async def validate_sequence(request: Request) -> ValidationOut:
        """Everything that is wrong with a document, which is not saved, and what may be a mistake in it."""
        return await try_out(request, unwrapped(json_object(await request.body())))

    @router.put(PATH, openapi_extra=described_body(SequenceDocument))
    async def save_sequence(  # noqa: PLR0913  # what a request is made of
        request: Request,
        response: Response,
        sequence_id: str,
        principal: Annotated[Principal, Depends(may_write)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
        reason: Reason = "",
        in_flight: Annotated[InFlight, Query(description="What becomes of those who are in it")] = "keep",
    ) -> SequenceOut:
        """Save a new version; those who enter from now on follow it, runs under way stay with theirs, or migrate."""
        document = read_body(SequenceDocument, await request.body())
        compile_plan(SequenceId(sequence_id), 1, document)
        decision = Decision(principal.subject, reason, True, expected_version(request.headers.get("if-match")))
        await check_outside(parts, document)
        async with runtime.database.transaction() as tx:
            await _check_known(tx.connection, sequence_id)
            saved = await SEQUENCES.save(tx.connection, document.as_json(), decision, sequence_id, draft=draft)
            told = None if draft else await _decide(tx.connection, sequence_id, saved.version, in_flight, {})
            warnings = await warnings_about(tx.connection, document)
        if saved.active:
            response.headers["ETag"] = etag(saved.version)
        return _out(sequence_id, saved, told).model_copy(update={"warnings": warnings})

    @router.post(f"{PATH}:activate")
    async def activate_version(
        request: Request,
        response: Response,
        sequence_id: str,
        body: ActivateIn,
        principal: Annotated[Principal, Depends(may_write)],
    ) -> SequenceOut:
        """Switch to a version, also back, now or at a time to come; runs under way keep theirs, or migrate."""
        at = time_to_come(body.at)
        if at is not None and body.in_flight == "migrate":
            fault = FieldError("/in_flight", "runs migrate when a version counts: activate it then, or keep them")
            raise Invalid("look at /in_flight", [fault])
        decision = Decision(principal.subject, body.reason, True, expected_version(request.headers.get("if-match")))
        async with runtime.database.transaction() as tx:
            await _check_known(tx.connection, sequence_id)
            active = await SEQUENCES.activate(tx.connection, body.version, decision, sequence_id, at=at)
            await _check_steps(tx.connection, parts, sequence_id, body.version, body.steps)
            told = None
            if at is None:
                told = await _decide(tx.connection, sequence_id, body.version, body.in_flight, body.steps)
        if active.active:
            response.headers["ETag"] = etag(active.version)
        return _out(sequence_id, active, told)


def _add_reading(router: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))

    @router.get("/v1/sequences", dependencies=[may_read])
    async def list_sequences(limit: Limit = 50, cursor: str | None = None) -> Page[SequenceOut]:
        """All sequences, each at the version that counts."""
        after = str(read_cursor(runtime.secrets, "sequences", cursor) or "")
        async with runtime.database.reading() as connection:
            found = await queries.listed(connection, after, limit + 1)
            items = [_out(one, await SEQUENCES.active(connection, one)) for one in found[:limit]]
        more = make_cursor(runtime.secrets, "sequences", found[limit - 1]) if len(found) > limit else None
        return Page(items=items, next_cursor=more)

    @router.get(PATH, dependencies=[may_read])
    async def get_sequence(
        sequence_id: str, response: Response, version: Annotated[int | None, Query(ge=1, le=NEWEST)] = None
    ) -> SequenceOut:
        """A sequence at the version that counts, or at another one; its ETag is for If-Match."""
        async with runtime.database.reading() as connection:
            try:
                stored = await (
                    SEQUENCES.active(connection, sequence_id)
                    if version is None
                    else SEQUENCES.version(connection, version, sequence_id)
                )
            except NoSuchVersion as exc:
                raise NoSuchSequence(f"there is no sequence {sequence_id}, or no such version of it") from exc
        response.headers["ETag"] = etag(stored.version)
        return _out(sequence_id, stored)

    @router.get(f"{PATH}/versions", dependencies=[may_read])
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


def _add_moving(router: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    may_read = Depends(requires("nurture:read"))

    @router.post(f"{PATH}:preview-migration", dependencies=[may_read])
    async def preview_migration(sequence_id: str, body: MoveIn) -> PreviewOut:
        """How many runs would follow a version if it were activated with `migrate`, and where they would go on."""
        async with runtime.database.reading() as connection:
            await _check_steps(connection, parts, sequence_id, body.version, body.steps)
            found = await moves.groups(connection, parts, SequenceId(sequence_id), body.version, body.steps)
        groups = [
            MovedOut(
                from_version=one.standing.version,
                from_step_id=one.standing.step_id,
                waits_at=one.standing.waits_at,
                to_step_id=one.to.step_id,
                looks_at_once=one.to.looks,
                runs=one.standing.runs,
            )
            for one in found
        ]
        return PreviewOut(version=body.version, runs=sum(one.runs for one in groups), groups=groups)

    @router.get(f"{PATH}/migration", dependencies=[may_read])
    async def migration(sequence_id: str) -> MoveStateOut | None:
        """How far the last migration of the sequence's runs is; null where there was none."""
        async with runtime.database.reading() as connection:
            await _check_known(connection, sequence_id)
            found = await moves.state_of(connection, sequence_id)
            if found is None:
                return None
            left = await queries.runs_of_others(connection, sequence_id, found["version"])
        return MoveStateOut(left=left if found["finished_at"] is None else 0, **found)


async def _decide(
    connection: Connection, sequence_id: str, version: int, in_flight: InFlight, steps: Mapped
) -> InFlightOut:
    """What becomes of the runs that follow other versions."""
    runs = await queries.runs_of_others(connection, sequence_id, version)
    if in_flight == "migrate":
        await moves.decide(connection, sequence_id, version, steps)
    else:
        await moves.stop(connection, sequence_id)
    return InFlightOut(choice=in_flight, runs=runs)


async def _check_steps(connection: Connection, parts: Parts, sequence_id: str, version: int, steps: Mapped) -> None:
    faults = mapping_faults(await parts.catalogue.plan(connection, SequenceId(sequence_id), version), steps)
    if faults:
        raise Invalid("look at /steps", faults)


async def _check_known(connection: Connection, sequence_id: str) -> None:
    if await SEQUENCES.active_version(connection, sequence_id) is None:
        raise NoSuchSequence(f"there is no sequence {sequence_id}")


def _out(sequence_id: str, stored: StoredDocument, in_flight: InFlightOut | None = None) -> SequenceOut:
    return SequenceOut(
        sequence_id=sequence_id,
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
        in_flight=in_flight,
    )
