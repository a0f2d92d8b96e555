"""Fold touches: each counts once, for the person it belongs to, as it was told last."""

from collections.abc import Sequence

from services.scoring.engagement import queries
from services.scoring.parts import Parts
from services.scoring.people.handlers import fold_touches, lock_owners, make_anew
from services.scoring.stages.queries import mark_unsettled
from shared.db import Tx
from shared.events import TouchRecorded
from shared.identity import resolve_many
from shared.ids import LeadId


async def on_touches(events: Sequence[TouchRecorded], tx: Tx, *, parts: Parts) -> None:
    """Score touches: one read and one write of each person, however many there are."""
    latest: dict[queries.Key, TouchRecorded] = {}
    for event in sorted(events, key=_received):
        latest[event.origin, event.touch_id] = event
    added = await queries.add_touches(tx.connection, list(latest.values()))
    fresh = [event for key, event in latest.items() if key in added]
    if fresh:
        owners, people = await lock_owners(
            tx.connection, parts, [(event.lead_id, event.occurred_at) for event in fresh]
        )
        owned: dict[LeadId, list[TouchRecorded]] = {}
        for owner, event in zip(owners, fresh, strict=True):
            owned.setdefault(owner, []).append(event)
        await fold_touches(tx.connection, parts, people, owned)
    if len(fresh) < len(latest):
        await _correct([event for key, event in latest.items() if key not in added], tx, parts)


async def _correct(events: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> None:
    """Take touches that were known before: the same again changes nothing, other content received later counts."""
    kept = await queries.lock_touches(tx.connection, [(event.origin, event.touch_id) for event in events])
    corrections = []
    facts = []
    for event in events:
        known = kept[event.origin, event.touch_id]
        if known["event_id"] != event.event_id and (known["position"], known["event_id"]) < _received(event):
            corrections.append(event)
            facts += [(LeadId(known["lead_id"]), known["occurred_at"]), (event.lead_id, event.occurred_at)]
    if corrections:
        await queries.replace_touches(tx.connection, corrections)
        affected = set(await resolve_many(tx.connection, facts))
        await make_anew(tx.connection, parts, affected, await parts.rules.current(tx.connection))
        await mark_unsettled(tx.connection, affected)


def _received(event: TouchRecorded) -> tuple[int, str]:
    return event.position, event.event_id
