"""What a report of the pipeline can be asked: by what, of whom only, in which days, beside which other period."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, get_args

from fastapi import Depends, Query

from services.attribution.pipeline.domain import Dimension
from services.attribution.pipeline.reading import Moments, Question
from services.attribution.pipeline.spans import pieces
from services.attribution.reports.asking import Asked, asked
from services.attribution.reports.domain import Against, Interval, Period
from shared.errors import FieldError, Invalid

MOST_PIECES = 1_100
"""Three years of days."""
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Only = Annotated[str | None, Query(max_length=500, description="Only what counts under this; `(not set)`: under none")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a report of the pipeline. `then` are the pieces of the period to compare with, in order."""

    question: Question
    asked: Asked
    interval: Interval | None
    now: list[tuple[date | None, Period]]
    other: Period | None
    then: list[tuple[date | None, Period]]

    @property
    def begins(self) -> list[Moments]:
        """The time before the period, and before the one to compare with; nothing is before what has no beginning."""
        both = (self.asked.period, *((self.other,) if self.other is not None else ()))
        return [(None, period.moments[0]) for period in both if period.first is not None]


def wanted(  # noqa: PLR0913  # the parameters of a report
    shared: Annotated[Asked, Depends(asked)],
    dimension: Annotated[Dimension | None, Query(description="What to group by; without it there is one sum")] = None,
    interval: Annotated[Interval | None, Query(description="A row for each of these; weeks begin on Mondays")] = None,
    compare_to: Annotated[Against | None, Query(description="Needs `from` and `to`")] = None,
    rep: Only = None,
    team: Only = None,
    channel: Only = None,
    source: Only = None,
    campaign: Only = None,
    country: Only = None,
    account: Only = None,
) -> Wanted:
    """What a report of the pipeline is asked. Raises Invalid."""
    values = dict(zip(DIMENSIONS, (rep, team, channel, source, campaign, country, account), strict=True))
    only = {name: value for name, value in values.items() if value is not None}
    period = shared.period
    for parameter in (name for name, value in (("interval", interval), ("compare_to", compare_to)) if value):
        if period.first is None or period.end is None:
            fault = FieldError("query:from" if period.first is None else "query:to", f"is needed with {parameter}")
            raise Invalid(f"{parameter} needs a period with both ends", [fault])
    now = pieces(period, interval)
    if len(now) > MOST_PIECES:
        fault = FieldError("query:interval", f"send a longer one, or a shorter period: at most {MOST_PIECES} fit")
        raise Invalid("the period has too many intervals", [fault])
    other = period.before(compare_to) if compare_to is not None else None
    return Wanted(
        question=Question(dimension, only),
        asked=shared,
        interval=interval,
        now=now,
        other=other,
        then=pieces(other, interval) if other is not None else [],
    )
