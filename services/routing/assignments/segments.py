"""Where rules say by segments which leads are routed, entering or leaving one makes routing decide as a stage does."""

from collections.abc import Sequence

from services.routing.assignments.dispatch import dispatching
from services.routing.parts import Parts
from services.routing.people.handlers import people
from shared.db import Tx
from shared.events import SegmentEntered, SegmentLeft


async def on_changed(events: Sequence[SegmentEntered | SegmentLeft], tx: Tx, *, parts: Parts) -> None:
    """Give leads to reps that are routed because of a segment, and were not before; whoever has a rep keeps them.

    Not those that are in or out only because the segment was saved: that would flood the reps.
    """
    rules = await parts.rules.current(tx.connection)
    if not rules.route_when.reads("segments"):
        return
    async with dispatching(tx, rules, parts) as dispatcher:
        for event in [one for one in events if not one.initial]:
            [who] = await people(tx.connection, [(event.lead_id, None)], parts.runtime.keys)
            toggled = who.segments ^ {event.segment_id}
            before = {"lead": {}, **who.values(), "segments": sorted(toggled), "now": dispatcher.at}
            if not dispatcher.routes(who) or rules.route_when.holds(before)[0]:
                continue
            situation = await dispatcher.situation(who, event.event_id, event.event_id)
            if situation.current is None and not situation.decided:
                await dispatcher.place(who, situation, event.event_id, event.event_id)
