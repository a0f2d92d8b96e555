"""Conversions, their credits and the reasons for them over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.responses import Response

from services.attribution.channels.groupings import active_grouping
from services.attribution.conversions import explaining, queries
from services.attribution.credits import queries as credit_queries
from services.attribution.credits.queries import CreditRow
from services.attribution.domain import SHARE_UNITS, Conversion
from services.attribution.errors import NoSuchConversion
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.choosing import serving_run
from services.attribution.models.queries import Run
from services.attribution.people import ConversionIdPath, Whom, find, whom
from shared.db import Connection
from shared.identity import Member, members
from shared.ids import ConversionId
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

DEFAULT_MODEL = "linear"
ModelQuery = Annotated[str, Query(max_length=100, description="The model that divides the credit")]
HistoryQuery = Annotated[
    str,
    Query(
        max_length=100,
        description="The model by which the history tells what moved; `all` for every one",
    ),
]


class ConversionOut(BaseModel):
    """A conversion; `value_minor` is what refunds have left of it."""

    conversion_id: str
    external_id: str
    origin: str
    type: str
    value_minor: int
    refunded_minor: int
    currency: str
    occurred_at: datetime
    deal_id: str | None = None


class CreditOut(BaseModel):
    """What a touch earned; without a touch, what nobody earned."""

    touch_id: str | None
    origin: str | None
    channel: str
    source: str
    medium: str
    campaign: str
    content: str
    landing_page: str
    touch_type: str
    share: float
    value_minor: int


class CreditsOut(BaseModel):
    """A conversion's credits by one model; they sum to its value.

    With `whole` they do not: each channel on the path has the conversion whole.
    """

    conversion_id: str
    model: str
    model_version: int
    value_minor: int
    currency: str
    whole: bool = False
    credits: list[CreditOut]


def conversion_out(conversion: Conversion) -> ConversionOut:
    """A conversion as the API tells it."""
    return ConversionOut(
        conversion_id=conversion.conversion_id,
        external_id=conversion.external_id,
        origin=conversion.origin,
        type=conversion.type,
        value_minor=conversion.value_minor,
        refunded_minor=conversion.refunded_minor,
        currency=conversion.currency,
        occurred_at=conversion.occurred_at,
        deal_id=conversion.deal_id,
    )


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of conversions."""
    made = Endpoints(tags=["conversions"], dependencies=[Depends(requires("attribution:read"))])
    catalogue = Catalogue()
    groupings = active_grouping()

    @made.get("/v1/conversions")
    async def conversions_of(
        named: Annotated[Whom, Depends(whom)], limit: Limit = 50, cursor: str | None = None
    ) -> Page[ConversionOut]:
        """A person's conversions in order of time."""
        async with _snapshot(runtime) as connection:
            found, more = await _page(connection, runtime, named, limit, cursor)
        return Page(items=[conversion_out(conversion) for conversion in found], next_cursor=more)

    @made.get("/v1/conversions/{conversion_id}")
    async def conversion(conversion_id: ConversionIdPath) -> ConversionOut:
        """One conversion."""
        async with runtime.database.reading() as connection:
            return conversion_out(await _conversion(connection, conversion_id))

    @made.get("/v1/conversions/{conversion_id}/credits")
    async def credits_of(conversion_id: ConversionIdPath, model: ModelQuery = DEFAULT_MODEL) -> CreditsOut:
        """Which touches earned the conversion, by one model."""
        async with _snapshot(runtime) as connection:
            run = await serving_run(connection, model)
            found = await _conversion(connection, conversion_id)
            rows = await credit_queries.credits_of(connection, [found.conversion_id], model)
            whole = await catalogue.gives_whole(connection, run)
        return _credits_out(found, run, rows, whole=whole)

    @made.get("/v1/credits")
    async def credits_of_person(
        named: Annotated[Whom, Depends(whom)],
        model: ModelQuery = DEFAULT_MODEL,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[CreditsOut]:
        """Which touches earned each of a person's conversions, by one model."""
        async with _snapshot(runtime) as connection:
            run = await serving_run(connection, model)
            found, more = await _page(connection, runtime, named, limit, cursor)
            rows = await credit_queries.credits_of(connection, [one.conversion_id for one in found], model)
            whole = await catalogue.gives_whole(connection, run)
        items = [
            _credits_out(one, run, [row for row in rows if row.conversion_id == one.conversion_id], whole=whole)
            for one in found
        ]
        return Page(items=items, next_cursor=more)

    @made.get("/v1/conversions/{conversion_id}/explain", response_model=explaining.Explanation)
    async def explain(conversion_id: ConversionIdPath, model: HistoryQuery = DEFAULT_MODEL) -> Response:
        """Which touches counted and what each earned by every model; which did not, and why; what came late."""
        async with _snapshot(runtime) as connection:
            if model != explaining.ALL_MODELS:
                await serving_run(connection, model)
            found = await _conversion(connection, conversion_id)
            grouping = await groupings.current(connection)
            material = await explaining.material_of(connection, catalogue, grouping, found)
        # it may take long, and needs no database
        told = await asyncio.to_thread(lambda: explaining.explain(material, model).model_dump_json())
        return Response(told, media_type="application/json")

    return made


@asynccontextmanager
async def _snapshot(runtime: Runtime) -> AsyncIterator[Connection]:
    """Statements that see one and the same state: credits always sum to the value that stands beside them."""
    async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
        yield connection


async def _page(
    connection: Connection, runtime: Runtime, named: Whom, limit: int, cursor: str | None
) -> tuple[list[Conversion], str | None]:
    place = read_cursor(runtime.secrets, "conversions", cursor)
    after = (datetime.fromisoformat(place[0]), place[1]) if place else None
    person = await find(connection, runtime.ids, named)
    ids = await members(connection, person) or [Member(person)]
    found = await queries.conversions_page(connection, ids, after=after, limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = make_cursor(runtime.secrets, "conversions", (last.occurred_at, last.conversion_id)) if last else None
    return found[:limit], more


async def _conversion(connection: Connection, conversion_id: str) -> Conversion:
    found = await queries.conversion(connection, ConversionId(conversion_id))
    if found is None:
        raise NoSuchConversion("no conversion with this id has arrived here")
    return found


def _credits_out(conversion: Conversion, run: Run, rows: list[CreditRow], *, whole: bool) -> CreditsOut:
    return CreditsOut(
        conversion_id=conversion.conversion_id,
        model=run.model_id,
        model_version=run.version,
        value_minor=conversion.value_minor,
        currency=conversion.currency,
        whole=whole,
        credits=[
            CreditOut(
                touch_id=row.touch_id,
                origin=row.origin,
                channel=row.channel,
                source=row.source,
                medium=row.medium,
                campaign=row.campaign,
                content=row.content,
                landing_page=row.landing_page,
                touch_type=row.touch_type,
                share=row.units / SHARE_UNITS,
                value_minor=row.value_minor,
            )
            for row in rows
        ],
    )
