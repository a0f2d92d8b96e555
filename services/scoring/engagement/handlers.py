"""Fold touches: each counts once, for the person it belongs to, as it was told last. Then judge these persons."""

from collections.abc import Sequence

from services.scoring.engagement import queries
from services.scoring.parts import Parts
from services.scoring.people.domain import Person
from services.scoring.people.handlers import fold_touches, lock_owners, make_anew
from services.scoring.stages.handlers import settle
from shared.db import Tx
from shared.events import TouchRecorded
from shared.ids import LeadId

PAGE = 1_000


async def on_touches(events: Sequence[TouchRecorded], tx: Tx, *, parts: Parts) -> None:
    """Score touches, a page at a time: one read and one write of each person in it, however many touches it has."""
    for start in range(0, len(events), PAGE):
        await _take(events[start : start + PAGE], tx, parts)


async def _take(events: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> None:
    latest: dict[queries.Key, TouchRecorded] = {}
    for event in sorted(events, key=_received):
        latest[event.origin, event.touch_id] = event
    added = await queries.add_touches(tx.connection, list(latest.values()))
    fresh = [event for key, event in latest.items() if key in added]
    causes, folded = await _fold(fresh, tx, parts) if fresh else ({}, {})
    if len(fresh) < len(latest):
        known = [event for key, event in latest.items() if key not in added]
        for person_id, cause in (await _correct(known, tx, parts)).items():
            causes[person_id] = cause
            folded.pop(person_id, None)
    if parts.decides:
        await settle(tx, parts, causes, at_hand=folded)


async def _fold(
    events: Sequence[TouchRecorded], tx: Tx, parts: Parts
) -> tuple[dict[LeadId, str], dict[LeadId, Person]]:
    """Add touches to their persons. Answers the last touch of each person, and the persons."""
    owners, people = await lock_owners(tx.connection, parts, [(event.lead_id, event.occurred_at) for event in events])
    owned: dict[LeadId, list[TouchRecorded]] = {}
    for owner, event in zip(owners, events, strict=True):
        owned.setdefault(owner, []).append(event)
    folded = await fold_touches(tx.connection, parts, people, owned)
    return {owner: touches[-1].event_id for owner, touches in owned.items()}, folded


async def _correct(events: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> dict[LeadId, str]:
    """Take touches that were known before: the same again changes nothing, other content received later counts.

    Answers the persons that a correction made anew, with the correction.
    """
    kept = await queries.lock_touches(tx.connection, [(event.origin, event.touch_id) for event in events])
    corrections = []
    facts = []
    for event in events:
        known = kept[event.origin, event.touch_id]
        if known["event_id"] != event.event_id and (known["position"], known["event_id"]) < _received(event):
            corrections.append(event)
            facts += [(LeadId(known["lead_id"]), known["occurred_at"]), (event.lead_id, event.occurred_at)]
    if not corrections:
        return {}
    await queries.replace_touches(tx.connection, corrections)
    owners, _ = await lock_owners(tx.connection, parts, facts)
    await make_anew(tx.connection, parts, owners, await parts.rules.current(tx.connection))
    return {owner: corrections[place // 2].event_id for place, owner in enumerate(owners)}


def _received(event: TouchRecorded) -> tuple[int, str]:
    return event.position, event.event_id
