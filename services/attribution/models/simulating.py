"""What a model would make of conversions that other versions were credited by: nothing of it is stored.

Paths are stored as far back as any model looks. A model that looks no further, and that columns can divide by, is tried
on all of them at once; any other one on the newest conversions, each credited anew.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import asyncpg
import numpy as np
from pydantic import BaseModel

from services.attribution.channels.domain import DIRECT
from services.attribution.conversions import queries as conversions
from services.attribution.credits.crediting import credit_people
from services.attribution.domain import (
    NOBODY,
    SHARE_UNITS,
    Conversion,
    CreditingRun,
    Model,
    is_longer,
    longest_lookback,
)
from services.attribution.models import queries
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.columns import NOWHERE, Integers, Paths, divide, divides, totals
from services.attribution.reports.domain import Sum
from shared.db import Connection
from shared.identity import members_of_many, resolve_many
from shared.ids import LeadId

MOST_AT_ONCE = 200_000
MOST_ANEW = 500
TRIED = 0
"""The run of what is tried: no stored one has this number."""

_MICROSECOND = timedelta(microseconds=1)

Place = tuple[str, str]
"""A currency and a channel."""


class Amount(BaseModel):
    """Credited conversions and their value."""

    conversions: int | float
    value_minor: int


class Change(BaseModel):
    """What a channel has by the active version, and what it would have."""

    currency: str
    key: str
    before: Amount
    after: Amount


class Simulation(BaseModel):
    """How credit would move between channels; the largest move first.

    At most the 200,000 newest conversions are tried; the 500 newest with a model that has rules, starts anew after a
    conversion, counts whole conversions, or looks further back than any that counts.
    """

    conversions: int
    rows: list[Change]


async def simulate(connection: Connection, catalogue: Catalogue, model: Model, since: datetime) -> Simulation:
    """Credit the newest conversions since then by a model, and compare with what is stored under its name."""
    reach = longest_lookback(await catalogue.crediting(connection))
    if divides(model) and not is_longer(model.lookback, reach):
        names, after = await _at_once(connection, model, since)
    else:
        names, after = await _anew(connection, model, since)
    run = await queries.serving(connection, model.model_id)
    before = await _stored(connection, names, run.run) if run else {}
    rows = [
        Change(currency=place[0], key=place[1], before=_amount(before, place), after=_amount(after, place))
        for place in {*before, *after}
    ]
    rows.sort(key=lambda row: (-abs(row.after.value_minor - row.before.value_minor), row.currency, row.key))
    return Simulation(conversions=len(names), rows=rows)


async def _at_once(connection: Connection, model: Model, since: datetime) -> tuple[list[str], Mapping[Place, Sum]]:
    rows = await queries.paths_since(connection, since, MOST_AT_ONCE)
    used = {combo for row in rows for combo in row["combos"]}
    channel_of = await queries.channels_of(connection, used)
    sums: dict[Place, Sum] = {}
    for currency in sorted({row["currency"] for row in rows}):
        theirs = [row for row in rows if row["currency"] == currency]
        for channel, found in (await asyncio.to_thread(_divided, theirs, channel_of, model)).items():
            sums[currency, channel] = found
    return [row["conversion_id"] for row in rows], sums


def _divided(rows: Sequence[asyncpg.Record], channel_of: Mapping[int, str], model: Model) -> dict[str, Sum]:
    """What channels earn of conversions in one currency."""
    names = sorted({DIRECT, *channel_of.values()})
    number = {combo: names.index(channel) for combo, channel in channel_of.items()}
    lengths = np.array([len(row["combos"]) for row in rows])
    channels = _column(number[combo] for row in rows for combo in row["combos"])
    ages = _column(age for row in rows for age in row["ages_us"])
    values = _column(row["value_minor"] for row in rows)
    kept = np.ones(len(ages), bool) if model.lookback is None else ages <= model.lookback // _MICROSECOND
    left = np.bincount(np.repeat(np.arange(len(rows)), lengths)[kept], minlength=len(rows))
    some, skipped = left > 0, lengths - left  # a path is in order of time, so what is too old is at its start
    paths = Paths(
        starts=np.concatenate([[0], np.cumsum(left[some])]),
        channels=channels[kept],
        ages_us=ages[kept],
        values=values[some],
        lead=_shifted(_column(_place(row["lead"]) for row in rows), skipped)[some],
        deal=_shifted(_column(_place(row["deal"]) for row in rows), skipped)[some],
        direct=names.index(DIRECT),
    )
    division = divide(paths, model)
    units, minor = (totals(paths.channels, part, len(names)) for part in (division.units, division.value_minor))
    found = {name: Sum(*sums) for name, *sums in zip(names, units, minor, strict=True) if any(sums)}
    if not some.all():
        found[NOBODY.channel] = Sum(int((~some).sum()) * SHARE_UNITS, int(values[~some].sum()))
    return found


def _column(values: Iterable[int]) -> Integers:
    return np.fromiter(values, np.int64)


def _place(place: int | None) -> int:
    return NOWHERE if place is None else place


def _shifted(places: Integers, skipped: Integers) -> Integers:
    """Places on paths without so many touches at their starts; a milestone on one of these is on none."""
    shifted: Integers = np.maximum(places - skipped, NOWHERE)
    return shifted


async def _anew(connection: Connection, model: Model, since: datetime) -> tuple[list[str], Mapping[Place, Sum]]:
    found = await conversions.newest_conversions(connection, since, MOST_ANEW)
    persons = await resolve_many(connection, [(one.lead_id, one.occurred_at) for one in found])
    theirs: dict[LeadId, list[Conversion]] = defaultdict(list)
    for person, conversion in zip(persons, found, strict=True):
        theirs[person].append(conversion)
    people = await members_of_many(connection, theirs)
    everything = await conversions.conversions_of_people(connection, people)
    tried = await credit_people(connection, people, everything, theirs, [CreditingRun(TRIED, model)])
    sums: dict[Place, Sum] = {}
    for one in tried.values():
        division = one.divisions[TRIED]
        channels = [NOBODY.channel, *one.path.channels]
        for channel, units, minor in zip(channels, division.units, division.value_minor, strict=True):
            if units or minor:
                known = sums.get((one.path.currency, channel), Sum())
                sums[one.path.currency, channel] = Sum(known.units + units, known.value_minor + minor)
    return [*tried], sums


async def _stored(connection: Connection, names: Sequence[str], run: int) -> Mapping[Place, Sum]:
    rows = await queries.credited_by_channel(connection, names, run)
    return {(row["currency"], row["channel"]): Sum(row["units"], row["value_minor"]) for row in rows}


def _amount(sums: Mapping[Place, Sum], place: Place) -> Amount:
    one = sums.get(place, Sum())
    return Amount(conversions=one.conversions, value_minor=one.value_minor)
