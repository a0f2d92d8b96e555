"""Keep who is in which segment: whenever a fact of a person changes, and when time alone changes what holds."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.scoring.accounts.domain import Company
from services.scoring.accounts.queries import companies_of, families_of, people_of
from services.scoring.parts import Parts
from services.scoring.people.domain import Person, merged_personal
from services.scoring.people.handlers import person_profiles
from services.scoring.people.queries import load_people
from services.scoring.segments import queries
from services.scoring.segments.counting import count_touches
from services.scoring.segments.document import ACCOUNT, LIST, Segment, Tally
from services.scoring.segments.domain import (
    BY_TIME,
    EVERYTHING,
    Facts,
    Live,
    Move,
    judge,
    moves,
    next_expiry,
    survivor,
    values_of,
)
from services.scoring.stages.queries import load_stood, lock_stood, mark_unsettled
from shared.db import Connection, Database, Tx
from shared.events import AccountChanged, LeadScored, SegmentEntered, SegmentLeft, SegmentMove, Stage, StageChanged
from shared.ids import AccountId, EventId, LeadId, derived_id
from shared.rules import present
from shared.telemetry import counter

MOVED = counter("throughline_segment_moves_total", "People who entered or left segments: are they alive", ["how"])
PAGE = 500


async def reconsider(  # noqa: PLR0913  # what a change is made of
    tx: Tx,
    parts: Parts,
    people: Mapping[LeadId, Person],
    stages: Mapping[LeadId, Stage],
    gone: Iterable[LeadId] = (),
    *,
    changed: frozenset[str] = EVERYTHING,
    restaged: Collection[LeadId] = (),
    fresh: Collection[LeadId] = (),
) -> list[Move]:
    """Try the segments that depend on what changed about people whose standings are locked.

    `gone` are ids that are no persons any more, `fresh` people of whom nothing was known: of these all is new.
    `restaged` are those whose stage changed as well.
    """
    live = await parts.segments.live(tx.connection)
    if not live.every:
        return []
    groups: dict[frozenset[str], dict[LeadId, Person]] = {EVERYTHING: {}}
    for person_id, person in people.items():
        own = EVERYTHING if person_id in fresh else changed | {"stage"} if person_id in restaged else changed
        groups.setdefault(own, {})[person_id] = person
    moved = []
    for own, group in groups.items():
        lost = gone if own == EVERYTHING else ()
        moved += await examine(tx, parts, live, live.concerned(own), group, stages, lost, changed=own)
    return moved


def with_segments(facts: Sequence[LeadScored | StageChanged], moved: Sequence[Move]) -> list[LeadScored | StageChanged]:
    """The facts, changes of stage among them with the segments entered and left at the same moment."""
    moves: dict[LeadId, tuple[SegmentMove, ...]] = {}
    for move in moved:
        told = SegmentMove(segment_id=move.segment.segment_id, revision=move.told.revision, member=move.told.member)
        moves[move.person_id] = (*moves.get(move.person_id, ()), told)
    return [
        fact.model_copy(update={"segments": moves[fact.lead_id]})
        if isinstance(fact, StageChanged) and fact.lead_id in moves
        else fact
        for fact in facts
    ]


async def examine(  # noqa: PLR0913  # what a change is made of
    tx: Tx,
    parts: Parts,
    live: Live,
    concerned: Sequence[Segment],
    people: Mapping[LeadId, Person],
    stages: Mapping[LeadId, Stage],
    gone: Iterable[LeadId] = (),
    *,
    changed: Collection[str] = EVERYTHING,
    initial: bool = False,
    anew: bool = False,
) -> list[Move]:
    """Try those of the segments that depend on what changed, or on segments that did; save and tell what comes of it.

    `anew` plans the next look from nothing: for those whose every condition on time is tried.
    """
    lost = list(gone)
    if not concerned or not (people or lost):
        return []
    now = await parts.present_in(tx)
    facts = await look(tx.connection, parts, live, concerned, people, stages, now, exactly=anew)
    facts |= {person_id: Facts(person_id, {}, erased=True) for person_id in lost}
    kept = await queries.kept_before(tx.connection, sorted(facts))
    found = {}
    told: list[Move] = []
    for person_id, seen in sorted(facts.items()):
        before = kept[person_id]
        found[person_id] = judge(live, concerned, seen, before, changed)
        told += moves(live, concerned, person_id, before, found[person_id], now, initial=initial)
    await queries.save_found(tx.connection, found, now)
    await tell(tx, told, now)
    soonest = now + timedelta(milliseconds=1)
    due = {one: seen.changes_at and max(seen.changes_at, soonest) for one, seen in facts.items()}
    await queries.schedule(tx.connection, due, anew=anew)
    return told


async def look(  # noqa: PLR0913  # what is looked at
    connection: Connection,
    parts: Parts,
    live: Live,
    concerned: Sequence[Segment],
    people: Mapping[LeadId, Person],
    stages: Mapping[LeadId, Stage],
    now: datetime,
    *,
    exactly: bool = False,
) -> dict[LeadId, Facts]:
    """What these segments see of people."""
    if not people:
        return {}
    ids = sorted(people)
    reads = frozenset[str]().union(*(segment.reads for segment in concerned))
    tallies = frozenset[Tally]().union(*(segment.tallies for segment in concerned))
    erased = await queries.erased_of(connection, ids)
    counts = await count_touches(connection, ids, tallies, now) if tallies else {}
    lists = await queries.lists_of(connection, ids) if LIST in reads else {}
    personal = {}
    if any(segment.reads_personal for segment in concerned):
        profiles = await person_profiles(connection, parts, ids)
        personal = {person_id: merged_personal(person_id, known) for person_id, known in profiles.items()}
    decaying = not reads.isdisjoint(("score", "scores"))
    accounts = {}
    if any(segment.reads_account for segment in concerned):
        accounts = await accounts_of(connection, people)
    facts = {}
    for person_id in ids:
        person = people[person_id]
        rules = await parts.rules.at_version(connection, person.rules_version)
        crossing = live.crossing(rules.version, rules.engagement)
        standing = person.standing({**personal.get(person_id, {}), **accounts.get(person_id, {})})
        values = crossing.values(standing, stages.get(person_id, "subscriber"), crossing.moment(standing, now))
        counted = counts.get(person_id, {})
        changes_at = next_expiry(counted)
        if decaying and (check := crossing.next_check(standing, now, exactly=exactly)) is not None:
            changes_at = check.at if changes_at is None else min(check.at, changes_at)
        facts[person_id] = Facts(
            person_id,
            {**values, "touches": values_of(tallies, counted)},
            frozenset(lists.get(person_id, ())),
            changes_at,
            person_id in erased,
        )
    return facts


async def accounts_of(connection: Connection, people: Mapping[LeadId, Person]) -> dict[LeadId, dict[str, Any]]:
    """`lead.account` of those whose account was told of; one that was merged into another is that one."""
    named = {person_id: person.account_id for person_id, person in people.items() if person.account_id is not None}
    companies: dict[AccountId, Company] = {}
    wanted = set(named.values())
    while wanted:
        found = await companies_of(connection, wanted)
        companies |= found
        wanted = {one.merged_into for one in found.values() if one.merged_into is not None} - companies.keys()
    accounts = {}
    for person_id, account_id in named.items():
        company = survivor(companies, account_id)
        if company is not None:
            accounts[person_id] = {"account": present(**{name: getattr(company, name) for name in ACCOUNT})}
    return accounts


async def on_accounts(events: Sequence[AccountChanged], tx: Tx, *, parts: Parts) -> None:
    """Have the people of accounts looked at soon where a segment asks for what changed of these."""
    live = await parts.segments.live(tx.connection)
    if any(segment.reads_account for segment in live.every):
        changed = sorted({event.account_id for event in events})
        families = await families_of(tx.connection, changed, children=False)
        people = await people_of(tx.connection, {one for family in families.values() for one in family})
        await mark_unsettled(tx.connection, people)


async def tell(tx: Tx, told: Sequence[Move], now: datetime) -> None:
    """Write what is told, and tell it."""
    await queries.save_told(tx.connection, told)
    for move in told:
        segment_id, revision = move.segment.segment_id, move.told.revision
        fact: dict[str, Any] = {
            "event_id": EventId(derived_id("scoring", "segment", segment_id, move.person_id, str(revision))),
            "lead_id": move.person_id,
            "occurred_at": now,
            "received_at": now,
            "segment_id": segment_id,
            "segment_version": move.segment.version,
            "revision": revision,
            "initial": move.initial,
        }
        tx.emit(SegmentEntered(**fact) if move.told.member else SegmentLeft(**fact))
        MOVED.labels("entered" if move.told.member else "left").inc()


async def met(connection: Connection, person_ids: Iterable[LeadId]) -> tuple[dict[LeadId, Person], dict[LeadId, Stage]]:
    """People and their stages, and nobody else judges them before this transaction ends."""
    stood = await lock_stood(connection, person_ids)
    people = await load_people(connection, stood)
    return people, {person_id: one.verdict.stage for person_id, one in stood.items()}


async def seen(
    connection: Connection, person_ids: Sequence[LeadId]
) -> tuple[dict[LeadId, Person], dict[LeadId, Stage]]:
    """The same, to look only."""
    stood = await load_stood(connection, person_ids)
    people = await load_people(connection, person_ids)
    return people, {person_id: one.verdict.stage for person_id, one in stood.items()}


async def settle_due(database: Database, parts: Parts) -> timedelta | None:
    """Try what time alone changes, for all whose time has come; answers how long until the next one's."""
    while True:
        async with database.transaction() as tx:
            now = await parts.present(tx.connection)
            due = await queries.due_people(tx.connection, now, PAGE)
            people, stages = await met(tx.connection, due)
            live = await parts.segments.live(tx.connection)
            concerned = live.concerned(BY_TIME)
            await examine(tx, parts, live, concerned, people, stages, changed=BY_TIME, anew=True)
            idle = [one for one in due if one not in people] if concerned else due
            await queries.schedule(tx.connection, dict.fromkeys(idle), anew=True)
        if len(due) < PAGE:
            break
    async with database.reading() as connection:
        at, now = await queries.next_due(connection), await parts.present(connection)
    return None if at is None else max(at - now, timedelta(milliseconds=10))
