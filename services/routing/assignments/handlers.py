"""What makes routing decide: a stage entered, a profile that was waited for, a deadline, an erasure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.routing.assignments import holds, queries
from services.routing.assignments.dispatch import Dispatcher, dispatching
from services.routing.assignments.domain import Assignment, Trial
from services.routing.assignments.facts import assignment_expired
from services.routing.assignments.holds import Hold
from services.routing.assignments.ownership import BECAME, DONE, WORKED_ON, ended_by, wants_rep
from services.routing.assignments.queries import Situation
from services.routing.deals.queries import forget_texts
from services.routing.fairness.queries import lock_dispatcher
from services.routing.parts import Parts
from services.routing.people.domain import Person
from services.routing.people.handlers import people, person
from services.routing.rules.domain import PROFILE, Rules
from shared.db import Connection, Tx, agreed_now
from shared.events import LeadCaptured, LeadErased, StageChanged
from shared.identity import resolve_many
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.telemetry import counter

EXPIRED = counter("throughline_routing_expired_total", "Offers that were not answered in time: are reps overrun")
PROFILE_WITHIN = timedelta(seconds=60)
"""A profile that scoring has read arrives; if it does not by then, it is stuck, and the lead must not be."""
UNTOLD_PROFILE_WITHIN = timedelta(seconds=5)
"""Where it is not told whether there is a profile, or an account, this is long enough for one to arrive."""
AT_ONCE = 100


async def on_stages_changed(events: Sequence[StageChanged], tx: Tx, *, parts: Parts) -> None:
    """Give leads that enter a stage at which leads are routed to reps; the work on those that are done ends."""
    at = await agreed_now(tx.connection, parts.runtime.clock)
    rules = await parts.rules.current(tx.connection)
    concerned: list[StageChanged] = []
    left: list[StageChanged] = []
    for event in events:
        if event.quiet:
            continue  # the rules changed, not the lead
        (concerned if event.stage in DONE or _may_route(event, rules, at) else left).append(event)
    if left:
        persons = await resolve_many(tx.connection, [(event.lead_id, event.occurred_at) for event in left])
        await holds.retry(tx.connection, persons, at)
    if not concerned:
        return
    async with dispatching(tx, rules, parts) as dispatcher:
        known = await people(
            tx.connection, [(event.lead_id, event.occurred_at) for event in concerned], parts.runtime.keys
        )
        for round_of_events in _one_each(list(zip(concerned, known, strict=True))):
            await _consider(dispatcher, round_of_events)


async def on_leads_captured(events: Sequence[LeadCaptured], tx: Tx, *, parts: Parts) -> None:
    """Leads that waited for their profile are given out; those that wait for a rep are tried again with it."""
    persons = await resolve_many(tx.connection, [(event.lead_id, None) for event in events])
    waiting = await holds.of_persons(tx.connection, sorted(set(persons)))
    if not waiting:
        return
    rules = await parts.rules.current(tx.connection)
    async with dispatching(tx, rules, parts) as dispatcher:
        for hold in waiting:
            who = await person(tx.connection, hold.lead_id, keys=parts.runtime.keys)
            if hold.awaits is None or hold.awaits <= who.revision:
                await try_again(dispatcher, hold, who)


async def on_lead_erased(event: LeadErased, tx: Tx, *, parts: Parts) -> None:
    """Nobody works on an erased person; what the rules saw of them is forgotten, that they decided stays."""
    connection = tx.connection
    await lock_dispatcher(connection)
    at = await agreed_now(connection, parts.runtime.clock)
    current = await queries.current(connection, event.lead_id)
    if current is not None:
        await queries.end(connection, current.assignment_id, at, "erased")
    await holds.drop(connection, [event.lead_id])
    await queries.forget_inputs(connection, event.lead_id)
    await forget_texts(connection, event.lead_id)


async def retry_holds(parts: Parts) -> datetime | None:
    """Try again to find a rep for leads that wait. Answers when the next one is due."""
    async with parts.runtime.database.reading() as connection:
        at = await agreed_now(connection, parts.runtime.clock)
        due = await holds.next_retry(connection)
        other_rules = await holds.waits_under_other_rules(connection, await _version(parts, connection), at)
        arrived = await holds.arrived(connection, at)
    if not other_rules and not arrived and (due is None or due > at):
        return due
    async with parts.runtime.database.transaction() as tx:
        rules = await parts.rules.current(tx.connection)
        async with dispatching(tx, rules, parts) as dispatcher:
            await holds.retry_under_other_rules(tx.connection, rules.version, at)
            await holds.retry_arrived(tx.connection, at)
            for hold in await holds.due(tx.connection, at, AT_ONCE):
                await try_again(dispatcher, hold, await person(tx.connection, hold.lead_id, keys=parts.runtime.keys))
    return at


async def _version(parts: Parts, connection: Connection) -> int:
    return await parts.rules.store.active_version(connection) or 0


def _may_route(event: StageChanged, rules: Rules, at: datetime) -> bool:
    """Whether the rules could route this lead, by what the fact alone tells: most facts end here."""
    if any(rules.route_when.reads(name) for name in ("lead", "deal", "segments")):
        return True
    score = {"engagement": event.engagement, "fit": event.fit, "total": event.total, "grade": event.grade}
    return rules.route_when.holds({"lead": {}, "stage": event.stage, "score": score, "now": at})[0]


def _one_each(events: Sequence[tuple[StageChanged, Person]]) -> list[list[tuple[StageChanged, Person]]]:
    """The events in rounds, in order, each with one of a person at most: a decision sees the one before."""
    rounds: list[list[tuple[StageChanged, Person]]] = []
    seen: Counter[LeadId] = Counter()
    for event, who in events:
        if seen[who.person_id] == len(rounds):
            rounds.append([])
        rounds[seen[who.person_id]].append((event, who))
        seen[who.person_id] += 1
    return rounds


async def _consider(dispatcher: Dispatcher, entered: Sequence[tuple[StageChanged, Person]]) -> None:
    situations = await dispatcher.situations([(who, event.event_id, event.event_id) for event, who in entered])
    for (event, who), before in zip(entered, situations, strict=True):
        situation = await _end_work(dispatcher, who, before) if who.stage in DONE else before
        if dispatcher.routes(who) and not situation.decided:
            await _consider_one(dispatcher, event, who, situation)


async def _end_work(dispatcher: Dispatcher, who: Person, situation: Situation) -> Situation:
    current = situation.current
    if current is None or current.state not in ended_by(who.stage):
        return situation
    await queries.end(dispatcher.tx.connection, current.assignment_id, dispatcher.at, f"{BECAME} {who.stage}")
    return replace(situation, current=None)


async def _consider_one(dispatcher: Dispatcher, event: StageChanged, who: Person, situation: Situation) -> None:
    before = {"lead": {}, **who.values(), "now": dispatcher.at, "stage": event.previous or "none"}
    routed_before = dispatcher.rules.route_when.holds(before)[0]
    if not wants_rep(situation.current, event.previous, routed_before=routed_before):
        return
    awaited = None if situation.current is not None else _awaited_profile(event, who)
    if awaited is None:
        await dispatcher.place(who, situation, event.event_id, event.event_id)
        return
    revision, within = awaited
    dispatcher.hold(
        who.person_id,
        event.event_id,
        event.event_id,
        f"its {'profile' if who.revision < revision else 'account'} is on the way",
        "profile",
        awaits=revision,
        retry_at=dispatcher.at + within,
    )


async def expire(dispatcher: Dispatcher, offer: Assignment, keys: PersonKeys) -> None:
    """An offer whose time is over goes to the next rep. It expires only while it is offered."""
    connection, at = dispatcher.tx.connection, dispatcher.at
    expired = await queries.end(connection, offer.assignment_id, at, "expired", states=("offered",), state="expired")
    if expired is not None:
        EXPIRED.inc()
        fact = assignment_expired(expired, at)
        dispatcher.tx.emit(fact)
        await dispatcher.give_back(expired, "expired", "was not accepted in time")
        who = await person(connection, expired.lead_id, expired.assigned_at, keys=keys)
        await dispatcher.offer_to_next(expired, who, fact.event_id)


def _awaited_profile(event: StageChanged, who: Person) -> tuple[int, timedelta] | None:
    """The revision of the profile to wait for, and how long; None when what is known is all there is.

    A stage can overtake the profile that it rests on, and rules ask for territory and use case. A lead that waits is
    held, not the batch: the profile may well be in the next one.
    """
    if event.profile_revision is not None and who.revision < event.profile_revision:
        return event.profile_revision, PROFILE_WITHIN
    if who.awaits_account or (event.profile_revision is None and who.revision == 0):
        return max(who.revision, 1), UNTOLD_PROFILE_WITHIN
    return None


async def try_again(dispatcher: Dispatcher, hold: Hold, who: Person, *, ask_again: bool = False) -> Assignment | None:
    """A lead that waits, once more: with what is known by now; `ask_again` also those who passed it by."""
    connection = dispatcher.tx.connection
    if hold.person_id != who.person_id:
        await holds.drop(connection, [hold.person_id])
    situation = await dispatcher.situation(who, hold.entry_id, hold.cause_id)
    is_open = hold.claimants is not None and (hold.retry_at is None or hold.retry_at > dispatcher.at)
    if is_open and dispatcher.routes(who) and situation.current is None:
        return None
    given_back = who.stage in WORKED_ON and situation.offers > 0
    if situation.decided or situation.current is not None or not (given_back or dispatcher.routes(who)):
        await holds.drop(connection, [who.person_id])
        return None
    if ask_again:
        situation = replace(situation, passed_by=frozenset())
    missing: tuple[Trial, ...] = ()
    if hold.awaits is not None and who.revision < hold.awaits:
        missing = (Trial(PROFILE, False, "its profile did not arrive; decided with what is known"),)
    return await dispatcher.place(
        who,
        situation,
        hold.cause_id,
        hold.entry_id,
        attempts=hold.attempts,
        told_before=missing,
        open_to_claim=hold.claimants is None,
    )
