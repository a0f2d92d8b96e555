"""A past gone through in steps comes to the same as judging it after every touch and at every midnight."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.scoring.engagement.decay import micros
from services.scoring.engagement.domain import Day, DayKey, Engagement, Touch
from services.scoring.rules.document import RuleSet, rule_set
from services.scoring.rules.replay import Replay, Window
from services.scoring.rules.tariff import Tariff, qualified_stages
from services.scoring.stages.domain import Standing, Verdict
from shared.ids import EventId

NOW = datetime(2026, 6, 20, 15, 30, tzinfo=UTC)
DAYS = 15
MIDNIGHTS = [datetime(2026, 6, 5, tzinfo=UTC) + timedelta(days=day) for day in range(DAYS + 1)]
KINDS = ("view", "click", "form", "demo", "left")
HALF_LIVES = st.sampled_from([1, 2, 4, 20])
CONDITIONS = (
    "score.engagement >= {bar}",
    "score.engagement > {bar}",
    "score.total >= {bar}",
    "score.engagement >= {bar} || score.hand_raise",
    "score.engagement >= {bar} && 'form' in touch_types",
    "score.engagement >= {bar} || scores.beside >= 6",
    "score.engagement >= scores.beside + {bar}.0",
    "score.fit >= 0 && score.engagement <= {bar}",
)


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    """Documents with groups, limits, points that are taken away, several half-lives, and a score beside."""

    def rules(prefix: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
        limits = [{}, {}, {"group": "web"}, {"per_day": 4}, {"once": True}, *more]
        return [
            {
                "id": f"{prefix}{place}",
                "when": f"event.type == '{draw(st.sampled_from(KINDS))}'",
                "points": draw(st.sampled_from([-7, -2, 1, 2, 3, 5, 9])),
                "half_life_days": draw(HALF_LIVES),
                **draw(st.sampled_from(limits)),
            }
            for place in range(draw(st.integers(2, 5)))
        ]

    when = draw(st.sampled_from(CONDITIONS)).format(bar=draw(st.sampled_from([0, 3, 5, 8, 12])))
    leave = {"leave_when": f"score.engagement < {draw(st.sampled_from([1, 2, 4]))}"} if draw(st.booleans()) else {}
    shape = {"groups": {"web": draw(st.sampled_from([4, 7]))}, "limit": 20}
    beside = {**shape, "id": "beside", "rules": rules("beside")}
    engagement = {**shape, "rules": rules("main", {"hand_raise": True})}
    stages = [{"stage": "mql", "when": when, **leave}]
    return rule_set(1, {"engagement": engagement, "scores": [beside], "stages": stages})


TOUCHES = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 25 * 24 * 4), st.sampled_from([False, False, False, True])),
    min_size=4,
    max_size=30,
)


@given(rule_sets(), TOUCHES)
def test_it_is_an_mql_when_a_walk_that_skips_nothing_says_so(rules: RuleSet, told: list[tuple[str, int, bool]]) -> None:
    moments = sorted((NOW - timedelta(minutes=15 * quarters), kind, robot) for kind, quarters, robot in told)
    touches = [
        Touch(EventId(str(n)), at, kind, {"type": kind, "automated": robot})
        for n, (at, kind, robot) in enumerate(moments)
    ]
    tariff = Tariff(rules)
    replay = Replay(tariff, Window(NOW, DAYS), rules.nobody, {})
    for touch in touches:
        replay.touch(micros(touch.occurred_at), None if touch.automated else touch.type, tariff.of(touch))
    replay.end()
    assert replay.spans == _spans(_walk(rules, touches), qualified_stages(rules))


def _walk(rules: RuleSet, touches: list[Touch]) -> Iterator[tuple[int, str]]:
    """When it was judged, and as what."""
    state, days, verdict = Engagement(), dict[DayKey, Day](), Verdict()
    for touch in [*touches, None]:
        until = touch.occurred_at if touch is not None else NOW
        since = state.newest
        for at in [*[one for one in MIDNIGHTS if since is not None and since < one < until], until]:
            if since is not None or touch is None:
                verdict = rules.stages.at(Standing(state, rules.nobody, {}), verdict, at)
                yield micros(at), verdict.stage
        if touch is not None:
            state, changed = rules.engagement.fold(state, days, [touch])
            days |= changed
            verdict = rules.stages.at(Standing(state, rules.nobody, {}), verdict, until)
            yield micros(until), verdict.stage


def _spans(stood: Iterator[tuple[int, str]], qualified: frozenset[str]) -> list[tuple[int, int | None]]:
    spans: list[tuple[int, int | None]] = []
    for at, stage in stood:
        is_open = bool(spans) and spans[-1][1] is None
        if (stage in qualified) and not is_open:
            spans.append((at, None))
        elif stage not in qualified and is_open:
            spans[-1] = (spans[-1][0], at)
    return spans
