"""Speed to lead: how fast leads were given to a rep, accepted and spoken to, and whether reps kept their time. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel

from services.attribution.pipeline.answering import STARTED
from services.attribution.pipeline.domain import Kind, Outcome
from services.attribution.pipeline.funnel_report import Reached, reached_of
from services.attribution.pipeline.lapses import DAY_S, Lapses
from services.attribution.pipeline.reading import Found
from services.attribution.pipeline.tables import Between, Place, ratio

Since = Literal["captured", "mql", "offered"]


class Answered(Reached):
    """How many got so far; `waiting` have not. The shares are parts of all that started."""

    waiting: int
    within_5_minutes: float | None
    within_1_hour: float | None
    within_24_hours: float | None


class Sla(BaseModel):
    """The offers of the period that had to be accepted by a time, and what became of them.

    `breached` were accepted too late, or not in time by anybody; `rejected` and `replaced` ended in time without an
    acceptance, `withdrawn` since the person was erased. `overdue` is the part of the `pending` whose time is over by
    now. `kept_rate` = kept / (kept + breached + overdue).
    """

    offers: int
    kept: int
    breached: int
    rejected: int
    replaced: int
    withdrawn: int
    pending: int
    overdue: int
    kept_rate: float | None


class SpeedFigures(BaseModel):
    """From the start on: captured, marketing-qualified, or offered to a rep. `assigned` is null for offers."""

    started: int
    assigned: Answered | None
    accepted: Answered
    contacted: Answered
    sla: Sla


class SpeedRow(SpeedFigures):
    """The leads or offers of one key, in one day, week or month (its first day) if it was asked by these."""

    key: str
    period: date | None = None
    previous: SpeedFigures | None = None
    change: dict[str, Any] | None = None


class SpeedReport(BaseModel):
    """In order of time, then the largest number first. `as_of`: all that was told until then is in it."""

    since: Since
    as_of: datetime | None
    truncated: bool
    previous: Between | None = None
    rows: list[SpeedRow]


def speed_lines(
    found: Iterable[Found], since: Since, places: Iterable[Place], in_time: Mapping[tuple[int, str], int]
) -> dict[Place, SpeedFigures]:
    """The figures at each place; `places` are those that are told even if nothing is there.

    `in_time` is how many offers there are pending whose time is not over yet.
    """
    lapses: dict[Place, dict[tuple[Kind, str], Lapses]] = {place: defaultdict(Lapses) for place in places}
    for one in found:
        place = Place(one.place, one.key)
        lapses.setdefault(place, defaultdict(Lapses))[one.kind, one.step].add(one.times, one.total.microseconds)
    figures = {place: _figures(some, since, in_time.get(place[:2], 0)) for place, some in lapses.items()}
    ordered = sorted(figures, key=lambda place: (place.piece, -figures[place].started, place.key))
    return {place: figures[place] for place in ordered}


def _figures(lapses: Mapping[tuple[Kind, str], Lapses], since: Since, in_time: int) -> SpeedFigures:
    started = lapses[since, STARTED].total
    return SpeedFigures(
        started=started,
        assigned=None if since == "offered" else _answered(lapses[since, "assigned"], started),
        accepted=_answered(lapses[since, "accepted"], started),
        contacted=_answered(lapses[since, "contacted"], started),
        sla=_sla({step: some.total for (kind, step), some in lapses.items() if kind == "sla"}, in_time),
    )


def _answered(lapses: Lapses, started: int) -> Answered:
    def share(seconds: int) -> float | None:
        return ratio(lapses.within(seconds).total, started)

    return Answered(
        **reached_of(lapses, started).model_dump(),
        waiting=started - lapses.total,
        within_5_minutes=share(300),
        within_1_hour=share(3_600),
        within_24_hours=share(DAY_S),
    )


def _sla(outcomes: Mapping[str, int], in_time: int) -> Sla:
    def number(outcome: Outcome) -> int:
        return outcomes.get(outcome, 0)

    overdue = number("pending") - in_time
    return Sla(
        offers=sum(outcomes.values()),
        kept=number("kept"),
        breached=number("breached"),
        rejected=number("rejected"),
        replaced=number("replaced"),
        withdrawn=number("withdrawn"),
        pending=number("pending"),
        overdue=overdue,
        kept_rate=ratio(number("kept"), number("kept") + number("breached") + overdue),
    )
