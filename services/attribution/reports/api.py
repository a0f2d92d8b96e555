"""Reports over HTTP, as JSON or CSV."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from io import StringIO
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import Dimension
from services.attribution.models.choosing import serving_run
from services.attribution.reports import queries
from services.attribution.reports.domain import Period, choose_currency, compared, rows_of
from shared.errors import FieldError, Invalid
from shared.money import Currency
from shared.service import Runtime
from shared.web import requires

MOST_MODELS = 6
Day = Annotated[date | None, Query(ge=date(1970, 1, 1), le=date(2200, 1, 1))]
Format = Literal["json", "csv"]


class AttributionRow(BaseModel):
    """What one key earned and cost; conversions are parts of conversions, summed."""

    key: str
    conversions: int | float
    value_minor: int
    cost_minor: int | None
    roi: float | None


class AttributionReport(BaseModel):
    """The largest value first. `as_of`: all that was told until then is in it."""

    currency: str | None
    as_of: datetime | None
    rows: list[AttributionRow]


class ComparisonReport(BaseModel):
    """Each row has a `key` and, under the name of each model, its conversions and value."""

    currency: str | None
    as_of: datetime | None
    models: list[str]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What all reports can be asked for."""

    dimension: Dimension
    period: Period
    currency: str | None
    as_csv: bool


def asked(  # noqa: PLR0913  # the parameters of a report
    request: Request,
    dimension: Annotated[Dimension, Query(description="What to group by")] = "channel",
    first: Annotated[Day, Query(alias="from", description="First day of conversions")] = None,
    end: Annotated[Day, Query(alias="to", description="The day after the last")] = None,
    tz: Annotated[str, Query(description="Time zone of the days, as in `Europe/Berlin`")] = "UTC",
    currency: Annotated[Currency | None, Query(description="Needed when there are several")] = None,
    format: Annotated[Format | None, Query(description="`csv`, also by `Accept: text/csv`")] = None,
) -> Asked:
    """The parameters of a report. Raises Invalid."""
    if tz not in _zones():
        raise Invalid("tz is not a time zone", [FieldError("query:tz", "is not the name of an IANA time zone")])
    if first is not None and end is not None and first >= end:
        raise Invalid("the period is empty", [FieldError("query:to", "must be after from; the day itself is excluded")])
    accepts_csv = request.headers.get("accept", "").split(";")[0].strip() == "text/csv"
    as_csv = format == "csv" or (format is None and accepts_csv)
    return Asked(dimension, Period(first, end, ZoneInfo(tz)), currency, as_csv)


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of reports."""
    made = APIRouter(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])

    @made.get("/v1/reports/attribution", response_model=AttributionReport)
    async def attribution(
        wanted: Annotated[Asked, Depends(asked)], model: ModelQuery = DEFAULT_MODEL
    ) -> AttributionReport | Response:
        """What each channel, source, medium or campaign earned by one model, what it cost, and the return on that."""
        period = wanted.period
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            run = await serving_run(connection, model)
            sums = await queries.credit_sums(connection, [run.run], wanted.dimension, period)
            costs = await queries.cost_sums(connection, wanted.dimension, period.first, period.end)
            as_of = await queries.as_of(connection)
        currency = choose_currency({*sums, *costs}, wanted.currency)
        rows = rows_of(sums.get(currency or "", {}).get(run.run, {}), costs.get(currency or "", {}))
        lines = [
            AttributionRow(
                key=row.key,
                conversions=row.sum.conversions,
                value_minor=row.sum.value_minor,
                cost_minor=row.cost_minor,
                roi=row.roi,
            )
            for row in rows
        ]
        if wanted.as_csv:
            return _csv(list(AttributionRow.model_fields), [tuple(dict(line).values()) for line in lines], currency)
        return AttributionReport(currency=currency, as_of=as_of, rows=lines)

    @made.get("/v1/reports/compare", response_model=ComparisonReport)
    async def compare(
        wanted: Annotated[Asked, Depends(asked)],
        models: Annotated[str, Query(max_length=700, description="Up to six models, separated by commas")],
    ) -> ComparisonReport | Response:
        """The same conversions by several models, side by side."""
        names = _model_names(models)
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            runs = [(await serving_run(connection, name, "models")).run for name in names]
            sums = await queries.credit_sums(connection, runs, wanted.dimension, wanted.period)
            as_of = await queries.as_of(connection)
        currency = choose_currency(sums, wanted.currency)
        lines = compared(sums.get(currency or "", {}), runs)
        if wanted.as_csv:
            columns = ["key", *(f"{name}_{field}" for name in names for field in ("conversions", "value_minor"))]
            flat = [(key, *(v for one in by for v in (one.conversions, one.value_minor))) for key, by in lines]
            return _csv(columns, flat, currency)
        rows = [
            {"key": key}
            | {
                name: {"conversions": one.conversions, "value_minor": one.value_minor}
                for name, one in zip(names, by, strict=True)
            }
            for key, by in lines
        ]
        return ComparisonReport(currency=currency, as_of=as_of, models=names, rows=rows)

    return made


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _model_names(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not 1 <= len(names) <= MOST_MODELS:
        raise Invalid("models is not valid", [FieldError("query:models", f"name one to {MOST_MODELS} models")])
    return names


def _csv(columns: Sequence[str], lines: Iterable[Sequence[Any]], currency: str | None) -> Response:
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow([*columns, "currency"])
    for key, *values in lines:
        writer.writerow([_harmless(key), *values, currency])
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8")


def _harmless(key: str) -> str:
    """A campaign's name comes from outside; a spreadsheet must not take it for a formula."""
    return f"'{key}" if key[:1] in {"=", "+", "-", "@", "\t", "\r"} else key
