"""The pipeline: what is open, what was opened, won and lost, how fast, and what it brings every year. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from services.attribution.pipeline.counting import Total
from services.attribution.pipeline.domain import Kind
from services.attribution.pipeline.lapses import DAY_S, SECOND, Lapses
from services.attribution.pipeline.reading import Found
from services.attribution.pipeline.tables import Between, Place, ratio
from services.attribution.pipeline.worth import Worth

KINDS: tuple[Kind, ...] = ("created", "open", "won", "lost", "recurring", "revenue")
STANDING: tuple[Kind, ...] = ("open", "recurring")
"""What goes on over the ends of periods: a period begins with all that there was before."""
MONTHS = 12
PERCENT = 100

ALL = ""
"""The step that stands for all steps of a kind together."""

Totals = Mapping[tuple[Kind, str], Total]
"""By kind and step, and of what stands also by kind alone, in the currency of the report. What recurs: in a year."""


class Sum(BaseModel):
    """How many, and what they are worth together."""

    number: int
    value_minor: int


class Open(Sum):
    """Open deals; `weighted_minor` is the sum of each one's value times its probability."""

    weighted_minor: int


class OpenInStage(Open):
    """Open deals in a stage."""

    stage: str


class Cycle(BaseModel):
    """How long it took from opening to winning a deal. The mean is exact, median and p90 are right to three tenths."""

    median_days: float | None
    p90_days: float | None
    mean_days: float | None


class Recurring(BaseModel):
    """Annual recurring revenue: 12 times what won deals bring every month (`recurring_minor`).

    `arr_minor` is that at the end of the period: what it began with plus what it gained and lost. The first won deal of
    a person that brings some is new, a later one expansion. `growth` is the gain as a part of the beginning.
    """

    arr_before_minor: int
    new_minor: int
    expansion_minor: int
    contraction_minor: int
    churn_minor: int
    arr_minor: int
    growth: float | None


class Revenue(BaseModel):
    """What conversions brought, less refunds: the first of a person is new, each later one recurring."""

    new: Sum
    recurring: Sum


class PipelineFigures(BaseModel):
    """`open` is as it stood at the end of the period, the rest is what happened in it.

    `win_rate` is won / (won + lost) by number, `win_rate_by_value` the same by value; `mean_deal_minor` that of won
    ones. `velocity_minor_per_day` = opportunities × mean deal × win rate / mean cycle in days, where opportunities are
    the deals that were open at the beginning or opened in the period.
    """

    open: Open
    open_by_stage: list[OpenInStage]
    created: Sum
    won: Sum
    lost: Sum
    win_rate: float | None
    win_rate_by_value: float | None
    cycle: Cycle
    mean_deal_minor: int | None
    velocity_minor_per_day: int | None
    recurring: Recurring
    revenue: Revenue


class PipelineRow(PipelineFigures):
    """The deals of one key, in one day, week or month (its first day) if it was asked by these."""

    key: str
    period: date | None = None
    previous: PipelineFigures | None = None
    change: dict[str, Any] | None = None


class PipelineReport(BaseModel):
    """In order of time, then the largest open value first. `as_of`: all that was told until then is in it.

    `crossed` says which currencies were converted through which others, where any were converted.
    """

    currency: str | None
    as_of: datetime | None
    crossed: dict[str, list[str]] | None = None
    truncated: bool
    previous: Between | None = None
    rows: list[PipelineRow]


class Tally:
    """What was found of one key in one piece of a period, by kind, step and currency."""

    def __init__(self) -> None:
        self.totals: dict[tuple[Kind, str, str], Total] = defaultdict(Total)
        self.cycles = Lapses()

    def add(self, one: Found) -> None:
        """One more sum."""
        name = (one.kind, one.step, one.currency)
        self.totals[name] = self.totals[name].plus(one.total)
        if one.kind == "won":
            self.cycles.add(one.times, one.total.microseconds)

    def standing(self) -> dict[tuple[Kind, str, str], Total]:
        """What goes on after the period."""
        return {name: total for name, total in self.totals.items() if name[0] in STANDING}

    def told(self, worth: Worth) -> Totals:
        """The same in the currency of the report; each sum is rounded once."""
        found: dict[tuple[Kind, str], dict[str, Total]] = defaultdict(lambda: defaultdict(Total))
        for (kind, step, currency), total in self.totals.items():
            for name in dict.fromkeys((step, ALL)):
                found[kind, name][currency] = found[kind, name][currency].plus(total)
        return {
            name: Total(
                number=sum(total.number for total in by_currency.values()),
                value_minor=worth({currency: _in_a_year(name, total) for currency, total in by_currency.items()}),
                weighted_minor=worth(
                    {currency: total.weighted_minor for currency, total in by_currency.items()}, PERCENT
                ),
                microseconds=sum(total.microseconds for total in by_currency.values()),
            )
            for name, by_currency in found.items()
        }


def pipeline_lines(  # noqa: PLR0913  # what a report is made of
    before: Iterable[Found],
    found: Iterable[Found],
    places: Iterable[Place],
    pieces: int,
    stages: Sequence[str],
    worth_in: Callable[[int], Worth],
) -> dict[Place, PipelineFigures]:
    """The figures of each key in each piece; what stood at the beginning is carried from piece to piece."""
    standing: dict[str, Tally] = defaultdict(Tally)
    tallies: dict[Place, Tally] = {place: Tally() for place in places}
    for one in before:
        standing[one.key].add(one)
    for one in found:
        tallies.setdefault(Place(one.place, one.key), Tally()).add(one)
    lines: dict[Place, PipelineFigures] = {}
    for piece in range(pieces):
        here = {place.key: tally for place, tally in tallies.items() if place.piece == piece}
        figures: dict[str, PipelineFigures] = {}
        for key in {*here, *standing}:
            began = standing[key]
            figures[key], standing[key] = _figures(began, here.get(key, Tally()), stages, worth_in(piece))
        for key in sorted(
            figures, key=lambda key: (-figures[key].open.value_minor, -figures[key].won.value_minor, key)
        ):
            lines[Place(piece, key)] = figures[key]
    return lines


def _figures(began: Tally, tally: Tally, stages: Sequence[str], worth: Worth) -> tuple[PipelineFigures, Tally]:
    """The figures of a piece, and what stands at its end."""
    ended = Tally()
    for part in (began, tally):
        for name, total in part.standing().items():
            ended.totals[name] = ended.totals[name].plus(total)
    stood, happened, stands = began.told(worth), tally.told(worth), ended.told(worth)
    won, lost = _of(happened, "won"), _of(happened, "lost")
    closed, closed_minor = won.number + lost.number, won.value_minor + lost.value_minor
    opportunities = _of(stood, "open").number + _of(happened, "created").number
    figures = PipelineFigures(
        open=_open(_of(stands, "open")),
        open_by_stage=_by_stage(stands, stages),
        created=_sum(_of(happened, "created")),
        won=_sum(won),
        lost=_sum(lost),
        win_rate=ratio(won.number, closed),
        win_rate_by_value=ratio(won.value_minor, closed_minor),
        cycle=_cycle(tally.cycles),
        mean_deal_minor=round(Fraction(won.value_minor, won.number)) if won.number else None,
        velocity_minor_per_day=velocity(opportunities, won, lost.number),
        recurring=_recurring(_of(stood, "recurring").value_minor, happened),
        revenue=Revenue(
            new=_sum(happened.get(("revenue", "new"), Total())),
            recurring=_sum(happened.get(("revenue", "recurring"), Total())),
        ),
    )
    return figures, ended


def _of(totals: Totals, kind: Kind) -> Total:
    """All of a kind."""
    return totals.get((kind, ALL), Total())


def _in_a_year(name: tuple[Kind, str], total: Total) -> int:
    """What an amount is told as: what recurs comes every month."""
    return MONTHS * total.value_minor if name[0] == "recurring" else total.value_minor


def velocity(opportunities: int, won: Total, lost: int) -> int | None:
    """Opportunities × mean value of a won deal × win rate / mean days to win one, in minor units a day."""
    if not won.number or not won.microseconds:
        return None
    mean_deal = Fraction(won.value_minor, won.number)
    win_rate = Fraction(won.number, won.number + lost)
    days = Fraction(won.microseconds, won.number * DAY_S * SECOND)
    return round(opportunities * mean_deal * win_rate / days)


def _open(total: Total) -> Open:
    return Open(number=total.number, value_minor=total.value_minor, weighted_minor=total.weighted_minor)


def _by_stage(totals: Totals, stages: Sequence[str]) -> list[OpenInStage]:
    """In the order of the pipeline; stages of an earlier one come first."""
    there = {stage: total for (kind, stage), total in totals.items() if kind == "open" and stage != ALL and any(total)}
    former = sorted(there.keys() - set(stages))
    return [OpenInStage(**_open(there.get(stage, Total())).model_dump(), stage=stage) for stage in (*former, *stages)]


def _sum(total: Total) -> Sum:
    return Sum(number=total.number, value_minor=total.value_minor)


def _cycle(lapses: Lapses) -> Cycle:
    median, p90, mean = lapses.percentile(50), lapses.percentile(90), lapses.mean
    return Cycle(median_days=_days(median), p90_days=_days(p90), mean_days=_days(mean))


def _days(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds / DAY_S, 4)


def _recurring(before: int, totals: Totals) -> Recurring:
    steps = ("new", "expansion", "contraction", "churn")
    new, expansion, contraction, churn = (totals.get(("recurring", step), Total()).value_minor for step in steps)
    gained = new + expansion + contraction + churn
    return Recurring(
        arr_before_minor=before,
        new_minor=new,
        expansion_minor=expansion,
        contraction_minor=contraction,
        churn_minor=churn,
        arr_minor=before + gained,
        growth=ratio(gained, before),
    )
