"""Reports of cohorts over HTTP: by first touch, and new customers against returning ones."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import asyncpg
from fastapi import APIRouter, Depends, Query, Request, Response

from services.attribution.cohorts import queries
from services.attribution.cohorts.answers import (
    PATH,
    BoughtOut,
    CohortsOut,
    Links,
    SplitsOut,
    cohort_row,
    cohort_sheet,
    split_row,
    split_sheet,
)
from services.attribution.cohorts.domain import Level, Part
from services.attribution.cohorts.laying import cohorts_of, splits_of
from services.attribution.rates.queries import exchange
from services.attribution.reports.asking import Asked, Day, NameQuery, asked, asked_plainly
from services.attribution.reports.domain import Period, bucket_of, choose_currency, nth_bucket
from services.attribution.reports.drilling import converting, page_of, place_after, worth_of
from services.attribution.reports.figures import OneCurrency
from services.attribution.reports.handlers import MOST_ROWS, Settled
from services.attribution.reports.questions import not_both
from services.attribution.standing.answers import Answers, Reading, Told
from services.attribution.standing.domain import JOURNEYS
from shared.db import Connection
from shared.money import Currency
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, document, requires

CURSOR = "cohort-conversions"
MOST_AGES = 600
IntervalQuery = Annotated[Level, Query(description="Weeks begin on Mondays")]
DimensionQuery = Annotated[Literal["channel", "none"], Query(description="`channel` is that of the first touch")]
ConvertQuery = Annotated[Currency | None, Query(description="Convert by the posted rates, instead of one `currency`")]
ThroughQuery = Annotated[Currency | None, Query(description="To cross by, where a pair has no rates")]


def router(runtime: Runtime, answers: Answers) -> APIRouter:
    """The endpoints of cohorts."""
    made = Endpoints(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])

    @made.get("/v1/reports/cohorts", response_model=CohortsOut)
    async def cohorts(  # noqa: PLR0913  # the parameters of a report
        request: Request,
        wanted: Annotated[Asked, Depends(asked)],
        interval: IntervalQuery = "month",
        dimension: DimensionQuery = "channel",
        ages: Annotated[int, Query(ge=1, le=MOST_AGES, description="How many ages are told of each")] = 24,
        convert_to: ConvertQuery = None,
        convert_through: ThroughQuery = None,
    ) -> Response:
        """Persons by when they were first heard of: how many bought, when, and for how much.

        A person belongs to the week or month of their first touch, and its channel; who bought before any touch to
        that of the first conversion and `(unattributed)`. `from` and `to` choose cohorts that begin between them.
        """
        today = runtime.clock.now().astimezone(wanted.period.zone).date()

        async def told(reading: Reading) -> Told:
            async with reading() as connection:
                read = await _read(connection, wanted, wanted.period, interval, convert_to, convert_through)
            by_channel, money = dimension == "channel", read.settled.money
            found = cohorts_of(read.sizes, read.parts, money, interval, today, by_channel, ages)
            link = Links(wanted.period, interval, read.settled.only, converting(convert_to, convert_through))
            rows = [cohort_row(one, link) for one in found[:MOST_ROWS]]
            if wanted.as_csv:
                return Told(cohort_sheet(rows, read.settled.currency), None)
            return Told(document(CohortsOut(**read.told(interval, len(found)), rows=rows)), JOURNEYS)

        return await answers.of(request, told, today)

    @made.get("/v1/reports/new-and-returning", response_model=SplitsOut)
    async def new_and_returning(  # noqa: PLR0913  # the parameters of a report
        request: Request,
        wanted: Annotated[Asked, Depends(asked)],
        interval: IntervalQuery = "month",
        dimension: DimensionQuery = "none",
        convert_to: ConvertQuery = None,
        convert_through: ThroughQuery = None,
    ) -> Response:
        """What was bought by new customers, whose first conversion it was, and what by returning ones.

        `from` and `to` choose weeks or months that begin between them.
        """
        period = wanted.period
        known = Period(None, period.end, period.zone)

        async def told(reading: Reading) -> Told:
            async with reading() as connection:
                read = await _read(connection, wanted, known, interval, convert_to, convert_through)
            splits = [
                one
                for one in splits_of(read.parts, read.settled.money, interval, dimension == "channel")
                if (period.first is None or one.key[0] >= period.first)
                and (period.end is None or one.key[0] < period.end)
            ]
            link = Links(wanted.period, interval, read.settled.only, converting(convert_to, convert_through))
            rows = [split_row(one, link) for one in splits[:MOST_ROWS]]
            if wanted.as_csv:
                return Told(split_sheet(rows, read.settled.currency), None)
            return Told(document(SplitsOut(**read.told(interval, len(splits)), rows=rows)), JOURNEYS)

        return await answers.of(request, told)

    @made.get(PATH)
    async def conversions(  # noqa: PLR0913  # what a cell is, and a place in its list
        wanted: Annotated[Asked, Depends(asked_plainly)],
        interval: IntervalQuery = "month",
        cohort: Day = None,
        channel: NameQuery | None = None,
        first: Annotated[bool | None, Query(description="Only first conversions, or only later ones")] = None,
        convert_to: ConvertQuery = None,
        convert_through: ThroughQuery = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[BoughtOut]:
        """The conversions of cohorts, the newest first; `from` and `to` are about the day of the conversion."""
        not_both(wanted.currency, convert_to)
        zone = wanted.period.zone
        begin = bucket_of(cohort, interval) if cohort else None
        known = Period(begin, nth_bucket(begin, 1, interval) if begin else None, zone)
        chosen = queries.Chosen(*known.moments, *wanted.period.moments, channel, wanted.currency, first)
        after = place_after(runtime.secrets, CURSOR, cursor)
        async with runtime.database.reading() as connection:
            found = await queries.bought(connection, chosen, after=after, limit=limit + 1)
            worth = await worth_of(connection, found, convert_to, convert_through)

        def bought(row: asyncpg.Record) -> BoughtOut:
            return BoughtOut(converted_minor=worth(row, row["value_minor"]), **row)

        return page_of(runtime.secrets, CURSOR, found, limit, bought)

    return made


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read, and what all reports of cohorts tell."""

    sizes: dict[tuple[date, str], int]
    parts: list[Part]
    settled: Settled
    from_sums: bool

    def told(self, interval: Level, rows: int) -> dict[str, Any]:
        return {
            "currency": self.settled.currency,
            "as_of": None,
            "interval": interval,
            "source": "sums" if self.from_sums else "people",
            "truncated": rows > MOST_ROWS,
            "crossed": self.settled.crossed,
        }


async def _read(  # noqa: PLR0913  # what was asked
    connection: Connection,
    wanted: Asked,
    period: Period,
    interval: Level,
    convert_to: str | None,
    through: str | None,
) -> _Read:
    """The cohorts that begin in the period. Raises Invalid, SeveralCurrencies, MissingRates, SeveralCrossings."""
    not_both(wanted.currency, convert_to)
    by_days = convert_to is not None
    sizes, parts = await queries.cohorts(connection, interval, period, wanted.currency, by_days=by_days)
    if convert_to is None:
        settled = Settled(choose_currency({part.currency for part in parts}, wanted.currency), OneCurrency())
    else:
        places = {(part.currency, part.day) for part in parts if part.value_minor and part.day}
        rates = await exchange(connection, convert_to, places, through)
        rates.need(places)
        settled = Settled(convert_to, rates)
    return _Read(sizes, parts, settled, period.in_utc and not by_days)
