"""When a decaying score next turns a condition: never missed, compared with looking everywhere."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scoring.engagement.domain import Engagement, Touch
from services.scoring.fit.domain import Fit
from services.scoring.rules.document import RuleSet, rule_set
from services.scoring.stages.domain import Standing, Verdict
from shared.ids import EventId
from shared.rules import Comparison, Evaluation, comparisons_in

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
LOOKS = 120
CONDITIONS = (
    "score.engagement >= 20",
    "score.engagement < 35",
    "score.engagement > 0.5",
    "score.engagement == 12.5",
    "score.total >= 60",
    "62 > score.total",
    "score.engagement * 2.0 > 60.0",
    "score.total - 10.0 >= double(lead.employees) / 4.0",
    "score.engagement * score.engagement - 30.0 * score.engagement > -200.0",
    "100.0 / (score.engagement + 1.0) > score.fit / 8.0",
    "int(score.engagement) % 2 == 0",
    "!(score.engagement - 7.25 <= score.fit - 2.0 * 11.0)",
)
point = st.integers(-60, 60).filter(bool)
half_life = st.sampled_from([0.25, 1, 3.5, 10, 30, 84])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    groups = {"web": draw(st.integers(5, 60)), "email": draw(st.integers(5, 60))}
    rules = [
        {
            "id": kind,
            "when": f"event.type == '{kind}'",
            "points": draw(point),
            "half_life_days": draw(half_life),
            "group": draw(st.sampled_from(["web", "email", None])),
            "hand_raise": draw(st.booleans()),
        }
        for kind in ("one", "two", "three", "four")
    ]
    chosen = draw(st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3, unique=True))
    stages = [{"stage": stage, "when": when} for stage, when in zip(("lead", "mql", "sal"), chosen, strict=False)]
    return {
        "engagement": {"limit": draw(st.sampled_from([40, 100])), "groups": groups, "rules": rules},
        "stages": stages,
    }


@st.composite
def standings(draw: st.DrawFn) -> tuple[RuleSet, Standing]:
    rules = rule_set(1, draw(documents()))
    told = draw(
        st.lists(
            st.tuples(st.sampled_from(["one", "two", "three", "four"]), st.integers(0, 40 * 24)),
            min_size=1,
            max_size=12,
        )
    )
    touches = [
        Touch(EventId(f"{place}"), START - timedelta(hours=hours), kind, {"type": kind})
        for place, (kind, hours) in enumerate(told)
    ]
    engagement, _ = rules.engagement.fold(Engagement(), {}, touches)
    return rules, Standing(engagement, Fit(draw(st.sampled_from([0, 15, 30, 70])), "C"), {"employees": 200})


def truths(rules: RuleSet, standing: Standing, at: datetime) -> list[bool]:
    """Every condition by itself at an instant, by the expression library."""
    score = rules.stages.score(standing, rules.stages.moment(standing, at))
    numbers = {"engagement": score.engagement, "fit": float(score.fit), "total": score.total}
    seen = Evaluation({"score": {**numbers, "hand_raise": score.hand_raise}, "lead": dict(standing.lead)})
    return [rule.when.holds(seen)[0] for rule in rules.stages.rules]


def instants(now: datetime, end: datetime) -> list[datetime]:
    """Dense at the beginning, where decay is fast, and all over."""
    whole = end - now
    near = [now + whole * 0.5 ** (place / 16) for place in range(1, LOOKS)]
    return sorted({*near, *(now + whole * (place / LOOKS) for place in range(1, LOOKS))})


@settings(max_examples=60, deadline=None)
@given(standings(), st.integers(0, 3 * 24))
def test_nothing_turns_before_the_instant_that_is_found_and_something_does_then(
    case: tuple[RuleSet, Standing], hours: int
) -> None:
    rules, standing = case
    now = START + timedelta(hours=hours)
    check = rules.stages.next_check(standing, now)
    before = truths(rules, standing, now)
    end = check.at if check is not None else now + 4_000 * DAY
    for at in instants(now, end):
        if at < end:
            assert truths(rules, standing, at) == before, f"{at} is before {end}"
    if check is None:
        assert truths(rules, standing, end) == before
    elif check.at < now + 7_000 * DAY:
        late, early = truths(rules, standing, check.at), truths(rules, standing, check.at - TICK)
        assert late != early or check.at == standing.engagement.raised_until or _is_young(rules, standing, check.at)


def _is_young(rules: RuleSet, standing: Standing, at: datetime) -> bool:
    """Whether the newest touch counts as just happened until that instant, so that all of its decay shows at once."""
    return rules.stages.moment(standing, at - TICK) != rules.stages.moment(standing, at) - TICK


@settings(max_examples=30, deadline=None)
@given(standings())
def test_walking_from_turn_to_turn_passes_every_stage_that_dense_looking_sees(case: tuple[RuleSet, Standing]) -> None:
    rules, standing = case
    now, until = START + 2 * DAY, START + 60 * DAY
    first = rules.stages.look(standing, Verdict(), now)
    steps = [first, *rules.stages.steps(first.standing, first.verdict, now, until)]
    for at in instants(now, until):
        step = [one for one in steps if one.at <= at][-1]
        assert rules.stages.look(step.standing, step.verdict, at).verdict.stage == step.verdict.stage


def test_a_score_that_only_just_reaches_a_bar_between_two_low_times_is_not_missed() -> None:
    """30 · 2^(−t/30) − 40 · 2^(−t/10) is at its most where x = 2^(−t/30) has 30 = 120 x², so 10 at x = 1/2, day 30."""
    rules = [
        {"id": "slow", "when": "event.type == 'slow'", "points": 30, "half_life_days": 30},
        {"id": "fast", "when": "event.type == 'fast'", "points": -40, "half_life_days": 10},
    ]
    touches = [Touch(EventId(kind), START, kind, {"type": kind}) for kind in ("slow", "fast")]
    for bar in (9.999999, 10.0, 10.000001):
        stages = [{"stage": "mql", "when": f"score.engagement >= {bar}"}]
        compiled = rule_set(1, {"engagement": {"rules": rules}, "stages": stages})
        engagement, _ = compiled.engagement.fold(Engagement(), {}, touches)
        check = compiled.stages.next_check(Standing(engagement, Fit(0, "D")), START + DAY)
        if bar > 10:
            assert check is None
        else:
            assert check is not None
            assert abs(check.at - (START + 30 * DAY)) < timedelta(hours=1)
            early, then = (compiled.engagement.value(engagement, at) for at in (check.at - TICK, check.at))
            assert early < bar <= then


@pytest.mark.parametrize(
    ("source", "bar"),
    [
        ("score.engagement >= 50", (("score", "engagement"), ">=", 50)),
        ("-4 < score.total", (("score", "total"), ">", -4)),
        ("(score['engagement']) != 0x10", (("score", "engagement"), "!=", 16)),
        ("score.engagement * 1.0 >= 50.0", None),
    ],
)
def test_a_comparison_with_a_number_is_a_bar(source: str, bar: Any) -> None:
    (comparison,), understood = comparisons_in(source, lambda path: path[0] == "score")
    assert isinstance(comparison, Comparison)
    assert (comparison.bar(), understood) == (bar, True)


@pytest.mark.parametrize(
    "source",
    ["score.engagement in [10.0, 20.0]", "string(score.total) == '7.0'", "[1.0].exists(n, n * 2.0 < score.total)"],
)
def test_what_does_more_than_compare_is_tried_at_every_whole_point(source: str) -> None:
    document = {"engagement": {"rules": []}, "stages": [{"stage": "mql", "when": source}]}
    assert comparisons_in(source, lambda path: path[0] == "score")[1] is False
    (bars,) = rule_set(1, document).stages.watch.bars.values()
    assert {1.0, 50.0, 100.0} <= set(bars.reached) & set(bars.passed)
