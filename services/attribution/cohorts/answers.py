"""What the reports of cohorts answer, as JSON and as CSV."""

from collections.abc import Mapping
from dataclasses import astuple, fields
from datetime import date, datetime
from functools import cache
from typing import Any, Literal
from urllib.parse import quote_plus

from fastapi import Response
from pydantic import BaseModel

from services.attribution.cohorts.domain import Level
from services.attribution.cohorts.laying import Age, Cohort, Split
from services.attribution.reports.domain import Period, nth_bucket
from services.attribution.reports.drilling import address
from services.attribution.reports.figures import ratio
from shared.web import sheet

PATH = "/v1/reports/cohorts/conversions"


class CohortOut(BaseModel):
    """Persons first heard of in one week or month (its first day); without a channel if told apart by none."""

    cohort: date
    channel: str | None
    people: int
    converted: int
    share: float | None
    conversions: int
    value_minor: int
    ages: list[Age]
    drill_url: str


class CohortsOut(BaseModel):
    """Cohorts in order of time, the largest first. `source` says whether sums were read or each person."""

    currency: str | None
    as_of: datetime | None
    interval: Level
    source: Literal["sums", "people"]
    truncated: bool
    crossed: dict[str, list[str]] | None
    rows: list[CohortOut]


class BoughtSum(BaseModel):
    """Conversions and their value."""

    conversions: int
    value_minor: int
    drill_url: str


class SplitOut(BaseModel):
    """What was bought in a week or month: by new customers, whose first conversion it was, and by returning ones."""

    period: date
    channel: str | None
    new: BoughtSum
    returning: BoughtSum
    new_value_share: float | None


class SplitsOut(BaseModel):
    """In order of time, the largest value first."""

    currency: str | None
    as_of: datetime | None
    interval: Level
    source: Literal["sums", "people"]
    truncated: bool
    crossed: dict[str, list[str]] | None
    rows: list[SplitOut]


class BoughtOut(BaseModel):
    """A conversion of a cohort; `channel` is that of the person's first touch, `first` whether it was their first.

    With `convert_to`, `converted_minor` is its value by the rate of its day, each rounded for itself.
    """

    conversion_id: str
    lead_id: str
    channel: str
    first_at: datetime
    occurred_at: datetime
    currency: str
    value_minor: int
    converted_minor: int | None = None
    first: bool


class Links:
    """Makes the addresses of the conversions behind the rows of a report."""

    def __init__(self, period: Period, interval: Level, currency: str | None, converted: list[tuple[str, str]]) -> None:
        self._interval = interval
        self._begin = address(PATH, [("interval", interval), *converted], period.zone.key, currency)
        self._channels = cache(lambda channel: "" if channel is None else f"&channel={quote_plus(channel)}")

    def of_cohort(self, cohort: date, channel: str | None) -> str:
        """All that a cohort bought."""
        return self._address({"cohort": cohort}, channel)

    def of_period(self, bucket: date, channel: str | None, *, first: bool) -> str:
        """What was bought in a week or month, for the first time or again."""
        end = nth_bucket(bucket, 1, self._interval)
        return self._address({"from": bucket, "to": end, "first": str(first).lower()}, channel)

    def _address(self, plain: Mapping[str, object], channel: str | None) -> str:
        """With values that need no quoting: there may be thousands of rows."""
        chosen = "".join(f"&{name}={value}" for name, value in plain.items())
        return f"{self._begin}{chosen}{self._channels(channel)}"


def cohort_row(one: Cohort, links: Links) -> CohortOut:
    """What is told of a cohort."""
    cohort, channel = one.key
    return CohortOut(
        cohort=cohort,
        channel=channel,
        people=one.people,
        converted=one.converted,
        share=ratio(one.converted, one.people),
        conversions=one.conversions,
        value_minor=one.value_minor,
        ages=one.ages,
        drill_url=links.of_cohort(cohort, channel),
    )


def split_row(one: Split, links: Links) -> SplitOut:
    """What new and returning customers bought in a week or month; each amount is rounded on its own."""
    bucket, channel = one.key
    return SplitOut(
        period=bucket,
        channel=channel,
        new=BoughtSum(
            conversions=one.new_conversions,
            value_minor=one.new_minor,
            drill_url=links.of_period(bucket, channel, first=True),
        ),
        returning=BoughtSum(
            conversions=one.conversions - one.new_conversions,
            value_minor=one.returning_minor,
            drill_url=links.of_period(bucket, channel, first=False),
        ),
        new_value_share=ratio(one.new_minor, one.new_minor + one.returning_minor),
    )


def cohort_sheet(rows: list[CohortOut], currency: str | None) -> Response:
    """A line for each age of each cohort."""
    figures = [each.name for each in fields(Age)]
    lines: list[list[Any]] = []
    for row in rows:
        for age in row.ages:
            lines.append([row.cohort, row.channel, row.people, *astuple(age), currency, row.drill_url])
    return sheet(["cohort", "channel", "people", *figures, "currency", "drill_url"], lines)


def split_sheet(rows: list[SplitOut], currency: str | None) -> Response:
    """A line for each week or month."""
    lines = [
        [
            row.period,
            row.channel,
            *(row.new.conversions, row.new.value_minor),
            *(row.returning.conversions, row.returning.value_minor),
            row.new_value_share,
            currency,
        ]
        for row in rows
    ]
    new, returning = [[f"{who}_{figure}" for figure in ("conversions", "value_minor")] for who in ("new", "returning")]
    return sheet(["period", "channel", *new, *returning, "new_value_share", "currency"], lines)
