"""What happens when another channel grouping counts: all touches are grouped anew, and what they earned moves.

Facts that arrive are grouped by the version that counts when they do. A transaction that adds touches writes first and
looks at the version then, so its number is lower than that of a walk which began after a switch it did not see: the
walk waits until no such transaction is left, and so misses none of their touches.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from services.attribution.channels import queries
from services.attribution.channels.domain import RULES_OF, Grouping
from services.attribution.channels.groupings import ChannelGrouping
from services.attribution.channels.queries import StoredTouch
from services.attribution.journeys.handlers import touches_changed
from services.attribution.journeys.queries import lock_leads
from services.attribution.models.catalogue import Catalogue
from services.attribution.pipeline.following import follow_touches
from shared.db import Database, Tx
from shared.events import LeadErased
from shared.rules import ActiveDocument

LONGEST_WAIT = timedelta(seconds=5)
"""How long to wait for those that add touches by another version; a rebuild that swaps lets nobody go on."""

PAGE = 5_000
STEP = 300
"""Touches that are changed in one transaction: few enough to keep nobody waiting."""


async def regroup_touches(
    database: Database, catalogue: Catalogue, groupings: ActiveDocument[ChannelGrouping]
) -> timedelta | None:
    """Take the walk's next step, if there is one; answers no wait when there is more to do."""
    async with database.transaction() as tx:
        grouping = await groupings.current(tx.connection)
        walk = await queries.begin_walk(tx.connection, grouping.version, RULES_OF)
    if walk.finished_at is not None:
        return None
    if not walk.ready:
        return timedelta(milliseconds=50)
    page, differing = await _look_after(database, grouping, (walk.after_touch, walk.after_origin))
    done = 0
    for start in range(0, len(differing), STEP):
        some = differing[start : start + STEP]
        place, last = some[-1]
        async with database.transaction() as tx:
            await regroup(tx, catalogue, grouping, [touch for _, touch in some])
            await queries.advance(tx.connection, walk, last=last, done=place - done, changed=len(some))
        walk, done = replace(walk, after_touch=last.touch_id, after_origin=last.origin), place
    if done < PAGE:
        async with database.transaction() as tx:
            rest = page[-1] if len(page) == PAGE else None
            await queries.advance(tx.connection, walk, last=rest, done=len(page) - done, changed=0)
    return timedelta(0)


async def settle_groupings(
    database: Database, catalogue: Catalogue, groupings: ActiveDocument[ChannelGrouping]
) -> None:
    """Group at once what the walk still owes to the touches of the projection at hand.

    One that is built beside the serving one has no walk: where there ever was another version, all its touches are
    looked at, since some may have been added by that.
    """
    if not database.muted:
        waited = timedelta()
        while waited < LONGEST_WAIT and (wait := await regroup_touches(database, catalogue, groupings)) is not None:
            waited += wait
            await asyncio.sleep(wait.total_seconds())
        return
    async with database.transaction() as tx:
        grouping = await groupings.current(tx.connection)
        if await queries.only_version(tx.connection):
            return
    place = ("", "")
    while True:
        page, differing = await _look_after(database, grouping, place)
        for start in range(0, len(differing), STEP):
            some = [touch for _, touch in differing[start : start + STEP]]
            async with database.transaction() as tx:
                await regroup(tx, catalogue, grouping, some)
        if len(page) < PAGE:
            return
        place = (page[-1].touch_id, page[-1].origin)


async def _look_after(
    database: Database, grouping: ChannelGrouping, place: tuple[str, str]
) -> tuple[list[StoredTouch], list[tuple[int, StoredTouch]]]:
    """The touches whose names come next, and those that come out otherwise, each with how many come until it."""
    async with database.reading() as connection:
        page = await queries.touches_after(connection, *place, PAGE)
    places = {(touch.touch_id, touch.origin): number for number, touch in enumerate(page, 1)}
    return page, [(places[touch.touch_id, touch.origin], touch) for touch, _ in _differing(page, grouping)]


async def on_lead_erased(
    event: LeadErased, tx: Tx, catalogue: Catalogue, groupings: ActiveDocument[ChannelGrouping]
) -> None:
    """Page and content of the touches are gone, and with them what rules made of these."""
    grouping = await groupings.current(tx.connection)
    if grouping.reads_what_erasure_takes:
        touches = await queries.touches_of_lead(tx.connection, event.lead_id)
        await regroup(tx, catalogue, grouping, touches)


async def regroup(tx: Tx, catalogue: Catalogue, grouping: ChannelGrouping, touches: Sequence[StoredTouch]) -> None:
    """Group touches anew, as they are now, and credit the conversions they may have led to."""
    await lock_leads(tx.connection, {touch.lead_id for touch in touches})
    differing = _differing(await queries.touches_again(tx.connection, touches), grouping)
    if differing:
        moved = await queries.put_groupings(tx.connection, differing)
        await follow_touches(tx, (), moved)
        await touches_changed(tx.connection, catalogue, moved)


def _differing(touches: Sequence[StoredTouch], grouping: ChannelGrouping) -> list[tuple[StoredTouch, Grouping]]:
    return [(touch, found) for touch in touches if (found := grouping.group(touch.traffic)) != touch.grouping]
