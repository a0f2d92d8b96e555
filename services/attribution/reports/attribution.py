"""The attribution report: what each key earned by one model, what it cost, and the return on that."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.models.catalogue import Catalogue
from services.attribution.reports.domain import Against, Period
from services.attribution.reports.drilling import link_of
from services.attribution.reports.figures import Line, beside, lines_of, ratio
from services.attribution.reports.handlers import MOST_ROWS, read_with_costs, settle
from services.attribution.reports.questions import Question, asked_question
from services.attribution.standing.answers import Answers, Reading, Told
from services.attribution.totals.domain import Credit
from shared.web import Endpoints, document, sheet

Row = dict[str, Any]
WEIGHED = ("removal_effect", "value_removal_effect", "conversions_error", "value_error")


class Figures(BaseModel):
    """What was earned and what it cost; conversions are parts of conversions, summed. Null where no cost is known."""

    conversions: int | float
    value_minor: int
    cost_minor: int | None
    roi: float | None


class Change(BaseModel):
    """By how much it differs from the other period, and that as a part of it: null where that had nothing."""

    conversions: int | float
    conversions_ratio: float | None
    value_minor: int
    value_ratio: float | None


class AttributionRow(Figures):
    """What one key earned and cost, in one day, week or month (its first day) if it was asked by these.

    `keys` are there when it was asked by two dimensions. `drill_url` lists the conversions behind it; by a model that
    gives totals by channel, all that the channel took part in. By `markov` the raw removal effects stand beside what
    they come to, for the conversions and for their value; where `shapley` is sampled, the standard errors.
    """

    key: str
    keys: list[str] | None = None
    period: date | None = None
    removal_effect: float | None = None
    value_removal_effect: float | None = None
    conversions_error: float | None = None
    value_error: float | None = None
    drill_url: str
    previous: Figures | None = None
    change: Change | None = None


class Between(BaseModel):
    """A period, its last day excluded."""

    first: date | None = Field(serialization_alias="from")
    end: date | None = Field(serialization_alias="to")


class AttributionReport(BaseModel):
    """In order of time, then the largest value first. `as_of`: all that was told until then is in it.

    `total` is rounded on its own; it is null for a model whose credits sum to more than the total. `source` says
    whether it was read from the sums or from the credits; parts of days of UTC are always read from these. `truncated`:
    there are more rows than are told. `crossed` says which currencies were converted through which others.
    """

    currency: str | None
    as_of: datetime | None
    model: str
    model_version: int
    source: Literal["sums", "credits"]
    truncated: bool
    total: Figures | None
    previous: Between | None = None
    crossed: dict[str, list[str]] | None = None
    rows: list[AttributionRow]


def router(answers: Answers, catalogue: Catalogue) -> APIRouter:
    """The endpoint of the attribution report."""
    made = Endpoints()

    @made.get("/v1/reports/attribution", response_model=AttributionReport)
    async def attribution(
        request: Request,
        question: Annotated[Question, Depends(asked_question)],
        model: ModelQuery = DEFAULT_MODEL,
        compare_to: Annotated[Against | None, Query(description="Needs `from` and `to`")] = None,
    ) -> Response:
        """What each key earned by one model, what it cost, and the return on that; also beside another period."""
        other = question.period.before(compare_to) if compare_to is not None else None
        return await answers.of(request, lambda reading: _told(reading, catalogue, question, model, other))

    return made


async def _told(reading: Reading, catalogue: Catalogue, question: Question, model: str, other: Period | None) -> Told:
    async with reading() as connection:
        now = await read_with_costs(connection, catalogue, model, question)
        then = await read_with_costs(connection, catalogue, model, question.over(other)) if other else None
        settled = await settle(connection, question, now, then)
    lines, total = lines_of(now.models[model], now.costs, settled.money)
    pairs: list[tuple[Line, Line | None]] = [(line, None) for line in lines]
    if then and other:
        past, _ = lines_of(then.models[model], then.costs, settled.money)
        pairs = [*beside(lines, past, question.interval, question.period.first, other.first)]
    link = link_of(question, now.drilled(model), settled.only)
    weighed = now.weighed(model, settled.currency)
    rows = [_row(line, before, question, link(line.place), weighed) for line, before in pairs[:MOST_ROWS]]
    if question.as_csv:
        return Told(_sheet(rows, question, settled.currency), None)
    report: Row = {
        "currency": settled.currency,
        "as_of": None,
        "model": model,
        "model_version": now.runs[model].version,
        "source": "sums" if now.from_sums or model in now.totals else "credits",
        "truncated": len(pairs) > MOST_ROWS,
        "total": None if model in now.whole else _figures(total),
    }
    if other:
        report["previous"] = Between(first=other.first, end=other.end)
    if settled.crossed is not None:
        report["crossed"] = settled.crossed
    return Told(document(report | {"rows": rows}), now.until(model, settled.currency))


def _figures(line: Line) -> Row:
    """As `Figures`."""
    return {
        "conversions": line.conversions,
        "value_minor": line.value_minor,
        "cost_minor": line.cost_minor,
        "roi": line.roi,
    }


def _row(line: Line, before: Line | None, question: Question, drill_url: str, weighed: Mapping[str, Credit]) -> Row:
    """As `AttributionRow`."""
    bucket, keys = line.place
    row = _figures(line)
    row["key"] = line.key
    if len(keys) > 1:
        row["keys"] = list(keys)
    if question.interval is not None:
        row["period"] = bucket
    if credit := weighed.get(line.key):
        row |= {name: value for name in WEIGHED if (value := getattr(credit, name)) is not None}
    row["drill_url"] = drill_url
    if before is not None:
        row["previous"] = _figures(before)
        row["change"] = {
            "conversions": round(line.conversions - before.conversions, 6),
            "conversions_ratio": ratio(line.units - before.units, before.units),
            "value_minor": line.value_minor - before.value_minor,
            "value_ratio": ratio(line.value_minor - before.value_minor, before.value_minor),
        }
    return row


def _sheet(rows: list[Row], question: Question, currency: str | None) -> Response:
    """The rows as CSV: a column for each dimension if there are two, the other period after this one."""
    figures, compared = list(Figures.model_fields), any("previous" in row for row in rows)
    columns = ["period"] if question.interval else []
    columns += ["key", *(question.dimensions if len(question.dimensions) > 1 else ()), *figures, "currency"]
    if compared:
        columns += [*(f"previous_{name}" for name in figures), *(f"change_{name}" for name in Change.model_fields)]
    lines: list[list[Any]] = []
    for row in rows:
        line: list[Any] = [row["period"]] if question.interval else []
        line += [row["key"], *row.get("keys", ()), *(row[name] for name in figures), currency]
        if compared:
            line += [*row["previous"].values(), *row["change"].values()]
        lines.append([*line, row["drill_url"]])
    return sheet([*columns, "drill_url"], lines)
