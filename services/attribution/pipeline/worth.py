"""What amounts come to in a row of the pipeline, as they are or converted: pure.

All amounts of a row are converted by the rates of the last day of its period, those that stood at its beginning too. So
what stood, what came and what went add up; what another row says of the same deals may differ by the rates.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from typing import Protocol

from services.attribution.rates.domain import Exchange
from services.attribution.reports.domain import Period


class Worth(Protocol):
    """Minor units of the report out of parts of minor units by currency, rounded once; `parts` make a whole one."""

    def __call__(self, amounts: Mapping[str, int], parts: int = 1) -> int:
        """The sum. Raises MissingRates."""
        ...


def as_they_are(_piece: int) -> Worth:
    """Amounts of one currency."""
    return lambda amounts, parts=1: round(Fraction(sum(amounts.values()), parts))


def converted(rates: Exchange, days: Sequence[date]) -> Callable[[int], Worth]:
    """Amounts of all currencies, by the rates of one day for each piece of a period. Raises MissingRates."""

    def of_piece(piece: int) -> Worth:
        def worth(amounts: Mapping[str, int], parts: int = 1) -> int:
            return round(rates.exactly({(currency, days[piece]): each for currency, each in amounts.items()}) / parts)

        return worth

    return of_piece


def closing_day(period: Period, today: date) -> date:
    """The last day of a period, or today if it is not over."""
    return today if period.end is None else min(period.end - timedelta(days=1), today)
