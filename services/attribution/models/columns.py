"""Many paths divided at once, in columns: what a model gives over a whole history.

The weights are those of the models' own definitions, asked once for each shape that a path can have (its length and
where its milestones stand); the rounding is R8's. So each touch gets what it gets when its conversion is credited
alone, to the minor unit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt

from services.attribution.domain import SHARE_UNITS, Model, Path, Touch, split
from services.attribution.models.custom import CustomModel
from services.attribution.models.domain import HALF_LIFE, MILESTONES, time_decay
from shared.ids import TouchId

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NOWHERE = -1
_LARGEST = 2**63 - 1
_LOW_BITS = 26
_WHEN = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Paths:
    """Paths to conversions, each of at least one touch. Path i has the touches from `starts[i]` until `starts[i + 1]`.

    `channels` and `ages_us` (microseconds before the conversion, never negative) have an element for each touch;
    `values` (minor units), `lead` and `deal` (the milestones' places in the path, or `NOWHERE`) one for each path.
    `direct` is the channel that counts as Direct.
    """

    starts: Integers
    channels: Integers
    ages_us: Integers
    values: Integers
    lead: Integers
    deal: Integers
    direct: int = NOWHERE

    @cached_property
    def by_length(self) -> list[tuple[Integers, Integers]]:
        """The paths of each length, and for each of them a row with the places of its touches."""
        lengths = np.diff(self.starts)
        found = [(np.flatnonzero(lengths == length), length) for length in np.unique(lengths)]
        return [(rows, self.starts[rows, None] + np.arange(length)) for rows, length in found]


@dataclass(frozen=True, slots=True)
class Division:
    """What each touch earned: parts of its conversion that sum to `SHARE_UNITS`, and minor units of its value.

    A model that gives the conversion whole does so to several touches.
    """

    units: Integers
    value_minor: Integers


def divides(model: Model) -> bool:
    """Whether `divide` knows how: what touches earn must not depend on more than their places, ages and channels."""
    has_rules = isinstance(model, CustomModel) and bool(model.rules)
    return not (model.whole or model.reset_after_conversion or has_rules)


def divide(paths: Paths, model: Model) -> Division:
    """Divide every conversion by a model that `divides`, all of whose touches may earn."""
    units, minor = np.zeros(len(paths.channels), np.int64), np.zeros(len(paths.channels), np.int64)
    if model.base == "time_decay":
        half_life = model.half_life if isinstance(model, CustomModel) else HALF_LIFE
        for rows, places in paths.by_length:
            if places.shape[1] == 1:
                units[places], minor[places] = SHARE_UNITS, paths.values[rows, None]
                continue
            weights = np.exp2(-paths.ages_us[places] / (half_life / _MICROSECOND))
            shares = weights / weights.sum(axis=1, keepdims=True)
            exactly = _exactly(paths, rows, half_life)
            units[places] = _decayed(np.full(len(rows), SHARE_UNITS), shares, paths.ages_us[places], exactly)
            minor[places] = _decayed(paths.values[rows], shares, paths.ages_us[places], exactly)
        return Division(units, minor)
    if model.whole:
        earning, of_path = _first_of_each_channel(paths)
        units[earning], minor[earning] = SHARE_UNITS, paths.values[of_path]
        return Division(units, minor)
    if model.base == "last_non_direct":
        earning = _last_other_than(paths, paths.direct)
        units[earning], minor[earning] = SHARE_UNITS, paths.values
        return Division(units, minor)
    for rows, places, lead, deal in _by_shape(paths, matters=model.base in MILESTONES):
        weighed = [int(weight) for weight in model.weigh(_shape(places.shape[1], lead, deal))]
        some = [place for place, weight in enumerate(weighed) if weight]
        units[places[:, some]] = np.array(split(SHARE_UNITS, [weighed[place] for place in some]))
        minor[places[:, some]] = _split_rows(paths.values[rows], [weighed[place] for place in some])
    return Division(units, minor)


def totals(keys: Integers, amounts: Integers, size: int) -> list[int]:
    """The sum of the amounts of each key below `size`, exactly: floats would lose the last digits."""
    low = np.bincount(keys, amounts & ((1 << _LOW_BITS) - 1), size)
    high = np.bincount(keys, amounts >> _LOW_BITS, size)
    return [(int(above) << _LOW_BITS) + int(below) for above, below in zip(high, low, strict=True)]


def _by_shape(paths: Paths, *, matters: bool) -> Iterator[tuple[Integers, Integers, int | None, int | None]]:
    """The paths of each length and, where milestones matter, of each place of the lead and the deal touch."""
    for rows, places in paths.by_length:
        if not matters:
            yield rows, places, None, None
            continue
        lead, deal = paths.lead[rows], paths.deal[rows]
        numbers = (lead + 1) * (places.shape[1] + 1) + deal + 1
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            yield rows[chosen], places[chosen], _place(int(lead[chosen[0]])), _place(int(deal[chosen[0]]))


def _place(place: int) -> int | None:
    return None if place == NOWHERE else place


def _shape(length: int, lead: int | None, deal: int | None) -> Path:
    anything = Touch("", TouchId(""), _WHEN, _WHEN, "", "", "")
    return Path(_WHEN, (anything,) * length, lead, deal)


def _last_other_than(paths: Paths, channel: int) -> Integers:
    """The last touch of each path that is not of a channel; the last one where all are."""
    place = np.where(paths.channels != channel, np.arange(len(paths.channels)), NOWHERE)
    last = np.maximum.reduceat(place, paths.starts[:-1])
    return np.where(last == NOWHERE, paths.starts[1:] - 1, last)


def _first_of_each_channel(paths: Paths) -> tuple[Integers, Integers]:
    """The first touch of each channel on each path, and the path it is on."""
    of_path = np.repeat(np.arange(len(paths.values)), np.diff(paths.starts))
    channels = int(paths.channels.max(initial=0)) + 1
    _, first = np.unique(of_path * channels + paths.channels, return_index=True)
    return first, of_path[first]


def _split_rows(values: Integers, weights: Sequence[int]) -> Integers:
    """`domain.split` of each value by the same weights."""
    if len(weights) == 1:
        return values[:, None]
    if int(values.max(initial=0)) * max(weights) > _LARGEST:
        return np.array([split(int(value), weights) for value in values])
    whole = sum(weights)
    products = values[:, None] * np.array(weights)
    parts = products // whole
    rounded: Integers = parts + _first_by_remainder(products - parts * whole, values - parts.sum(axis=1))
    return rounded


def _first_by_remainder(remainders: npt.NDArray[np.int64] | Floats, missing: Integers) -> Integers:
    """1 for as many places of each row as are missing there: the largest remainders, of equal ones the first."""
    order = np.argsort(-remainders, axis=1, kind="stable")
    rounded_up = np.zeros(remainders.shape, np.int64)
    np.put_along_axis(rounded_up, order, (np.arange(remainders.shape[1]) < missing[:, None]).astype(np.int64), axis=1)
    return rounded_up


def _decayed(
    values: Integers, shares: Floats, ages: Integers, exactly: Callable[[int, int], Sequence[int]]
) -> Integers:
    """Values split by shares that are only nearly right; where that could decide a unit, by the exact ones."""
    wanted = values[:, None] * shares
    parts = np.floor(wanted).astype(np.int64)
    remainders = wanted - parts
    missing = values - parts.sum(axis=1)
    result = parts + _first_by_remainder(remainders, missing)
    for row in np.flatnonzero(_undecided(values, remainders, missing, ages)):
        result[row] = exactly(int(row), int(values[row]))
    return result


def _undecided(values: Integers, remainders: Floats, missing: Integers, ages: Integers) -> npt.NDArray[np.bool_]:
    """Where an error of the shares might change the rounding. Touches of one instant have one share, so they do not."""
    count = remainders.shape[1]
    error = (values * (count + 8) * 2.0**-50)[:, None]
    order = np.argsort(-remainders, axis=1, kind="stable")
    sorted_remainders = np.take_along_axis(remainders, order, axis=1)
    sorted_ages = np.take_along_axis(ages, order, axis=1)
    close = (-np.diff(sorted_remainders, axis=1) <= 2 * error) & (np.diff(sorted_ages, axis=1) != 0)
    at_border = np.arange(1, count) == missing[:, None]
    near_whole = (remainders <= error) | (remainders >= 1 - error)
    impossible = (missing < 0) | (missing >= count)
    undecided: npt.NDArray[np.bool_] = (close & at_border).any(axis=1) | near_whole.any(axis=1) | impossible
    return undecided


def _exactly(paths: Paths, rows: Integers, half_life: timedelta) -> Callable[[int, int], Sequence[int]]:
    def exact(row: int, value: int) -> Sequence[int]:
        start, end = paths.starts[rows[row]], paths.starts[rows[row] + 1]
        times = [_WHEN - int(age) * _MICROSECOND for age in paths.ages_us[start:end]]
        path = Path(_WHEN, tuple(Touch("", TouchId(""), at, at, "", "", "") for at in times))
        return split(value, time_decay(path, half_life))

    return exact
