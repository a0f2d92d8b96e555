"""A round robin gives everybody what is theirs, never a whole lead early or late."""

from collections import Counter
from fractions import Fraction
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from services.routing.assignments.turns import FINEST, next_turn, settle_turn
from shared.ids import RepId

Weights = list[tuple[RepId, int]]


def reps(weights: list[int]) -> Weights:
    return [(RepId(f"rep-{index}"), weight) for index, weight in enumerate(weights)]


def give(weights: Weights, leads: int, credits: dict[RepId, Fraction] | None = None) -> list[RepId]:
    """Who gets each of so many leads, in order."""
    held = dict(credits or {})
    order = []
    for _ in range(leads):
        turn = next_turn(weights, held)
        held |= turn.credits
        order.append(turn.rep_id)
    return order


def names(order: list[RepId]) -> str:
    return "".join(rep_id.removeprefix("rep-") for rep_id in order)


def test_equal_weights_take_turns_in_order() -> None:
    assert names(give(reps([100, 100, 100]), 7)) == "0120120"


def test_half_a_weight_gets_every_third_lead() -> None:
    assert names(give(reps([100, 50]), 6)) == "010010"


@given(st.integers(1, 12), st.integers(1, 200))
def test_with_equal_weights_nobody_is_ever_a_whole_lead_from_entitlement(members: int, leads: int) -> None:
    received: Counter[RepId] = Counter()
    for count, rep_id in enumerate(give(reps([100] * members), leads), start=1):
        received[rep_id] += 1
        assert all(abs(Fraction(count, members) - received[rep]) < 1 for rep, _ in reps([1] * members))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=10))
def test_with_any_weights_nobody_is_ever_a_whole_lead_from_entitlement(weights: list[int]) -> None:
    total = sum(weights)
    received: Counter[RepId] = Counter()
    for count, rep_id in enumerate(give(reps(weights), min(total, 250)), start=1):
        received[rep_id] += 1
        for rep, weight in reps(weights):
            assert abs(Fraction(count * weight, total) - received[rep]) < 1


def test_weights_that_make_a_plain_smooth_round_robin_late_are_served_in_time() -> None:
    weights = [5, 1, 12, 5, 1, 100, 100, 5]
    received: Counter[RepId] = Counter()
    for count, rep_id in enumerate(give(reps(weights), sum(weights)), start=1):
        received[rep_id] += 1
        assert all(abs(Fraction(count * weight, sum(weights)) - received[rep]) < 1 for rep, weight in reps(weights))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_whole_cycle_gives_exactly_the_weights(weights: list[int]) -> None:
    cycle = sum(weights) // gcd(*weights)
    received = Counter(give(reps(weights), 2 * cycle))
    assert received == {rep: 2 * weight // gcd(*weights) for rep, weight in reps(weights)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), st.integers(0, 50), st.integers(1, 100))
def test_an_absent_member_returns_without_a_flood(weights: list[int], before: int, away: int) -> None:
    everybody = reps(weights)
    credits: dict[RepId, Fraction] = {}
    for present in [everybody] * before + [everybody[1:]] * away:
        credits |= next_turn(present, credits).credits
    total, mine = sum(weights), weights[0]
    received = 0
    for count in range(1, 2 * total + 1):
        turn = next_turn(everybody, credits)
        credits |= turn.credits
        received += turn.rep_id == everybody[0][0]
        assert received <= Fraction(count * mine, total) + 2


def test_a_joiner_starts_level_and_catches_up_nothing() -> None:
    two = reps([100, 100])
    credits: dict[RepId, Fraction] = {}
    for _ in range(20):
        credits |= next_turn(two, credits).credits
    received = Counter(give([*two, (RepId("rep-new"), 100)], 9, credits))
    assert received[RepId("rep-new")] == 3


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=120))
def test_credits_stay_storable_however_members_come_and_go(presences: list[list[bool]]) -> None:
    everybody = reps([97, 89, 83, 79, 73])
    credits: dict[RepId, Fraction] = {}
    for presence in presences:
        present = [member for member, here in zip(everybody, presence, strict=True) if here]
        if present:
            credits |= next_turn(present, credits).credits
    assert all(credit.denominator <= FINEST and abs(credit) < 4 for credit in credits.values())


def test_books_settled_for_a_known_rep_equal_the_turn_that_chose_it() -> None:
    weights = reps([3, 2, 1])
    credits: dict[RepId, Fraction] = {}
    for _ in range(10):
        turn = next_turn(weights, credits)
        assert settle_turn(weights, credits, turn.rep_id).credits == turn.credits
        credits |= turn.credits
