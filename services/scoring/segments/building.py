"""A saved segment: computed over all people beside the version that serves, then switched, then told.

Everything is a page to a transaction, and what is to be done stands in the segment's row: a process that ends anywhere
is followed by one that goes on from there.
"""

from services.scoring.parts import Parts
from services.scoring.segments import queries
from services.scoring.segments.catalogue import SEGMENTS
from services.scoring.segments.domain import Live, leaves
from services.scoring.segments.handlers import examine, met, tell
from services.scoring.segments.queries import Kept
from shared.db import Connection, Database, Tx
from shared.faults import failpoint
from shared.ids import LeadId, SegmentId

PAGE = 500


async def take_up(connection: Connection, parts: Parts, kept: Kept) -> None:
    """Begin what the active version of a segment asks for; where the condition is the same, the one that serves does.

    The segment's row is locked.
    """
    active = await SEGMENTS.active_version(connection, kept.segment_id)
    if active is None or active == kept.version:
        return
    await queries.put_version(connection, kept.segment_id, active)
    wanted = await parts.segments.segment(connection, kept.segment_id, active)
    served = await parts.segments.segment(connection, kept.segment_id, kept.serving) if kept.serving else None
    if served is not None and served.source == wanted.source:
        await queries.stop_building(connection, kept.segment_id)
    else:
        await queries.begin_building(connection, kept.segment_id, active)


async def build_segments(database: Database, parts: Parts) -> None:
    """Compute, switch, tell and clear away whatever is to be, one segment after the other."""
    async with database.reading() as connection:
        waiting = await queries.with_work(connection)
    for segment_id in waiting:
        while await _build_on(database, parts, segment_id):
            pass
        while await _tell_on(database, parts, segment_id):
            pass


async def _build_on(database: Database, parts: Parts, segment_id: SegmentId) -> bool:
    """The next page of a version that is being built, or its switch; False when there is nothing to build."""
    async with database.transaction() as tx:
        kept = await queries.lock_segment(tx.connection, segment_id)
        if kept is None or (kept.building is None and (not kept.deleted or kept.serving is None)):
            return False
        if kept.deleted:
            await queries.be_alone(tx.connection)
            await queries.retire(tx.connection, segment_id)
        elif not await _compute(tx, parts, kept):
            await queries.be_alone(tx.connection)
            await queries.switch(tx.connection, segment_id)
        return True


async def _compute(tx: Tx, parts: Parts, kept: Kept) -> bool:
    """Try the next people; False when there are no more."""
    page = await queries.people_after(tx.connection, kept.built_up_to, PAGE)
    if not page or kept.building is None:
        return False
    people, stages = await met(tx.connection, page)
    segment = await parts.segments.segment(tx.connection, kept.segment_id, kept.building)
    serving = (await parts.segments.live(tx.connection)).serving if segment.nested else ()
    await examine(tx, parts, Live(serving, [segment]), [segment], people, stages)
    await queries.advance(tx.connection, kept.segment_id, page[-1], len(page))
    failpoint("while_a_segment_is_built")
    return True


async def _tell_on(database: Database, parts: Parts, segment_id: SegmentId) -> bool:
    """Tell what serves now of all of whom something else was told; False when there is nothing to tell."""
    after = LeadId("")
    while True:
        async with database.transaction() as tx:
            kept = await queries.lock_segment(tx.connection, segment_id)
            if kept is None or not kept.telling or kept.building is not None:
                return False
            page = await queries.untold(tx.connection, segment_id, kept.serving, after, PAGE)
            await _tell(tx, parts, kept, page)
            if not page and not await queries.forget_others(tx.connection, kept, PAGE * 10):
                await queries.told_all(tx.connection, segment_id)
                return False
            failpoint("while_a_segment_is_told")
        after = page[-1] if page else after


async def _tell(tx: Tx, parts: Parts, kept: Kept, page: list[LeadId]) -> None:
    """Tell of people what serves now, and try the segments that name this one."""
    people, stages = await met(tx.connection, page)
    if kept.serving is not None:
        live = await parts.segments.live(tx.connection)
        concerned = live.concerned((), [kept.segment_id])
        gone = [person_id for person_id in page if person_id not in people]
        await examine(tx, parts, live, concerned, people, stages, gone, changed=(), initial=True)
        return
    before = await queries.kept_before(tx.connection, page)
    segment = await parts.segments.segment(tx.connection, kept.segment_id, kept.version)
    told = [(one, before[one].told[kept.segment_id]) for one in page if before[one].was_told(kept.segment_id)]
    await tell(tx, [leaves(one, segment, known) for one, known in told], await parts.present(tx.connection))
