"""What a model would make of conversions that other versions were credited by: nothing of it is stored."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel

from services.attribution.conversions import queries as conversions
from services.attribution.credits.crediting import credit_people
from services.attribution.credits.domain import Credited
from services.attribution.credits.queries import stored
from services.attribution.domain import NOBODY, Conversion, CreditingRun, Model
from services.attribution.models.queries import serving
from services.attribution.reports.domain import Sum
from shared.db import Connection
from shared.identity import members_of_many, resolve_many
from shared.ids import ConversionId, LeadId

MOST_CONVERSIONS = 500
TRIED = 0
"""The run of what is tried: no stored one has this number."""


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
    """How credit would move between channels; the largest move first. At most 500 conversions are tried."""

    conversions: int
    rows: list[Change]


async def simulate(connection: Connection, model: Model, since: datetime) -> Simulation:
    """Credit the newest conversions since then by a model, and compare with what is stored under its name."""
    found = await conversions.newest_conversions(connection, since, MOST_CONVERSIONS)
    persons = await resolve_many(connection, [(one.lead_id, one.occurred_at) for one in found])
    theirs: dict[LeadId, list[Conversion]] = defaultdict(list)
    for person, conversion in zip(persons, found, strict=True):
        theirs[person].append(conversion)
    people = await members_of_many(connection, theirs)
    everything = await conversions.conversions_of_people(connection, people)
    tried = await credit_people(connection, people, everything, theirs, [CreditingRun(TRIED, model)])
    after = _sums(tried, TRIED)
    run = await serving(connection, model.model_id)
    before = _sums(await stored(connection, tried, [run.run], {}), run.run) if run else {}
    rows = [
        Change(
            currency=currency, key=key, before=_amount(before, (currency, key)), after=_amount(after, (currency, key))
        )
        for currency, key in {*before, *after}
    ]
    rows.sort(key=lambda row: (-abs(row.after.value_minor - row.before.value_minor), row.currency, row.key))
    return Simulation(conversions=len(found), rows=rows)


def _sums(credited: Mapping[ConversionId, Credited], run: int) -> dict[tuple[str, str], Sum]:
    sums: dict[tuple[str, str], Sum] = {}
    for one in credited.values():
        channels = [NOBODY.channel, *one.path.channels]
        division = one.divisions[run]
        for channel, units, minor in zip(channels, division.units, division.value_minor, strict=True):
            if units or minor:
                known = sums.get((one.path.currency, channel), Sum())
                sums[one.path.currency, channel] = Sum(known.units + units, known.value_minor + minor)
    return sums


def _amount(sums: dict[tuple[str, str], Sum], place: tuple[str, str]) -> Amount:
    one = sums.get(place, Sum())
    return Amount(conversions=one.conversions, value_minor=one.value_minor)
