"""What deals will bring: committed, weighted and best case, with the range that chance leaves. Pure.

Deals are taken for independent, each won with the probability of its stage. Of few the distribution of the sum is
computed exactly (the Poisson binomial distribution of the number of wins, and for money its generalisation: the
convolution of all outcomes); of many it is taken for normal with the same mean and variance, by the central limit
theorem, within what is possible at all.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, sqrt
from statistics import NormalDist
from typing import Literal

LEVEL = Fraction(4, 5)
"""The range holds four outcomes of five: from the tenth to the ninetieth percentile."""
MOST_SUMS = 2_048
"""So many different sums are followed; the exact distribution of more is not worth its time."""
MOST_EXACT = 400
Method = Literal["exact", "normal"]
Category = Literal["pipeline", "best_case", "committed"]


@dataclass(frozen=True, slots=True)
class OpenDeal:
    """An open deal as a forecast sees it; `probability` is in percent."""

    value_minor: int
    probability: int
    category: Category


@dataclass(frozen=True, slots=True)
class Range:
    """From the tenth to the ninetieth percentile, and how that was computed."""

    low: int
    high: int
    method: Method


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a set of deals will bring in minor units of one currency; all but `open` includes what is won already."""

    deals: int
    won_deals: int
    won_minor: int
    committed_minor: int
    best_case_minor: int
    weighted_minor: int
    open_minor: int
    value: Range
    wins: Range


def forecast(won: Sequence[int], open_deals: Sequence[OpenDeal]) -> Forecast:
    """The forecast of won deals, by their values, and of open ones."""
    won_minor = sum(won)
    committed = sum(deal.value_minor for deal in open_deals if deal.category == "committed")
    best = sum(deal.value_minor for deal in open_deals if deal.category != "pipeline")
    weighted = round(Fraction(sum(deal.value_minor * deal.probability for deal in open_deals), 100))
    return Forecast(
        deals=len(won) + len(open_deals),
        won_deals=len(won),
        won_minor=won_minor,
        committed_minor=won_minor + committed,
        best_case_minor=won_minor + best,
        weighted_minor=won_minor + weighted,
        open_minor=sum(deal.value_minor for deal in open_deals),
        value=_shifted(value_range([(deal.value_minor, deal.probability) for deal in open_deals]), won_minor),
        wins=_shifted(wins_range([deal.probability for deal in open_deals]), len(won)),
    )


def value_range(outcomes: Sequence[tuple[int, int]]) -> Range:
    """The range of the sum of values, each won with its probability in percent."""
    if len(outcomes) > MOST_EXACT:
        return _normal(outcomes)
    sums = {0: 1.0}
    for value, percent in sorted(outcomes):
        sums = _convolved(sums, value, percent / 100)
        if len(sums) > MOST_SUMS:
            return _normal(outcomes)
    return _exact(sums.items())


def wins_range(percents: Sequence[int]) -> Range:
    """The range of the number of wins: the Poisson binomial distribution."""
    return value_range([(1, percent) for percent in percents])


def _convolved(sums: dict[int, float], value: int, chance: float) -> dict[int, float]:
    after: defaultdict[int, float] = defaultdict(float)
    for total, weight in sums.items():
        if chance < 1:
            after[total] += weight * (1 - chance)
        if chance > 0:
            after[total + value] += weight * chance
    return dict(after)


def _exact(outcomes: Iterable[tuple[int, float]]) -> Range:
    """The smallest sums by which a tenth, and nine tenths, of all outcomes are reached."""
    tail = float((1 - LEVEL) / 2)
    reached = 0.0
    low: int | None = None
    high = 0
    for total, weight in sorted(outcomes):
        reached += weight
        high = total
        if low is None and reached >= tail - 1e-12:
            low = total
        if reached >= 1 - tail - 1e-12:
            break
    return Range(low or 0, high, "exact")


def _normal(outcomes: Sequence[tuple[int, int]]) -> Range:
    mean = sum(value * percent for value, percent in outcomes) / 100
    variance = sum(value**2 * percent * (100 - percent) for value, percent in outcomes) / 10_000
    reach = NormalDist().inv_cdf(float((1 + LEVEL) / 2)) * sqrt(variance)
    certain = sum(value for value, percent in outcomes if percent == 100)
    most = sum(value for value, percent in outcomes if percent)
    return Range(max(floor(mean - reach), certain), min(ceil(mean + reach), most), "normal")


def _shifted(found: Range, by: int) -> Range:
    return Range(found.low + by, found.high + by, found.method)
