"""Totals by channel: read, computed, and kept where that takes long."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from zoneinfo import ZoneInfo

from services.attribution.domain import TotalsModel
from services.attribution.errors import TooManyChannels
from services.attribution.models.catalogue import Catalogue
from services.attribution.paths.domain import Amount, Counted, Keys, Reach, Wanted
from services.attribution.paths.queries import counted, grams, lost_routes
from services.attribution.remainders.queries import as_of
from services.attribution.reports.domain import Period
from services.attribution.totals import queries
from services.attribution.totals.domain import (
    MOST_CHANNELS,
    Credit,
    PathSum,
    added,
    credits_of,
    grams_of,
    name_of,
    takes_long,
)
from services.attribution.totals.queries import Totals
from shared.db import Connection, Database, have_patience
from shared.errors import FieldError

EVERYTHING = Wanted(Period(None, None, ZoneInfo("UTC")))
NOWHERE = Reach(())


async def totals_of(connection: Connection, model: TotalsModel, wanted: Wanted) -> Totals:
    """What channels earned by a model in one currency, read in the open transaction. Raises TooManyChannels.

    Over all time what is kept answers, also where the sums moved since; then `as_of` is when it was computed.
    """
    assert wanted.currency is not None
    if wanted.reach.is_everything:
        stored = await queries.stored(connection, name_of(model), wanted.currency)
        if stored is not None:
            return stored
    return await computed(connection, model, wanted)


async def totals_by_currency(connection: Connection, model: TotalsModel, wanted: Wanted) -> dict[str, Totals]:
    """The totals in the currency that is wanted, or in each that there is. Raises TooManyChannels."""
    if wanted.currency is not None:
        currencies = {wanted.currency}
    else:
        currencies = {one.currency for one in await counted(connection, wanted, ["length"])}
    return {
        currency: await totals_of(connection, model, replace(wanted, currency=currency))
        for currency in sorted(currencies)
    }


async def computed(connection: Connection, model: TotalsModel, wanted: Wanted) -> Totals:
    """The same, computed now."""
    return await _divide(model, await _read(connection, model, wanted))


@dataclass(frozen=True, slots=True)
class _Read:
    """What totals follow from: sums, and sequences of which those of chains are still to be counted."""

    counted: list[Counted]
    routes: list[Counted]
    lost_routes: dict[Keys, int]
    unattributed: Amount
    as_of: datetime | None


async def _divide(model: TotalsModel, read: _Read) -> Totals:
    """What takes time does so beside what others ask."""
    return Totals(await asyncio.to_thread(_credits, model, read), read.unattributed, read.as_of)


def _credits(model: TotalsModel, read: _Read) -> list[Credit]:
    parts = _path_sums(read.counted)
    routes = _path_sums(read.routes)
    routes += [PathSum("route", keys, 0, times, 0) for keys, times in read.lost_routes.items()]
    sums = added(chain(parts, grams_of(added(routes), model.order))) if routes else parts
    sums = [one for one in sums if one.converted or one.lost]  # not what is only in days that were taken away again
    number = len({channel for one in sums for channel in one.keys})
    if number > MOST_CHANNELS:
        detail = f"{model.base} is for up to {MOST_CHANNELS} channels, and there are {number}; group them"
        raise TooManyChannels(detail, [FieldError("query:model", detail)])
    return credits_of(model, sums)


async def _read(connection: Connection, model: TotalsModel, wanted: Wanted) -> _Read:
    await have_patience(connection)
    until = await as_of(connection)
    lengths = await counted(connection, wanted, ["length"])
    nobody = next((Amount(one.journeys, one.value_minor) for one in lengths if one.key_id == 0), Amount(0, 0))
    if model.base == "shapley":
        return _Read(await counted(connection, wanted, ["set"], with_lost=True), [], {}, nobody, until)
    if model.order == 1:
        return _Read(await counted(connection, wanted, ["step", "last"], with_lost=True), [], {}, nobody, until)
    days = tuple(span for span in wanted.reach.spans if span.level == "day")
    whole = [span for span in wanted.reach.spans if span not in days]
    found = await grams(connection, wanted, whole, model.order)
    rest = Reach(days, wanted.reach.parts_of_days)
    if rest == NOWHERE:
        return _Read(found, [], {}, nobody, until)
    routes = await counted(connection, wanted, ["route"], reach=rest)
    return _Read(found, routes, await lost_routes(connection, rest), nobody, until)


def _path_sums(rows: Iterable[Counted]) -> list[PathSum]:
    """Sums of all currencies, those of lost journeys apart."""
    return added(
        PathSum(one.subject, tuple(one.keys), one.journeys, 0, one.value_minor)
        if one.currency
        else PathSum(one.subject, tuple(one.keys), 0, one.journeys, one.value_minor)
        for one in rows
    )


async def keep_totals(database: Database, catalogue: Catalogue) -> None:
    """Compute anew what takes long, where the sums have moved since."""
    async with database.reading() as connection:
        models = [model for model in (await catalogue.active(connection)).values() if isinstance(model, TotalsModel)]
        moves, known = await queries.moves(connection), await queries.known(connection)
        currencies = await queries.currencies(connection)
        channels = {currency: await queries.channels(connection, currency) for currency in currencies}
    due = {
        (name_of(model), currency): model
        for model in models
        for currency in currencies
        if takes_long(model, channels[currency]) and channels[currency] <= MOST_CHANNELS
    }
    if superfluous := known.keys() - due.keys():
        async with database.transaction() as tx:
            await queries.drop(tx.connection, superfluous)
    for name, model in due.items():
        if known.get(name) != moves:
            await _keep(database, name, model)


async def _keep(database: Database, name: queries.Name, model: TotalsModel) -> None:
    wanted = replace(EVERYTHING, currency=name[1])
    async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
        moves = await queries.moves(connection)
        read = await _read(connection, model, wanted)
    totals = await _divide(model, read)
    async with database.transaction() as tx:
        await queries.store(tx.connection, name, moves, totals)
