"""The comparison report: the same conversions by several models, side by side."""

from datetime import date, datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from services.attribution.models.catalogue import Catalogue
from services.attribution.reports.asking import listed
from services.attribution.reports.drilling import Link, link_of
from services.attribution.reports.figures import Line, Place, compared, lines_of, ratio
from services.attribution.reports.handlers import MOST_ROWS, read, settle
from services.attribution.reports.questions import Question, asked_question
from services.attribution.standing.answers import Answers, Reading, Told
from shared.web import Endpoints, document, sheet

MOST_MODELS = 6
FIGURES = ("conversions", "value_minor")


class ComparisonReport(BaseModel):
    """Each row has a `key` (`keys` of two dimensions, `period` by an interval) and, under the name of each model,
    `{conversions, value_minor, drill_url}`; of those after the first also the `difference` from it:
    `{conversions, conversions_ratio, value_minor, value_ratio}`, the ratios null where the first has nothing.

    `totals` are by model, null for a model whose credits sum to more than the total.
    """

    currency: str | None
    as_of: datetime | None
    models: list[str]
    source: Literal["sums", "credits"]
    truncated: bool
    crossed: dict[str, list[str]] | None = None
    totals: dict[str, dict[str, int | float] | None]
    rows: list[dict[str, Any]]


def router(answers: Answers, catalogue: Catalogue) -> APIRouter:
    """The endpoint of the comparison report."""
    made = Endpoints()

    @made.get("/v1/reports/compare", response_model=ComparisonReport)
    async def compare(
        request: Request,
        question: Annotated[Question, Depends(asked_question)],
        models: Annotated[str, Query(max_length=700, description="Up to six models, separated by commas")],
    ) -> Response:
        """The same conversions by several models, side by side, with what each differs from the first."""
        names = listed("models", models, MOST_MODELS)
        return await answers.of(request, lambda reading: _told(reading, catalogue, question, names))

    return made


async def _told(reading: Reading, catalogue: Catalogue, question: Question, names: tuple[str, ...]) -> Told:
    async with reading() as connection:
        found = await read(connection, catalogue, names, question, "models")
        settled = await settle(connection, question, found)
    by_model = {name: lines_of(cells, (), settled.money) for name, cells in found.models.items()}
    lines = compared([of_one for of_one, _ in by_model.values()])
    if question.as_csv:
        return Told(_sheet(lines[:MOST_ROWS], names, question, settled.currency), None)
    links = [link_of(question, found.drilled(name), settled.only) for name in names]
    until = reduce(or_, [found.until(name, settled.currency) for name in names])
    report: dict[str, Any] = {
        "currency": settled.currency,
        "as_of": None,
        "models": names,
        "source": "sums" if found.from_sums else "credits",
        "truncated": len(lines) > MOST_ROWS,
    }
    if settled.crossed is not None:
        report["crossed"] = settled.crossed
    report["totals"] = {
        name: None if name in found.whole else {"conversions": total.conversions, "value_minor": total.value_minor}
        for name, (_, total) in by_model.items()
    }
    report["rows"] = [_row(place, by, names, links, question) for place, by in lines[:MOST_ROWS]]
    return Told(document(report), until)


def _row(place: Place, by: list[Line], names: tuple[str, ...], links: list[Link], question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {"key": by[0].key}
    if len(question.dimensions) > 1:
        row["keys"] = list(place[1])
    if question.interval is not None:
        row["period"] = place[0]
    for name, line, link in zip(names, by, links, strict=True):
        row[name] = {"conversions": line.conversions, "value_minor": line.value_minor, "drill_url": link(place)}
        if line is not by[0]:
            row[name]["difference"] = _difference(line, by[0])
    return row


def _difference(line: Line, first: Line) -> dict[str, Any]:
    return {
        "conversions": round(line.conversions - first.conversions, 6),
        "conversions_ratio": ratio(line.units - first.units, first.units),
        "value_minor": line.value_minor - first.value_minor,
        "value_ratio": ratio(line.value_minor - first.value_minor, first.value_minor),
    }


def _sheet(
    lines: list[tuple[Place, list[Line]]], names: tuple[str, ...], question: Question, currency: str | None
) -> Response:
    """A column for each model's figures; the differences are for a spreadsheet to make."""
    begin = ["period"] if question.interval else []
    begin += ["key", *(question.dimensions if len(question.dimensions) > 1 else ())]
    columns = [*begin, *(f"{name}_{figure}" for name in names for figure in FIGURES), "currency"]
    rows: list[list[Any]] = []
    for (bucket, keys), by in lines:
        row: list[date | str | float | None] = [bucket] if question.interval else []
        row += [by[0].key, *(keys if len(keys) > 1 else ())]
        rows.append([*row, *(getattr(line, figure) for line in by for figure in FIGURES), currency])
    return sheet(columns, rows)
