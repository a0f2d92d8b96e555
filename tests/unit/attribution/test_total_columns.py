"""What is counted in columns is what is counted journey by journey."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.attribution.totals.chains import Chain, count_steps
from services.attribution.totals.columns import Journeys, chain_of, sets_of
from services.attribution.totals.games import SetCount

NAMES = ("Direct", "Email", "Paid Search", "SMS")
drawn_journeys = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.booleans(), st.integers(0, 10**9)),
    min_size=1,
    max_size=30,
)
Drawn = list[tuple[list[int], bool, int]]


def columns(drawn: Drawn, names: tuple[str, ...] = NAMES) -> Journeys:
    return Journeys(
        names,
        np.cumsum([0, *(len(channels) for channels, _, _ in drawn)]),
        np.array([channel for channels, _, _ in drawn for channel in channels]),
        np.array([converted for _, converted, _ in drawn]),
        np.array([value if converted else 0 for _, converted, value in drawn]),
    )


def sequence(channels: list[int]) -> tuple[str, ...]:
    return tuple(NAMES[channel] for channel in channels)


@given(drawn_journeys, st.sampled_from([1, 2, 3, 4]))
def test_steps_of_every_order(drawn: Drawn, order: int) -> None:
    every = Counter(sequence(channels) for channels, _, _ in drawn)
    converted = Counter(sequence(channels) for channels, yes, _ in drawn if yes)
    worth: Counter[str] = Counter()
    for channels, yes, value in drawn:
        worth[NAMES[channels[-1]]] += value if yes else 0
    expected = Chain(
        onward=count_steps(every, order)[0],
        converted=count_steps(converted, order)[1],
        lost=count_steps(every - converted, order)[1],
        worth={name: value for name, value in worth.items() if value},
    )
    assert chain_of(columns(drawn), order) == expected


@given(drawn_journeys)
def test_sets_of_channels(drawn: Drawn) -> None:
    expected: dict[tuple[str, ...], SetCount] = {}
    for channels, yes, value in drawn:
        members = tuple(name for place, name in enumerate(NAMES) if place in channels)
        known = expected.get(members, SetCount(0, 0, 0))
        expected[members] = SetCount(
            known.journeys + 1, known.conversions + yes, known.value_minor + (value if yes else 0)
        )
    assert sets_of(columns(drawn)) == expected


def test_more_channels_than_can_be_numbered_are_refused() -> None:
    many = columns([([0, 1], True, 5)], tuple(f"channel {number}" for number in range(70_000)))
    with pytest.raises(OverflowError, match="too many"):
        chain_of(many, 4)
    with pytest.raises(OverflowError, match="too many"):
        sets_of(many)
