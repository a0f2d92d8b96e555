"""A human takes over, or lets go: folded as others tell it, and what waited is looked at again."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import assert_never

import orjson

from services.nurture.errors import NoSuchPause
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.takeover import queries
from services.nurture.takeover.document import MEETINGS, TELLING
from services.nurture.takeover.domain import ByHand, Pause
from services.nurture.takeover.standing import standing_of
from shared.db import Connection, Tx
from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    DealChanged,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    PauseAsked,
    PauseEnded,
    PausePersonal,
    TouchPersonal,
    TouchRecorded,
)
from shared.ids import EventId, LeadId
from shared.rules import present
from shared.service import Runtime

AT_ONCE = 1_000
Settled = AssignmentAccepted | AssignmentRejected | AssignmentExpired


async def on_assigned(events: Sequence[LeadAssigned], tx: Tx) -> None:
    """Keep who has which lead."""
    await queries.save_assignments(tx.connection, events)


async def on_assignment_settled(event: Settled, tx: Tx) -> None:
    """Keep what became of an assignment."""
    at, state = event.occurred_at, _state_after(event)
    await queries.settle_assignment(tx.connection, event.assignment_id, event.lead_id, event.rep_id, state, at)


async def on_deals(events: Sequence[DealChanged], tx: Tx) -> None:
    """Keep how deals stand."""
    await queries.save_deals(tx.connection, events)


async def on_touches(events: Sequence[TouchRecorded], tx: Tx, parts: Parts) -> None:
    """Keep replies, meetings and what reps did. Of a meeting, what is personal says when it is."""
    telling = [event for event in events if event.type in TELLING]
    if not telling:
        return
    sealed = [(one.lead_id, one.personal if one.type in MEETINGS else None) for one in telling]
    texts = await parts.runtime.keys.open_many(tx.connection, sealed)
    times = [_meeting_time(text) for text in texts]
    await queries.save_touches(tx.connection, list(zip(telling, times, strict=True)))


async def on_profiles(events: Sequence[LeadCaptured], tx: Tx) -> None:
    """Keep which company people are of."""
    await queries.save_lead_accounts(tx.connection, events)


async def on_accounts(events: Sequence[AccountChanged], tx: Tx) -> None:
    """Keep which companies turned out to be others."""
    await queries.save_merged_accounts(tx.connection, events)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Delete what is personal; each id of the person has its own erasure."""
    await queries.forget(tx.connection, [event.lead_id])


async def look_again(events: Sequence[Settled | LeadAssigned | DealChanged | TouchRecorded], tx: Tx) -> None:
    """What waited for these people may not have to any more: it is looked at now."""
    concerned: set[LeadId] = set()
    for event in events:
        match event:
            case DealChanged():
                concerned |= queries.people_of(event)
            case TouchRecorded():
                concerned |= {event.lead_id} if event.type in MEETINGS else set()
            case LeadAssigned() | AssignmentAccepted() | AssignmentRejected() | AssignmentExpired():
                concerned.add(event.lead_id)
            case _:
                assert_never(event)
    if concerned:
        await _release(tx, concerned)


async def look_again_at_both(event: LeadMerged | LeadUnmerged, tx: Tx) -> None:
    """Whose pauses these are has changed."""
    await _release(tx, {event.lead_id, event.from_lead_id})


async def look_again_under_policy(runtime: Runtime, parts: Parts) -> None:
    """Where another version of the policy counts than before, all that waits because of it is looked at, in pieces."""
    async with runtime.database.reading() as connection:
        version = (await parts.takeover.current(connection)).version
        if await queries.policy_seen(connection) == version:
            return
        after: str | None = ""
        while after is not None:
            after = await queries.release_some(connection, after, AT_ONCE)
        await queries.saw_policy(connection, version)


async def pause_by_hand(tx: Tx, parts: Parts, pause: ByHand) -> None:
    """Keep and tell a pause that somebody asks for; its reason is sealed with the person's key."""
    personal = PausePersonal(reason=pause.reason or "").model_dump_json().encode()
    sealed = (await parts.runtime.keys.seal_known(tx.connection, {pause.lead_id: personal})).get(pause.lead_id)
    await queries.save_pause(tx.connection, pause, sealed)
    tx.emit(
        PauseAsked(
            event_id=EventId(f"pause-asked:{pause.pause_id}"),
            lead_id=pause.lead_id,
            occurred_at=pause.since,
            received_at=pause.since,
            pause_id=pause.pause_id,
            pauses="account" if pause.reach == "account" else "person",
            until=pause.until,
            author=pause.author,
            personal=sealed,
        )
    )


async def end_pause(tx: Tx, parts: Parts, lead_id: LeadId, pause_id: str, author: str) -> None:
    """End and tell a pause: one that was asked for, as a whole where it is the person's own; any other for this person.

    Raises NoSuchPause.
    """
    person_id = await people.lock_person(tx.connection, lead_id)
    now = await parts.present(tx.connection)
    pauses, ids = await standing(tx.connection, parts, person_id, now)
    if pause_id not in {pause.pause_id for pause in pauses}:
        raise NoSuchPause(f"no pause {pause_id[:100]} is in force for lead {lead_id[:100]}; list its pauses")
    asked_under = await queries.end_pause(tx.connection, pause_id, ids, now, author)
    if asked_under is None:
        await queries.release(tx.connection, pause_id, person_id, now, author)
    everybody = asked_under is not None and _is_companys(pauses, pause_id)
    await queries.release_held(tx.connection, None if everybody else ids)
    tx.emit(
        PauseEnded(
            event_id=EventId(f"pause-ended:{pause_id}:{person_id}"),
            lead_id=asked_under or person_id,  # so that it is told after the pause, in the same partition
            occurred_at=now,
            received_at=now,
            pause_id=pause_id,
            wholly=asked_under is not None,
            author=author,
        )
    )


async def on_pause_asked(event: PauseAsked, tx: Tx) -> None:
    """Our own decision, read back: it is here already, unless the database is an earlier copy."""
    pause = ByHand(
        event.pause_id, event.lead_id, event.pauses, event.occurred_at, event.until, event.author, reason=None
    )
    await queries.save_pause(tx.connection, pause, event.personal)


async def on_pause_ended(event: PauseEnded, tx: Tx) -> None:
    """The same of a pause's end."""
    if event.wholly:
        await queries.restore_end(tx.connection, event.pause_id, event.occurred_at, event.author)
    else:
        await queries.release(tx.connection, event.pause_id, event.lead_id, event.occurred_at, event.author)


async def standing(
    connection: Connection, parts: Parts, person_id: LeadId, now: datetime
) -> tuple[list[Pause], tuple[LeadId, ...]]:
    """What pauses marketing to a person now, and the person's ids."""
    person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
    family = (await people.load_families(connection, [person_id]))[person_id]
    policy = await parts.takeover.current(connection)
    return list((await standing_of(connection, policy, person, family, now)).pauses), person.ids


async def reasons_of(connection: Connection, parts: Parts, pauses: Iterable[Pause]) -> dict[str, str]:
    """The reasons that people gave for the pauses they asked for, by pause."""
    asked = [pause.pause_id for pause in pauses if pause.cause == "hand"]
    rows = await queries.written_reasons(connection, asked) if asked else []
    texts = await parts.runtime.keys.open_many(connection, [(LeadId(row["lead_id"]), row["sealed"]) for row in rows])
    told = {
        row["pause_id"]: orjson.loads(text)["reason"] if text is not None else row["reason"]
        for row, text in zip(rows, texts, strict=True)
    }
    return present(**told)


async def _release(tx: Tx, ids: set[LeadId]) -> None:
    """The persons are locked first: who looks at them at this moment sees the change, or is seen here."""
    persons = set((await people.lock_persons(tx.connection, ids)).values())
    families = await people.load_families(tx.connection, persons)
    await queries.release_held(tx.connection, {member.lead_id for family in families.values() for member in family})


def _is_companys(pauses: Iterable[Pause], pause_id: str) -> bool:
    return any(pause.pause_id == pause_id and pause.reach == "account" for pause in pauses)


def _meeting_time(text: bytes | None) -> datetime | None:
    """When a meeting is, as its touch says; None for what is no time with an offset."""
    said = TouchPersonal.model_validate_json(text).properties.get("starts_at") if text is not None else None
    try:
        at = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _state_after(event: Settled) -> str:
    match event:
        case AssignmentAccepted():
            return "accepted"
        case AssignmentRejected():
            return "rejected"
        case AssignmentExpired():
            return "expired"
        case _:
            assert_never(event)
