"""From a cell of a report to the conversions behind it, whose shares sum to what the cell says."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from functools import cache
from typing import Annotated, TypeVar
from urllib.parse import quote_plus, urlencode

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, StringConstraints

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import SHARE_UNITS
from services.attribution.models.choosing import serving_run
from services.attribution.reports import queries
from services.attribution.reports.domain import Period
from services.attribution.reports.figures import Keys, Place
from services.attribution.reports.questions import Question, asked_question
from shared.errors import FieldError, Invalid
from shared.secrets import Secrets
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor

PATH = "/v1/reports/attribution/conversions"
CURSOR = "conversions-behind"
Item = TypeVar("Item")
Name = Annotated[str, StringConstraints(max_length=10_000)]

Link = Callable[[Place], str]


class Behind(BaseModel):
    """A conversion and the part of it that counts in the cell; `value_minor` is all of it."""

    conversion_id: str
    lead_id: str
    type: str
    occurred_at: datetime
    currency: str
    value_minor: int
    share: float
    credited_minor: int
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
        question: Annotated[Question, Depends(asked_question)],
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
        return page_of(runtime.secrets, CURSOR, found, limit, _behind)

    return made


def _behind(row: asyncpg.Record) -> Behind:
    fields = dict(row)
    return Behind(share=int(fields.pop("units")) / SHARE_UNITS, **fields)
