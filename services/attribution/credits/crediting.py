"""Credits conversions: who they belong to, what their paths are, who earns.

Credits are a function of the set of facts and of nothing else, so crediting again is always safe and never depends on
what was credited before. What is written is only the difference.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from services.attribution.conversions import queries as conversions
from services.attribution.credits import queries
from services.attribution.credits.queries import CreditRow
from services.attribution.domain import Conversion, Credit, Model, Touch, credits_of, path_to
from services.attribution.journeys import queries as journeys
from services.attribution.models.catalogue import Catalogue
from shared.db import Connection
from shared.identity import Member, members, resolve_many
from shared.ids import ConversionId, DealId, LeadId
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
    chosen = {
        person: kept
        for person, theirs in found.items()
        if (kept := [conversion for conversion in theirs if concerned(conversion, windows.get(person))])
    }
    if not chosen:
        return
    models = list((await catalogue.models(connection)).values())
    after = _by_model(await credit_people(connection, people, chosen, models))
    before = _by_model(await queries.credits_of(connection, {key[0] for key in after}))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    RECREDITED.inc(len({conversion_id for conversion_id, _ in changed}))
    await queries.replace_credits(
        connection,
        {key: before[key] for key in changed if key in before},
        {key: after[key] for key in changed if key in after},
    )


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
        people = {person: await members(connection, person) for person in dict.fromkeys(persons)}
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
    chosen: Mapping[LeadId, Sequence[Conversion]],
    models: Sequence[Model],
) -> list[CreditRow]:
    """The credits that conversions of these persons come to; nothing is stored."""
    touches = await journeys.journeys(connection, people, _spans(chosen, models))
    created_at = await journeys.captured_at(connection, {person: people[person] for person in chosen})
    deal_ids = {c.deal_id for theirs in chosen.values() for c in theirs if c.deal_id is not None}
    opened_at = await conversions.deals_opened(connection, deal_ids) if deal_ids else {}
    return [
        row
        for person, theirs in chosen.items()
        for conversion in theirs
        for row in credit_conversion(
            conversion, touches[person], models, lead_created_at=created_at.get(person), deals=opened_at
        )
    ]


def credit_conversion(
    conversion: Conversion,
    touches: Iterable[Touch],
    models: Iterable[Model],
    *,
    lead_created_at: datetime | None,
    deals: dict[DealId, datetime],
) -> list[CreditRow]:
    """The credits of a conversion by each model, out of all touches of its person."""
    touches = list(touches)
    deal_created_at = deals.get(conversion.deal_id) if conversion.deal_id is not None else None
    paths = {
        lookback: path_to(
            conversion.occurred_at,
            touches,
            lookback,
            lead_created_at=lead_created_at,
            deal_created_at=deal_created_at,
        )
        for lookback in {model.lookback for model in models}
    }
    return [
        _row(conversion, model, ordinal, credit)
        for model in models
        for ordinal, credit in enumerate(credits_of(paths[model.lookback], conversion.value_minor, model))
    ]


def _row(conversion: Conversion, model: Model, ordinal: int, credit: Credit) -> CreditRow:
    return CreditRow(
        conversion_id=conversion.conversion_id,
        model=model.model_id,
        ordinal=ordinal,
        version=model.version,
        origin=credit.origin,
        touch_id=credit.touch_id,
        channel=credit.keys["channel"],
        source=credit.keys["source"],
        medium=credit.keys["medium"],
        campaign=credit.keys["campaign"],
        units=credit.units,
        value_minor=credit.value_minor,
        currency=conversion.currency,
        day=conversion.day,
    )


def _spans(
    chosen: Mapping[LeadId, Sequence[Conversion]], models: Iterable[Model]
) -> dict[LeadId, tuple[datetime | None, datetime]]:
    """From when to when touches of each person may earn from these conversions."""
    lookbacks = [model.lookback for model in models]
    longest = None if None in lookbacks else max((one for one in lookbacks if one is not None), default=timedelta())
    spans: dict[LeadId, tuple[datetime | None, datetime]] = {}
    for person, theirs in chosen.items():
        times = [conversion.occurred_at for conversion in theirs]
        spans[person] = (None if longest is None else min(times) - longest, max(times))
    return spans


def _by_model(rows: Iterable[CreditRow]) -> dict[tuple[ConversionId, str], list[CreditRow]]:
    grouped: dict[tuple[ConversionId, str], list[CreditRow]] = defaultdict(list)
    for row in rows:
        grouped[row.conversion_id, row.model].append(row)
    return dict(grouped)
