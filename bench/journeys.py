"""Journeys to compute with: a mean of four touches over ten channels, a tenth of them converting."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHANNELS = (
    "Paid Search",
    "Organic Search",
    "Direct",
    "Email",
    "Organic Social",
    "Paid Social",
    "Referral",
    "Display",
    "Affiliates",
    "SMS",
)
MEAN_TOUCHES = 4
MOST_TOUCHES = 60
CONVERTING = 0.1
MEAN_GAP_US = 1.5 * 86_400e6

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Journeys:
    """Journey i has the touches `starts[i]` until `starts[i + 1]`, in order.

    `ages_us`: microseconds before its last touch; `values`: minor units, 0 where it did not convert.
    """

    starts: Integers
    channels: Integers
    ages_us: Integers
    converted: npt.NDArray[np.bool_]
    values: Integers

    def save(self, file: Path) -> None:
        """Write them where another interpreter reads them."""
        np.savez(file, **vars(self), names=np.array(CHANNELS))


def journeys(people: int, seed: int = 7) -> Journeys:
    """So many journeys, the same for the same seed."""
    dice = np.random.default_rng(seed)
    lengths = dice.geometric(1 / MEAN_TOUCHES, people).clip(1, MOST_TOUCHES)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / np.arange(1, len(CHANNELS) + 1)
    channels = dice.choice(len(CHANNELS), starts[-1], p=popularity / popularity.sum())
    at = np.cumsum(dice.exponential(MEAN_GAP_US, starts[-1]).astype(np.int64))
    converted = dice.random(people) < CONVERTING
    values = np.where(converted, dice.integers(1_000, 100_000, people), 0)
    return Journeys(starts, channels, np.repeat(at[starts[1:] - 1], lengths) - at, converted, values)
