"""The Markov model of order 1 to 4: what becomes of the conversions when a channel is taken away.

A journey is a sequence of channels in which a run of one channel is one visit. In order k the state is the k newest
channels, fewer at the start: `()` before the first. From every state the chain goes on to another channel, to the
conversion, or to null, in the proportions in which the journeys did. Taking a channel away sends every arrival at it,
that is at each state whose newest channel it is, to null. What is left of the conversions follows from a linear system.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

State = tuple[str, ...]
Vector = NDArray[np.float64]

ORDERS = (1, 2, 3, 4)
_DENSE = 1_200
_ROUNDS = 4_000
_CELLS = 8_000_000
_NEGLIGIBLE = 1e-15
"""Of the conversions: what is still under way when the series for a large system ends."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Counted steps. `onward` by state and next channel, `converted` and `lost` by state; `worth` is the value of the
    conversions by their last channel.
    """

    onward: Mapping[tuple[State, str], int]
    converted: Mapping[State, int]
    lost: Mapping[State, int]
    worth: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RemovalEffects:
    """By channel, the part of all conversions and of their value that is gone without it. They need not sum to 1."""

    conversions: dict[str, float]
    value: dict[str, float]


@dataclass(frozen=True, slots=True)
class _System:
    """The chain as numbers: `go[i, j]` from state i to j, `start` where journeys begin, what each state earns at once.

    `newest` is the index of each state's newest channel.
    """

    go: sparse.csr_array
    start: Vector
    earns: NDArray[np.float64]
    newest: NDArray[np.int64]
    channels: list[str]


def removal_effects(chain: Chain, order: int) -> RemovalEffects:
    """RE(c) = 1 - P(conversion without c) / P(conversion), and the same for the expected value.

    A conversion out of a state is worth the mean value of the conversions with the same last channel. Without any
    conversion, or any value, there is nothing to lose: all effects are 0.
    """
    system = _system(chain, order)
    if not system.channels:
        return RemovalEffects({}, {})
    lost = _lost_dense(system) if len(system.start) <= _DENSE else _lost_sparse(system)
    return RemovalEffects(*(dict(zip(system.channels, column.tolist(), strict=True)) for column in lost.T))


def _system(chain: Chain, order: int) -> _System:
    leaving: dict[State, int] = {}
    for counts in (_by_state(chain.onward), chain.converted, chain.lost):
        for state, journeys in counts.items():
            leaving[state] = leaving.get(state, 0) + journeys
    arrived = {(*state, channel)[-order:] for state, channel in chain.onward}
    states = {state: index for index, state in enumerate(sorted(arrived))}
    channels = sorted({state[-1] for state in states})
    place = {channel: index for index, channel in enumerate(channels)}
    start = np.zeros(len(states))
    cells: list[tuple[float, int, int]] = []
    for (state, channel), journeys in chain.onward.items():
        into, part = states[(*state, channel)[-order:]], journeys / leaving[state]
        if state:
            cells.append((part, states[state], into))
        else:
            start[into] = part
    parts, rows, columns = zip(*cells, strict=True) if cells else ((), (), ())
    out: dict[str, int] = {}
    for state, journeys in chain.converted.items():
        if state:
            out[state[-1]] = out.get(state[-1], 0) + journeys
    earns = np.zeros((len(states), 2))
    for state, journeys in chain.converted.items():
        if state and journeys:
            part = journeys / leaving[state]
            earns[states[state]] = part, part * (chain.worth.get(state[-1], 0) / out[state[-1]])
    shape = (len(states), len(states))
    go = sparse.csr_array((np.array(parts, float), (np.array(rows, int), np.array(columns, int))), shape=shape)
    return _System(go, start, earns, np.array([place[state[-1]] for state in states]), channels)


def _by_state(onward: Mapping[tuple[State, str], int]) -> dict[State, int]:
    found: dict[State, int] = {}
    for (state, _), journeys in onward.items():
        found[state] = found.get(state, 0) + journeys
    return found


def _lost_dense(system: _System) -> NDArray[np.float64]:
    """By channel and measure the part lost, from the fundamental matrix.

    Of visits v = start (I - Q)^-1 and earnings to come h = (I - Q)^-1 r, what passes through the states R of a channel
    is v_R (((I - Q)^-1)_RR)^-1 h_R: nothing is subtracted, so that small effects are as exact as large ones.
    """
    fundamental = np.linalg.inv(np.eye(len(system.start)) - system.go.toarray())
    visits, to_come = system.start @ fundamental, fundamental @ system.earns
    total = system.start @ to_come
    lost = np.zeros((len(system.channels), 2))
    for index in range(len(system.channels)):
        of_it = np.flatnonzero(system.newest == index)
        lost[index] = visits[of_it] @ np.linalg.solve(fundamental[np.ix_(of_it, of_it)], to_come[of_it])
    return _parts(lost, total)


def _lost_sparse(system: _System) -> NDArray[np.float64]:
    """By channel and measure the part lost, of a system too large for its inverse.

    All systems, one for each channel that is taken away and one for none, are solved at once by the series
    start (I + Q + Q^2 + ...). Its terms are what is under way after so many visits; they only fall, so that what is
    left out is known to be less than what is under way at its end. Factorising is no way out: the states of order k
    are so well connected that the factors fill.
    """
    none_away = np.full(1, len(system.channels))
    back = system.go.T.tocsr()
    total = _earned(system, back, none_away, _NEGLIGIBLE**2)[0]
    step = max(1, _CELLS // len(system.start))
    each = np.arange(len(system.channels))
    blocks = [each[begin : begin + step] for begin in range(0, len(each), step)]
    left = np.concatenate([_earned(system, back, block, _NEGLIGIBLE * total[0]) for block in blocks])
    return _parts(total - left, total)


def _earned(system: _System, back: sparse.csr_array, away: NDArray[np.int64], negligible: float) -> NDArray[np.float64]:
    """What is earned, by measure, while each of some channels is away."""
    stays = (system.newest[:, None] != away).astype(float)
    under_way = system.start[:, None] * stays
    visits = under_way.copy()
    for _ in range(_ROUNDS):
        under_way = stays * (back @ under_way)
        visits += under_way
        if under_way.sum(axis=0).max() <= negligible:
            break
    else:
        _finish(back, system.start, stays, visits)
    earned: NDArray[np.float64] = visits.T @ system.earns
    return earned


def _finish(back: sparse.csr_array, start: Vector, stays: NDArray[np.float64], visits: NDArray[np.float64]) -> None:
    """Solve the systems from where the series came to: endless journeys of a few leave little to do."""
    from scipy.sparse.linalg import gmres  # noqa: PLC0415  # hardly ever needed, and slow to load

    for index in range(visits.shape[1]):
        kept = sparse.diags_array(stays[:, index])
        system = sparse.eye_array(len(start)) - kept @ back
        visits[:, index], _ = gmres(system, start * stays[:, index], x0=visits[:, index], rtol=1e-13, atol=0.0)


def _parts(lost: NDArray[np.float64], total: Vector) -> NDArray[np.float64]:
    return np.divide(lost, total, out=np.zeros_like(lost), where=total > 0)


def count_steps(journeys: Mapping[State, int], order: int) -> tuple[dict[tuple[State, str], int], dict[State, int]]:
    """The steps onward, and the states in which they end, of journeys by their sequence of channels.

    Runs of one channel count as one visit.
    """
    onward: dict[tuple[State, str], int] = {}
    ends: dict[State, int] = {}
    for sequence, times in journeys.items():
        visits = collapsed(sequence)
        for index, channel in enumerate(visits):
            step = visits[max(0, index - order) : index], channel
            onward[step] = onward.get(step, 0) + times
        end = visits[-order:]
        ends[end] = ends.get(end, 0) + times
    return onward, ends


def collapsed(sequence: State) -> State:
    """A run of one channel is one visit."""
    return (*sequence[:1], *(channel for before, channel in pairwise(sequence) if channel != before))
