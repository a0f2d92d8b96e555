"""Removal effects against exact elimination with fractions, and against sums over all paths of small chains."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attribution.totals import chains
from services.attribution.totals.chains import Chain, State, collapsed, count_steps, removal_effects

Journey = tuple[tuple[str, ...], int | None]
"""The channels of a journey, and what its conversion was worth; None where it did not convert."""

CHANNELS = st.sampled_from("ABCD")
JOURNEYS = st.lists(
    st.tuples(st.lists(CHANNELS, min_size=1, max_size=7).map(tuple), st.none() | st.integers(0, 1_000)),
    min_size=1,
    max_size=25,
)


def chain_of(journeys: list[Journey], order: int) -> Chain:
    converting = Counter(path for path, value in journeys if value is not None)
    losing = Counter(path for path, value in journeys if value is None)
    onward: Counter[tuple[State, str]] = Counter()
    ends = []
    for group in (converting, losing):
        steps, ended = count_steps(group, order)
        onward.update(steps)
        ends.append(ended)
    worth: Counter[str] = Counter()
    for path, value in journeys:
        worth[path[-1]] += value or 0
    return Chain(onward, ends[0], ends[1], worth)


def exact_effects(journeys: list[Journey], order: int) -> tuple[dict[str, Fraction], dict[str, Fraction]]:
    """The definition, word for word: a system for each channel that is away, solved with fractions."""
    counts: dict[State, Counter[str | bool | None]] = {}
    values: dict[str, list[int]] = {}
    for path, value in journeys:
        visits = collapsed(path)
        for index, channel in enumerate(visits):
            counts.setdefault(visits[max(0, index - order) : index], Counter())[channel] += 1
        counts.setdefault(visits[-order:], Counter())[value is not None] += 1
        if value is not None:
            values.setdefault(path[-1], []).append(value)

    def expected(away: str | None, *, in_value: bool) -> Fraction:
        states = sorted(counts)
        place = {state: index for index, state in enumerate(states)}
        rows = [[Fraction(i == j) for j in range(len(states))] + [Fraction()] for i in range(len(states))]
        for state in states:
            whole = sum(counts[state].values())
            row = rows[place[state]]
            for onward, times in counts[state].items():
                part = Fraction(times, whole)
                if onward is True:
                    mean = Fraction(sum(values[state[-1]]), len(values[state[-1]])) if in_value else Fraction(1)
                    row[-1] += part * mean
                elif onward is not False and onward != away:
                    assert isinstance(onward, str)
                    row[place[(*state, onward)[-order:]]] -= part
        return solved(rows)[place[()]]

    channels = sorted({channel for path, _ in journeys for channel in path})
    effects = []
    for in_value in (False, True):
        whole = expected(None, in_value=in_value)
        effects.append({c: 1 - expected(c, in_value=in_value) / whole if whole else Fraction() for c in channels})
    return effects[0], effects[1]


def solved(rows: list[list[Fraction]]) -> list[Fraction]:
    """Gauss-Jordan."""
    for column in range(len(rows)):
        pivot = next(index for index in range(column, len(rows)) if rows[index][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [cell / rows[column][column] for cell in rows[column]]
        for index, row in enumerate(rows):
            if index != column and row[column]:
                rows[index] = [a - row[column] * b for a, b in zip(row, rows[column], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("order", chains.ORDERS)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@settings(max_examples=30)
@given(journeys=JOURNEYS)
def test_effects_are_those_of_the_definition(order: int, dense: bool, journeys: list[Journey]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "_DENSE", 1_200 if dense else 0)
        found = removal_effects(chain_of(journeys, order), order)
    conversions, value = exact_effects(journeys, order)
    assert found.conversions == pytest.approx({c: float(v) for c, v in conversions.items()}, abs=1e-11)
    assert found.value == pytest.approx({c: float(v) for c, v in value.items()}, abs=1e-11)


def test_a_small_chain_by_hand() -> None:
    """A goes on to B in 2 of 4; of 3 at B 2 convert; C leads nowhere. P = 1/2; without A: 1/4, without B: 1/4."""
    journeys: list[Journey] = [
        (("A", "B"), 10),
        (("A", "B"), None),
        (("A",), 30),
        (("B",), 20),
        (("A", "C"), None),
    ]
    found = removal_effects(chain_of(journeys, 1), 1)
    # from A: 2/4 to B, 1/4 to C, 1/4 converts; from B 2/3 converts; start 4/5 A, 1/5 B
    whole = Fraction(4, 5) * (Fraction(1, 4) + Fraction(1, 2) * Fraction(2, 3)) + Fraction(1, 5) * Fraction(2, 3)
    assert whole == Fraction(3, 5)
    assert found.conversions == pytest.approx(
        {
            "A": float(1 - Fraction(2, 15) / whole),
            "B": float(1 - Fraction(4, 5) * Fraction(1, 4) / whole),
            "C": 0.0,
        }
    )


def test_endless_journeys_of_a_few_are_solved_to_the_end() -> None:
    """A robot that goes back and forth 20,000 times makes the series slow; the answer is the same."""
    journeys: list[Journey] = [(("A", "B") * 20_000, None), (("A", "B", "C"), 5), (("C",), 5), (("B",), None)]
    chain = chain_of(journeys, 2)
    expected = removal_effects(chain, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chains, "_DENSE", 0)
        found = removal_effects(chain, 2)
    assert found.conversions == pytest.approx(expected.conversions, rel=1e-9)
    assert found.value == pytest.approx(expected.value, rel=1e-9)


def test_without_conversions_nothing_is_lost() -> None:
    assert removal_effects(chain_of([(("A", "B"), None)], 1), 1).conversions == {"A": 0.0, "B": 0.0}
    assert removal_effects(chain_of([], 1), 1).conversions == {}


@given(JOURNEYS, st.sampled_from(chains.ORDERS))
def test_every_step_and_every_end_is_counted_once(journeys: list[Journey], order: int) -> None:
    sequences = Counter(path for path, _ in journeys)
    onward, ends = count_steps(sequences, order)
    assert sum(ends.values()) == len(journeys)
    assert sum(onward.values()) == sum(len(collapsed(path)) for path, _ in journeys)
    assert sum(times for (state, _), times in onward.items() if not state) == len(journeys)
