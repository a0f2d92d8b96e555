"""Segments over HTTP: their life, their size before they are saved, their members, and the segments of a lead."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, model_validator

from services.scoring.errors import NoSuchLead, NoSuchSegment
from services.scoring.parts import Parts
from services.scoring.segments import lists, queries, saving
from services.scoring.segments.catalogue import SEGMENTS
from services.scoring.segments.document import (
    ConditionIn,
    NewSegment,
    SegmentDocument,
    compile_condition,
)
from services.scoring.segments.preview import preview
from services.scoring.segments.queries import Kept
from shared.db import Connection, Tx
from shared.emails import Email
from shared.identity import find_by_email, resolve
from shared.ids import LeadId, SegmentId, new_id
from shared.rules import ExpressionFault, NoSuchVersion, StoredDocument, invalid_document
from shared.service import Runtime
from shared.web import Endpoints, Input, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

NEWEST = 2**31 - 1
MOST_ITEMS = 10_000
LeadIdParam = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]
Author = Annotated[Principal, Depends(requires("scoring:write"))]
SegmentParam = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class SegmentOut(BaseModel):
    """A segment at the version that is active.

    `state` is `building` while that version is being computed over all people; until it is `ready` the members are
    those of `serving_version` (null: none yet).
    """

    segment_id: str
    name: str
    kind: Literal["dynamic", "static"]
    when: str | None
    version: int
    serving_version: int | None
    state: Literal["building", "ready"]
    counted: int
    remaining: int
    members: int
    author: str
    created_at: datetime
    document: dict[str, Any]


class VersionOut(BaseModel):
    """One version of a segment."""

    segment_id: str
    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]


class MemberOut(BaseModel):
    """Somebody who is in a segment: since when, by which version of it, and the values that its condition read then."""

    lead_id: LeadId
    since: datetime
    version: int
    why: dict[str, Any]


class MembershipOut(BaseModel):
    """A segment that a lead is in; see `MemberOut`."""

    segment_id: str
    name: str
    kind: Literal["dynamic", "static"]
    when: str | None
    since: datetime
    version: int
    why: dict[str, Any]


class MembershipsOut(BaseModel):
    """The segments of a lead."""

    lead_id: LeadId
    segments: list[MembershipOut]


class SampleOut(BaseModel):
    """Somebody who would be in, and the values that make it so."""

    lead_id: LeadId
    why: dict[str, Any]


class PreviewOut(BaseModel):
    """How large a segment would be. Where it is not `exact`, the size lies within the bounds 19 times of 20."""

    people: int
    looked_at: int
    size: int
    share: float
    exact: bool
    at_least: int
    at_most: int
    samples: list[SampleOut]


class MembersIn(Input):
    """People, by lead id or by email address."""

    lead_ids: list[str] | None = Field(default=None, min_length=1, max_length=MOST_ITEMS)
    emails: list[str] | None = Field(default=None, min_length=1, max_length=MOST_ITEMS)

    @model_validator(mode="after")
    def _one_of_them(self) -> "MembersIn":
        if (self.lead_ids is None) == (self.emails is None):
            raise ValueError("send either lead_ids or emails")
        return self


class ItemOut(BaseModel):
    """What became of one item.

    `awaited`: nothing is known of the lead yet; it is in as soon as something is. `invalid`: no id or address at all.
    """

    index: int
    lead_id: LeadId | None
    state: lists.State


class ItemsOut(BaseModel):
    """What became of each item, in their order."""

    items: list[ItemOut]


class ActivateIn(Input):
    """Which version counts from now on."""

    version: int = Field(ge=1, le=NEWEST)


def segments_router(runtime: Runtime, parts: Parts) -> APIRouter:
    """The life of segments."""
    router, database = Endpoints(tags=["segments"]), runtime.database
    may_read, may_write = Depends(requires("scoring:read")), Depends(requires("scoring:write"))

    @router.post("/v1/segments", status_code=201, response_model=SegmentOut)
    async def create_segment(body: NewSegment, request: Request, author: Author) -> Response:
        """Make a segment. A dynamic one is computed over all people in the background."""

        async def make(tx: Tx) -> Response:
            segment_id = SegmentId(body.segment_id or new_id())
            await saving.create(tx, parts, segment_id, body, author.subject)
            made = await _out(tx.connection, await _kept(tx.connection, segment_id))
            return Response(made.model_dump_json(), 201, media_type="application/json")

        return await idempotent(database, request, await request.body(), make)

    @router.get("/v1/segments", dependencies=[may_read])
    async def list_segments(limit: Limit = 50, cursor: str | None = None) -> Page[SegmentOut]:
        """All segments, in the order of their ids."""
        after = str(read_cursor(runtime.secrets, "segments", cursor) or "")
        async with database.reading() as connection:
            found = await queries.segment_rows(connection, after, limit + 1)
            items = [await _out(connection, kept) for kept in found[:limit]]
        more = make_cursor(runtime.secrets, "segments", found[limit - 1].segment_id) if len(found) > limit else None
        return Page(items=items, next_cursor=more)

    @router.post("/v1/segments:preview", dependencies=[may_read])
    async def preview_segment(body: ConditionIn) -> PreviewOut:
        """How large a segment would be, and twenty who would be in it; saves nothing."""
        try:
            condition = compile_condition(body.when)
        except ExpressionFault as fault:
            raise invalid_document([fault]) from None
        async with database.reading() as connection:
            await saving.check_named(connection, parts, condition)
        return PreviewOut.model_validate(await preview(database, parts, condition), from_attributes=True)

    @router.get("/v1/segments/{segment_id}", dependencies=[may_read])
    async def get_segment(segment_id: SegmentParam) -> SegmentOut:
        """A segment, its size, and how far a version that is being built has come."""
        async with database.reading() as connection:
            return await _out(connection, await _kept(connection, segment_id))

    @router.put("/v1/segments/{segment_id}")
    async def save_segment(
        segment_id: SegmentParam,
        body: SegmentDocument,
        author: Author,
        draft: Annotated[bool, Query(description="Only save it")] = False,
    ) -> SegmentOut:
        """Save a new version. It is computed in the background, and the one before serves until it is ready."""
        async with database.transaction() as tx:
            await saving.save(tx, parts, SegmentId(segment_id), body, author.subject, draft=draft)
            return await _out(tx.connection, await _kept(tx.connection, segment_id))

    @router.delete("/v1/segments/{segment_id}", status_code=204, dependencies=[may_write])
    async def delete_segment(segment_id: SegmentParam) -> None:
        """Delete a segment that no other names; everybody leaves it."""
        async with database.transaction() as tx:
            await saving.delete(tx, parts, SegmentId(segment_id))

    @router.get("/v1/segments/{segment_id}/versions", dependencies=[may_read])
    async def list_versions(segment_id: SegmentParam, limit: Limit = 50, cursor: str | None = None) -> Page[VersionOut]:
        """All versions of a segment, the newest first."""
        before = read_cursor(runtime.secrets, "segment-versions", cursor) or NEWEST
        async with database.reading() as connection:
            await _kept(connection, segment_id)
            found = await SEGMENTS.versions(connection, segment_id, before=before, limit=limit + 1)
        more = (
            make_cursor(runtime.secrets, "segment-versions", found[limit - 1].version) if len(found) > limit else None
        )
        return Page(items=[_version(segment_id, stored) for stored in found[:limit]], next_cursor=more)

    @router.post("/v1/segments/{segment_id}:activate")
    async def activate_version(segment_id: SegmentParam, body: ActivateIn, author: Author) -> SegmentOut:
        """Switch to a version, also back."""
        async with database.transaction() as tx:
            try:
                await saving.activate(tx, parts, SegmentId(segment_id), body.version, author.subject)
            except NoSuchVersion as exc:
                raise NoSuchSegment(f"the segment {segment_id} has no version {body.version}") from exc
            return await _out(tx.connection, await _kept(tx.connection, segment_id))

    return router


def members_router(runtime: Runtime, parts: Parts) -> APIRouter:
    """Who is in a segment, and in which segments a lead is."""
    router, database = Endpoints(tags=["segments"]), runtime.database
    may_read, may_write = Depends(requires("scoring:read")), Depends(requires("scoring:write"))

    @router.get("/v1/segments/{segment_id}/members", dependencies=[may_read])
    async def list_members(segment_id: SegmentParam, limit: Limit = 50, cursor: str | None = None) -> Page[MemberOut]:
        """The members of a segment, in the order of their lead ids."""
        place = f"segment-members/{segment_id}"
        after = str(read_cursor(runtime.secrets, place, cursor) or "")
        async with database.reading() as connection:
            kept = await _kept(connection, segment_id)
            rows = await queries.members_of(connection, kept, after, limit + 1)
        items = [MemberOut(**{**row, "lead_id": row["person_id"]}) for row in rows[:limit]]
        more = make_cursor(runtime.secrets, place, items[-1].lead_id) if len(rows) > limit else None
        return Page(items=items, next_cursor=more)

    @router.post("/v1/segments/{segment_id}/members", dependencies=[may_write])
    async def add_members(segment_id: SegmentParam, body: MembersIn) -> ItemsOut:
        """Put people into a static segment; the same again changes nothing."""
        return await change(segment_id, body, adding=True)

    @router.delete("/v1/segments/{segment_id}/members", dependencies=[may_write])
    async def remove_members(segment_id: SegmentParam, body: MembersIn) -> ItemsOut:
        """Take people out of a static segment."""
        return await change(segment_id, body, adding=False)

    async def change(segment_id: str, body: MembersIn, *, adding: bool) -> ItemsOut:
        if body.emails is not None:
            async with database.reading() as connection:
                lead_ids = await lists.by_emails(connection, runtime.ids, body.emails)
        else:
            lead_ids = [LeadId(one) if lists.LEAD_ID.fullmatch(one) else None for one in body.lead_ids or ()]
        valid = [one for one in lead_ids if one is not None]
        changes = await lists.change_list(database, parts, SegmentId(segment_id), valid, adding=adding)
        made = iter(changes)
        items = []
        for index, lead_id in enumerate(lead_ids):
            one = next(made) if lead_id is not None else lists.INVALID
            items.append(ItemOut(index=index, lead_id=one.lead_id, state=one.state))
        return ItemsOut(items=items)

    @router.get("/v1/leads/{lead_id}/segments", dependencies=[may_read])
    async def segments_of_lead(lead_id: LeadIdParam) -> MembershipsOut:
        """The segments that a lead is in, since when and why."""
        async with database.reading() as connection:
            return await _memberships(connection, parts, await resolve(connection, LeadId(lead_id)))

    @router.get("/v1/leads:segments", dependencies=[may_read])
    async def segments_by_email(email: Annotated[Email, Query(description="Instead of a lead id")]) -> MembershipsOut:
        """The segments that the person with an email address is in."""
        async with database.reading() as connection:
            return await _memberships(connection, parts, await find_by_email(connection, runtime.ids, email))

    return router


async def _memberships(connection: Connection, parts: Parts, person_id: LeadId) -> MembershipsOut:
    if not await queries.known_people(connection, [person_id]):
        raise NoSuchLead(f"nothing was told here about a lead {person_id[:100]}")
    found = []
    for row in await queries.segments_of_person(connection, person_id):
        segment = await parts.segments.segment(connection, row["segment_id"], row["version"])
        kind: Literal["static", "dynamic"] = "static" if segment.when is None else "dynamic"
        found.append(MembershipOut(**row, name=segment.name, kind=kind, when=segment.source))
    return MembershipsOut(lead_id=person_id, segments=found)


async def _kept(connection: Connection, segment_id: str) -> Kept:
    kept = await queries.segment_row(connection, SegmentId(segment_id))
    if kept is None:
        raise saving.no_such_segment(segment_id)
    return kept


async def _out(connection: Connection, kept: Kept) -> SegmentOut:
    stored = await SEGMENTS.version(connection, kept.version, kept.segment_id)
    remaining = max(kept.people - kept.counted, 0) if kept.building is not None else 0
    return SegmentOut(
        segment_id=kept.segment_id,
        name=stored.document["name"],
        kind="static" if kept.kind == "static" else "dynamic",
        when=stored.document.get("when"),
        version=kept.version,
        serving_version=kept.serving,
        state="ready" if kept.building is None else "building",
        counted=kept.counted,
        remaining=remaining,
        members=(await queries.sizes(connection, [kept.segment_id]))[kept.segment_id],
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )


def _version(segment_id: str, stored: StoredDocument) -> VersionOut:
    return VersionOut(
        segment_id=segment_id,
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )
