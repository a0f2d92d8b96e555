"""Fold touches: each counts once, for the person it belongs to, as it was told last. Then judge these persons."""

from collections.abc import Sequence

from services.scoring.engagement import queries
from services.scoring.parts import Parts
from services.scoring.people.beside import everywhere, rules_of_rows
from services.scoring.people.domain import Person
from services.scoring.people.handlers import fold_touches, lock_owners, make_anew
from services.scoring.segments.domain import BY_TOUCHES
from services.scoring.stages.handlers import Fresh, settle
from services.scoring.stages.undoing import Undone, settle_undone
from shared.db import Tx
from shared.events import TouchRecorded, TouchWithdrawn
from shared.identity import Fact
from shared.ids import LeadId
from shared.withdrawals import as_they_count, keep_withdrawals, why_withdrawn

PAGE = 1_000


async def on_touches(events: Sequence[TouchRecorded], tx: Tx, *, parts: Parts) -> None:
    """Score touches, a page at a time: one read and one write of each person in it, however many touches it has."""
    for start in range(0, len(events), PAGE):
        await _take(events[start : start + PAGE], tx, parts)


async def on_withdrawn(events: Sequence[TouchWithdrawn], tx: Tx, *, parts: Parts) -> None:
    """Take back what touches gave that turned out to be a machine's: points, raised hands, and stages they caused."""
    causes = {(event.origin, event.touch_id): event for event in await keep_withdrawals(tx.connection, events)}
    rows = await queries.mark_automated(tx.connection, sorted(causes))
    if not rows:
        return
    facts = [(LeadId(row["lead_id"]), row["occurred_at"]) for row in rows]
    owners = await _made_anew(tx, parts, facts)
    undone: dict[LeadId, Undone] = {}
    told: dict[LeadId, str] = {}
    for owner, row in zip(owners, rows, strict=True):
        event = causes[row["origin"], row["touch_id"]]
        why = why_withdrawn(event.origin, event.touch_id, event.reason)
        undone[owner] = Undone(row["occurred_at"], why).joined(undone.get(owner))
        told[owner] = event.event_id
    if parts.decides:
        await settle_undone(tx, parts, told, undone)


async def _take(received: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> None:
    events, _ = await as_they_count(tx.connection, received)
    latest: dict[queries.Key, TouchRecorded] = {}
    for event in sorted(events, key=_received):
        latest[event.origin, event.touch_id] = event
    added = await queries.add_touches(tx.connection, list(latest.values()))
    fresh = [event for key, event in latest.items() if key in added]
    causes: dict[LeadId, str] = {}
    folded: dict[LeadId, Person] = {}
    news: dict[LeadId, Fresh] = {}
    undone: dict[LeadId, Undone] = {}
    if fresh:
        causes, folded, news = await everywhere(tx, parts, lambda parts: _fold(fresh, tx, parts))
    if len(fresh) < len(latest):
        known = [event for key, event in latest.items() if key not in added]
        corrected, undone = await _correct(known, tx, parts)
        for person_id, cause in corrected.items():
            causes[person_id] = cause
            folded.pop(person_id, None)
            news.pop(person_id, None)
    if parts.decides:
        await settle_undone(tx, parts, {person_id: causes.pop(person_id) for person_id in undone}, undone)
        await settle(tx, parts, causes, at_hand=folded, fresh=news, changed=BY_TOUCHES)


async def _fold(
    events: Sequence[TouchRecorded], tx: Tx, parts: Parts
) -> tuple[dict[LeadId, str], dict[LeadId, Person], dict[LeadId, Fresh]]:
    """Add touches to their persons. Answers the last touch of each person, the persons, and what is new of them."""
    owners, people = await lock_owners(tx, parts, [(event.lead_id, event.occurred_at) for event in events])
    owned: dict[LeadId, list[TouchRecorded]] = {}
    for owner, event in zip(owners, events, strict=True):
        owned.setdefault(owner, []).append(event)
    folded = await fold_touches(tx.connection, parts, people, owned)
    news = {owner: Fresh(people[owner], touches) for owner, touches in owned.items()}
    return {owner: touches[-1].event_id for owner, touches in owned.items()}, folded, news


async def _correct(
    events: Sequence[TouchRecorded], tx: Tx, parts: Parts
) -> tuple[dict[LeadId, str], dict[LeadId, Undone]]:
    """Take touches that were known before: the same again changes nothing, other content received later counts.

    Answers the persons that a correction made anew, with the correction; and of whom it took a touch that a machine
    made, as it is known now.
    """
    kept = await queries.lock_touches(tx.connection, [(event.origin, event.touch_id) for event in events])
    corrections: list[TouchRecorded] = []
    facts: list[Fact] = []
    undoing: list[Undone | None] = []
    for event in events:
        known = kept[event.origin, event.touch_id]
        if known["event_id"] != event.event_id and (known["position"], known["event_id"]) < _received(event):
            corrections.append(event)
            facts += [(LeadId(known["lead_id"]), known["occurred_at"]), (event.lead_id, event.occurred_at)]
            why = why_withdrawn(event.origin, event.touch_id, event.automated_reason)
            machine = event.automated and not known["automated"]
            undoing += [Undone(known["occurred_at"], why) if machine else None, None]
    if not corrections:
        return {}, {}
    await queries.replace_touches(tx.connection, corrections)
    owners = await _made_anew(tx, parts, facts)
    undone: dict[LeadId, Undone] = {}
    for owner, one in zip(owners, undoing, strict=True):
        if one is not None:
            undone[owner] = one.joined(undone.get(owner))
    return {owner: corrections[place // 2].event_id for place, owner in enumerate(owners)}, undone


async def _made_anew(tx: Tx, parts: Parts, facts: Sequence[Fact]) -> list[LeadId]:
    """Make the persons of facts anew; answers them."""

    async def make(parts: Parts) -> list[LeadId]:
        owners, _ = await lock_owners(tx, parts, facts)
        await make_anew(tx.connection, parts, owners, await rules_of_rows(tx.connection, parts))
        return owners

    return await everywhere(tx, parts, make)


def _received(event: TouchRecorded) -> tuple[int, str]:
    return event.position, event.event_id
