"""Models that give totals by channel: from sums of journeys to whole minor units. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import NamedTuple, assert_never

from services.attribution.domain import SHARE_UNITS, TotalsModel, split
from services.attribution.paths.domain import Keys, Subject
from services.attribution.totals.chains import Chain, RemovalEffects, State, count_steps, removal_effects
from services.attribution.totals.games import SetCount, shapley

_ENDS = frozenset({"last", "tail", "set"})
"""The subjects under which a journey is counted once."""

MOST_CHANNELS = 300
"""Channels that are more are no channels but, for instance, campaigns."""

_MANY_STATES = 60
_MANY_PLAYERS = 8

_DIGITS = 10**13
"""Computed shares are compared to this many parts of all, so that equal ones stay equal on every machine."""


def name_of(model: TotalsModel) -> str:
    """What tells the results of models apart, whatever they are called."""
    return f"markov/{model.order}" if model.base == "markov" else f"shapley/{model.game}"


def takes_long(model: TotalsModel, channels: int) -> bool:
    """Whether it takes longer than a request may, with so many channels."""
    if model.base == "markov":
        return model.order > 1 or channels > _MANY_STATES
    return channels > _MANY_PLAYERS


class PathSum(NamedTuple):
    """Journeys with the same keys of a subject; those that ended in nothing apart, in `lost`."""

    subject: Subject
    keys: Keys
    converted: int
    lost: int
    value_minor: int


@dataclass(frozen=True, slots=True)
class Credit:
    """What a channel earned, in `SHARE_UNITS` of a conversion and in minor units; either may be negative (Shapley).

    The raw removal effects of Markov stand beside it, and the standard errors where values are sampled: in conversions
    and in minor units.
    """

    channel: str
    units: int
    value_minor: int
    removal_effect: float | None = None
    value_removal_effect: float | None = None
    conversions_error: float | None = None
    value_error: float | None = None


def credits_of(model: TotalsModel, sums: Iterable[PathSum]) -> list[Credit]:
    """What each channel earned. Credits sum to the conversions that had a touch, and to their value, exactly.

    Rounded by largest remainder; of equal ones the channel that comes first by name is rounded up.
    """
    sums = list(sums)
    effects: RemovalEffects | None = None
    errors: Mapping[str, tuple[float, float]] = {}
    counted: Mapping[str, float | Fraction]
    valued: Mapping[str, float | Fraction]
    match model.base:
        case "markov":
            effects = removal_effects(_chain(sums, model.order), model.order)
            counted, valued = effects.conversions, effects.value
        case "shapley":
            played = shapley(_sets(sums), model.game)
            counted, valued, errors = played.conversions, played.value, played.error or {}
        case _:
            assert_never(model.base)
    channels = sorted(counted)
    ends = [each for each in sums if each.subject in _ENDS]
    units = _divided(sum(each.converted for each in ends) * SHARE_UNITS, [counted[channel] for channel in channels])
    minor = _divided(sum(each.value_minor for each in ends), [valued[channel] for channel in channels])
    return [
        Credit(
            channel,
            units[index],
            minor[index],
            effects.conversions[channel] if effects else None,
            effects.value[channel] if effects else None,
            *errors.get(channel, (None, None)),
        )
        for index, channel in enumerate(channels)
    ]


def added(sums: Iterable[PathSum]) -> list[PathSum]:
    """One of each keys, without what comes to nothing."""
    found: dict[tuple[Subject, Keys], list[int]] = {}
    for subject, keys, *counts in sums:
        known = found.get((subject, keys))
        if known is None:
            found[subject, keys] = counts
        else:
            for place, count in enumerate(counts):
                known[place] += count
    return [PathSum(*key, *counts) for key, counts in found.items() if any(counts)]


def grams_of(routes: Iterable[PathSum], order: int) -> list[PathSum]:
    """The `gram` and `tail` sums of whole sequences (`route`), as far as an order needs them."""
    steps: dict[tuple[Subject, Keys], list[int]] = {}
    converted: Counter[Keys] = Counter()
    lost: Counter[Keys] = Counter()
    for route in routes:
        if route.keys:
            converted[route.keys] += route.converted
            lost[route.keys] += route.lost
            steps.setdefault(("tail", route.keys[-order:]), [0, 0, 0])[2] += route.value_minor
    for which, journeys in enumerate((converted, lost)):
        onward, ends = count_steps({keys: times for keys, times in journeys.items() if times}, order)
        for (state, channel), times in onward.items():
            steps.setdefault(("gram", (*state, channel)), [0, 0, 0])[which] += times
        for state, times in ends.items():
            steps["tail", state][which] += times
    return [PathSum(subject, keys, *counts) for (subject, keys), counts in steps.items()]


def _chain(sums: Iterable[PathSum], order: int) -> Chain:
    onward: dict[tuple[State, str], int] = {}
    converted: dict[State, int] = {}
    lost: dict[State, int] = {}
    worth: dict[str, int] = {}
    for each in sums:
        if each.subject in _ENDS:
            state = each.keys[-order:]
            converted[state] = converted.get(state, 0) + each.converted
            lost[state] = lost.get(state, 0) + each.lost
            worth[state[-1]] = worth.get(state[-1], 0) + each.value_minor
        else:
            step = each.keys[:-1][-order:], each.keys[-1]
            onward[step] = onward.get(step, 0) + each.converted + each.lost
    return Chain(onward, converted, lost, worth)


def _sets(sums: Iterable[PathSum]) -> dict[Keys, SetCount]:
    return {each.keys: SetCount(each.converted + each.lost, each.converted, each.value_minor) for each in sums}


def _divided(total: int, shares: Sequence[float | Fraction]) -> list[int]:
    """Whole parts that sum exactly to the total; all 0 where there is nothing to share out."""
    whole = sum(shares)
    if not total or not whole:
        return [0] * len(shares)
    scale = lcm(*(share.denominator for share in shares if isinstance(share, Fraction)))
    exact = all(isinstance(share, Fraction) for share in shares)
    return split(total, [int(share * scale) if exact else round(share / whole * _DIGITS) for share in shares])
