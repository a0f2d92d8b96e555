"""Variants, the statistics that allow looking early, and what is ruled by them."""

import math
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import betaln

from services.nurture.experiments.domain import (
    Standing,
    Tally,
    Trial,
    choose,
    is_held_out,
    judge,
    sentence,
    state_of,
)
from services.nurture.experiments.statistics import (
    ALPHA,
    PRIOR,
    Amounts,
    amounts_p,
    difference_interval,
    labels_p,
    rate_interval,
    ratio_interval,
)
from services.nurture.sequences.document import Experiment
from shared.ids import LeadId, SequenceId
from shared.rules import InvalidDocument
from tests.unit.nurture.test_runs import HELLO, plan_of

DRIP = SequenceId("drip")
NOBODY = Standing()


def trial(*weights: int, **more: Any) -> Trial:
    variants = [{"id": name, "weight": weight} for name, weight in zip("abcdef", weights, strict=False)]
    return Trial("hello", Experiment.model_validate({"id": "test", "variants": variants, **more}))


def given_to(one: Trial, standing: Standing = NOBODY, people: int = 3_000) -> list[str]:
    return [choose(one, DRIP, LeadId(f"lead-{number}"), (), standing).variant.id for number in range(people)]


@pytest.mark.parametrize(
    ("yes", "no"), [(0, 0), (0, 9), (9, 0), (15, 16), (1, 99_999), (400_000, 600_000), (10**7, 10**8)]
)
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_intervals_and_p_values_are_those_of_a_library_to_many_digits(yes: int, no: int, share: float) -> None:
    a, b = PRIOR * share, PRIOR * (1 - share)
    mixed = betaln(a + yes, b + no) - betaln(a, b)

    def likely(part: float) -> float:
        return float(yes * np.log(part) + no * np.log1p(-part) - mixed - math.log(ALPHA))

    p = math.exp(min(0.0, likely(share) + math.log(ALPHA)))
    assert labels_p(yes, no, share) == pytest.approx(p, rel=1e-5)
    found, odds = ratio_interval(yes, no, share), (1 - share) / share
    peak = min(max(yes / (yes + no or 1), 1e-15), 1 - 1e-15)
    assert (found.low is not None) == (yes > 0 and likely(1e-15) < 0)
    assert (found.high is not None) == (no > 0 and likely(1 - 1e-15) < 0)
    if found.low is not None:
        low = brentq(likely, 1e-15, peak, xtol=1e-16)
        assert found.low == pytest.approx(low / (1 - low) * odds, rel=1e-6)
    if found.high is not None:
        high = brentq(likely, peak, 1 - 1e-15, xtol=1e-16)
        assert found.high == pytest.approx(high / (1 - high) * odds, rel=1e-6)


def test_a_report_of_an_experiment_loads_nothing_large() -> None:
    """On the loop that everything else of the process runs on, in the transaction of the report."""
    program = (
        "import sys; from services.nurture.experiments.statistics import labels_p, rate_interval, ratio_interval;"
        "labels_p(3, 4, 0.5), rate_interval(3, 40), ratio_interval(3, 4, 0.5);"
        "sys.exit('scipy' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_who_looks_after_every_conversion_is_misled_in_fewer_than_one_of_twenty_experiments(share: float) -> None:
    dice, misled, experiments, looks = random.Random(20), 0, 120, 300
    for _ in range(experiments):
        mine = 0
        for look in range(1, looks + 1):
            mine += dice.random() < share
            if labels_p(mine, look - mine, share) <= 0.05:
                misled += 1
                break
    assert misled / experiments < 0.05


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_who_looks_at_money_often_is_misled_in_fewer_than_one_of_twenty_experiments(share: float) -> None:
    """Most people buy nothing, and a few very much: the worst there is for statistics of large numbers."""
    dice, misled, experiments = random.Random(21), 0, 100
    for _ in range(experiments):
        sums = [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
        for purchase in range(1, 1_001):
            for side, part in zip(sums, (share, 1 - share), strict=True):
                side[0] += 10 * part
            bought, spent = sums[dice.random() >= share], dice.lognormvariate(8, 1.5)
            bought[1], bought[2], bought[3] = bought[1] + 1, bought[2] + spent, bought[3] + spent**2
            if purchase % 5 == 0:
                a, b = (Amounts(round(side[0]), int(side[1]), side[2], side[3]) for side in sums)
                if amounts_p(a, b) <= 0.05:
                    misled += 1
                    break
    assert misled / experiments < 0.05


def test_a_difference_that_is_there_is_found_and_the_interval_says_how_large() -> None:
    dice, mine, looks = random.Random(22), 0, 0
    while labels_p(mine, looks - mine, 0.5) > 0.05:
        looks, mine = looks + 1, mine + (dice.random() < 0.6)
    assert looks < 1_000
    interval = ratio_interval(mine, looks - mine, 0.5)
    assert interval.low is not None and interval.high is not None and 1 < interval.low < 1.5 < interval.high
    rich, poor = Amounts(5_000, 250, 5e6, 2e11), Amounts(5_000, 200, 2e6, 4e10)
    assert amounts_p(rich, poor) < 0.05
    found = difference_interval(rich, poor)
    assert found.low is not None and found.high is not None and 0 < found.low < 600 < found.high
    assert amounts_p(replace(rich, buyers=19), poor) == 1, "too few have bought"


def test_nothing_is_claimed_of_nobody_and_of_everybody() -> None:
    assert labels_p(0, 0, 0.5) == 1
    assert (ratio_interval(0, 0, 0.5).low, ratio_interval(0, 0, 0.5).high) == (None, None)
    assert (rate_interval(0, 0).low, rate_interval(0, 0).high) == (0.0, 1.0)
    assert rate_interval(0, 50).low == 0 and rate_interval(50, 50).high == 1
    assert amounts_p(Amounts(0, 0, 0, 0), Amounts(0, 0, 0, 0)) == 1
    assert labels_p(300, 0, 0.9) < 1e-6 < labels_p(10, 1, 0.9), "nine of ten were to be expected"


def test_a_variant_goes_to_its_share_of_the_people_and_each_keeps_theirs() -> None:
    one = trial(50, 30, 20)
    counts = Counter(given_to(one))
    assert [round(counts[name] / 3_000, 1) for name in "abc"] == [0.5, 0.3, 0.2]
    assert given_to(one) == given_to(one)
    other = replace(one, experiment=one.experiment.model_copy(update={"id": "another"}))
    assert given_to(one) != given_to(other), "experiments do not follow each other"


def test_a_variant_that_is_stopped_goes_to_nobody_new_and_the_others_keep_their_proportions() -> None:
    one = trial(50, 30, 20)
    before, after = given_to(one), given_to(one, Standing(stopped=frozenset("a")))
    assert all(now == was for was, now in zip(before, after, strict=True) if was != "a")
    moved = Counter(now for was, now in zip(before, after, strict=True) if was == "a")
    assert set(moved) == {"b", "c"} and 1.2 < moved["b"] / moved["c"] < 1.8
    ann = LeadId("ann")
    assert choose(one, DRIP, ann, [("a", one.design)], Standing("b", frozenset("a"))).variant.id == "a"
    decided = choose(one, DRIP, ann, (), Standing("b"))
    assert (decided.variant.id, decided.counted) == ("b", False)
    assert choose(one, DRIP, ann, [("gone", "gone:50 a:50")], NOBODY).counted is False
    assert not choose(trial(50, 50), DRIP, ann, (), Standing(stopped=frozenset("a"))).counted


def test_the_guard_stops_what_drives_people_away_and_never_the_best() -> None:
    one, fine = trial(40, 30, 30), Tally("a", 40, 1_000, unsubscribed=8)
    bad, good = Tally("b", 30, 750, unsubscribed=60), Tally("c", 30, 750, unsubscribed=5)
    assert [(ruling.kind, ruling.variant_id) for ruling in judge(one, [fine, bad, good], NOBODY)] == [("stopped", "b")]
    assert judge(one, [fine, bad, good], Standing("a")) == []
    assert judge(trial(40, 30, 30, guard=False), [fine, bad, good], NOBODY) == []
    left = Standing(stopped=frozenset("ab"))
    assert judge(one, [fine, bad, replace(good, unsubscribed=700)], left) == []
    assert state_of(one, left) == "stopped_by_guard"
    why = {"a": "it was bad", "b": "more unsubscribed"}
    assert sentence(one, [], left, why).startswith("c is given to everybody new: a was stopped, it was bad")


def test_a_winner_is_ruled_when_it_is_beyond_doubt_and_asked_for() -> None:
    tallies = [Tally("a", 50, 2_000, converted=100), Tally("b", 50, 2_000, converted=170)]
    assert judge(trial(50, 50), tallies, NOBODY) == [], "by hand"
    assert "b does better" in sentence(trial(50, 50), tallies, NOBODY, {})
    alone = trial(50, 50, decide="automatically")
    (ruling,) = judge(alone, tallies, NOBODY)
    assert (ruling.kind, ruling.variant_id) == ("winner", "b")
    many = trial(50, 50, decide="automatically", at_least=5_000)
    assert judge(many, tallies, NOBODY) == []
    assert "waits for 5000 people" in sentence(many, tallies, NOBODY, {})
    doubtful = [tallies[0], replace(tallies[1], converted=120)]
    assert judge(alone, doubtful, NOBODY) == []
    assert "Nothing is beyond doubt after 4000 people" in sentence(alone, doubtful, NOBODY, {})


def test_money_says_how_many_have_to_buy_before_it_is_judged() -> None:
    one = trial(50, 50, metric="revenue", currency="EUR")
    tallies = [
        Tally("a", 50, 150, amounts=Amounts(150, 77, 7e5, 7e9)),
        Tally("b", 50, 150, amounts=Amounts(150, 18, 2e5, 2e9)),
    ]
    assert sentence(one, tallies, NOBODY, {}).endswith("once 20 of each variant have, of b 18.")
    told = replace(tallies[1], amounts=Amounts(150, 20, 2e5, 2e9))
    assert "a does better" in sentence(one, [tallies[0], told], NOBODY, {})


def test_so_many_of_a_hundred_are_held_out_always_the_same() -> None:
    held = [is_held_out(DRIP, LeadId(f"lead-{number}"), 10) for number in range(5_000)]
    assert 400 < sum(held) < 600
    assert held == [is_held_out(DRIP, LeadId(f"lead-{number}"), 10) for number in range(5_000)]


SEND = {"id": "hello", "send": HELLO}
HALVES = [{"id": "a", "weight": 50}, {"id": "b", "weight": 50}]


@pytest.mark.parametrize(
    ("steps", "pointer"),
    [
        ([SEND | {"experiment": {"id": "x", "variants": [*HALVES[:1], HALVES[1] | {"template": {
            "subject": "{{ lead.nothing", "text": "x"}}]}}], "/steps/0/experiment/variants/1/template/subject"),
        ([{"id": "fork", "experiment": {"id": "x", "variants": [one | {"to": to} for one, to in
            zip(HALVES, ("hello", "nowhere"), strict=True)]}}, SEND], "/steps/0/experiment/variants/1/to"),
        ([SEND | {"experiment": {"id": "x", "variants": HALVES}},
            {"id": "rest", "wait": {"days": 1}, "experiment": {"id": "x", "variants": HALVES}}],
            "/steps/1/experiment/id"),
        ([{"id": "again", "wait": {"days": 1}, "next": "again", "experiment": {"id": "x", "variants": [
            HALVES[0], HALVES[1] | {"wait": {}}]}}], "/steps/0"),
    ],
)  # fmt: skip
def test_a_fault_of_an_experiment_is_named_with_its_place(steps: list[dict[str, Any]], pointer: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        plan_of(steps=steps)
    assert [fault.pointer for fault in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"variants": [HALVES[0], HALVES[1] | {"weight": 40}]}, "do not sum to 100"),
        ({"variants": [HALVES[0], HALVES[0]]}, "same id"),
        ({"metric": "revenue"}, "in a currency"),
        ({"currency": "EUR"}, "in a currency"),
        ({"variants": [HALVES[0], HALVES[1] | {"wait": {"days": 1}}]}, "only a wait"),
        ({"variants": [HALVES[0], HALVES[1] | {"to": "end"}]}, "or none has"),
    ],
)
def test_an_experiment_that_compares_nothing_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plan_of(steps=[SEND | {"experiment": {"id": "x", "variants": HALVES} | change}])
