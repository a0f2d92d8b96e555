"""The life of a segment: made, saved anew, switched back, deleted. Nothing is ever overwritten."""

from services.scoring.errors import NoSuchSegment, SegmentExists, SegmentInUse, TooManySegments
from services.scoring.parts import Parts
from services.scoring.segments import queries
from services.scoring.segments.building import take_up
from services.scoring.segments.catalogue import SEGMENTS
from services.scoring.segments.document import Segment, SegmentDocument, compile_segment
from services.scoring.segments.domain import circle
from services.scoring.segments.queries import Kept
from shared.db import Connection, Tx
from shared.errors import FieldError
from shared.ids import SegmentId
from shared.rules import ExpressionFault, InvalidDocument, StoredDocument, invalid_document, place

MOST = 1_000


def compiled(segment_id: SegmentId, document: SegmentDocument) -> Segment:
    """A document, compiled. Raises InvalidDocument."""
    try:
        return compile_segment(segment_id, 0, document.as_json())
    except ExpressionFault as fault:
        raise invalid_document([fault]) from None


async def create(tx: Tx, parts: Parts, segment_id: SegmentId, document: SegmentDocument, author: str) -> StoredDocument:
    """Make a segment; a dynamic one is computed in the background. Raises SegmentExists, InvalidDocument."""
    await queries.take_turn(tx.connection)
    kept = await queries.lock_segment(tx.connection, segment_id)
    if kept is not None and not kept.deleted:
        raise SegmentExists(f"there is a segment {segment_id} already; choose another segment_id, or save it with PUT")
    if kept is not None and (kept.serving is not None or kept.building is not None or kept.telling):
        raise SegmentExists(f"the segment {segment_id} that was deleted is being cleared away; try again in a moment")
    if await queries.number_of_segments(tx.connection) >= MOST:
        raise TooManySegments(f"there are {MOST} segments; delete one that is not used")
    await check_named(tx.connection, parts, compiled(segment_id, document))
    saved = await SEGMENTS.save(tx.connection, document.as_json(), author, segment_id)
    serving = saved.version if document.kind == "static" else None
    await queries.make_segment(tx.connection, segment_id, document.kind, saved.version, serving)
    if serving is None:
        await queries.begin_building(tx.connection, segment_id, saved.version)
    return saved


async def save(  # noqa: PLR0913  # what a saving is made of
    tx: Tx, parts: Parts, segment_id: SegmentId, document: SegmentDocument, author: str, *, draft: bool
) -> StoredDocument:
    """Save a new version, and have it take over unless it is a draft."""
    kept = await _known(tx.connection, segment_id)
    if document.kind != kept.kind:
        detail = f"is {kept.kind} and stays so; make another segment"
        raise InvalidDocument("a segment does not change its kind", [FieldError("/kind", detail)])
    await check_named(tx.connection, parts, compiled(segment_id, document))
    saved = await SEGMENTS.save(tx.connection, document.as_json(), author, segment_id, draft=draft)
    await take_up(tx.connection, parts, kept)
    return saved


async def activate(tx: Tx, parts: Parts, segment_id: SegmentId, version: int, author: str) -> StoredDocument:
    """Switch to a version, also back. Raises NoSuchVersion."""
    kept = await _known(tx.connection, segment_id)
    await check_named(tx.connection, parts, await parts.segments.segment(tx.connection, segment_id, version))
    activated = await SEGMENTS.activate(tx.connection, version, author, segment_id)
    await take_up(tx.connection, parts, kept)
    return activated


async def delete(tx: Tx, parts: Parts, segment_id: SegmentId) -> None:
    """Delete a segment that no other names: everybody leaves it. Raises SegmentInUse."""
    await _known(tx.connection, segment_id)
    users = sorted(name for name, nested in (await _named(tx.connection, parts)).items() if segment_id in nested)
    if users:
        errors = [FieldError("", f"{name} asks for it") for name in users]
        raise SegmentInUse(f"{', '.join(users[:10])} asks for {segment_id}; change or delete it first", errors)
    await queries.mark_deleted(tx.connection, segment_id)


async def check_named(connection: Connection, parts: Parts, segment: Segment) -> None:
    """Refuse a condition that names a score or segment that is not there, or that leads back to itself."""
    scores = (await parts.rules.current(connection)).engagement.named
    for score_id in sorted(segment.scores - scores.keys()):
        offered = f"; there are {', '.join(sorted(scores))}" if scores else ""
        raise invalid_document([_at(segment, f"scores.{score_id}", f"there is no score {score_id}{offered}")])
    named = await _named(connection, parts)
    for name in sorted(segment.nested):
        if name not in named:
            raise invalid_document([_at(segment, name, f"there is no segment {name}")])
    if not segment.segment_id:
        return
    named[segment.segment_id] = named.get(segment.segment_id, set()) | segment.nested
    path = circle(named)
    if path is not None:
        begin = path.index(segment.segment_id) if segment.segment_id in path else 0
        shown = [*path[begin:-1], *path[:begin], path[begin]]
        detail = f"the segments lead back to one another: {' -> '.join(shown)}"
        raise invalid_document([_at(segment, shown[1], detail)])


def _at(segment: Segment, name: str, detail: str) -> ExpressionFault:
    source = segment.source or ""
    line, column = place(source, max(source.find(name), 0))
    return ExpressionFault("/when", column, detail, line)


async def _named(connection: Connection, parts: Parts) -> dict[SegmentId, set[SegmentId]]:
    """The segments that each names, in any version that is active, serves or is being built."""
    named: dict[SegmentId, set[SegmentId]] = {}
    for kept in await queries.every_segment(connection):
        found = named.setdefault(kept.segment_id, set())
        for version in {kept.version, kept.serving or kept.version, kept.building or kept.version}:
            found |= (await parts.segments.segment(connection, kept.segment_id, version)).nested
    return named


async def _known(connection: Connection, segment_id: SegmentId) -> Kept:
    await queries.take_turn(connection)
    kept = await queries.lock_segment(connection, segment_id)
    if kept is None or kept.deleted:
        raise no_such_segment(segment_id)
    return kept


def no_such_segment(segment_id: str) -> NoSuchSegment:
    """The refusal of an id that no segment has."""
    return NoSuchSegment(f"there is no segment {segment_id[:100]}")
