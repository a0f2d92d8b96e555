"""From a cell of a report to the conversions behind it, whose shares sum to what the cell says."""

from collections.abc import Callable
from datetime import date, datetime
from functools import cache
from typing import Annotated
from urllib.parse import quote_plus, urlencode

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, StringConstraints

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import SHARE_UNITS
from services.attribution.models.choosing import serving_run
from services.attribution.reports import queries
from services.attribution.reports.figures import Place
from services.attribution.reports.questions import Question, asked_question
from shared.errors import FieldError, Invalid
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor

PATH = "/v1/reports/attribution/conversions"
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


def link_of(question: Question, model: str) -> Link:
    """Makes the address of the conversions behind each line of a report."""
    period = question.period
    fixed = [("model", model), ("dimension", ",".join(question.dimensions)), ("date_basis", question.basis)]
    fixed += [("tz", period.zone.key)] if period.zone.key != "UTC" else []
    fixed += [("conversion_type", ",".join(question.types))] if question.types else []
    fixed += [("filter", question.filter)] if question.filter is not None else []
    fixed += [("currency", question.currency)] if question.currency is not None else []
    begin = f"/attribution{PATH}?{urlencode(fixed)}"

    quoted = cache(quote_plus)

    @cache
    def days_of(bucket: date | None) -> str:
        part = period.part(bucket, question.interval) if bucket is not None and question.interval else period
        return "".join(f"&{name}={day}" for name, day in (("from", part.first), ("to", part.end)) if day is not None)

    def link(place: Place) -> str:
        bucket, keys = place
        return "".join([begin, *(f"&key={quoted(key)}" for key in keys), days_of(bucket)])

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
        place = read_cursor(runtime.secrets, "conversions-behind", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else None
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            run = await serving_run(connection, model)
            found = await queries.conversions_behind(
                connection, run.run, question, key or (), after=after, limit=limit + 1
            )
        last = found[limit - 1] if len(found) > limit else None
        more = (
            make_cursor(runtime.secrets, "conversions-behind", (last["occurred_at"], last["conversion_id"]))
            if last
            else None
        )
        items = [
            Behind(
                **{name: value for name, value in row.items() if name != "units"}, share=int(row["units"]) / SHARE_UNITS
            )
            for row in found[:limit]
        ]
        return Page(items=items, next_cursor=more)

    return made
