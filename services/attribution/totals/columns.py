"""What the channel games and chains count, out of many journeys at once, in columns.

The same counts come from the sums that are kept as facts arrive; these are for a history that lies in memory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.attribution.totals.chains import Chain, State
from services.attribution.totals.games import SetCount

Integers = NDArray[np.int64]

_BITS = 63
_DIRECTLY = 1 << 24
"""Numbers below this are counted in an array of that size; larger ones are sorted."""


@dataclass(frozen=True, slots=True)
class Journeys:
    """Journey i has the channels `channels[starts[i]:starts[i + 1]]`, at least one, as indexes into `names`.

    `converted` says which led to a conversion, `values` what that was worth, in minor units.
    """

    names: tuple[str, ...]
    starts: Integers
    channels: Integers
    converted: NDArray[np.bool_]
    values: Integers

    @property
    def owners(self) -> Integers:
        """The journey of each element of `channels`."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def visits(journeys: Journeys) -> Journeys:
    """The same journeys with each run of one channel as one visit."""
    first = np.zeros(len(journeys.channels), bool)
    first[journeys.starts[:-1]] = True
    kept = first | (journeys.channels != np.roll(journeys.channels, 1))
    starts = np.concatenate([[0], np.cumsum(kept)])[journeys.starts]
    return Journeys(journeys.names, starts, journeys.channels[kept], journeys.converted, journeys.values)


def chain_of(journeys: Journeys, order: int) -> Chain:
    """The steps of the chain of an order, as `chains.count_steps` counts them. Raises OverflowError for channels so
    many that a state has no number.
    """
    collapsed = visits(journeys)
    radix = len(collapsed.names) + 1
    if radix ** (order + 1) >= 1 << _BITS:
        raise OverflowError(f"{len(collapsed.names)} channels are too many for order {order}")
    channels, starts = collapsed.channels, collapsed.starts
    place = np.arange(len(channels)) - starts[:-1][collapsed.owners]
    states = np.zeros(len(channels), np.int64)
    for back in range(order, 0, -1):
        states = states * radix + np.where(place >= back, np.roll(channels, back) + 1, 0)
    onward, times = _counts(states * radix + channels + 1, radix ** (order + 1))
    last = starts[1:] - 1
    ends = (states[last] * radix + channels[last] + 1) % radix**order
    converted, lost = collapsed.converted, ~collapsed.converted
    worth = np.bincount(channels[last][converted], collapsed.values[converted], len(collapsed.names))
    return Chain(
        onward={
            (_state(step // radix, radix, collapsed.names), collapsed.names[step % radix - 1]): count
            for step, count in zip(onward.tolist(), times.tolist(), strict=True)
        },
        converted=_states(ends[converted], radix, order, collapsed.names),
        lost=_states(ends[lost], radix, order, collapsed.names),
        worth={name: int(value) for name, value in zip(collapsed.names, worth.tolist(), strict=True) if value},
    )


def sets_of(journeys: Journeys) -> dict[State, SetCount]:
    """The journeys by their sets of channels. Raises OverflowError for more than 63 channels."""
    if len(journeys.names) > _BITS:
        raise OverflowError(f"{len(journeys.names)} channels are too many")
    masks = np.bitwise_or.reduceat(np.int64(1) << journeys.channels, journeys.starts[:-1])
    found, of_journey = np.unique(masks, return_inverse=True)
    counts = np.bincount(of_journey, minlength=len(found))
    conversions = np.bincount(of_journey, journeys.converted, len(found)).astype(np.int64)
    values = np.bincount(of_journey, np.where(journeys.converted, journeys.values, 0), len(found)).astype(np.int64)
    return {
        tuple(name for place, name in enumerate(journeys.names) if mask >> place & 1): SetCount(*row)
        for mask, *row in zip(found.tolist(), counts.tolist(), conversions.tolist(), values.tolist(), strict=True)
    }


def _counts(numbers: Integers, below: int) -> tuple[Integers, Integers]:
    """The numbers there are, and how often each is."""
    if below > _DIRECTLY:
        found, times = np.unique(numbers, return_counts=True)
        return found, times
    times = np.bincount(numbers, minlength=1)
    found = np.flatnonzero(times)
    return found, times[found]


def _states(numbers: Integers, radix: int, order: int, names: tuple[str, ...]) -> dict[State, int]:
    found, times = _counts(numbers, radix**order)
    return {_state(state, radix, names): count for state, count in zip(found.tolist(), times.tolist(), strict=True)}


def _state(number: int, radix: int, names: tuple[str, ...]) -> State:
    """The state that a number stands for: its digits are channels, the newest last."""
    digits: list[str] = []
    while number:
        number, digit = divmod(number, radix)
        digits.append(names[digit - 1])
    return tuple(reversed(digits))
