"""What a model would make of conversions that other versions were credited by: nothing of it is stored."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from pydantic import BaseModel

from services.attribution.conversions import queries as conversions
from services.attribution.credits.crediting import credit_people
from services.attribution.credits.queries import CreditRow, credits_by_model
from services.attribution.domain import Conversion, Model
from services.attribution.reports.domain import Sum
from shared.db import Connection
from shared.identity import members, resolve_many
from shared.ids import LeadId

MOST_CONVERSIONS = 500


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
    people = {person: await members(connection, person) for person in theirs}
    after = _sums(await credit_people(connection, people, theirs, [model]))
    ids = [conversion.conversion_id for conversion in found]
    before = _sums(await credits_by_model(connection, ids, model.model_id))
    rows = [
        Change(
            currency=currency, key=key, before=_amount(before, (currency, key)), after=_amount(after, (currency, key))
        )
        for currency, key in {*before, *after}
    ]
    rows.sort(key=lambda row: (-abs(row.after.value_minor - row.before.value_minor), row.currency, row.key))
    return Simulation(conversions=len(found), rows=rows)


def _sums(rows: Iterable[CreditRow]) -> dict[tuple[str, str], Sum]:
    sums: dict[tuple[str, str], Sum] = defaultdict(Sum)
    for row in rows:
        known = sums[row.currency, row.channel]
        sums[row.currency, row.channel] = Sum(known.units + row.units, known.value_minor + row.value_minor)
    return dict(sums)


def _amount(sums: dict[tuple[str, str], Sum], place: tuple[str, str]) -> Amount:
    one = sums.get(place, Sum())
    return Amount(conversions=one.conversions, value_minor=one.value_minor)
