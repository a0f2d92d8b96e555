"""The forecast over HTTP: open and won deals by rep, team, pipeline or month, one currency at a time."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import asyncpg
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict

from services.routing.deals import queries
from services.routing.deals.changes import Stages
from services.routing.deals.forecast import LEVEL, Forecast, Method, OpenDeal, forecast
from services.routing.deals.stages import chance, forecast_of
from services.routing.params import QueryId
from services.routing.parts import Parts
from services.routing.reps.inputs import TimeZone
from shared.db import Connection, agreed_now
from shared.errors import FieldError, Invalid
from shared.web import CalendarDay, Endpoints, requires

By = Literal["rep", "team", "pipeline", "month"]
NOBODY = "none"
MOST_DEALS = 200_000


class RangeOut(BaseModel):
    """From the tenth to the ninetieth percentile; `method` says whether exact or by the normal approximation."""

    model_config = ConfigDict(from_attributes=True)

    low: int
    high: int
    method: Method


class ForecastRow(BaseModel):
    """What the deals of one key will bring, in minor units. All but `open_minor` includes what is won already."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    deals: int
    won_deals: int
    won_minor: int
    committed_minor: int
    weighted_minor: int
    best_case_minor: int
    open_minor: int
    value: RangeOut
    wins: RangeOut


class Apart(BaseModel):
    """Open deals that are in no sum of a forecast."""

    deals: int
    value_minor: int


class ForecastOut(BaseModel):
    """A forecast of one currency. Of a rep in several teams the deals are in the row of each.

    `level` is how likely the outcome lies in a range. `undated` are open deals without an expected day of closing,
    `overdue` those that were expected before the period, on a day that is past.
    """

    currency: str | None
    start: date
    end: date
    by: By
    level: float
    total: ForecastRow
    rows: list[ForecastRow]
    undated: Apart
    overdue: Apart


@dataclass(slots=True)
class _Group:
    won: list[int] = field(default_factory=list)
    open_deals: list[OpenDeal] = field(default_factory=list)


def router(parts: Parts) -> APIRouter:
    """The forecast."""
    routes = Endpoints(prefix="/v1", tags=["deals"])
    runtime = parts.runtime

    @routes.get("/forecast", dependencies=[Depends(requires("routing:read"))])
    async def get_forecast(  # noqa: PLR0913  # what a forecast is asked by
        start: Annotated[CalendarDay, Query(alias="from")],
        end: Annotated[CalendarDay, Query(alias="to", description="This day is excluded")],
        by: By = "rep",
        currency: Annotated[str | None, Query(pattern="^[A-Z]{3}$")] = None,
        pipeline: QueryId = None,
        rep_id: QueryId = None,
        tz: Annotated[TimeZone, Query(description="Whose days and months these are")] = "UTC",
    ) -> ForecastOut:
        """What deals that close in a period bring: won, committed, weighted, best case, and the range of chance."""
        if end <= start:
            raise Invalid("look at query:to", [FieldError("query:to", "does not lie after from")])
        async with runtime.database.reading() as connection:
            today = (await agreed_now(connection, runtime.clock)).astimezone(ZoneInfo(tz)).date()
            found = await queries.closing_in(connection, (start, end), today, pipeline, rep_id, MOST_DEALS + 1, tz)
            if len(found) > MOST_DEALS:
                detail = f"there are more than {MOST_DEALS} deals in this period; ask for a shorter one"
                raise Invalid(detail, [FieldError("query:to", detail)])
            chosen = _one_currency(found, currency)
            rows = [row for row in found if row["currency"] == chosen]
            stages = {name: await _stages(connection, parts, name) for name in {row["pipeline_id"] for row in rows}}
        return await asyncio.to_thread(_forecast, rows, stages, (start, end), by, chosen)

    return routes


async def _stages(connection: Connection, parts: Parts, pipeline_id: str) -> Stages:
    pipeline = await parts.pipelines.of_deal(connection, pipeline_id)
    return Stages(pipeline, await queries.measured(connection, pipeline_id))


def _one_currency(rows: Sequence[asyncpg.Record], asked: str | None) -> str | None:
    """The currency of a forecast. Raises Invalid where there are several and none is asked for."""
    if asked is not None:
        return asked
    known = sorted({row["currency"] for row in rows if not row["overdue"]} or {row["currency"] for row in rows})
    if len(known) > 1:
        detail = f"there are deals in {', '.join(known)}; ask for one currency"
        raise Invalid(detail, [FieldError("query:currency", detail)])
    return known[0] if known else None


def _forecast(
    rows: Sequence[asyncpg.Record],
    stages: Mapping[str, Stages],
    period: tuple[date, date],
    by: By,
    currency: str | None,
) -> ForecastOut:
    groups: defaultdict[str, _Group] = defaultdict(_Group)
    total = _Group()
    undated = _apart([row for row in rows if row["day"] is None])
    overdue = _apart([row for row in rows if row["overdue"]])
    for row in rows:
        if row["day"] is None or row["overdue"]:
            continue
        deal = None if row["status"] == "won" else _open(row, stages[row["pipeline_id"]])
        for group in (total, *(groups[key] for key in _keys(row, by))):
            if deal is None:
                group.won.append(row["value_minor"])
            else:
                group.open_deals.append(deal)
    made = {key: forecast(group.won, group.open_deals) for key, group in groups.items()}
    ordered = sorted(made, key=lambda key: key if by == "month" else (-made[key].weighted_minor, key))
    return ForecastOut(
        currency=currency,
        start=period[0],
        end=period[1],
        by=by,
        level=float(LEVEL),
        total=_row("total", forecast(total.won, total.open_deals)),
        rows=[_row(key, made[key]) for key in ordered],
        undated=undated,
        overdue=overdue,
    )


def _apart(rows: Sequence[asyncpg.Record]) -> Apart:
    return Apart(deals=len(rows), value_minor=sum(row["value_minor"] for row in rows))


def _open(row: asyncpg.Record, stages: Stages) -> OpenDeal:
    """The probability of its stage now, measured or by the document; of a stage that is gone, what it was."""
    stage = stages.pipeline.stage(row["stage"])
    if stage is None:
        return OpenDeal(row["value_minor"], row["probability"], forecast_of(row["probability"]))
    return OpenDeal(row["value_minor"], chance(stage, stages.measured), stage.forecast)


def _keys(row: asyncpg.Record, by: By) -> list[str]:
    keys: Mapping[By, Any] = {
        "rep": [row["rep_id"] or NOBODY],
        "team": row["teams"] or [NOBODY],
        "pipeline": [row["pipeline_id"]],
        "month": [row["day"].isoformat()[: len("2026-01")]],
    }
    return list(keys[by])


def _row(key: str, made: Forecast) -> ForecastRow:
    names = [name for name in ForecastRow.model_fields if name != "key"]
    return ForecastRow.model_validate({"key": key} | {name: getattr(made, name) for name in names})
