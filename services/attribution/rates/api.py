"""Rates of exchange over HTTP: posted by day, listed, taken back."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, PlainSerializer, ValidationError

from services.attribution.errors import NoSuchRate
from services.attribution.rates import queries
from services.attribution.rates.domain import Rate
from shared.errors import FieldError, Invalid
from shared.money import Currency
from shared.service import Runtime
from shared.web import (
    Endpoints,
    Input,
    Limit,
    Page,
    Principal,
    ReportDay,
    described_body,
    invalid,
    make_cursor,
    read_cursor,
    requires,
)

MOST_RATES = 10_000
DecimalText = Annotated[str, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,18})?$", examples=["1.0825"])]


class RateIn(Input):
    """On this day one unit of `base` was worth `rate` units of `quote`; a decimal text, so that it stays exact."""

    date: ReportDay
    base: Currency
    quote: Currency
    rate: DecimalText


class RatesIn(Input):
    """Rates to store, one per pair and day; a pair's rate of a day that is known already is replaced."""

    rates: Annotated[list[RateIn], Field(min_length=1, max_length=MOST_RATES)]


class RateOut(BaseModel):
    """A rate as it was posted."""

    date: date
    base: str
    quote: str
    rate: Annotated[Decimal, PlainSerializer(lambda rate: f"{rate:f}", return_type=str)]


class Stored(BaseModel):
    """How many rates were stored."""

    stored: int


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of rates."""
    made = Endpoints(tags=["rates"])
    may_read = Depends(requires("attribution:read"))
    may_change = requires("attribution:write")

    @made.put("/v1/rates", openapi_extra=described_body(RatesIn))
    async def put_rates(request: Request, principal: Annotated[Principal, Depends(may_change)]) -> Stored:
        """Store rates by day; reports that are asked to `convert_to` a currency go by them at once."""
        rates = _rates(await request.body())
        async with runtime.database.transaction() as tx:
            await queries.put_rates(tx.connection, rates, principal.subject)
        return Stored(stored=len(rates))

    @made.get("/v1/rates", dependencies=[may_read])
    async def rates(  # noqa: PLR0913  # the parameters of the list
        base: Currency | None = None,
        quote: Currency | None = None,
        first: Annotated[ReportDay | None, Query(alias="from")] = None,
        end: Annotated[ReportDay | None, Query(alias="to", description="The day after the last")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[RateOut]:
        """The rates there are, the newest day first."""
        place = read_cursor(runtime.secrets, "rates", cursor)
        after = (date.fromisoformat(place[0]), place[1], place[2]) if place else None
        async with runtime.database.reading() as connection:
            found = await queries.rates_page(connection, (base, quote), (first, end), after=after, limit=limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        more = make_cursor(runtime.secrets, "rates", (last.day, last.base, last.quote)) if last else None
        items = [RateOut(date=one.day, base=one.base, quote=one.quote, rate=one.rate) for one in found[:limit]]
        return Page(items=items, next_cursor=more)

    @made.delete("/v1/rates/{base}/{quote}/{day}", status_code=204, dependencies=[Depends(may_change)])
    async def delete_rate(base: Currency, quote: Currency, day: ReportDay) -> None:
        """Take a rate back; what was converted by it goes by the one before, or needs another."""
        async with runtime.database.transaction() as tx:
            if not await queries.delete_rate(tx.connection, base, quote, day):
                raise NoSuchRate(f"there is no rate from {base} to {quote} on {day}")

    return made


def _rates(body: bytes) -> list[Rate]:
    """The rates in a body. Raises Rejected with a pointer to each fault."""
    try:
        posted = RatesIn.model_validate_json(body).rates
    except ValidationError as exc:
        raise invalid(exc) from exc
    faults: list[FieldError] = []
    rates: dict[tuple[date, str, str], Rate] = {}
    for index, one in enumerate(posted):
        rate = Rate(one.date, one.base, one.quote, Decimal(one.rate))
        known = rates.setdefault((rate.day, rate.base, rate.quote), rate)
        if rate.base == rate.quote:
            faults.append(FieldError(f"/rates/{index}/quote", "is the base itself"))
        if not rate.rate:
            faults.append(FieldError(f"/rates/{index}/rate", "must be more than zero"))
        if known.rate != rate.rate:
            faults.append(FieldError(f"/rates/{index}/rate", "differs from another rate of the same pair and day"))
    if faults:
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
    return list(rates.values())
