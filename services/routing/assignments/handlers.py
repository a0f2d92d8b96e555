"""What makes routing decide: a stage entered, a profile that was waited for, an answer, a deadline, a merge."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.routing.assignments import queries
from services.routing.assignments.dispatch import Dispatcher
from services.routing.assignments.domain import DONE, Assignment, Trial, one_owner, wants_rep
from services.routing.assignments.facts import assignment_expired, assignment_id_of, lead_assigned
from services.routing.assignments.queries import Hold
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.people.handlers import person
from services.routing.rules.domain import PROFILE, Rules
from shared.db import Connection, Tx
from shared.events import IdentityLinked, LeadCaptured, LeadErased, LeadMerged, LeadUnmerged, StageChanged
from shared.identity import resolve_many
from shared.ids import LeadId
from shared.telemetry import counter

EXPIRED = counter("throughline_routing_expired_total", "Offers that were not answered in time: are reps overrun")
PROFILE_WITHIN = timedelta(seconds=60)
"""A profile that scoring has read arrives; if it does not by then, it is stuck, and the lead must not be."""
UNTOLD_PROFILE_WITHIN = timedelta(seconds=5)
"""Where it is not told whether there is a profile, this is long enough for one to arrive."""
AT_ONCE = 100
MERGED = "merged"


async def on_stages_changed(events: Sequence[StageChanged], tx: Tx, *, parts: Parts) -> None:
    """Give leads that enter a stage at which leads are routed to reps; the work on those that are done ends."""
    at = parts.runtime.clock.now()
    rules = await parts.rules.current(tx.connection)
    concerned = [event for event in events if event.stage in DONE or _may_route(event, rules, at)]
    left = [event for event in events if event not in concerned]
    if left:
        persons = await resolve_many(tx.connection, [(event.lead_id, event.occurred_at) for event in left])
        await queries.retry_holds_of(tx.connection, persons, at)
    if not concerned:
        return
    dispatcher = await Dispatcher.open(tx, rules, at)
    for event in concerned:
        who = await person(tx.connection, event.lead_id, event.occurred_at)
        if who.stage in DONE:
            await _end_work(dispatcher, who)
        if dispatcher.routes(who):
            await _consider(dispatcher, event, who)


async def on_leads_captured(events: Sequence[LeadCaptured], tx: Tx, *, parts: Parts) -> None:
    """Leads that waited for their profile are given out; those that wait for a rep are tried again with it."""
    persons = await resolve_many(tx.connection, [(event.lead_id, None) for event in events])
    waiting = await queries.holds_of(tx.connection, sorted(set(persons)))
    if not waiting:
        return
    at = parts.runtime.clock.now()
    dispatcher = await Dispatcher.open(tx, await parts.rules.current(tx.connection), at)
    for hold in waiting:
        who = await person(tx.connection, hold.lead_id)
        if hold.awaits is None or hold.awaits <= who.revision:
            await _try_again(dispatcher, hold, who)


async def on_identity_changed(event: LeadMerged | LeadUnmerged | IdentityLinked, tx: Tx, *, parts: Parts) -> None:
    """Assignments and holds follow the person: of two current owners one goes on, told anew; see `one_owner`.

    The other's assignment ends, and lives again when the merge is undone.
    """
    other = event.anonymous_lead_id if isinstance(event, IdentityLinked) else event.from_lead_id
    connection = tx.connection
    named = [event.lead_id, other]
    if not await queries.of_persons(connection, named) and not await queries.holds_of(connection, named):
        return
    await queries.lock_dispatcher(connection)
    groups = await _by_owner(tx, set(named))
    crowded = {owner for owner, group in groups.items() if await _end_losers(tx, group, parts.runtime.clock.now())}
    await _move(tx, groups)
    left = {one.person_id for group in groups.values() for one, moved in group if moved}
    for owner, group in groups.items():
        kept = await _revive(tx, group, some_left=owner in left)
        if kept is not None and owner in crowded:
            await queries.raise_revision(connection, kept.assignment_id, max(one.revision for one, _ in group) + 1)
            told = await queries.one(connection, kept.assignment_id)
            assert told is not None
            tx.emit(lead_assigned(told, kept_by=event.event_id))
    await _move_holds(tx, named)


async def on_lead_erased(event: LeadErased, tx: Tx, *, parts: Parts) -> None:
    """Nobody works on an erased person; what the rules saw of them is forgotten, that they decided stays."""
    connection = tx.connection
    at = parts.runtime.clock.now()
    await queries.lock_dispatcher(connection)
    current = await queries.current(connection, event.lead_id)
    if current is not None:
        await queries.end(connection, current.assignment_id, at, "erased")
    await queries.drop_holds(connection, [event.lead_id])
    await queries.forget_inputs(connection, event.lead_id)


async def expire_overdue(parts: Parts) -> datetime | None:
    """Offers whose time is over go to the next rep. Answers when the next one is due.

    A rep who accepts at the same time wins: an assignment expires only while it is offered.
    """
    at = parts.runtime.clock.now()
    async with parts.runtime.database.reading() as connection:
        due = await queries.next_due(connection)
    if due is None or due > at:
        return due
    async with parts.runtime.database.transaction() as tx:
        dispatcher = await Dispatcher.open(tx, await parts.rules.current(tx.connection), at)
        for offer in await queries.overdue(tx.connection, at, AT_ONCE):
            expired = await queries.end(
                tx.connection, offer.assignment_id, at, "expired", states=("offered",), state="expired"
            )
            if expired is not None:
                EXPIRED.inc()
                fact = assignment_expired(expired, at)
                tx.emit(fact)
                who = await person(tx.connection, expired.lead_id, expired.assigned_at)
                await dispatcher.offer_to_next(expired, who, fact.event_id)
    return at


async def retry_holds(parts: Parts) -> datetime | None:
    """Try again to find a rep for leads that wait. Answers when the next one is due."""
    at = parts.runtime.clock.now()
    async with parts.runtime.database.reading() as connection:
        due = await queries.next_retry(connection)
        other_rules = await queries.waits_under_other_rules(connection, await _version(parts, connection), at)
    if not other_rules and (due is None or due > at):
        return due
    async with parts.runtime.database.transaction() as tx:
        dispatcher = await Dispatcher.open(tx, await parts.rules.current(tx.connection), at)
        await queries.retry_holds_of_other_rules(tx.connection, dispatcher.rules.version, at)
        for hold in await queries.holds_due(tx.connection, at, AT_ONCE):
            await _try_again(dispatcher, hold, await person(tx.connection, hold.lead_id))
    return at


async def _version(parts: Parts, connection: Connection) -> int:
    return await parts.rules.store.active_version(connection) or 0


def _may_route(event: StageChanged, rules: Rules, at: datetime) -> bool:
    """Whether the rules could route this lead, by what the fact alone tells: most facts end here."""
    if rules.route_when.reads("lead") or rules.route_when.reads("deal"):
        return True
    score = {"engagement": event.engagement, "fit": event.fit, "total": event.total, "grade": event.grade}
    return rules.route_when.holds({"lead": {}, "stage": event.stage, "score": score, "now": at})[0]


async def _end_work(dispatcher: Dispatcher, who: Person) -> None:
    current = await queries.current(dispatcher.tx.connection, who.person_id)
    if current is not None and current.state == "accepted":
        reason = f"the lead became {who.stage}"
        await queries.end(dispatcher.tx.connection, current.assignment_id, dispatcher.at, reason)


async def _consider(dispatcher: Dispatcher, event: StageChanged, who: Person) -> None:
    if await queries.exists(dispatcher.tx.connection, assignment_id_of(event.event_id)):
        return  # decided already, longer ago than the inbox remembers
    situation = await dispatcher.situation(who, event.event_id)
    before = {"lead": {}, **who.values(), "now": dispatcher.at, "stage": event.previous or "none"}
    routed_before = dispatcher.rules.route_when.holds(before)[0]
    if not wants_rep(situation.current, event.previous, routed_before=routed_before):
        return
    awaited = None if situation.current is not None else _awaited_profile(event, who)
    if awaited is None:
        await dispatcher.place(who, situation, event.event_id, event.event_id)
        return
    revision, within = awaited
    await dispatcher.hold(
        who.person_id,
        event.event_id,
        event.event_id,
        "its profile is on the way",
        "profile",
        awaits=revision,
        retry_at=dispatcher.at + within,
    )


def _awaited_profile(event: StageChanged, who: Person) -> tuple[int, timedelta] | None:
    """The revision of the profile to wait for, and how long; None when what is known is all there is.

    A stage can overtake the profile that it rests on, and rules ask for territory and use case. A lead that waits is
    held, not the batch: the profile may well be in the next one.
    """
    if event.profile_revision is None:
        return (1, UNTOLD_PROFILE_WITHIN) if who.revision == 0 else None
    return (event.profile_revision, PROFILE_WITHIN) if who.revision < event.profile_revision else None


async def _try_again(dispatcher: Dispatcher, hold: Hold, who: Person) -> None:
    """A lead that waits, once more: with what is known by now."""
    connection = dispatcher.tx.connection
    if hold.person_id != who.person_id:
        await queries.drop_holds(connection, [hold.person_id])
    situation = await dispatcher.situation(who, hold.entry_id)
    decided = await queries.exists(connection, assignment_id_of(hold.cause_id))
    if decided or situation.current is not None or not dispatcher.routes(who):
        await queries.drop_holds(connection, [who.person_id])
        return
    missing: tuple[Trial, ...] = ()
    if hold.awaits is not None and who.revision < hold.awaits:
        missing = (Trial(PROFILE, False, "its profile did not arrive; decided with what is known"),)
    await dispatcher.place(who, situation, hold.cause_id, hold.entry_id, attempts=hold.attempts, told_before=missing)


Group = list[tuple[Assignment, bool]]
"""Assignments of one person, each with whether it comes from another one."""


async def _by_owner(tx: Tx, ids: set[LeadId]) -> dict[LeadId, Group]:
    """All assignments that the persons with these ids have, had or get, by whose they are now."""
    while True:
        assignments = await queries.of_persons(tx.connection, sorted(ids))
        owners = await resolve_many(tx.connection, [(one.lead_id, one.assigned_at) for one in assignments])
        reached = ids | {one.person_id for one in assignments} | set(owners)
        if reached == ids:
            break
        ids = reached
    groups: dict[LeadId, Group] = {}
    for one, owner in zip(assignments, owners, strict=True):
        groups.setdefault(owner, []).append((one, owner != one.person_id))
    return dict(sorted(groups.items()))


def _kept_of(group: Group) -> Assignment | None:
    current = [one for one, _ in group if one.is_current]
    return one_owner(current) if current else None


async def _end_losers(tx: Tx, group: Group, at: datetime) -> bool:
    """End all but one of the current assignments of what is one person now. Answers whether there were any."""
    kept = _kept_of(group)
    losers = [one for one, _ in group if one.is_current and one is not kept]
    for one in losers:
        await queries.end(tx.connection, one.assignment_id, at, MERGED)
    return bool(losers)


async def _move(tx: Tx, groups: dict[LeadId, Group]) -> None:
    """Write whose the assignments are now; all leave before any arrives, since a person has one current one."""
    moved = [(one.assignment_id, owner) for owner, group in groups.items() for one, moves in group if moves]
    for assignment_id, _ in moved:
        await queries.move(tx.connection, assignment_id, LeadId(f"moving {assignment_id}"))
    for assignment_id, owner in moved:
        await queries.move(tx.connection, assignment_id, owner)


async def _revive(tx: Tx, group: Group, *, some_left: bool) -> Assignment | None:
    """The person's current assignment, if any.

    Where a merge is undone, nobody may have the lead of one of the two: what the merge had ended lives again there.
    """
    kept = _kept_of(group)
    ended_by_merge = [one for one, moved in group if (moved or some_left) and one.end_reason == MERGED]
    if kept is None and ended_by_merge:
        kept = one_owner(ended_by_merge)
        await queries.reopen(tx.connection, kept.assignment_id)
    return kept


async def _move_holds(tx: Tx, ids: Sequence[LeadId]) -> None:
    holds = await queries.holds_of(tx.connection, ids)
    owners = await resolve_many(tx.connection, [(hold.lead_id, hold.since) for hold in holds])
    for hold, owner in zip(holds, owners, strict=True):
        taken = hold.person_id != owner and await queries.holds_of(tx.connection, [owner])
        if taken or await queries.current(tx.connection, owner) is not None:
            await queries.drop_holds(tx.connection, [hold.person_id])
        elif hold.person_id != owner:
            await queries.move_hold(tx.connection, hold.person_id, owner)
