"""Shapley values against the definition: the mean over all orders of the channels, with fractions."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attribution.domain import Game
from services.attribution.totals import games
from services.attribution.totals.games import SetCount, shapley

Sets = dict[tuple[str, ...], SetCount]
COUNTS = st.builds(
    lambda lost, values: SetCount(lost + len(values), len(values), sum(values)),
    st.integers(0, 30),
    st.lists(st.integers(0, 500), max_size=5),
)
SETS = st.dictionaries(
    st.sets(st.sampled_from("ABCDE"), min_size=1).map(lambda each: tuple(sorted(each))), COUNTS, min_size=1, max_size=12
)
GAMES: tuple[Game, ...] = ("subset_rate", "subset_conversions", "observed_set_rate")


def by_orders(players: list[str], game: Callable[[frozenset[str]], Fraction]) -> dict[str, Fraction]:
    """The Shapley value as it is defined."""
    values = dict.fromkeys(players, Fraction())
    orders = list(permutations(players))
    for order in orders:
        for index, channel in enumerate(order):
            before = frozenset(order[:index])
            values[channel] += (game(before | {channel}) - game(before)) / len(orders)
    return values


def expected(sets: Sets, game: Game, measure: Callable[[SetCount], int]) -> dict[str, Fraction]:
    players = sorted({channel for each in sets for channel in each})
    total = Fraction(sum(measure(count) for count in sets.values()))

    def rate(chosen: list[SetCount]) -> Fraction:
        journeys = sum(count.journeys for count in chosen)
        return Fraction(sum(map(measure, chosen)), journeys) if journeys else Fraction()

    if game == "observed_set_rate":
        values = dict.fromkeys(players, Fraction())
        for target, count in sets.items():
            if count.conversions:
                exactly = by_orders(
                    list(target), lambda s: rate([sets[tuple(sorted(s))]]) if tuple(sorted(s)) in sets else Fraction()
                )
                for channel, value in exactly.items():
                    values[channel] += value * count.journeys
        return values

    def within(coalition: frozenset[str]) -> Fraction:
        chosen = [count for each, count in sets.items() if coalition >= set(each)]
        return rate(chosen) if game == "subset_rate" else Fraction(sum(map(measure, chosen)))

    values = by_orders(players, within)
    whole = sum(values.values())
    return {channel: value * total / whole if whole else Fraction() for channel, value in values.items()}


@pytest.mark.parametrize("game", GAMES)
@settings(max_examples=50)
@given(sets=SETS)
def test_values_are_the_mean_over_all_orders(game: Game, sets: Sets) -> None:
    found = shapley(sets, game)
    if not any(count.conversions for count in sets.values()):
        assert set(found.conversions.values()) == {0.0}
        return
    for measure, values in (
        (lambda count: count.conversions, found.conversions),
        (lambda count: count.value_minor, found.value),
    ):
        exact = expected(sets, game, measure)
        assert {c: float(v) for c, v in values.items()} == pytest.approx(
            {c: float(v) for c, v in exact.items()}, abs=1e-9
        )
    assert found.error is None


def test_equal_split_is_exact() -> None:
    found = shapley({("A", "B", "C"): SetCount(1, 1, 100), ("A",): SetCount(2, 1, 50)}, "subset_conversions")
    assert found.conversions == {"A": Fraction(4, 3), "B": Fraction(1, 3), "C": Fraction(1, 3)}
    assert found.value == {"A": 50 + Fraction(100, 3), "B": Fraction(100, 3), "C": Fraction(100, 3)}


def test_a_channel_that_keeps_people_away_has_a_negative_value() -> None:
    sets = {("A",): SetCount(10, 10, 1_000), ("A", "B"): SetCount(90, 0, 0)}
    # v(A) = 1, v(B) = 0, v(AB) = 0.1: A has (1 + 0.1) / 2, B (0 - 0.9) / 2, of 0.1 which stands for 10 conversions
    assert shapley(sets, "subset_rate").conversions == pytest.approx({"A": 55, "B": -45})


def many_channels(number: int) -> Sets:
    names = [f"c{index:02}" for index in range(number)]
    sets: Sets = {}
    for index, name in enumerate(names):
        other, third = names[(index * 7 + 3) % number], names[(index * 5 + 1) % number]
        sets[tuple(sorted({name}))] = SetCount(100 + index, 5 + index % 7, 100 * index)
        sets[tuple(sorted({name, other}))] = SetCount(50, 6, 900)
        sets[tuple(sorted({name, other, third}))] = SetCount(30, 4 + index % 3, 50)
    return sets


def test_sampled_values_lie_within_their_error_and_are_the_same_each_time() -> None:
    sets = many_channels(12)
    exact = shapley(sets, "subset_rate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(games, "MOST_EXACT", 11)
        sampled, again = shapley(sets, "subset_rate"), shapley(dict(reversed(sets.items())), "subset_rate")
    assert sampled == again
    assert sampled.error is not None
    for channel, value in exact.conversions.items():
        off = abs(float(sampled.conversions[channel]) - float(value))
        assert 0 < off < 5 * sampled.error[channel][0]
        assert sampled.error[channel][0] < 0.06 * float(value)
    assert sum(sampled.conversions.values()) == pytest.approx(sum(count.conversions for count in sets.values()))


def test_drawn_sets_lie_within_their_error() -> None:
    every_set = [each for size in range(1, 7) for each in combinations("ABCDEF", size)]
    sets = {each: SetCount(20 + 7 * place, 3 + place % 5, 10 * place) for place, each in enumerate(every_set)}
    exact = shapley(sets, "observed_set_rate")
    assert exact.error is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(games, "_PAIRS", len(sets) ** 2 - 1)
        sampled = shapley(sets, "observed_set_rate")
    assert sampled.error is not None
    for channel, value in exact.conversions.items():
        assert abs(float(sampled.conversions[channel]) - float(value)) < 5 * sampled.error[channel][0] + 1e-9


def test_sixteen_channels_are_exact_and_seventeen_show_their_error() -> None:
    assert shapley(many_channels(16), "subset_rate").error is None
    assert shapley(many_channels(17), "subset_rate").error is not None
