"""Stages: reached, held by hysteresis, left on time, and always with the reason."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.scoring.engagement.domain import Engagement, Touch
from services.scoring.fit.domain import Fit
from services.scoring.rules.document import RuleSet, rule_set, shipped_document
from services.scoring.stages.domain import Check, Sales, Standing, Verdict
from shared.ids import EventId

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
NO_SALES = Sales()
SHIPPED = rule_set(1, shipped_document())


def touch(kind: str, at: datetime, **seen: Any) -> Touch:
    return Touch(EventId(f"{kind}@{at.isoformat()}"), at, kind, {"type": kind, "automated": False, **seen})


def standing(rules: RuleSet, *touches: Touch, fit: Fit | None = None, sales: Sales = NO_SALES, **lead: Any) -> Standing:
    engagement, _ = rules.engagement.fold(Engagement(), {}, touches)
    return Standing(engagement, fit or Fit(30, "C"), lead, sales)


def with_stages(*stages: dict[str, str]) -> RuleSet:
    rules = [
        {"id": "demo", "when": "event.type == 'demo'", "points": 50, "hand_raise": True},
        {"id": "view", "when": "event.type == 'view'", "points": 10},
        {"id": "left", "when": "event.type == 'left'", "points": -40, "half_life_days": 10},
    ]
    return rule_set(1, {"engagement": {"rules": rules}, "stages": list(stages)})


MQL = {"stage": "mql", "when": "score.engagement >= 50", "leave_when": "score.engagement < 35"}


def test_nobody_known_is_a_subscriber() -> None:
    assert SHIPPED.stages.settle(Standing(Engagement(), SHIPPED.nobody), Verdict(), START).stage == "subscriber"


def test_points_reach_a_bar_of_their_own_height_and_the_stage_holds_until_its_end() -> None:
    rules = with_stages(MQL)
    lead = standing(rules, touch("demo", START))
    entered = rules.stages.settle(lead, Verdict(), START + 5 * SECOND)
    assert (entered.stage, entered.reason) == ("mql", "mql: score.engagement >= 50")
    leaves = START + 30 * DAY * 0.514573172829758  # log2(50 / 35)
    assert rules.stages.settle(lead, entered, leaves - SECOND).stage == "mql"
    left = rules.stages.settle(lead, entered, leaves + SECOND)
    assert (left.stage, left.reason) == ("subscriber", "mql ended: score.engagement < 35")
    assert rules.stages.settle(lead, Verdict(), leaves - SECOND).stage == "mql", "however late it was heard of"


def test_the_crossing_is_computed_to_the_second() -> None:
    rules = with_stages(MQL)
    lead = standing(rules, touch("demo", START))
    now = START + timedelta(hours=2)
    first = rules.stages.next_check(lead, now)
    assert first is not None
    assert first.below == 35, "50 was passed at once"
    assert abs(first.at - (START + 30 * DAY * 0.514573172829758)) < SECOND
    held = Verdict("mql", frozenset({"mql"}))
    assert rules.stages.settle(lead, held, first.at).stage == "subscriber"
    assert rules.stages.settle(lead, held, first.at - SECOND).stage == "mql"


def test_below_every_bar_nothing_is_due() -> None:
    rules = with_stages(MQL)
    assert rules.stages.next_check(standing(rules, touch("view", START)), START) is None


def test_a_check_that_more_points_only_put_off_is_kept() -> None:
    rules = with_stages(MQL)
    before = rules.stages.next_check(standing(rules, *[touch("view", START - n * SECOND) for n in range(4)]), START)
    assert before is not None
    assert before.below == 35
    more = standing(rules, *[touch("view", START - n * SECOND) for n in range(4)], touch("view", START - 40 * DAY))
    assert rules.stages.next_check(more, START, before) == before
    assert rules.stages.next_check(more, START) != before


def test_a_new_bar_or_a_past_check_is_computed_anew() -> None:
    rules = with_stages(MQL)
    known = Check(START + DAY, 35)
    higher = rules.stages.next_check(
        standing(rules, *[touch("view", START - n * SECOND) for n in range(6)]), START, known
    )
    assert higher is not None
    assert higher.below == 50
    past = rules.stages.next_check(standing(rules, touch("demo", START)), START + 2 * DAY, known)
    assert past is not None
    assert past.at > START + 10 * DAY


def test_bars_of_the_total_move_with_fit() -> None:
    rules = with_stages({"stage": "mql", "when": "score.total >= 60"})
    lead = standing(rules, touch("demo", START), fit=Fit(20, "D"))
    check = rules.stages.next_check(lead, START + DAY)
    assert check is not None
    assert rules.stages.score(lead, check.at).total < 60 <= rules.stages.score(lead, check.at - SECOND).total


def test_arithmetic_is_looked_at_whenever_a_whole_point_is_lost() -> None:
    rules = with_stages({"stage": "mql", "when": "score.engagement * 2.0 > 90.0"})
    lead, now, verdict = standing(rules, touch("demo", START)), START + SECOND, Verdict("mql")
    while verdict.stage == "mql":
        check = rules.stages.next_check(lead, now)
        assert check is not None
        now, verdict = check.at, rules.stages.settle(lead, verdict, check.at)
    assert rules.stages.score(lead, now).engagement == pytest.approx(45, abs=0.001)


def test_decaying_negative_points_raise_the_score_on_time() -> None:
    rules = with_stages({"stage": "mql", "when": "score.engagement >= 20"})
    lead = standing(rules, touch("demo", START), touch("left", START))
    now = START + timedelta(hours=2)
    assert rules.stages.settle(lead, Verdict(), now).stage == "subscriber"
    check = rules.stages.next_check(lead, now)
    assert check is not None
    assert rules.stages.settle(lead, Verdict(), check.at).stage == "mql"
    assert rules.stages.settle(lead, Verdict(), check.at - SECOND).stage == "subscriber"
    later = rules.stages.next_check(lead, check.at)
    assert later is not None
    assert rules.stages.settle(lead, Verdict("mql"), later.at).stage == "subscriber", "and it falls again"


def test_a_hand_raiser_is_an_mql_however_low_the_score_unless_graded_f() -> None:
    lead = [touch("demo_requested", START), touch("unsubscribed", START)]
    low = standing(SHIPPED, *lead, fit=Fit(0, "D"))
    assert SHIPPED.stages.settle(low, Verdict(), START).stage == "mql"
    assert SHIPPED.stages.settle(standing(SHIPPED, *lead, fit=Fit(0, "F")), Verdict(), START).stage == "lead"


def test_an_old_hand_raise_told_late_is_cold_already() -> None:
    lead = standing(SHIPPED, touch("demo_requested", START - 60 * DAY), fit=Fit(0, "D"))
    verdict = SHIPPED.stages.settle(lead, Verdict("lead"), START)
    assert verdict == Verdict("lead")


def test_the_shipped_mql_goes_cold_when_engagement_falls_under_35() -> None:
    lead = standing(SHIPPED, touch("demo_requested", START), fit=Fit(0, "D"))
    verdict, now, looks = SHIPPED.stages.settle(lead, Verdict(), START), START, 0
    while verdict.stage == "mql":
        check = SHIPPED.stages.next_check(lead, now)
        assert check is not None
        now, verdict, looks = check.at, SHIPPED.stages.settle(lead, verdict, check.at), looks + 1
    assert abs(now - (START + 30 * DAY * 0.514573172829758)) < SECOND
    assert looks < 5


@pytest.mark.parametrize(
    ("sales", "kinds", "stage"),
    [
        (Sales(assignment="offered"), [], "mql"),
        (Sales(assignment="accepted"), [], "sal"),
        (Sales(assignment="accepted"), ["meeting_held"], "sql"),
        (Sales(assignment="offered"), ["meeting_held"], "mql"),
        (Sales(assignment="accepted", deal="open"), [], "opportunity"),
        (Sales(assignment="accepted", deal="won"), ["meeting_held"], "customer"),
        (Sales(assignment="accepted", deal="lost"), [], "sal"),
        (Sales(deal="won"), [], "customer"),
        (Sales(assignment="rejected", rejected_at=START + DAY), [], "recycled"),
    ],
)
def test_what_sales_makes_of_a_lead(sales: Sales, kinds: list[str], stage: str) -> None:
    touches = [touch("demo_requested", START), *[touch(kind, START) for kind in kinds]]
    assert SHIPPED.stages.settle(standing(SHIPPED, *touches, sales=sales), Verdict(), START + DAY).stage == stage


def test_a_new_hand_raise_brings_a_recycled_lead_back() -> None:
    rejected = Sales(assignment="rejected", rejected_at=START + DAY)
    again = [touch("demo_requested", START), touch("demo_requested", START + 2 * DAY)]
    lead = standing(SHIPPED, *again, sales=rejected)
    assert SHIPPED.stages.settle(lead, Verdict("recycled"), START + 2 * DAY).stage == "mql"


def test_a_profile_with_a_company_is_a_lead() -> None:
    assert SHIPPED.stages.settle(standing(SHIPPED, company="Acme"), Verdict(), START).stage == "lead"
    assert SHIPPED.stages.settle(standing(SHIPPED, touch("page_view", START)), Verdict(), START).stage == "subscriber"


def test_a_held_stage_survives_a_higher_one() -> None:
    rules = with_stages(MQL, {"stage": "sal", "when": "assignment.state == 'accepted'"})
    touches = [touch("demo", START)]
    day_10 = START + 10 * DAY
    entered = rules.stages.settle(standing(rules, *touches), Verdict(), START)
    accepted = rules.stages.settle(standing(rules, *touches, sales=Sales("accepted")), entered, START + DAY)
    assert accepted.stage == "sal"
    given_back = rules.stages.settle(standing(rules, *touches, sales=Sales("offered")), accepted, day_10)
    assert (given_back.stage, given_back.reason) == ("mql", "sal ended: no longer assignment.state == 'accepted'")


def test_a_cheap_look_ahead_is_never_late_and_exact_for_what_decays_alike() -> None:
    rules = with_stages(MQL)
    lead, now = standing(rules, touch("demo", START), touch("view", START - 3 * DAY)), START + timedelta(hours=2)
    exact, cheap = rules.stages.next_check(lead, now), rules.stages.next_check(lead, now, exactly=False)
    assert exact is not None
    assert cheap is not None
    assert abs(exact.at - cheap.at) < SECOND
    limited = standing(SHIPPED, *[touch("page_view", START - n * DAY, path="/pricing") for n in range(9)])
    exact, cheap = SHIPPED.stages.next_check(limited, now), SHIPPED.stages.next_check(limited, now, exactly=False)
    assert exact is not None
    assert cheap is not None
    assert cheap.at < exact.at
