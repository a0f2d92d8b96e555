"""The funnel: who entered each stage in a period, how many of them went on, and how fast. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel

from services.attribution.pipeline.funnels import Funnel
from services.attribution.pipeline.lapses import DAY_S, Lapses
from services.attribution.pipeline.reading import Found
from services.attribution.pipeline.tables import Between, Place, ratio


class Reached(BaseModel):
    """How many went on, as a part of those who entered too, and how long it took them.

    `mean_seconds` is exact and null with `within_days`; median and p90 are right to three tenths.
    """

    number: int
    rate: float | None
    median_seconds: float | None
    p90_seconds: float | None
    mean_seconds: float | None


class FunnelFigures(BaseModel):
    """Who entered a stage for the first time, or passed it: `skipped` is the part that left it out.

    Of these, `next` reached the next stage and `last` the last one, by now; `left` were lost, disqualified or recycled
    from there in the period.
    """

    entered: int
    skipped: int
    left: int
    next: Reached | None
    last: Reached | None


class FunnelRow(FunnelFigures):
    """A stage, of one key, in one day, week or month (its first day) if it was asked by these."""

    key: str
    period: date | None = None
    stage: str
    previous: FunnelFigures | None = None
    change: dict[str, Any] | None = None


class FunnelReport(BaseModel):
    """In order of time, of the number that entered, of the stages. `as_of`: all that was told until then is in it."""

    of: Literal["leads", "deals"]
    as_of: datetime | None
    stages: list[str]
    truncated: bool
    previous: Between | None = None
    rows: list[FunnelRow]


def funnel_lines(
    found: Iterable[Found], funnel: Funnel, stages: Sequence[str], places: Iterable[Place], within_days: int | None
) -> dict[Place, FunnelFigures]:
    """The figures of each stage at each place; `places` are those that are told even if nobody is there."""
    numbers: dict[tuple[str, Place], int] = defaultdict(int)
    lapses: dict[tuple[str, Place], Lapses] = defaultdict(Lapses)
    sizes = dict.fromkeys(places, 0)
    for one in found:
        place = Place(one.place, one.key, one.step)
        numbers[one.kind, place] += one.total.number
        lapses[one.kind, place].add(one.times, one.total.microseconds)
        whole = Place(one.place, one.key)
        sizes[whole] = sizes.get(whole, 0) + (one.total.number if one.kind == funnel.entered else 0)

    def reached(kind: str, place: Place) -> Reached | None:
        if place.stage == stages[-1]:
            return None
        taken = lapses[kind, place]
        taken = taken if within_days is None else taken.within(within_days * DAY_S)
        return reached_of(taken, numbers[funnel.entered, place])

    return {
        place: FunnelFigures(
            entered=numbers[funnel.entered, place],
            skipped=numbers[funnel.skipped, place],
            left=numbers[funnel.left, place],
            next=reached(funnel.next, place),
            last=reached(funnel.last, place),
        )
        for whole in sorted(sizes, key=lambda each: (each.piece, -sizes[each], each.key))
        for place in (whole._replace(stage=stage) for stage in stages)
    }


def reached_of(lapses: Lapses, of: int) -> Reached:
    """How many reached something, and how long it took them."""
    return Reached(
        number=lapses.total,
        rate=ratio(lapses.total, of),
        median_seconds=lapses.percentile(50),
        p90_seconds=lapses.percentile(90),
        mean_seconds=lapses.mean,
    )
