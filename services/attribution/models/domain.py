"""The models that ship with the product, as weights: whole numbers proportional to the shares.

Their definitions are in this service's README. A model that is rational by definition is exact here; `time_decay` is
carried to 28 digits, in whole numbers, so that every machine comes to the same shares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Context, Decimal
from itertools import count
from types import MappingProxyType

from services.attribution.channels.domain import DIRECT
from services.attribution.domain import LOOKBACK, Model, Path, TotalsModel

HALF_LIFE = timedelta(days=7)
POSITIONS = MappingProxyType(
    {
        "position_based": MappingProxyType({"first": 40, "middle": 20, "last": 40}),
        "j_shaped": MappingProxyType({"first": 20, "middle": 20, "last": 60}),
        "inverse_j": MappingProxyType({"first": 60, "middle": 20, "last": 20}),
    }
)
"""The shares of the first touch, the last, and all between them together."""

MILESTONES = MappingProxyType(
    {
        "u_shaped_lead": MappingProxyType({"first": 40, "lead": 40, "rest": 20}),
        "w_shaped": MappingProxyType({"first": 30, "lead": 30, "deal": 30, "rest": 10}),
        "full_path": MappingProxyType({"first": 225, "lead": 225, "deal": 225, "close": 225, "rest": 100}),
    }
)
"""The shares of touches that carry a milestone, and of all that carry none together."""

_BITS = 96
_SPAN = 128
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
    rational: bool = True

    @property
    def base(self) -> str:
        """See `Model`."""
        return self.model_id

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
    """Proportional to 2^(-age / half-life), continuously; counted from the last touch, which gives the same shares."""
    last = path.touches[-1].occurred_at
    period = half_life // _MICROSECOND
    return [_power_of_two((touch.occurred_at - last) // _MICROSECOND, period) for touch in path.touches]


def by_position(path: Path, shares: Mapping[str, int]) -> list[int]:
    """The share `first` to the first touch, `last` to the last, `middle` shared by those between.

    Of two touches each has its part of both shares; where that leaves nothing, they have the same.
    """
    between = len(path.touches) - 2
    first, last = shares["first"], shares["last"]
    if between > 0:
        return [first * between, *[shares["middle"]] * between, last * between]
    return [first, last] if not between and first + last else [1] * len(path.touches)


def by_milestones(path: Path, shares: Mapping[str, int]) -> list[int]:
    """The share of each milestone to the touch that carries it, `rest` shared by those that carry none of these.

    Shares of several milestones on one touch add up; a milestone that never happened contributes nothing. Where that
    leaves nothing, every touch has the same.
    """
    last = len(path.touches) - 1
    carried = [0] * len(path.touches)
    for name, place in (("first", 0), ("lead", path.lead), ("deal", path.deal), ("close", last)):
        if place is not None:
            carried[place] += shares.get(name, 0)
    without = carried.count(0)
    if not without:
        return carried
    weights = [weight * without or shares["rest"] for weight in carried]
    return weights if any(weights) else [1] * len(weights)


def participation(path: Path) -> list[int]:
    """The first touch of each channel stands for it."""
    channels = [touch.channel for touch in path.touches]
    return [int(channel not in channels[:index]) for index, channel in enumerate(channels)]


def _only(place: int, length: int) -> list[int]:
    return [int(index == place) for index in range(length)]


def _power_of_two(numerator: int, denominator: int) -> int:
    """2^(numerator / denominator) in units of 2^-224, by the series of e^x; the exponent is not above zero."""
    whole, rest = divmod(numerator, denominator)
    exponent = (rest << _BITS) // denominator * _LN2 >> _BITS
    term = total = 1 << _BITS
    for divisor in count(1):
        term = (term * exponent >> _BITS) // divisor
        if not term:
            return total << whole + _SPAN if whole >= -_SPAN else total >> -whole - _SPAN
        total += term
    raise AssertionError("the series ends")


def _positional(base: str) -> Callable[[Path], list[int]]:
    return lambda path: by_position(path, POSITIONS[base])


def _by_milestones_of(base: str) -> Callable[[Path], list[int]]:
    return lambda path: by_milestones(path, MILESTONES[base])


BUILT_IN = MappingProxyType(
    {
        model.model_id: model
        for model in (
            BuiltIn("first_touch", "First touch", first_touch),
            BuiltIn("last_touch", "Last touch", last_touch),
            BuiltIn("linear", "Linear", linear),
            BuiltIn("time_decay", "Time decay, half-life 7 days", time_decay, rational=False),
            BuiltIn("last_non_direct", "Last non-direct touch", last_non_direct),
            BuiltIn("position_based", "Position-based 40/20/40", _positional("position_based")),
            BuiltIn("j_shaped", "J-shaped 20/20/60", _positional("j_shaped")),
            BuiltIn("inverse_j", "Inverse J 60/20/20", _positional("inverse_j")),
            BuiltIn("u_shaped_lead", "U-shaped 40/40/20: first and lead touch", _by_milestones_of("u_shaped_lead")),
            BuiltIn("w_shaped", "W-shaped 30/30/30/10", _by_milestones_of("w_shaped")),
            BuiltIn("full_path", "Full path 22.5 each, 10 shared", _by_milestones_of("full_path")),
            BuiltIn("participation", "Participation: each channel has it whole", participation, whole=True),
        )
    }
)
TOTALS = MappingProxyType(
    {
        model.model_id: model
        for model in (
            TotalsModel("markov", "Markov removal effect", base="markov"),
            TotalsModel("shapley", "Shapley value", base="shapley"),
        )
    }
)
SHIPPED: Mapping[str, Model | TotalsModel] = MappingProxyType({**BUILT_IN, **TOTALS})
"""All models that ship with the product and cannot be written over."""
