"""Reports about the sequences of channels that led to conversions, as JSON or CSV."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from services.attribution.paths import queries
from services.attribution.paths.domain import Counted, Sequenced, Subject, Wanted
from services.attribution.paths.drilling import Links
from services.attribution.paths.drilling import router as drilling_router
from services.attribution.paths.reporting import (
    Total,
    by_number,
    mean_of,
    participation_of,
    parts_of,
    path_key,
    total_of,
)
from services.attribution.reports.asking import Asked, asked, asked_types
from services.attribution.reports.domain import choose_currency
from services.attribution.reports.drilling import link_of
from services.attribution.reports.questions import Question as CreditQuestion
from services.attribution.standing.answers import Answers, Reading, Told
from services.attribution.standing.domain import CREDITS
from shared.db import Connection
from shared.service import Runtime
from shared.web import Endpoints, document, make_cursor, read_cursor, requires, sheet

CURSOR = "report-paths"
PathLimit = Annotated[int, Query(ge=1, le=1_000, description="Most rows on a page")]


class Report(BaseModel):
    """What all of these reports tell. `unattributed` are the conversions that no touch led to; they are part of all.

    `as_of`: all that was told until then is in it.
    """

    currency: str | None
    as_of: datetime | None
    conversions: int
    value_minor: int
    unattributed_conversions: int
    unattributed_value_minor: int


class AssistedRow(BaseModel):
    """The conversions in which a channel was on any touch but the last, was the last, was the first.

    `ratio`: assisted / last; null where it was never the last. The addresses list the conversions behind each.
    """

    key: str
    assisted_conversions: int
    assisted_value_minor: int
    last_conversions: int
    last_value_minor: int
    first_conversions: int
    first_value_minor: int
    ratio: float | None
    assisted_drill_url: str
    last_drill_url: str
    first_drill_url: str


class AssistedReport(Report):
    """Whoever assisted most is first. A conversion counts once for each channel that assisted it."""

    rows: list[AssistedRow]


class ParticipationRow(BaseModel):
    """The conversions with a channel on their path, each of them whole; `share` of all conversions.

    `drill_url` lists them.
    """

    key: str
    conversions: int
    value_minor: int
    share: float
    drill_url: str


class ParticipationReport(Report):
    """The most first. `overlapping`: a conversion counts whole for every channel, so that rows sum to more than all."""

    overlapping: bool = True
    rows: list[ParticipationRow]


class SequenceRow(BaseModel):
    """The conversions that came by exactly this sequence of channels; none: no touch led to them.

    `drill_url` lists them.
    """

    key: str
    path: list[str]
    touches: int
    conversions: int
    value_minor: int
    share: float
    drill_url: str


class PathsReport(Report):
    """A page, the most frequent first, then the most valuable. `collapsed`: runs of one channel are one visit."""

    collapsed: bool
    rows: list[SequenceRow]
    next_cursor: str | None


class LengthRow(BaseModel):
    """The conversions with so many touches on their path; `drill_url` lists them."""

    touches: int
    conversions: int
    value_minor: int
    share: float
    drill_url: str


class LengthReport(Report):
    """`mean_touches` over all conversions, those that no touch led to among them."""

    mean_touches: float | None
    rows: list[LengthRow]


class LagRow(BaseModel):
    """The conversions so many whole days after the first touch on their path; null: there was none.

    `drill_url` lists them.
    """

    days: int | None
    conversions: int
    value_minor: int
    share: float
    drill_url: str


class LagReport(Report):
    """`mean_days` over the conversions that a touch led to."""

    mean_days: float | None
    rows: list[LagRow]


@dataclass(frozen=True, slots=True)
class _Found:
    """The currency of the answer and what was counted in it."""

    wanted: Wanted
    total: Total
    lengths: list[Counted]
    sums: list[Counted]

    def link(self, model: str, channel: str) -> str:
        """The address of the conversions that a model credits to a channel."""
        wanted = self.wanted
        question = CreditQuestion(("channel",), wanted.period, types=wanted.types)
        return link_of(question, model, wanted.currency)((None, (channel,)))

    @property
    def links(self) -> Links:
        """The addresses of the conversions that came about in some way."""
        return Links(self.wanted)

    @property
    def head(self) -> dict[str, Any]:
        """The fields of `Report`."""
        return {
            "currency": self.wanted.currency,
            "as_of": None,
            "conversions": self.total.all.journeys,
            "value_minor": self.total.all.value_minor,
            "unattributed_conversions": self.total.unattributed.journeys,
            "unattributed_value_minor": self.total.unattributed.value_minor,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be counted, and whether the answer is to be CSV."""

    wanted: Wanted
    as_csv: bool


def asked_paths(
    common: Annotated[Asked, Depends(asked)], types: Annotated[tuple[str, ...], Depends(asked_types)]
) -> Question:
    """What a report about paths is asked. Raises Invalid."""
    return Question(Wanted(common.period, types, common.currency), common.as_csv)


Asking = Annotated[Question, Depends(asked_paths)]


def router(runtime: Runtime, answers: Answers) -> APIRouter:
    """The endpoints of the reports about paths."""
    made = Endpoints(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])
    made.take(drilling_router(runtime))

    @made.get("/v1/reports/assisted", response_model=AssistedReport)
    async def assisted(request: Request, question: Asking) -> Response:
        """Which channels prepared conversions, and which closed them."""

        async def told(reading: Reading) -> Told:
            found = await _found(reading, question.wanted, ["assist", "last", "step"])
            rows = [
                AssistedRow(
                    key=one.key,
                    assisted_conversions=one.assisted.journeys,
                    assisted_value_minor=one.assisted.value_minor,
                    last_conversions=one.last.journeys,
                    last_value_minor=one.last.value_minor,
                    first_conversions=one.first.journeys,
                    first_value_minor=one.first.value_minor,
                    ratio=one.ratio,
                    assisted_drill_url=found.links.to(assisted_by=one.key),
                    last_drill_url=found.link("last_touch", one.key),
                    first_drill_url=found.link("first_touch", one.key),
                )
                for one in parts_of(found.sums)
            ]
            return _told(question, AssistedReport(**found.head, rows=rows), AssistedRow, rows)

        return await answers.of(request, told)

    @made.get("/v1/reports/participation", response_model=ParticipationReport)
    async def participation(request: Request, question: Asking) -> Response:
        """How many conversions each channel took part in."""

        async def told(reading: Reading) -> Told:
            found = await _found(reading, question.wanted, ["part"])
            rows = [
                ParticipationRow(
                    key=key,
                    conversions=amount.journeys,
                    value_minor=amount.value_minor,
                    share=found.total.share(amount.journeys),
                    drill_url=found.link("participation", key),
                )
                for key, amount in participation_of(found.sums, found.total)
            ]
            return _told(
                question, ParticipationReport(**found.head, overlapping=True, rows=rows), ParticipationRow, rows
            )

        return await answers.of(request, told)

    @made.get("/v1/reports/paths", response_model=PathsReport)
    async def paths(
        request: Request,
        question: Asking,
        collapse: Annotated[bool, Query(description="Whether a run of one channel is one visit")] = False,
        limit: PathLimit = 50,
        cursor: str | None = None,
    ) -> Response:
        """The sequences of channels that led to most conversions."""
        subject: Sequenced = "route" if collapse else "path"

        async def told(reading: Reading) -> Told:
            async with reading() as connection:
                found = await _counted(connection, question.wanted, [])
                kind = f"{CURSOR}:{subject}:{found.wanted.currency}:{question.wanted.period}:{question.wanted.types}"
                place = read_cursor(runtime.secrets, kind, cursor)
                after = Counted(subject, "", place[2], (), place[0], place[1]) if place else None
                most = (
                    await queries.most_counted(connection, found.wanted, subject, limit + 1, after)
                    if found.wanted.currency
                    else []
                )
            rows = [
                SequenceRow(
                    key=path_key(one.keys),
                    path=list(one.keys),
                    touches=len(one.keys),
                    conversions=one.journeys,
                    value_minor=one.value_minor,
                    share=found.total.share(one.journeys),
                    drill_url=found.links.to_sequence(one.key_id, subject),
                )
                for one in most[:limit]
            ]
            last = most[limit - 1] if len(most) > limit else None
            more = make_cursor(runtime.secrets, kind, (last.journeys, last.value_minor, last.key_id)) if last else None
            answer = _told(
                question, PathsReport(**found.head, collapsed=collapse, rows=rows, next_cursor=more), SequenceRow, rows
            )
            if more and question.as_csv:
                answer.response.headers["link"] = f'<{request.url.include_query_params(cursor=more)}>; rel="next"'
            return answer

        return await answers.of(request, told)

    @made.get("/v1/reports/path-length", response_model=LengthReport)
    async def path_length(request: Request, question: Asking) -> Response:
        """How many touches it took."""

        async def told(reading: Reading) -> Told:
            found = await _found(reading, question.wanted, [])
            numbered = by_number(found.lengths)
            rows = [
                LengthRow(
                    touches=touches or 0,
                    conversions=amount.journeys,
                    value_minor=amount.value_minor,
                    share=found.total.share(amount.journeys),
                    drill_url=found.links.to(touches=touches or 0),
                )
                for touches, amount in numbered
            ]
            return _told(
                question, LengthReport(**found.head, mean_touches=mean_of(numbered), rows=rows), LengthRow, rows
            )

        return await answers.of(request, told)

    @made.get("/v1/reports/time-lag", response_model=LagReport)
    async def time_lag(request: Request, question: Asking) -> Response:
        """How many days it took from the first touch."""

        async def told(reading: Reading) -> Told:
            found = await _found(reading, question.wanted, ["lag"])
            numbered = by_number(found.sums)
            rows = [
                LagRow(
                    days=days,
                    conversions=amount.journeys,
                    value_minor=amount.value_minor,
                    share=found.total.share(amount.journeys),
                    drill_url=found.links.to_lag(days),
                )
                for days, amount in numbered
            ]
            return _told(question, LagReport(**found.head, mean_days=mean_of(numbered), rows=rows), LagRow, rows)

        return await answers.of(request, told)

    return made


async def _found(reading: Reading, wanted: Wanted, subjects: Sequence[Subject]) -> _Found:
    async with reading() as connection:
        return await _counted(connection, wanted, subjects)


async def _counted(connection: Connection, wanted: Wanted, subjects: Sequence[Subject]) -> _Found:
    """The sums of some subjects in the currency that is asked for, or that there is. Raises SeveralCurrencies."""
    lengths = await queries.counted(connection, wanted, ["length"])
    wanted = replace(wanted, currency=choose_currency({one.currency for one in lengths}, wanted.currency))
    sums = await queries.counted(connection, wanted, subjects) if subjects and wanted.currency else []
    return _Found(wanted, total_of(lengths), lengths, sums)


def _told(question: Question, report: Report, kind: type[BaseModel], rows: Iterable[BaseModel]) -> Told:
    """The report, or its rows as CSV; a sequence is told by its key alone."""
    if not question.as_csv:
        return Told(document(report), CREDITS)
    columns = [name for name in kind.model_fields if name != "path"]
    lines = [[*(getattr(row, name) for name in columns), report.currency] for row in rows]
    return Told(sheet([*columns, "currency"], lines), None)
