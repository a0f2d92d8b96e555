"""Reports over HTTP, as JSON or CSV."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from services.attribution.conversions.api import DEFAULT_MODEL, ModelQuery
from services.attribution.domain import Dimension
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.choosing import serving_run
from services.attribution.reports import queries
from services.attribution.reports.asking import Asked, asked, listed
from services.attribution.reports.domain import choose_currency, compared, rows_of
from services.attribution.reports.sheets import sheet
from shared.service import Runtime
from shared.web import requires

MOST_MODELS = 6
DimensionQuery = Annotated[Dimension, Query(description="What to group by")]


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


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of reports."""
    made = APIRouter(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])
    catalogue = Catalogue()

    @made.get("/v1/reports/attribution", response_model=AttributionReport)
    async def attribution(
        wanted: Annotated[Asked, Depends(asked)],
        dimension: DimensionQuery = "channel",
        model: ModelQuery = DEFAULT_MODEL,
    ) -> AttributionReport | Response:
        """What each channel, source, medium or campaign earned by one model, what it cost, and the return on that."""
        period = wanted.period
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            run = await serving_run(connection, catalogue, model)
            sums = await queries.credit_sums(connection, [run.run], dimension, period)
            costs = await queries.cost_sums(connection, dimension, period.first, period.end)
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
            return sheet(
                [*AttributionRow.model_fields, "currency"], [(*dict(line).values(), currency) for line in lines]
            )
        return AttributionReport(currency=currency, as_of=as_of, rows=lines)

    @made.get("/v1/reports/compare", response_model=ComparisonReport)
    async def compare(
        wanted: Annotated[Asked, Depends(asked)],
        models: Annotated[str, Query(max_length=700, description="Up to six models, separated by commas")],
        dimension: DimensionQuery = "channel",
    ) -> ComparisonReport | Response:
        """The same conversions by several models, side by side."""
        names = listed("models", models, MOST_MODELS)
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            runs = [(await serving_run(connection, catalogue, name, "models")).run for name in names]
            sums = await queries.credit_sums(connection, runs, dimension, wanted.period)
            as_of = await queries.as_of(connection)
        currency = choose_currency(sums, wanted.currency)
        lines = compared(sums.get(currency or "", {}), runs)
        if wanted.as_csv:
            columns = [f"{name}_{field}" for name in names for field in ("conversions", "value_minor")]
            flat = [
                (key, *(v for one in by for v in (one.conversions, one.value_minor)), currency) for key, by in lines
            ]
            return sheet(["key", *columns, "currency"], flat)
        rows = [
            {"key": key}
            | {
                name: {"conversions": one.conversions, "value_minor": one.value_minor}
                for name, one in zip(names, by, strict=True)
            }
            for key, by in lines
        ]
        return ComparisonReport(currency=currency, as_of=as_of, models=list(names), rows=rows)

    return made
