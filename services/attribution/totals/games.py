"""The Shapley value of channels, by three games.

A journey counts by the set of its channels. Of a game v, a channel's value is what it adds to the channels before it,
on average over all orders of the channels. Each game is played for conversions and, in the same way, for their value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from math import factorial
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from services.attribution.domain import Game

Matrix = NDArray[np.float64]

MOST_EXACT = 16
"""Channels up to which every coalition is looked at."""

_ORDERS = 20_000
_PLACES = 40_000_000
_PAIRS = 200_000_000
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class SetCount:
    """Journeys through exactly one set of channels, those of them that converted, and what these are worth."""

    journeys: int
    conversions: int
    value_minor: int


@dataclass(frozen=True, slots=True)
class Values:
    """Shapley values by channel; they sum to all conversions and to their value. They may be negative.

    `error` is the standard error of each of them where they are sampled, else None.
    """

    conversions: dict[str, float | Fraction]
    value: dict[str, float | Fraction]
    error: dict[str, tuple[float, float]] | None = None


@dataclass(frozen=True, slots=True)
class _Table:
    """The sets as rows of a matrix of members, and what is counted for each: journeys, conversions, value."""

    channels: list[str]
    members: Matrix
    journeys: Matrix
    earned: Matrix


def shapley(sets: Mapping[tuple[str, ...], SetCount], game: Game) -> Values:
    """The Shapley values of the channels in a game.

    - `subset_rate`: v(S) = conversions / journeys among journeys whose set of channels is within S, scaled to the
      total. Exact up to 16 channels; beyond, orders are sampled from a seed that is a function of the counts.
    - `subset_conversions`: v(S) = conversions of journeys whose set is within S. Equals an equal split of every
      conversion over its distinct channels.
    - `observed_set_rate`: for each set T that converted a game of its own, v(S) = conversions / journeys among journeys
      whose set is exactly S, scaled to T's conversions; the sum over all T.
    """
    sets = {tuple(sorted(set(channels))): count for channels, count in sets.items() if channels}
    if not any(count.conversions for count in sets.values()):
        none = dict.fromkeys(sorted({channel for channels in sets for channel in channels}), 0.0)
        return Values({**none}, {**none})
    match game:
        case "subset_conversions":
            return _equal_split(sets)
        case "subset_rate":
            table = _table(sets)
            return _by_coalitions(table) if len(table.channels) <= MOST_EXACT else _by_orders(table)
        case "observed_set_rate":
            return _by_observed_sets(_table(sets))
        case _:
            assert_never(game)


def _equal_split(sets: Mapping[tuple[str, ...], SetCount]) -> Values:
    sums: dict[tuple[str, int], list[int]] = {}
    for channels, count in sets.items():
        for channel in channels:
            both = sums.setdefault((channel, len(channels)), [0, 0])
            both[0] += count.conversions
            both[1] += count.value_minor
    conversions: dict[str, float | Fraction] = {}
    value: dict[str, float | Fraction] = {}
    for (channel, size), (number, minor) in sums.items():
        conversions[channel] = conversions.get(channel, Fraction()) + Fraction(number, size)
        value[channel] = value.get(channel, Fraction()) + Fraction(minor, size)
    return Values(conversions, value)


def _table(sets: Mapping[tuple[str, ...], SetCount]) -> _Table:
    channels = sorted({channel for each in sets for channel in each})
    place = {channel: index for index, channel in enumerate(channels)}
    members = np.zeros((len(sets), len(channels)))
    rows = sorted(sets)
    for row, each in enumerate(rows):
        members[row, [place[channel] for channel in each]] = 1
    counts = [sets[each] for each in rows]
    journeys = np.array([count.journeys for count in counts], float)
    earned = np.array([(count.conversions, count.value_minor) for count in counts], float)
    return _Table(channels, members, journeys, earned)


def _by_coalitions(table: _Table) -> Values:
    """Every coalition's rate from sums over its subsets; a channel's value is the weighted sum of what it adds."""
    number = len(table.channels)
    sums = np.zeros((1 << number, 3))
    places = (table.members @ (1 << np.arange(number))).astype(np.int64)
    sums[places] = np.column_stack([table.journeys, table.earned])
    for index in range(number):
        halves = sums.reshape(-1, 2, 1 << index, 3)
        halves[:, 1] += halves[:, 0]
    rates = _rates(sums[:, 0], sums[:, 1:])
    sizes = np.bitwise_count(np.arange(1 << number))
    weights = _order_weights(number)[number][sizes]
    values = np.empty((number, 2))
    for index in range(number):
        halves = rates.reshape(-1, 2, 1 << index, 2)
        without = weights.reshape(-1, 2, 1 << index)[:, 0]
        values[index] = np.einsum("ij,ijk->k", without, halves[:, 1] - halves[:, 0])
    return _scaled(table, values)


def _by_orders(table: _Table) -> Values:
    """What each channel adds in random orders. A set is within the channels so far once its last member has come.

    Every order is turned round until each channel has stood at each place: what a channel adds depends on its place
    most of all, and so that part of the error is gone.
    """
    number = len(table.channels)
    dice = np.random.default_rng(_seed(table))
    rows, columns = np.nonzero(table.members)
    begins = np.searchsorted(rows, np.arange(len(table.members)))
    rounds = max(50, min(_ORDERS, _PLACES // len(columns)) // number)
    counted = np.column_stack([table.journeys, table.earned])
    total, squares = np.zeros((number, 2)), np.zeros((number, 2))
    for _ in range(rounds):
        place, added = dice.permutation(number), np.zeros((number, 2))
        for turned in range(number):
            turn = (place + turned) % number
            complete = np.maximum.reduceat(turn[columns], begins)
            sums = np.column_stack([np.bincount(complete, column, number) for column in counted.T]).cumsum(axis=0)
            added += np.diff(_rates(sums[:, 0], sums[:, 1:]), axis=0, prepend=0.0)[turn]
        total += added / number
        squares += (added / number) ** 2
    mean = total / rounds
    error = np.sqrt(np.maximum(squares / rounds - mean**2, 0) / (rounds - 1))
    return _scaled(table, mean, error)


def _by_observed_sets(table: _Table) -> Values:
    """The games of all converting sets at once, from the pairs of a set S within a set T.

    T's game is scaled by its journeys: that makes its rate its conversions. In it S adds its rate to each of its own
    members, and takes it from each of T's that it lacks, in the share of the orders that begin with S. Where the pairs
    are too many, sets T are drawn in proportion to their conversions.
    """
    sizes = table.members.sum(axis=1).astype(np.int64)
    rates = _rates(table.journeys, table.earned)
    weights = _order_weights(int(sizes.max()))
    chosen, times = np.flatnonzero(table.earned[:, 0]), table.journeys
    sampled = len(chosen) * len(sizes) > _PAIRS
    if sampled:
        parts = table.earned[:, 0] / table.earned[:, 0].sum()
        chosen = np.random.default_rng(_seed(table)).choice(len(sizes), size=_PAIRS // len(sizes), p=parts)
        times = np.divide(table.journeys, parts * len(chosen), out=np.zeros_like(parts), where=parts > 0)
    sums, squares = np.zeros((len(table.channels), 2)), np.zeros((len(table.channels), 2))
    step = max(1, _PAIRS_AT_ONCE // len(sizes))
    for begin in range(0, len(chosen), step):
        some = chosen[begin : begin + step]
        within = (table.members[some] @ table.members.T) == sizes
        lacking = np.where(within, weights[sizes[some][:, None], sizes], 0.0)
        having = np.where(within, weights[sizes[some][:, None], sizes - 1], 0.0) + lacking
        for which in range(2):
            gained = (having * rates[:, which]) @ table.members
            given = (lacking @ rates[:, which])[:, None] * table.members[some]
            each = (gained - given) * times[some][:, None]
            sums[:, which] += each.sum(axis=0)
            squares[:, which] += (each**2).sum(axis=0)
    if not sampled:
        return _scaled(table, sums)
    number = len(chosen)
    return _scaled(table, sums, np.sqrt(np.maximum(squares * number - sums**2, 0) / (number - 1)))


def _rates(journeys: Matrix, earned: Matrix) -> Matrix:
    """What is earned per journey; nothing where there is none."""
    return np.divide(earned, journeys[:, None], out=np.zeros_like(earned), where=journeys[:, None] > 0)


def _order_weights(most: int) -> Matrix:
    """`[t, s]`: the share of the orders of t channels in which a given one comes right after s given ones."""
    weights = np.zeros((most + 1, most + 1))
    for size in range(1, most + 1):
        for before in range(size):
            weights[size, before] = factorial(before) * factorial(size - before - 1) / factorial(size)
    return weights


def _scaled(table: _Table, values: Matrix, error: Matrix | None = None) -> Values:
    """Scaled so that they sum to the totals; what nobody earned is nobody's."""
    sums = values.sum(axis=0)
    scale = np.divide(table.earned.sum(axis=0), sums, out=np.zeros(2), where=sums > 0)
    scaled = values * scale
    errors = None
    if error is not None:
        errors = {
            channel: (row[0], row[1]) for channel, row in zip(table.channels, (error * scale).tolist(), strict=True)
        }
    conversions, value = (dict(zip(table.channels, column.tolist(), strict=True)) for column in scaled.T)
    return Values(conversions, value, errors)


def _seed(table: _Table) -> int:
    """The same counts give the same sample, everywhere and at every time."""
    digest = blake2b("\0".join(table.channels).encode(), digest_size=16)
    for part in (table.members, table.journeys, table.earned):
        digest.update(part.tobytes())
    return int.from_bytes(digest.digest())
