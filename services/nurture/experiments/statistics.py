"""Comparisons that may be looked at as often as one likes, after every single observation, and stopped at any time.

Everyone who enters is put into a variant by chance, in fixed proportions. If two variants do the same, then whoever
converts came from the one or the other by these proportions alone, whenever they convert: so the labels of those who
converted are independent draws, and the ratio of a beta mixture to that is a martingale, which exceeds 1/alpha ever
with a probability of alpha at most (Ville). Exact for any number of people. Robbins, "Statistical methods related to
the law of the iterated logarithm" (1970); Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data"
(NeurIPS 2022). A person counts once, whatever they did.

Amounts of money have no such law. They are compared by asymptotic confidence sequences: Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (2024), theorem 2.2.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

ALPHA = 0.05
PRIOR = 50.0
"""How many labels the mixture is worth: about the half of it lies where one rate is 0.83 to 1.2 times the other."""
TIGHTEST_AT = 5_000
"""The number of people at which a comparison of amounts is to be sharpest."""
FEWEST_BUYERS = 20
"""So many of each variant must have bought before amounts are compared: the theorem speaks of large numbers."""
_FINE = 10**15
_EDGE = 1 / _FINE


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds the truth at every look at once, with a probability of 1 - alpha. None: no bound."""

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Amounts:
    """What people of one variant spent: their number, how many spent anything, the sum, and the sum of squares."""

    people: int
    buyers: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Per person."""
        return self.total / self.people if self.people else 0.0

    @property
    def variance(self) -> float:
        """Of what one person spends."""
        return max(self.squares / self.people - self.mean**2, 0.0) if self.people else 0.0


def labels_p(mine: int, theirs: int, share: float) -> float:
    """Always-valid p-value of: those who converted are mine with the probability `share`."""
    mixed = _mixture(mine, theirs, PRIOR * share, PRIOR * (1 - share))
    return min(1.0, math.exp(min(0.0, _log_likelihood(mine, theirs, share) - mixed)))


def ratio_interval(mine: int, theirs: int, share: float, alpha: float = ALPHA) -> Interval:
    """How many times their rate mine is."""
    part = _proportions(mine, theirs, PRIOR * share, PRIOR * (1 - share), alpha)
    odds = (1 - share) / share
    low = None if part.low is None else part.low / (1 - part.low) * odds
    return Interval(low, None if part.high is None else part.high / (1 - part.high) * odds)


def rate_interval(converted: int, people: int, alpha: float = ALPHA) -> Interval:
    """The rate at which people convert, as far as they have until now."""
    found = _proportions(converted, people - converted, 0.5, 0.5, alpha)
    return Interval(found.low or 0.0, 1.0 if found.high is None else found.high)


def amounts_p(mine: Amounts, theirs: Amounts) -> float:
    """Always-valid p-value of: both spend the same on average; 1 while too few have bought."""
    if not _enough(mine, theirs):
        return 1.0
    people, error = mine.people + theirs.people, _error(mine, theirs)
    if error == 0:
        return 1.0
    scale = people * _rho2(ALPHA)
    z2 = (mine.mean - theirs.mean) ** 2 / error
    return min(1.0, math.sqrt(scale + 1) * math.exp(-z2 / 2 * scale / (scale + 1)))


def difference_interval(mine: Amounts, theirs: Amounts, alpha: float = ALPHA) -> Interval:
    """How much more a person of mine spends than one of theirs; without bounds while too few have bought."""
    if not _enough(mine, theirs):
        return Interval(None, None)
    scale = (mine.people + theirs.people) * _rho2(ALPHA)
    margin = math.sqrt(_error(mine, theirs) * 2 * (scale + 1) / scale * math.log(math.sqrt(scale + 1) / alpha))
    difference = mine.mean - theirs.mean
    return Interval(difference - margin, difference + margin)


def _enough(mine: Amounts, theirs: Amounts) -> bool:
    return min(mine.buyers, theirs.buyers) >= FEWEST_BUYERS


def _error(mine: Amounts, theirs: Amounts) -> float:
    """The square of the standard error of the difference.

    A few who buy for very much come late, and later in the smaller variant, which until then seems to vary little: so
    each varies by at least as much as all people together do.
    """
    people = mine.people + theirs.people
    mean = (mine.total + theirs.total) / people
    pooled = (mine.squares + theirs.squares) / people - mean**2
    return sum(max(each.variance, pooled) / each.people for each in (mine, theirs))


def _rho2(alpha: float) -> float:
    """What makes the sequence sharpest at TIGHTEST_AT people (appendix B.2 of the paper)."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / TIGHTEST_AT


def _log_likelihood(yes: int, no: int, part: float) -> float:
    return yes * math.log(part) + no * math.log1p(-part)


def _mixture(yes: int, no: int, a: float, b: float) -> float:
    return _log_beta(a + yes, b + no) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _proportions(yes: int, no: int, a: float, b: float, alpha: float) -> Interval:
    """All proportions that the mixture over Beta(a, b) has not refuted; None where there is none to refute."""
    least = _mixture(yes, no, a, b) + math.log(alpha)

    def left(part: float) -> float:
        return _log_likelihood(yes, no, part) - least

    best = min(max(yes / (yes + no), _EDGE), 1 - _EDGE) if yes + no else 0.5
    low = _crossing(left, _EDGE, best) if yes and left(_EDGE) < 0 else None
    high = _crossing(lambda part: -left(part), best, 1 - _EDGE) if no and left(1 - _EDGE) < 0 else None
    return Interval(low, high)


def _crossing(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that rises becomes positive. Not scipy's: loading it holds up the process for a second."""
    places = range(round(low * _FINE), round(high * _FINE))
    return places[0] / _FINE + bisect_left(places, 0.0, key=lambda place: rising(place / _FINE)) / _FINE
