"""What holds for the credits of every conversion, whatever the history."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attribution.channels.domain import NOT_SET, UNATTRIBUTED
from services.attribution.domain import (
    LOOKBACK,
    NOBODY,
    SHARE_UNITS,
    Division,
    Model,
    Path,
    TotalsModel,
    Touch,
    combo_of,
    divide,
    left_after_refunds,
    path_to,
    reason_against,
    split,
)
from services.attribution.models.custom import DEFAULT_MODELS, ModelDocument, compile_model
from services.attribution.models.domain import BUILT_IN, BuiltIn, linear
from shared.ids import TouchId

pytestmark = pytest.mark.slow

CONVERTED = datetime(2026, 11, 1, 12, tzinfo=UTC)
ENGAGED = compile_model("engaged", 1, ModelDocument.model_validate(DEFAULT_MODELS["engaged"]))
assert not isinstance(ENGAGED, TotalsModel)
SPLITTING: dict[str, Model] = {**BUILT_IN, "engaged": ENGAGED}
MODELS = {name: model for name, model in SPLITTING.items() if not model.whole}

moments = st.integers(-100 * 86_400, 5 * 86_400).map(lambda seconds: CONVERTED + timedelta(seconds=seconds))
touches = st.builds(
    Touch,
    origin=st.sampled_from(["api", "site"]),
    touch_id=st.integers(0, 10_000).map(lambda n: TouchId(f"t{n:05}")),
    occurred_at=moments,
    received_at=moments,
    type=st.sampled_from(["page_view", "email_opened", "demo_requested", "unsubscribed"]),
    channel=st.sampled_from(["Direct", "Email", "Paid Search", "Organic Social"]),
    channel_rule=st.just("caller"),
    source=st.none() | st.sampled_from(["google", "news"]),
    automated=st.booleans(),
)
journeys = st.lists(touches, max_size=30, unique_by=lambda touch: (touch.touch_id, touch.origin))
values = st.integers(0, 10**12)
long_paths = st.lists(st.integers(0, 90 * 86_400), min_size=1, max_size=1_000).map(
    lambda ages: [a_touch(CONVERTED - timedelta(seconds=age), f"t{number:04}") for number, age in enumerate(ages)]
)
model_names = st.sampled_from(sorted(MODELS))


def path_of(journey: list[Touch], lead: datetime | None = None, deal: datetime | None = None) -> Path:
    return path_to(CONVERTED, journey, LOOKBACK, lead_created_at=lead, deal_created_at=deal)


@given(values, st.lists(st.integers(0, 10**30), min_size=1, max_size=40).filter(any))
def test_parts_sum_to_the_total_and_are_less_than_one_unit_off(total: int, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    assert all(
        abs(part - Fraction(total * weight, sum(weights))) < 1 for part, weight in zip(parts, weights, strict=True)
    )


def test_of_equal_remainders_the_earlier_is_rounded_up() -> None:
    assert split(100, [1, 1, 1]) == [34, 33, 33]
    assert split(200, [1, 1, 1]) == [67, 67, 66]
    assert split(1, [1, 1]) == [1, 0]


def test_larger_remainder_goes_before_the_earlier_one() -> None:
    assert split(10, [1, 2, 3]) == [2, 3, 5]


@given(journeys, values, model_names, st.none() | moments, st.none() | moments)
def test_credits_sum_exactly_to_the_value_and_to_one_conversion(
    journey: list[Touch], value: int, name: str, lead: datetime | None, deal: datetime | None
) -> None:
    path = path_of(journey, lead, deal)
    found = divide(path, value, MODELS[name])
    assert len(found.units) == len(found.value_minor) == 1 + len(path.touches)
    assert sum(found.value_minor) == value
    assert sum(found.units) == SHARE_UNITS
    assert min(*found.value_minor, *found.units, 0) == 0


@settings(max_examples=40)
@given(long_paths, st.integers(0, 10**15), model_names, st.none() | moments, st.none() | moments)
def test_credits_of_the_longest_paths_are_less_than_one_minor_unit_off(
    journey: list[Touch], value: int, name: str, lead: datetime | None, deal: datetime | None
) -> None:
    path = path_of(journey, lead, deal)
    found = divide(path, value, MODELS[name])
    weights = MODELS[name].weigh(path)
    assert (sum(found.value_minor), sum(found.units)) == (value, SHARE_UNITS)
    for parts, total in ((found.value_minor[1:], value), (found.units[1:], SHARE_UNITS)):
        exact = [Fraction(total * weight, sum(weights)) for weight in weights]
        assert all(abs(part - one) < 1 for part, one in zip(parts, exact, strict=True))


@given(journeys, values, model_names, st.none() | moments, st.none() | moments)
def test_longer_path_changes_nothing_for_a_model_that_looks_less_far_back(
    journey: list[Touch], value: int, name: str, lead: datetime | None, deal: datetime | None
) -> None:
    longer = path_to(CONVERTED, journey, None, lead_created_at=lead, deal_created_at=deal)
    path = path_of(journey, lead, deal)
    older = [0] * (len(longer.touches) - len(path.touches))
    units, minor = divide(path, value, MODELS[name]).units, divide(path, value, MODELS[name]).value_minor
    assert divide(longer, value, MODELS[name]) == Division(
        (units[0], *older, *units[1:]), (minor[0], *older, *minor[1:])
    )


@given(journeys, values, model_names, st.randoms(use_true_random=False))
def test_credits_do_not_depend_on_the_order_of_arrival(
    journey: list[Touch], value: int, name: str, order: random.Random
) -> None:
    shuffled = order.sample(journey, len(journey))
    assert divide(path_of(shuffled), value, MODELS[name]) == divide(path_of(journey), value, MODELS[name])


@given(journeys, touches, values, model_names)
def test_touch_that_may_not_earn_changes_nothing(journey: list[Touch], other: Touch, value: int, name: str) -> None:
    kept = [touch for touch in journey if (touch.touch_id, touch.origin) != (other.touch_id, other.origin)]
    if reason_against(other, CONVERTED, LOOKBACK) is not None:
        with_other = divide(path_of([*kept, other]), value, MODELS[name])
        assert with_other == divide(path_of(kept), value, MODELS[name])


@given(journeys, values, values, model_names)
def test_another_value_moves_no_share(journey: list[Touch], value: int, corrected: int, name: str) -> None:
    before = divide(path_of(journey), value, MODELS[name])
    assert before.units == divide(path_of(journey), corrected, MODELS[name]).units


def a_touch(at: datetime, touch_id: str = "t", **more: object) -> Touch:
    return Touch("api", TouchId(touch_id), at, at, "page_view", "Email", "caller", **more)  # type: ignore[arg-type]  # fields by name


def test_lookback_includes_both_ends() -> None:
    assert reason_against(a_touch(CONVERTED), CONVERTED, LOOKBACK) is None
    assert reason_against(a_touch(CONVERTED - LOOKBACK), CONVERTED, LOOKBACK) is None
    instant = timedelta(microseconds=1)
    assert reason_against(a_touch(CONVERTED - LOOKBACK - instant), CONVERTED, LOOKBACK) == "too_old"
    assert reason_against(a_touch(CONVERTED + instant), CONVERTED, LOOKBACK) == "after_conversion"


def test_without_a_lookback_touches_of_any_age_earn() -> None:
    assert reason_against(a_touch(CONVERTED - 4_000 * LOOKBACK / 90), CONVERTED, None) is None


def test_what_a_machine_did_earns_nothing() -> None:
    assert reason_against(a_touch(CONVERTED, automated=True), CONVERTED, LOOKBACK) == "automated"


def test_of_two_touches_in_one_instant_the_id_decides_and_both_earn() -> None:
    path = path_of([a_touch(CONVERTED, "b"), a_touch(CONVERTED, "a")])
    assert [touch.touch_id for touch in path.touches] == ["a", "b"]
    assert divide(path, 101, BUILT_IN["linear"]).value_minor == (0, 51, 50)


@pytest.mark.parametrize("name", MODELS)
def test_conversion_without_a_touch_is_kept_unattributed(name: str) -> None:
    assert divide(path_of([]), 12_345, MODELS[name]) == Division((SHARE_UNITS,), (12_345,))
    assert NOBODY.channel == NOBODY.campaign == UNATTRIBUTED


@pytest.mark.parametrize("name", MODELS)
def test_conversion_without_value_counts_as_one(name: str) -> None:
    found = divide(path_of([a_touch(CONVERTED, "a"), a_touch(CONVERTED, "b")]), 0, MODELS[name])
    assert (sum(found.units), sum(found.value_minor)) == (SHARE_UNITS, 0)


def test_touch_counts_under_what_it_is_known_to_come_from() -> None:
    combo = a_touch(CONVERTED, source="google", page="https://shop.example/offer?id=7#top").combo
    assert (combo.channel, combo.source, combo.campaign) == ("Email", "google", NOT_SET)
    assert (combo.landing_page, combo.touch_type) == ("https://shop.example/offer", "page_view")


def test_what_counts_under_the_same_has_the_same_number_everywhere() -> None:
    assert combo_of(("Email", "a", "b", "c", "d", "e", "f")).combo_id == -916_387_578_577_091_340
    assert combo_of(("Email", "ab", "", "c", "d", "e", "f")) != combo_of(("Email", "a", "b", "c", "d", "e", "f"))


def test_touches_up_to_the_conversion_before_do_not_earn_where_a_model_begins_anew() -> None:
    @dataclass(frozen=True)
    class Anew(BuiltIn):
        reset_after_conversion: bool = True

    model = Anew("anew", "Anew", linear)
    first, bought, last = (CONVERTED - timedelta(days=days) for days in (3, 2, 1))
    path = path_of([a_touch(first, "a"), a_touch(bought, "b"), a_touch(last, "c")])
    assert divide(path, 9, model).value_minor == (0, 3, 3, 3)
    assert divide(path, 9, model, bought).value_minor == (0, 0, 0, 9)
    assert divide(path, 9, model, last).value_minor == (9, 0, 0, 0)


def test_refunds_never_take_more_than_there_is() -> None:
    assert left_after_refunds(1_000, [300, 200]) == 500
    assert left_after_refunds(1_000, [800, 800]) == 0
