"""The weights of each model, by its definition."""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction

import pytest

from services.attribution.domain import LOOKBACK, Path, Touch, divide, path_to, told_weights
from services.attribution.models.domain import BUILT_IN, SHIPPED, time_decay
from shared.ids import TouchId

CONVERTED = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def touch(days_before: float, channel: str = "Email", touch_id: str = "") -> Touch:
    at = CONVERTED - days_before * DAY
    return Touch("api", TouchId(touch_id or f"t{days_before}"), at, at, "page_view", channel, "caller")


def path(*days_before: float, lead: float | None = None, deal: float | None = None) -> Path:
    """A path of touches so many days before the conversion; `lead` and `deal` were created so many days before it."""
    return path_to(
        CONVERTED,
        [touch(days) for days in days_before],
        LOOKBACK,
        lead_created_at=None if lead is None else CONVERTED - lead * DAY,
        deal_created_at=None if deal is None else CONVERTED - deal * DAY,
    )


def shares(model: str, of: Path) -> list[Fraction]:
    weights = BUILT_IN[model].weigh(of)
    return [Fraction(weight, sum(weights)) for weight in weights]


@pytest.mark.parametrize("model", BUILT_IN)
def test_single_touch_earns_everything(model: str) -> None:
    assert shares(model, path(3, lead=2, deal=1)) == [1]


def test_first_and_last_touch() -> None:
    assert shares("first_touch", path(3, 2, 1)) == [1, 0, 0]
    assert shares("last_touch", path(3, 2, 1)) == [0, 0, 1]


def test_linear_gives_each_touch_the_same() -> None:
    assert shares("linear", path(3, 2, 1)) == [Fraction(1, 3)] * 3


def test_last_non_direct_passes_over_direct_touches() -> None:
    touches = [touch(4), touch(3, "Paid Search"), touch(2, "Direct"), touch(1, "Direct")]
    assert shares("last_non_direct", path_to(CONVERTED, touches, LOOKBACK)) == [0, 1, 0, 0]


def test_last_non_direct_of_direct_touches_only_is_the_last() -> None:
    touches = [touch(2, "Direct"), touch(1, "Direct")]
    assert shares("last_non_direct", path_to(CONVERTED, touches, LOOKBACK)) == [0, 1]


def test_time_decay_halves_every_seven_days() -> None:
    found = shares("time_decay", path(14, 7, 0))
    assert [float(share) for share in found] == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=1e-25)


def test_time_decay_is_continuous() -> None:
    expected = [2 ** (-days / 7) for days in (89.25, 31.7, 3.2, 0.001)]
    found = [float(share) for share in shares("time_decay", path(89.25, 31.7, 3.2, 0.001))]
    assert found == pytest.approx([one / sum(expected) for one in expected], rel=1e-12)


def test_time_decay_depends_on_the_half_life_alone_and_not_on_the_window() -> None:
    touches = [touch(21), touch(14)]
    found = [shares("time_decay", path_to(CONVERTED, touches, window)) for window in (LOOKBACK, 30 * DAY, None)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (path(2, 1), [Fraction(1, 2)] * 2),
        (path(3, 2, 1), [Fraction(2, 5), Fraction(1, 5), Fraction(2, 5)]),
        (path(5, 4, 3, 2, 1), [Fraction(2, 5), *[Fraction(1, 15)] * 3, Fraction(2, 5)]),
    ],
)
def test_position_based_is_40_20_40(of: Path, expected: list[Fraction]) -> None:
    assert shares("position_based", of) == expected


def test_w_shaped_gives_30_to_each_milestone_and_shares_10() -> None:
    found = shares("w_shaped", path(6, 5, 4, 3, 2, 1, lead=5, deal=3))
    assert found == [
        Fraction(3, 10),
        Fraction(3, 10),
        Fraction(1, 30),
        Fraction(3, 10),
        Fraction(1, 30),
        Fraction(1, 30),
    ]


def test_milestones_on_one_touch_add_up() -> None:
    assert shares("w_shaped", path(3, 2, lead=3, deal=2.5)) == [Fraction(9, 10), Fraction(1, 10)]


def test_milestone_that_never_happened_contributes_nothing() -> None:
    assert shares("w_shaped", path(3, 2, lead=None, deal=2)) == [Fraction(1, 2)] * 2
    assert shares("w_shaped", path(3, 2, lead=4)) == [Fraction(3, 4), Fraction(1, 4)]


def test_milestone_is_the_last_touch_at_or_before_it() -> None:
    assert path(3, 2, 1, lead=2).lead == 1
    assert path(3, 2, 1, lead=1.5).lead == 1
    assert path(3, 2, 1, lead=3.5).lead is None


def test_full_path_gives_225_to_each_of_four_milestones_and_shares_10() -> None:
    found = shares("full_path", path(6, 5, 4, 3, 2, 1, lead=5, deal=3))
    assert found == [
        Fraction(9, 40),
        Fraction(9, 40),
        Fraction(1, 20),
        Fraction(9, 40),
        Fraction(1, 20),
        Fraction(9, 40),
    ]


def test_full_path_without_touches_in_between_is_divided_by_the_sum() -> None:
    assert shares("full_path", path(2, 1, lead=2, deal=1)) == [Fraction(1, 2)] * 2


def percent(*parts: int) -> list[Fraction]:
    """Percentages as fractions."""
    return [Fraction(part, 100) for part in parts]


@pytest.mark.parametrize(
    ("model", "two", "three", "five"),
    [
        ("j_shaped", percent(25, 75), percent(20, 20, 60), [Fraction(1, 5), *[Fraction(1, 15)] * 3, Fraction(3, 5)]),
        ("inverse_j", percent(75, 25), percent(60, 20, 20), [Fraction(3, 5), *[Fraction(1, 15)] * 3, Fraction(1, 5)]),
    ],
)
def test_j_shapes(model: str, two: list[Fraction], three: list[Fraction], five: list[Fraction]) -> None:
    assert shares(model, path(2, 1)) == two
    assert shares(model, path(3, 2, 1)) == three
    assert shares(model, path(5, 4, 3, 2, 1)) == five


def test_u_shape_gives_40_to_the_first_and_the_lead_touch_and_20_to_those_that_carry_neither() -> None:
    assert shares("u_shaped_lead", path(4, 3, 2, 1, lead=2)) == percent(40, 10, 40, 10)
    assert shares("u_shaped_lead", path(4, 3, 2, 1, lead=1)) == percent(40, 10, 10, 40)


def test_u_shape_does_not_drift_where_first_and_lead_touch_coincide() -> None:
    assert shares("u_shaped_lead", path(3, 2, 1, lead=3)) == percent(80, 10, 10)


def test_u_shape_without_a_lead_or_without_others_is_divided_by_the_sum() -> None:
    assert shares("u_shaped_lead", path(3, 2, 1)) == [Fraction(2, 3), Fraction(1, 6), Fraction(1, 6)]
    assert shares("u_shaped_lead", path(2, 1, lead=1)) == percent(50, 50)


def test_participation_gives_the_conversion_whole_to_the_first_touch_of_each_channel() -> None:
    touches = [touch(5), touch(4, "Paid Search"), touch(3), touch(2, "Direct"), touch(1, "Paid Search")]
    found = divide(path_to(CONVERTED, touches, LOOKBACK), 700, BUILT_IN["participation"])
    assert found.value_minor == (0, 700, 700, 0, 700, 0)
    assert [units / 10**10 for units in found.units] == [0, 1, 1, 0, 1, 0]


def test_ages_of_many_half_lives_weigh_nothing_and_cost_no_time() -> None:
    weights = time_decay(path_to(CONVERTED, [touch(36_500), touch(0.5), touch(0)], None), DAY / 1_000)
    assert weights[0] == weights[1] == 0 < weights[2]
    close = time_decay(path_to(CONVERTED, [touch(0.2), touch(0)], None), DAY / 1_000)
    assert weights[2] == close[1] == close[0] * 2**200


@pytest.mark.parametrize("days", range(1, 224, 37))
def test_whole_half_lives_are_exact(days: int) -> None:
    older, newer = time_decay(path_to(CONVERTED, [touch(days), touch(0)], None), DAY)
    assert newer == older * 2**days


def test_weights_are_told_as_fractions_or_to_28_digits() -> None:
    assert told_weights(path(3, 2, 1), BUILT_IN["linear"]) == ["1/3", "1/3", "1/3"]
    assert told_weights(path(3, 2, 1), BUILT_IN["last_touch"]) == ["0", "0", "1"]
    assert told_weights(path(3, 2, 1, lead=3), BUILT_IN["u_shaped_lead"]) == ["4/5", "1/10", "1/10"]
    assert told_weights(path(7, 0), BUILT_IN["time_decay"]) == [
        "0.3333333333333333333333333333",
        "0.6666666666666666666666666667",
    ]
    assert told_weights(path(3, 2), BUILT_IN["participation"]) == ["1", "0"]


def test_time_decay_is_right_to_28_digits() -> None:
    context = Context(prec=60)
    exact = [context.power(2, context.divide(Decimal(-days), Decimal(7))) for days in (10, 3)]
    expected = [Context(prec=28).divide(one, context.add(*exact)) for one in exact]
    assert [Decimal(told) for told in told_weights(path(10, 3), BUILT_IN["time_decay"])] == expected


def test_every_name_of_the_definitions_is_there() -> None:
    assert set(SHIPPED) == {
        *("first_touch", "last_touch", "linear", "time_decay", "last_non_direct", "position_based", "w_shaped"),
        *("full_path", "markov", "shapley", "j_shaped", "inverse_j", "u_shaped_lead", "participation"),
    }
