"""From a cell of a report to the conversions behind it, whose shares sum to what the cell says."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Annotated, TypeVar
from urllib.parse import quote_plus, urlencode

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, StringConstraints

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import SHARE_UNITS
from services.attribution.models.choosing import serving_run
from services.attribution.rates.queries import exchange
from services.attribution.reports import queries
from services.attribution.reports.domain import Period
from services.attribution.reports.figures import Keys, Place
from services.attribution.reports.questions import Question, asked_credits
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.secrets import Secrets
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor

PATH = "/v1/reports/attribution/conversions"
CURSOR = "conversions-behind"
Item = TypeVar("Item")
Name = Annotated[str, StringConstraints(max_length=10_000)]

Link = Callable[[Place], str]
Worth = Callable[[asyncpg.Record, int], int | None]
"""What an amount of a conversion comes to in the currency of the report, if it is converted."""


class Behind(BaseModel):
    """A conversion and the part of it that counts in the cell; `value_minor` is all of it.

    With `convert_to`, `converted_minor` is that part by the rate of the conversion's day, each rounded for itself: the
    sum of a list may differ from its cell, which is rounded once.
    """

    conversion_id: str
    lead_id: str
    type: str
    occurred_at: datetime
    currency: str
    value_minor: int
    share: float
    credited_minor: int
    converted_minor: int | None = None
    country: str
    account: str
    rep: str


def address(
    path: str, named: Iterable[tuple[str, object]], zone: str, currency: str | None, types: Sequence[str] = ()
) -> str:
    """The address of a list of conversions: what names the cell, and what the whole report was asked."""
    asked = [*named]
    asked += [("tz", zone)] if zone != "UTC" else []
    asked += [("conversion_type", ",".join(types))] if types else []
    asked += [("currency", currency)] if currency is not None else []
    return f"/attribution{path}?{urlencode(asked)}"


def converting(convert_to: str | None, through: str | None) -> list[tuple[str, str]]:
    """How amounts are converted, as an address names it."""
    return [(name, code) for name, code in (("convert_to", convert_to), ("convert_through", through)) if code]


def days(period: Period) -> list[tuple[str, date]]:
    """A period as an address names it."""
    return [(name, day) for name, day in (("from", period.first), ("to", period.end)) if day is not None]


def place_after(secrets: Secrets, kind: str, cursor: str | None) -> tuple[datetime, str] | None:
    """The conversion that a page of such a list comes after. Raises Malformed."""
    place = read_cursor(secrets, kind, cursor)
    return (datetime.fromisoformat(place[0]), place[1]) if place else None


def page_of(
    secrets: Secrets, kind: str, found: Sequence[asyncpg.Record], limit: int, item: Callable[[asyncpg.Record], Item]
) -> Page[Item]:
    """A page of conversions, out of one more than it holds where there are more."""
    last = found[limit - 1] if len(found) > limit else None
    more = make_cursor(secrets, kind, (last["occurred_at"], last["conversion_id"])) if last else None
    return Page(items=[item(row) for row in found[:limit]], next_cursor=more)


def link_of(question: Question, model: str, currency: str | None) -> Link:
    """Makes the address of the conversions behind each line of a report; without a currency, of all that there are."""
    period = question.period
    named = [("model", model), ("dimension", ",".join(question.dimensions)), ("date_basis", question.basis)]
    named += [("filter", question.filter)] if question.filter is not None else []
    named += converting(question.convert_to, question.through)
    begin = address(PATH, named, period.zone.key, currency, question.types)

    @cache
    def named_by(keys: Keys) -> str:
        return begin + "".join(f"&key={quote_plus(key)}" for key in keys)

    @cache
    def days_of(bucket: date | None) -> str:
        part = period.part(bucket, question.interval) if bucket is not None and question.interval else period
        return "".join(f"&{name}={day}" for name, day in days(part))

    def link(place: Place) -> str:
        bucket, keys = place
        return named_by(keys) + days_of(bucket)

    return link


def router(runtime: Runtime) -> APIRouter:
    """The endpoint of the conversions behind a cell."""
    made = Endpoints()

    @made.get(PATH)
    async def conversions(
        question: Annotated[Question, Depends(asked_credits)],
        key: Annotated[list[Name] | None, Query(description="One for each dimension, in their order")] = None,
        model: ModelQuery = DEFAULT_MODEL,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[Behind]:
        """The conversions that a cell of a report consists of, the newest first, with the share that counts there."""
        if key and len(key) != len(question.dimensions):
            fault = FieldError("query:key", f"send one for each of {', '.join(question.dimensions)}, or none")
            raise Invalid("key does not fit dimension", [fault])
        after = place_after(runtime.secrets, CURSOR, cursor)
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            run = await serving_run(connection, model)
            found = await queries.conversions_behind(
                connection, run.run, question, key or (), after=after, limit=limit + 1
            )
            worth = await worth_of(connection, found, question.convert_to, question.through)
        return page_of(runtime.secrets, CURSOR, found, limit, lambda row: _behind(row, worth))

    return made


async def worth_of(
    connection: Connection, found: Sequence[asyncpg.Record], convert_to: str | None, through: str | None
) -> Worth:
    """What amounts of conversions come to by the rates of their days; nothing where nothing is to be converted.

    Raises MissingRates, SeveralCrossings.
    """
    if convert_to is None:
        return lambda _row, _minor: None
    rates = await exchange(connection, convert_to, [_place(row) for row in found], through)
    return lambda row, minor: rates.total({_place(row): minor})


def _place(row: asyncpg.Record) -> tuple[str, date]:
    return row["currency"], row["occurred_at"].astimezone(UTC).date()


def _behind(row: asyncpg.Record, worth: Worth) -> Behind:
    fields = dict(row)
    share = int(fields.pop("units")) / SHARE_UNITS
    return Behind(share=share, converted_minor=worth(row, row["credited_minor"]), **fields)
