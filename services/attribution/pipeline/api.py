"""The reports of the pipeline over HTTP, as JSON or CSV."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from services.attribution.pipeline import reading
from services.attribution.pipeline.domain import Kind
from services.attribution.pipeline.funnel_report import FunnelReport, FunnelRow, funnel_lines
from services.attribution.pipeline.funnels import DEALS, LEADS, LIFECYCLE, WON
from services.attribution.pipeline.lapses import WITHIN_DAYS
from services.attribution.pipeline.questions import Wanted, wanted
from services.attribution.pipeline.reading import Found, Moments
from services.attribution.pipeline.sales_report import KINDS, STANDING, PipelineReport, PipelineRow, pipeline_lines
from services.attribution.pipeline.speed_report import Since, SpeedReport, SpeedRow, speed_lines
from services.attribution.pipeline.tables import MOST_ROWS, Between, Place, beside, sheet_of
from services.attribution.pipeline.worth import as_they_are, closing_day, converted
from services.attribution.rates.queries import exchange
from services.attribution.reports.domain import choose_currency
from services.attribution.reports.questions import not_both
from services.attribution.standing.answers import Answers, Reading, Told
from services.attribution.standing.domain import PIPELINE
from shared.db import Connection
from shared.errors import FieldError, Invalid
from shared.money import Currency
from shared.service import Runtime
from shared.web import Endpoints, document, requires

R = TypeVar("R", bound=BaseModel)


def router(runtime: Runtime, answers: Answers) -> APIRouter:
    """The endpoints of the reports."""
    made = Endpoints(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])

    @made.get("/v1/reports/funnel", response_model=FunnelReport, response_model_exclude_unset=True)
    async def funnel(
        request: Request,
        asked: Annotated[Wanted, Depends(wanted)],
        of: Literal["leads", "deals"] = "leads",
        within_days: Annotated[int | None, Query(description="Count only who went on within so many days")] = None,
    ) -> Response:
        """Who entered each stage in a period, how many of them went on to the next and to the last, and how fast."""
        _known_days(within_days)
        ways = LEADS if of == "leads" else DEALS

        async def told(begin: Reading) -> Told:
            async with begin() as connection:
                stages: tuple[str, ...] = LIFECYCLE
                if of == "deals":
                    stages = (*await reading.pipeline_stages(connection), WON)
                now, then = await _sums(connection, asked, ways.kinds)
            former = {one.step for one in (*now, *then) if one.kind == ways.entered} - set(stages)
            stages = (*sorted(former), *stages)
            past = funnel_lines(then, ways, stages, _places(asked, len(asked.then)), within_days)
            lines = funnel_lines(now, ways, stages, _places(asked, len(asked.now), past), within_days)
            rows = [FunnelRow(**fields, stage=place.stage) for place, fields in _beside(asked, lines, past)]
            if asked.asked.as_csv:
                return Told(sheet_of(rows, {}), None)
            report = FunnelReport(
                of=of, as_of=None, stages=list(stages), truncated=len(lines) > MOST_ROWS, rows=rows, **_previous(asked)
            )
            return Told(document(report), PIPELINE)

        return await answers.of(request, told)

    @made.get("/v1/reports/pipeline", response_model=PipelineReport, response_model_exclude_unset=True)
    async def pipeline(
        request: Request,
        asked: Annotated[Wanted, Depends(wanted)],
        convert_to: Annotated[
            Currency | None, Query(description="Convert by the posted rates, instead of one `currency`")
        ] = None,
        convert_through: Annotated[Currency | None, Query(description="To cross by, where a pair has no rates")] = None,
    ) -> Response:
        """What is open, what was opened, won and lost in a period, how fast, and what it brings every year."""
        not_both(asked.asked.currency, convert_to)
        today = runtime.clock.now().astimezone(asked.asked.period.zone).date()
        days = [[closing_day(period, today) for _, period in some] for some in (asked.now, asked.then)]

        async def told(begin: Reading) -> Told:
            async with begin() as connection:
                stages = await reading.pipeline_stages(connection)
                before = await reading.sums_in(connection, asked.question, STANDING, asked.begins)
                now, then = await _sums(connection, asked, KINDS)
                present = {one.currency for one in (*before, *now, *then) if any(one.total)}
                places = {(currency, day) for currency in present for day in chain(*days)}
                rates = await exchange(connection, convert_to, places, convert_through) if convert_to else None
            currency = convert_to or choose_currency(present, asked.asked.currency)

            def lines(which: int, found: Sequence[Found], past: Iterable[Place] = ()) -> Mapping[Place, BaseModel]:
                pieces, kept = len(days[which]), present if rates else {currency}
                stood = [one for one in before if one.place == which and one.currency in kept and any(one.total)]
                here = [one for one in found if one.currency in kept]
                worth_in = converted(rates, days[which]) if rates else as_they_are
                return pipeline_lines(stood, here, _places(asked, pieces, past), pieces, stages, worth_in)

            theirs = lines(1, then)
            ours = lines(0, now, theirs)
            rows = [PipelineRow(**fields) for _, fields in _beside(asked, ours, theirs)]
            crossed: dict[str, Any] = {}
            if rates:
                crossed["crossed"] = {one: sorted(by) for one, by in sorted(rates.crossed.items())}
            if asked.asked.as_csv:
                return Told(sheet_of(rows, {"currency": currency}), None)
            report = PipelineReport(
                currency=currency, as_of=None, truncated=len(ours) > MOST_ROWS, rows=rows, **_previous(asked), **crossed
            )
            return Told(document(report), PIPELINE)

        return await answers.of(request, told, today)

    @made.get("/v1/reports/speed-to-lead", response_model=SpeedReport, response_model_exclude_unset=True)
    async def speed_to_lead(
        asked: Annotated[Wanted, Depends(wanted)],
        since: Annotated[Since, Query(description="The moment from which times are counted")] = "captured",
    ) -> SpeedReport | Response:
        """How fast leads were given to a rep, accepted and spoken to, and whether reps kept their time."""
        clock = runtime.clock.now()
        async with runtime.database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            now, then = await _sums(connection, asked, (since, "sla"))
            in_time = [
                await reading.in_time(connection, asked.question, [p.moments for _, p in some], clock)
                for some in (asked.now, asked.then)
            ]
            as_of = await reading.as_of(connection)
        past = speed_lines(then, since, _places(asked, len(asked.then)), in_time[1])
        lines = speed_lines(now, since, _places(asked, len(asked.now), past), in_time[0])
        rows = [SpeedRow(**fields) for _, fields in _beside(asked, lines, past)]
        if asked.asked.as_csv:
            return sheet_of(rows, {})
        return SpeedReport(since=since, as_of=as_of, truncated=len(lines) > MOST_ROWS, rows=rows, **_previous(asked))

    return made


async def _sums(connection: Connection, asked: Wanted, kinds: Sequence[Kind]) -> tuple[list[Found], list[Found]]:
    """What is asked for, of the period and of the one to compare with."""
    both: list[Moments] = [period.moments for _, period in (*asked.now, *asked.then)]
    found = await reading.sums_in(connection, asked.question, kinds, both)
    first = len(asked.now)
    now = [one for one in found if one.place < first]
    return now, [one._replace(place=one.place - first) for one in found if one.place >= first]


def _places(asked: Wanted, pieces: int, past: Iterable[Place] = ()) -> list[Place]:
    """Where there is a row in any case: where nothing is grouped by, in every piece of the period.

    Else where there is one in the period to compare with (`past`): what has come to nothing is a change too.
    """
    if asked.question.dimension is None:
        return [Place(piece, "") for piece in range(pieces)]
    return [place._replace(stage="") for place in past if place.piece < pieces]


def _beside(
    asked: Wanted, now: Mapping[Place, BaseModel], then: Mapping[Place, BaseModel]
) -> list[tuple[Place, dict[str, Any]]]:
    labels = [label for label, _ in asked.now]
    return list(beside(now, then if asked.other else None, labels))[:MOST_ROWS]


def _previous(asked: Wanted) -> dict[str, Any]:
    if asked.other is None or asked.other.first is None or asked.other.end is None:
        return {}
    return {"previous": Between(first=asked.other.first, end=asked.other.end)}


def _known_days(within_days: int | None) -> None:
    """Raises Invalid for a number of days that times are not counted by."""
    if within_days is not None and within_days not in WITHIN_DAYS:
        days = ", ".join(str(days) for days in WITHIN_DAYS)
        raise Invalid("within_days is not valid", [FieldError("query:within_days", f"send one of {days}")])
