"""Credits conversions: who they belong to, what their paths are, who earns.

Credits are a function of the set of facts and of nothing else, so crediting again is always safe and never depends on
what was credited before. What is written is only the difference.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from services.attribution.conversions import queries as conversions
from services.attribution.credits import queries
from services.attribution.credits.domain import Credited, Person, credit, moves, moves_away
from services.attribution.domain import Conversion, CreditingRun, longest_lookback
from services.attribution.journeys import queries as journeys
from services.attribution.models.catalogue import Catalogue
from services.attribution.paths.moving import paths_moved
from services.attribution.pipeline.queries import assigned_reps
from services.attribution.telling.queries import mark_changed
from shared.db import Connection
from shared.identity import Member, members_of_many, resolve_many
from shared.ids import ConversionId, LeadId
from shared.telemetry import counter

RECREDITED = counter("throughline_attribution_recredited_total", "Conversions whose credits a fact changed")

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
    already; the ids' locks are taken here.
    """
    people, windows = await _lock_people(connection, facts)
    found = await conversions.conversions_of_people(connection, people)
    if not found:
        return
    await journeys.mark_converting(
        connection, {member.lead_id for person in found for member in people[person]} | {fact[0] for fact in facts}
    )
    runs = await catalogue.crediting(connection)
    begins_anew = any(run.model.reset_after_conversion for run in runs)  # then conversions concern each other
    chosen = {
        person: kept
        for person, theirs in found.items()
        if (kept := [one for one in theirs if begins_anew or concerned(one, windows.get(person))])
    }
    if not chosen:
        return
    after = await credit_people(connection, people, found, chosen, runs)
    await _store(connection, runs, after)


async def uncredit(connection: Connection, conversion_ids: Sequence[ConversionId]) -> None:
    """Take back all credit of those of these conversions that are nobody's any more. The caller holds their locks."""
    old = await queries.stored_of_nobody(connection, conversion_ids) if conversion_ids else {}
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
    touches = await journeys.journeys(connection, those, _spans(chosen, lookback))
    profiles = await journeys.profiles(connection, those)
    reps = await assigned_reps(connection, those)
    deal_ids = {c.deal_id for theirs in chosen.values() for c in theirs if c.deal_id is not None}
    deals = await conversions.deals(connection, deal_ids) if deal_ids else {}
    found: dict[ConversionId, Credited] = {}
    for person_id, theirs in chosen.items():
        times = [conversion.occurred_at for conversion in conversions_of[person_id]]
        person = Person(person_id, touches[person_id], times, reps.get(person_id, ()), profiles.get(person_id))
        for conversion in theirs:
            deal = deals.get(conversion.deal_id) if conversion.deal_id is not None else None
            found[conversion.conversion_id] = credit(person, conversion, deal, runs, lookback)
    return found


def _spans(
    chosen: Mapping[LeadId, Sequence[Conversion]], lookback: timedelta | None
) -> dict[LeadId, tuple[datetime | None, datetime]]:
    """From when to when touches of each person may earn from these conversions."""
    spans: dict[LeadId, tuple[datetime | None, datetime]] = {}
    for person, theirs in chosen.items():
        times = [conversion.occurred_at for conversion in theirs]
        spans[person] = (None if lookback is None else min(times) - lookback, max(times))
    return spans
