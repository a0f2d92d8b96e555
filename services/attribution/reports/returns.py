"""The ROI report: what came back of what was spent, by channel, campaign or both."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import SHARE_UNITS
from services.attribution.models.catalogue import Catalogue
from services.attribution.reports import queries
from services.attribution.reports.domain import Interval, bucket_of
from services.attribution.reports.drilling import link_of
from services.attribution.reports.figures import Days, Line, Money, Place, divided, lines_of, ratio
from services.attribution.reports.handlers import MOST_ROWS, Read, read_with_costs, settle
from services.attribution.reports.questions import Question, asked_question
from services.attribution.standing.answers import Answers, Reading, Told
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.web import Endpoints, document, sheet

Row = dict[str, Any]
Margin = Annotated[
    Decimal, Query(gt=0, le=1, max_digits=12, description="What of the value is left before advertising")
]


class Returns(BaseModel):
    """What was spent and what came back; null where nothing was spent, or nothing is there to divide by.

    `roas` is value / cost, `roi` (value - cost) / cost, `cpa_minor` cost / credited conversions. At the margin asked
    for, `break_even_roas` is the ROAS, 1 / margin, and `break_even_cpa_minor` the CPA, margin x value / conversions, at
    which nothing is won or lost.
    """

    cost_minor: int | None
    value_minor: int
    conversions: int | float
    roas: float | None
    roi: float | None
    cpa_minor: int | None
    break_even_roas: float
    break_even_cpa_minor: int | None


class ReturnsRow(Returns):
    """The returns of one key. `break_even_on` is the first day at whose end margin x value, added up since the first
    day of the row, covers the cost added up since then, null by a model that gives totals; `days_to_break_even` counts
    from the first day with a cost.
    """

    key: str
    keys: list[str] = Field(default=[])
    period: date | None = None
    break_even_on: date | None
    days_to_break_even: int | None
    drill_url: str


class ReturnsReport(BaseModel):
    """In order of time, then the largest value first; otherwise as the attribution report."""

    currency: str | None
    as_of: datetime | None
    model: str
    model_version: int
    source: Literal["sums", "credits"]
    truncated: bool
    total: Returns | None
    crossed: dict[str, list[str]] | None = None
    rows: list[ReturnsRow]


def router(answers: Answers, catalogue: Catalogue) -> APIRouter:
    """The endpoint of the ROI report."""
    made = Endpoints()

    @made.get("/v1/reports/roi", response_model=ReturnsReport)
    async def roi(
        request: Request,
        question: Annotated[Question, Depends(asked_question)],
        model: ModelQuery = DEFAULT_MODEL,
        margin: Margin = Decimal(1),
    ) -> Response:
        """What was spent on channels and campaigns, what came back, and when it was earned back."""
        if not question.has_costs:
            detail = "costs are known by channel and campaign: group by these, and filter by these and currency"
            parameter = "dimension" if not set(question.dimensions) <= {"channel", "campaign"} else "filter"
            raise Invalid("there are no costs by this", [FieldError(f"query:{parameter}", detail)])
        return await answers.of(request, lambda reading: _told(reading, catalogue, question, model, margin))

    return made


async def _told(reading: Reading, catalogue: Catalogue, question: Question, model: str, margin: Decimal) -> Told:
    async with reading() as connection:
        found = await read_with_costs(connection, catalogue, model, question)
        daily = await _read_days(connection, found, model, question)
        settled = await settle(connection, question, found)
    share = Fraction(margin)
    lines, total = lines_of(found.models[model], found.costs, settled.money)
    earned, spent = (_days(parts, question.interval, settled.money) for parts in daily)
    link = link_of(question, found.drilled(model), settled.only)
    rows = [
        _row(
            line,
            share,
            paid_back(earned.get(line.place, {}), spent.get(line.place, {}), share),
            question,
            link(line.place),
        )
        for line in lines[:MOST_ROWS]
    ]
    if question.as_csv:
        return Told(_sheet(rows, question, settled.currency), None)
    report: Row = {
        "currency": settled.currency,
        "as_of": None,
        "model": model,
        "model_version": found.runs[model].version,
        "source": "sums" if found.from_sums else "credits",
        "truncated": len(lines) > MOST_ROWS,
        "total": None if model in found.whole else _returns(total, share),
    }
    if settled.crossed is not None:
        report["crossed"] = settled.crossed
    return Told(document(report | {"rows": rows}), found.until(model, settled.currency))


Daily = dict[date, int | Fraction]
"""Minor units by day."""


def paid_back(
    earned: Mapping[date, int | Fraction], spent: Mapping[date, int | Fraction], margin: Fraction
) -> tuple[date, int] | None:
    """The first day at whose end what was earned so far, times the margin, covers what was spent so far.

    And how many days that is after the first one with a cost. None if that never happened, or nothing was spent.
    """
    value: int | Fraction = 0
    cost: int | Fraction = 0
    first: date | None = None
    for day in sorted({*earned, *spent}):
        value, cost = value + earned.get(day, 0), cost + spent.get(day, 0)
        first = day if first is None and cost else first
        if first is not None and value * margin.numerator >= cost * margin.denominator:
            return day, (day - first).days
    return None


async def _read_days(
    connection: Connection, found: Read, model: str, question: Question
) -> tuple[list[Days], list[Days]]:
    """What was credited and spent day by day where anything was spent and came back; nothing by a model that gives
    totals. What nothing came back from does not pay.
    """
    run = found.runs[model]
    spent_on = {cost.keys for cost in found.costs if cost.minor}
    paying = spent_on & {cell.keys for cell in found.models[model]}
    if not paying or not run.splits:
        return [], []
    about = question.about(paying)
    return await queries.credited_days(connection, run.run, about), await queries.spent_days(connection, about)


def _days(parts: Iterable[Days], interval: Interval | None, money: Money) -> dict[Place, Daily]:
    """What was earned or spent day by day, on each line."""
    found: dict[Place, Daily] = defaultdict(dict)
    first_of = cache(bucket_of)
    for currency, keys, buckets, days, amounts in parts:
        of_line = found[None, keys] if interval is None else {}
        for bucket, day, minor in zip(buckets, days, amounts, strict=True):
            if interval is not None:
                of_line = found[first_of(bucket, interval), keys]
            amount = minor if day is None else money.exactly({(currency, day): minor})
            of_line[bucket] = of_line.get(bucket, 0) + amount
    return found


def _returns(line: Line, margin: Fraction) -> Row:
    """As `Returns`."""
    cost, units = line.cost_minor or None, line.units
    return {
        "cost_minor": line.cost_minor,
        "value_minor": line.value_minor,
        "conversions": line.conversions,
        "roas": ratio(line.value_minor, cost) if cost else None,
        "roi": line.roi,
        "cpa_minor": divided(cost * SHARE_UNITS, units) if cost and units else None,
        "break_even_roas": round(margin.denominator / margin.numerator, 6),
        "break_even_cpa_minor": divided(margin.numerator * line.value_minor * SHARE_UNITS, margin.denominator * units)
        if units
        else None,
    }


def _row(line: Line, margin: Fraction, paid: tuple[date, int] | None, question: Question, drill_url: str) -> Row:
    """As `ReturnsRow`."""
    bucket, keys = line.place
    row = _returns(line, margin)
    row["key"] = line.key
    if len(keys) > 1:
        row["keys"] = list(keys)
    if question.interval is not None:
        row["period"] = bucket
    row["break_even_on"], row["days_to_break_even"] = paid or (None, None)
    row["drill_url"] = drill_url
    return row


def _sheet(rows: list[Row], question: Question, currency: str | None) -> Response:
    figures = [*Returns.model_fields, "break_even_on", "days_to_break_even"]
    columns = ["period"] if question.interval else []
    columns += ["key", *(question.dimensions if len(question.dimensions) > 1 else ()), *figures, "currency"]
    lines: list[list[Any]] = []
    for row in rows:
        line: list[Any] = [row["period"]] if question.interval else []
        line += [row["key"], *row.get("keys", ()), *(row[name] for name in figures), currency, row["drill_url"]]
        lines.append(line)
    return sheet([*columns, "drill_url"], lines)
