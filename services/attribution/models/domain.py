"""The models that ship with the product, as weights: whole numbers proportional to the shares.

Their definitions are in this service's README. A model that is rational by definition is exact here; `time_decay` is
carried to 28 digits, in whole numbers, so that every machine comes to the same shares.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Context, Decimal
from fractions import Fraction
from itertools import count
from types import MappingProxyType

from services.attribution.channels.domain import DIRECT
from services.attribution.domain import LOOKBACK, Model, Path

HALF_LIFE = timedelta(days=7)
NOT_A_SPLIT = frozenset({"markov", "shapley"})
"""Models that give totals by channel and do not split single conversions; not available yet."""

RESERVED = frozenset({"j_shaped", "inverse_j", "u_shaped_lead", "participation"})
"""Names that the definitions give a meaning to, so that no custom model may take them."""

_DIGITS = Context(prec=28)
_BITS = 96
_LN2 = int(Context(prec=40).ln(Decimal(2)) * (1 << _BITS))
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A model that ships with the product."""

    model_id: str
    title: str
    weights: Callable[[Path], Sequence[int]]
    version: int = 0
    lookback: timedelta | None = LOOKBACK
    reset_after_conversion: bool = False
    whole: bool = False

    def weigh(self, path: Path) -> Sequence[int]:
        """See `Model`."""
        return self.weights(path)


def first_touch(path: Path) -> list[int]:
    """All to the first touch."""
    return _only(0, len(path.touches))


def last_touch(path: Path) -> list[int]:
    """All to the last touch."""
    return _only(len(path.touches) - 1, len(path.touches))


def last_non_direct(path: Path) -> list[int]:
    """All to the last touch that did not come directly; where all did, to the last."""
    last = len(path.touches) - 1
    place = next((i for i in range(last, -1, -1) if path.touches[i].channel != DIRECT), last)
    return _only(place, last + 1)


def linear(path: Path) -> list[int]:
    """The same to each touch; who comes again earns again."""
    return [1] * len(path.touches)


def time_decay(path: Path, half_life: timedelta = HALF_LIFE) -> list[int]:
    """Proportional to 2^(-age / half-life), continuously; counted from the first touch, which gives the same shares."""
    first = path.touches[0].occurred_at
    period = half_life // _MICROSECOND
    return [_power_of_two((touch.occurred_at - first) // _MICROSECOND, period) for touch in path.touches]


def position_based(path: Path) -> list[int]:
    """40 to the first, 40 to the last, 20 shared by the middle; of two touches half to each."""
    between = len(path.touches) - 2
    if between <= 0:
        return [1] * len(path.touches)
    return [2 * between, *[1] * between, 2 * between]


def w_shaped(path: Path) -> list[int]:
    """30 each to the first, the lead and the deal touch, 10 shared by those that carry none of these."""
    return _by_milestones(path, [0, path.lead, path.deal], each=30, rest=10)


def full_path(path: Path) -> list[int]:
    """22.5 each to the first, the lead, the deal and the closing touch, 10 shared by those that carry none of these."""
    return _by_milestones(path, [0, path.lead, path.deal, len(path.touches) - 1], each=225, rest=100)


def _only(place: int, length: int) -> list[int]:
    return [int(index == place) for index in range(length)]


def _power_of_two(numerator: int, denominator: int) -> int:
    """2^(numerator / denominator) in units of 2^-96, by the series of e^x."""
    whole, rest = divmod(numerator, denominator)
    exponent = (rest << _BITS) // denominator * _LN2 >> _BITS
    term = total = 1 << _BITS
    for divisor in count(1):
        term = (term * exponent >> _BITS) // divisor
        if not term:
            return total << whole
        total += term
    raise AssertionError("the series ends")


def _by_milestones(path: Path, places: Sequence[int | None], each: int, rest: int) -> list[int]:
    """Shares of several milestones on one touch add up; a milestone that never happened contributes nothing."""
    carried = [0] * len(path.touches)
    for place in places:
        if place is not None:
            carried[place] += each
    without = carried.count(0)
    if not without:
        return carried
    return [weight * without or rest for weight in carried]


def told_weights(model: Model, path: Path) -> list[str]:
    """The weights of a path as they are told: fractions like 1/3, or 28 digits where the definition is not rational."""
    weights = model.weigh(path)
    if model.whole:
        return ["1" if weight else "0" for weight in weights]
    total = sum(weights)
    if "time_decay" in (model.model_id, getattr(model, "base", None)):
        return [f"{_DIGITS.divide(Decimal(weight), Decimal(total)):f}" for weight in weights]
    return [str(Fraction(weight, total)) for weight in weights]


BUILT_IN = MappingProxyType(
    {
        name: BuiltIn(name, title, weights)
        for name, title, weights in (
            ("first_touch", "First touch", first_touch),
            ("last_touch", "Last touch", last_touch),
            ("linear", "Linear", linear),
            ("time_decay", "Time decay, half-life 7 days", time_decay),
            ("last_non_direct", "Last non-direct touch", last_non_direct),
            ("position_based", "Position-based 40/20/40", position_based),
            ("w_shaped", "W-shaped 30/30/30/10", w_shaped),
            ("full_path", "Full path 22.5 each, 10 shared", full_path),
        )
    }
)
