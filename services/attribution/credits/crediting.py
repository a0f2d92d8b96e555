"""Credits conversions: who they belong to, what their paths are, who earns.

Credits are a function of the set of facts and of nothing else, so crediting again is always safe and never depends on
what was credited before. What is written is only the difference.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from services.attribution.conversions import queries as conversions
from services.attribution.conversions.queries import Placed
from services.attribution.credits import queries
from services.attribution.credits.domain import Credited, Person, credit, moves, moves_away
from services.attribution.debts import queries as debts
from services.attribution.domain import Conversion, CreditingRun, longest_lookback
from services.attribution.journeys import queries as journeys
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.queries import share_runs
from services.attribution.paths.moving import paths_moved
from services.attribution.pipeline.queries import assigned_reps
from services.attribution.telling.queries import mark_changed
from shared.db import Connection
from shared.identity import Member, members_of_many, resolve_many
from shared.ids import ConversionId, LeadId
from shared.telemetry import counter

RECREDITED = counter("throughline_attribution_recredited_total", "Conversions whose credits a fact changed")

AT_ONCE = 20_000
"""Touches on paths, one time for each conversion, that one transaction credits: some tenths of a second."""

AT_A_STRETCH = 1_000
"""Touches on paths beyond which they are credited beside what others do: leases and heartbeats are kept, and whoever
asks is answered."""

AWAKE_S = 1.0
"""How often the transaction is used meanwhile: PostgreSQL ends one that is idle for long, and own models take their
time for a path of thousands of touches."""

Window = tuple[datetime, datetime]
"""The first and the last time at which something changed in a person's journey."""

Concerned = Callable[[Conversion, Window | None], bool]
People = dict[LeadId, list[Member]]


async def recredit(
    connection: Connection,
    catalogue: Catalogue,
    facts: Sequence[tuple[LeadId, datetime | None]],
    concerned: Concerned = lambda _conversion, _window: True,
) -> None:
    """Credit the conversions of the persons behind facts anew, those that are `concerned`.

    A fact is the id it came with and when it occurred; without a time, it stands for all the person has. `concerned`
    is told the span of the person's facts, None where one has no time. The caller has changed what the facts say
    already; the ids' locks are taken here. What is too much for one transaction is owed.
    """
    people, windows = await _lock_people(connection, facts)
    found = await conversions.conversions_of_people(connection, people)
    if not found:
        return
    await journeys.mark_converting(
        connection, {member.lead_id for person in found for member in people[person]} | {fact[0] for fact in facts}
    )
    runs = await catalogue.crediting(connection)
    begin_anew = any(run.model.reset_after_conversion for run in runs)
    chosen = {
        person: kept
        for person, theirs in found.items()
        if (kept := _concerned(theirs, windows.get(person), concerned, begin_anew=begin_anew))
    }
    if now := await _within_means(connection, people, chosen, longest_lookback(runs)):
        await _store(connection, runs, await credit_people(connection, people, found, now, runs))


async def credit_again(connection: Connection, catalogue: Catalogue, placed: Sequence[Placed]) -> set[ConversionId]:
    """Credit these conversions anew, however much that is; answers those that are still where they were."""
    people, _ = await _lock_people(connection, [(one.lead_id, one.occurred_at) for one in placed])
    found = await conversions.conversions_of_people(connection, people)
    runs = await catalogue.crediting(connection)
    ids = {one.conversion_id for one in placed}
    chosen = {
        person: kept
        for person, theirs in found.items()
        if (kept := [one for one in theirs if one.conversion_id in ids])
    }
    after = await credit_people(connection, people, found, chosen, runs)
    await _store(connection, runs, after)
    return set(after)


def _concerned(
    theirs: Sequence[Conversion], window: Window | None, concerned: Concerned, *, begin_anew: bool
) -> list[Conversion]:
    """Those of a person's conversions, in order of time, that facts in a window concern.

    Where models begin anew after a conversion, the next ones look at other touches when one comes or goes.
    """
    if not begin_anew:
        return [one for one in theirs if concerned(one, window)]
    if window is None:
        return list(theirs)
    first, last = window
    following = next((one.occurred_at for one in theirs if one.occurred_at > last), last)
    return [one for one in theirs if first <= one.occurred_at <= following or concerned(one, window)]


async def _within_means(
    connection: Connection, people: People, chosen: Mapping[LeadId, Sequence[Conversion]], lookback: timedelta | None
) -> dict[LeadId, Sequence[Conversion]]:
    """Of these conversions those that the transaction can still credit, the least work first; the others are owed."""
    if not chosen:
        return {}
    touches, spent = await debts.paths_at_most(connection, people, _spans(chosen, lookback), AT_ONCE)
    before = spent
    work = {person: len(theirs) * (1 + touches.get(person, 0)) for person, theirs in chosen.items()}
    now: dict[LeadId, Sequence[Conversion]] = {}
    later: list[tuple[Conversion, int, LeadId]] = []
    for person, theirs in sorted(chosen.items(), key=lambda item: work[item[0]]):
        if spent + work[person] <= AT_ONCE:
            now[person] = theirs
            spent += work[person]
        else:
            later.extend((one, 1 + touches.get(person, 0), person) for one in theirs)
    if later:
        await debts.owe(connection, later)
    if spent - before > AT_ONCE // 100:  # what is less is not worth a statement
        await debts.count_credited(connection, spent)
    return now


async def uncredit(connection: Connection, conversion_ids: Sequence[ConversionId]) -> None:
    """Take back all credit of those of these conversions that are nobody's any more. The caller holds their locks."""
    if not conversion_ids:
        return
    await debts.forgive(connection, conversion_ids)
    runs = [run.run for run in await share_runs(connection) if run.state != "retiring"]  # its sums go all at once
    old = await queries.stored_of_nobody(connection, conversion_ids, runs)
    if not old:
        return
    RECREDITED.inc(len(old))
    await queries.take(connection, old, moves_away(old))
    await mark_changed(connection, {}, old)
    await paths_moved(connection, [one.path for one in old.values()], [])


async def _store(connection: Connection, runs: Sequence[CreditingRun], after: Mapping[ConversionId, Credited]) -> None:
    """Write what differs from what is stored, and tell of the paths that moved."""
    combos = {touch.combo.combo_id: touch.combo for new in after.values() for touch in new.path.touches}
    before = await queries.stored(connection, after, [run.run for run in runs], combos)
    changed = [key for key, new in after.items() if before.get(key) != new]
    RECREDITED.inc(len(changed))
    if not changed:
        return
    new = {key: after[key] for key in changed}
    old = {key: before[key] for key in changed if key in before}
    await queries.replace(connection, old, new, moves(old, new))
    moved = [key for key in changed if key not in old or old[key].path != new[key].path]
    await mark_changed(connection, old, new)
    await paths_moved(connection, [old[key].path for key in moved if key in old], [new[key].path for key in moved])


async def _lock_people(
    connection: Connection, facts: Sequence[tuple[LeadId, datetime | None]]
) -> tuple[People, dict[LeadId, Window]]:
    """The persons behind facts with all their ids, those locked.

    While waiting for a lock, somebody else may have joined or parted the persons; so it is asked again until nothing
    is left to lock.
    """
    held: set[LeadId] = set()
    needed = {lead_id for lead_id, _ in facts}
    while True:
        await journeys.lock_leads(connection, needed - held)
        held |= needed
        persons = await resolve_many(connection, facts)
        people = await members_of_many(connection, persons)
        needed = {*people, *(member.lead_id for ids in people.values() for member in ids)}
        if needed <= held:
            break
    spans: dict[LeadId, list[datetime | None]] = defaultdict(list)
    for person, (_, at) in zip(persons, facts, strict=True):
        spans[person].append(at)
    windows: dict[LeadId, Window] = {}
    for person, span in spans.items():
        times = [at for at in span if at is not None]
        if len(times) == len(span):
            windows[person] = (min(times), max(times))
    return people, windows


async def credit_people(
    connection: Connection,
    people: Mapping[LeadId, Sequence[Member]],
    conversions_of: Mapping[LeadId, Sequence[Conversion]],
    chosen: Mapping[LeadId, Sequence[Conversion]],
    runs: Sequence[CreditingRun],
) -> dict[ConversionId, Credited]:
    """What the chosen of the conversions of these persons come to; nothing is stored."""
    lookback = longest_lookback(runs)
    those = {person: people[person] for person in chosen}
    touches = await journeys.journeys(connection, those, _spans(chosen, lookback), earning=True)
    profiles = await journeys.profiles(connection, those)
    reps = await assigned_reps(connection, those)
    deal_ids = {c.deal_id for theirs in chosen.values() for c in theirs if c.deal_id is not None}
    deals = await conversions.deals(connection, deal_ids) if deal_ids else {}

    def credited() -> dict[ConversionId, Credited]:
        found: dict[ConversionId, Credited] = {}
        for person_id, theirs in chosen.items():
            times = [conversion.occurred_at for conversion in conversions_of[person_id]]
            person = Person(person_id, touches[person_id], times, reps.get(person_id, ()), profiles.get(person_id))
            for conversion in theirs:
                deal = deals.get(conversion.deal_id) if conversion.deal_id is not None else None
                found[conversion.conversion_id] = credit(person, conversion, deal, runs, lookback)
        return found

    if sum(len(theirs) * (1 + len(touches[person])) for person, theirs in chosen.items()) <= AT_A_STRETCH:
        return credited()
    task = asyncio.create_task(asyncio.to_thread(credited))
    while not (await asyncio.wait([task], timeout=AWAKE_S))[0]:
        await queries.stay_awake(connection)
    return task.result()


def _spans(
    chosen: Mapping[LeadId, Sequence[Conversion]], lookback: timedelta | None
) -> dict[LeadId, tuple[datetime | None, datetime]]:
    """From when to when touches of each person may earn from these conversions."""
    spans: dict[LeadId, tuple[datetime | None, datetime]] = {}
    for person, theirs in chosen.items():
        times = [conversion.occurred_at for conversion in theirs]
        spans[person] = (None if lookback is None else min(times) - lookback, max(times))
    return spans
