"""Engagement is the same whatever the order of arrival, decays exactly, and keeps to its limits."""

from datetime import UTC, datetime, timedelta, timezone
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scoring.engagement.decay import Decaying, micros
from services.scoring.engagement.domain import Day, DayKey, Engagement, EngagementRules, Touch
from services.scoring.rules.document import rule_set
from shared.ids import EventId

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def engagement_rules(*rules: dict[str, object], limit: int = 100, **groups: int) -> EngagementRules:
    document = {"engagement": {"limit": limit, "groups": groups, "rules": list(rules)}}
    return rule_set(1, document).engagement


def rule(touch_type: str, points: int, **more: object) -> dict[str, object]:
    return {"id": touch_type, "when": f"event.type == '{touch_type}'", "points": points, **more}


def touch(touch_type: str, at: datetime, name: str = "") -> Touch:
    return Touch(EventId(name or f"{touch_type}@{at.isoformat()}"), at, touch_type, {"type": touch_type})


def folded(rules: EngagementRules, touches: list[Touch]) -> Engagement:
    """One touch at a time, each a transaction of its own."""
    state, days = Engagement(), dict[DayKey, Day]()
    for one in touches:
        state, changed = rules.fold(state, days, [one])
        days |= changed
    return state


def test_points_halve_in_a_half_life() -> None:
    rules = engagement_rules(rule("demo", 50), rule("click", 8, half_life_days=10))
    state = folded(rules, [touch("demo", START), touch("click", START)])
    assert rules.value(state, START) == 58
    assert rules.value(state, START + 30 * DAY) == pytest.approx(50 / 2 + 8 / 8, abs=1e-6)
    assert rules.value(state, START + 47 * DAY) == pytest.approx(50 * 0.5 ** (47 / 30) + 8 * 0.5**4.7, abs=1e-6)


def test_a_day_pays_its_limit_to_the_earliest_and_the_last_of_them_in_part() -> None:
    rules = engagement_rules(rule("view", 3, per_day=10))
    touches = [touch("view", START + timedelta(minutes=n)) for n in range(6)]
    paid = rules.contributions(touches, START)
    assert [(one.awarded, one.occurred_at) for one in paid] == list(
        zip((3, 3, 3, 1), (one.occurred_at for one in touches[:4]), strict=True)
    )
    assert rules.value(folded(rules, touches[::-1]), START + DAY) == rules.value(folded(rules, touches), START + DAY)


def test_a_day_is_a_utc_day() -> None:
    rules = engagement_rules(rule("view", 1, per_day=1))
    late = datetime(2026, 6, 1, 23, 59, tzinfo=timezone(timedelta(hours=-5)))  # already 2 June in UTC
    early = datetime(2026, 6, 2, 3, 0, tzinfo=UTC)
    assert len(rules.contributions([touch("view", early), touch("view", late)], START)) == 1


def test_once_is_paid_for_the_earliest_ever() -> None:
    rules = engagement_rules(rule("signup", 20, once=True))
    state = folded(rules, [touch("signup", START + 30 * DAY), touch("signup", START), touch("signup", START + 9 * DAY)])
    assert rules.value(state, START + 30 * DAY) == pytest.approx(10)


def test_negative_points_are_kept_inside_and_the_display_has_a_floor() -> None:
    rules = engagement_rules(rule("left", -50), rule("demo", 50), rule("careers", -10, per_day=10))
    assert rules.value(folded(rules, [touch("left", START)]), START) == 0
    assert rules.value(folded(rules, [touch("left", START), touch("demo", START + 30 * DAY)]), START + 30 * DAY) == 25
    twice = [touch("demo", START), touch("careers", START), touch("careers", START + timedelta(hours=1))]
    assert rules.value(folded(rules, twice), START) == pytest.approx(40, abs=0.1)


def test_groups_and_the_whole_are_limited() -> None:
    rules = engagement_rules(rule("view", 30, group="web"), rule("demo", 50), limit=80, web=40)
    two_views = [touch("view", START), touch("view", START, "second")]
    assert rules.value(folded(rules, two_views), START) == 40
    assert rules.by_group(folded(rules, two_views), START) == {"web": 60}
    assert rules.value(folded(rules, [*two_views, touch("demo", START)]), START) == 80
    assert rules.value(folded(rules, two_views), START + 30 * DAY) == 30, (
        "the limit cuts what is worth more, not history"
    )


def test_a_raised_hand_stands_for_half_a_half_life() -> None:
    rules = engagement_rules(rule("demo", 50, hand_raise=True))
    state = folded(rules, [touch("demo", START + DAY), touch("demo", START)])
    assert (state.raised_at, state.raised_until) == (START + DAY, START + 16 * DAY)


def test_a_future_touch_counts_whole_and_no_more() -> None:
    rules = engagement_rules(rule("demo", 50, half_life_days=0.001))
    state = folded(rules, [touch("demo", START + DAY)])
    assert rules.value(state, START) == 50


def test_a_tiny_half_life_over_years_stays_small_and_right() -> None:
    rules = engagement_rules(rule("demo", 50, half_life_days=0.00001))
    state = folded(rules, [touch("demo", START - 3000 * DAY), touch("demo", START), touch("demo", START - 1 * DAY)])
    assert rules.value(state, START) == 50
    assert all(total.mantissa.bit_length() <= 320 for total in state.sums.values())


def test_rules_see_the_event_and_a_missing_field_is_no_match() -> None:
    rules = engagement_rules({"id": "pricing", "when": "event.path.contains('pricing')", "points": 5})
    seen = Touch(EventId("a"), START, "page_view", {"type": "page_view", "path": "/pricing"})
    assert [one.rule_id for one in rules.contributions([seen, touch("page_view", START)], START)] == ["pricing"]


EVERY_KIND = (
    rule("view", 3, per_day=10, group="web"),
    rule("pricing", 15, per_day=15, group="web", half_life_days=7.3),
    rule("signup", 20, once=True),
    rule("click", 3, group="email", half_life_days=84),
    rule("left", -50),
    rule("careers", -10, per_day=25),
    rule("demo", 50, hand_raise=True),
)
HISTORIES = st.lists(
    st.tuples(
        st.sampled_from([str(one["id"]) for one in EVERY_KIND]),
        st.integers(min_value=0, max_value=60 * 24 * 5).map(lambda minutes: START + timedelta(minutes=minutes)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(history=HISTORIES, seed=st.integers(0, 2**32), cut=st.integers(1, 7))
def test_any_order_in_any_batches_gives_the_same_engagement(
    history: list[tuple[str, datetime]], seed: int, cut: int
) -> None:
    rules = engagement_rules(*EVERY_KIND, web=40, email=20)
    touches = [touch(kind, at, f"{kind}-{number}") for number, (kind, at) in enumerate(history)]
    shuffled = touches[:]
    Random(seed).shuffle(shuffled)
    state, days = Engagement(), dict[DayKey, Day]()
    for start in range(0, len(shuffled), cut):
        state, changed = rules.fold(state, days, shuffled[start : start + cut])
        days |= changed
    in_one_go, all_days = rules.fold(Engagement(), {}, touches)
    assert state == in_one_go, "bit for bit"
    assert days == all_days
    at = START + 40 * DAY
    explained = rules.contributions(shuffled, at)
    assert explained == rules.contributions(touches, at)
    totals: dict[str, float] = {}
    groups = {str(one["id"]): str(one.get("group", "")) for one in EVERY_KIND}
    for one in explained:
        totals[groups[one.rule_id]] = totals.get(groups[one.rule_id], 0) + one.points
    assert rules.by_group(state, at) == pytest.approx(
        {name: totals.get(name, 0) for name in rules.by_group(state, at)}, abs=1e-3
    )


@settings(max_examples=200, deadline=None)
@given(
    terms=st.lists(st.tuples(st.integers(-100, 100), st.integers(0, 86_400_000_000 * 400)), max_size=30),
    seed=st.integers(0, 2**32),
    half_life=st.integers(86_400_000_000 * 5, 86_400_000_000 * 100),
)
def test_sums_need_no_order_and_can_be_undone(terms: list[tuple[int, int]], seed: int, half_life: int) -> None:
    shuffled = terms[:]
    Random(seed).shuffle(shuffled)
    one, other = Decaying(), Decaying()
    for points, at in terms:
        one = one + Decaying.term(points, at, half_life)
    for points, at in shuffled:
        other = other + Decaying.term(points, at, half_life)
    assert one == other
    for points, at in terms:
        one = one + -Decaying.term(points, at, half_life)
    assert one == Decaying()


def test_micros_are_exact() -> None:
    assert micros(datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC)) % 60_000_000 == 3_456_789
