"""Whose turn it is: a weighted round robin that never lets anybody get a whole lead ahead or behind.

Credit is counted in leads: with each lead given out, every member who could have had it earns the share its weight
has of the weights present, and the one who gets it pays one lead. Picking simply the highest credit ("smooth weighted
round robin") lets a member fall more than one lead behind when many weights differ; picking, among those whose credit
is positive, the one who would first be a whole lead behind keeps every credit strictly between -1 and 1 (R. Tijdeman,
"The chairman assignment problem", Discrete Mathematics 32, 1980). With equal weights both are the plain round robin.

A member who is absent neither earns nor pays, so that nobody comes back to a flood; one who joins starts level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from shared.ids import RepId

FINEST = 10**12
"""Largest denominator of a stored credit, so that both its parts fit a 64-bit integer; finer ones are rounded to it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Who gets the lead, and the credits of all who could have had it, after it."""

    rep_id: RepId
    credits: Mapping[RepId, Fraction]


def next_turn(weights: Sequence[tuple[RepId, int]], credits: Mapping[RepId, Fraction]) -> Turn:
    """The next turn among the members present, given as (rep, weight above 0) in a fixed order, which breaks ties."""
    earned, lead = _earned(weights, credits)
    every = lcm(*(weight for _, weight in weights))
    owed = [(rep_id, weight) for rep_id, weight in weights if earned[rep_id] > 0]
    chosen = min(owed, key=lambda one: ((lead - earned[one[0]]) * (every // one[1]), -earned[one[0]]))[0]
    return Turn(chosen, _paid(earned, lead, chosen))


def settle_turn(weights: Sequence[tuple[RepId, int]], credits: Mapping[RepId, Fraction], rep_id: RepId) -> Turn:
    """The books after a lead that is known to have gone to this rep."""
    earned, lead = _earned(weights, credits)
    return Turn(rep_id, _paid(earned, lead, rep_id))


def _earned(weights: Sequence[tuple[RepId, int]], credits: Mapping[RepId, Fraction]) -> tuple[dict[RepId, int], int]:
    """Credits of those present, measured from their common level, with the shares of one more lead added.

    Whole numbers, and the number that stands for one lead: exact, and ten times faster than fractions.
    """
    total = sum(weight for _, weight in weights)
    held = [credits.get(rep_id, Fraction(0)) for rep_id, _ in weights]
    unit = lcm(total, *(credit.denominator for credit in held))
    counts = [credit.numerator * (unit // credit.denominator) for credit in held]
    if level := sum(counts):
        counts = [count * len(counts) - level for count in counts]
        unit *= len(counts)
    share = unit // total
    return {rep_id: count + weight * share for (rep_id, weight), count in zip(weights, counts, strict=True)}, unit


def _paid(earned: Mapping[RepId, int], lead: int, rep_id: RepId) -> dict[RepId, Fraction]:
    after = {**earned, rep_id: earned.get(rep_id, 0) - lead}
    exact = {rep: Fraction(count, lead) for rep, count in after.items()}
    if all(credit.denominator <= FINEST for credit in exact.values()):
        return exact
    return {rep: Fraction(round(credit * FINEST), FINEST) for rep, credit in exact.items()}
