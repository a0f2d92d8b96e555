"""What is learnt from deals is what made them won, its chances come true, and its reasons add up."""

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import exp, log

import pytest

from services.scoring.predictive.advice import HandOff, advise
from services.scoring.predictive.domain import (
    Example,
    Features,
    Model,
    NotEnoughData,
    Seen,
    did_better,
    features_of,
)
from services.scoring.predictive.learning import LEAST_OF_A_CATEGORY, learn

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EMPLOYEES: list[float | str] = [2.0, 5.0, "unknown"]


def true_chance(features: Features) -> float:
    """How likely the world wins a deal."""
    visits = features["recent page_view"]
    assert isinstance(visits, float)
    log_odds = -2 + 1.5 * visits + (1.5 if features["industry"] == "software" else 0)
    return 1 / (1 + exp(-log_odds))


def deals(number: int, seed: int = 7) -> list[Example]:
    drawn = random.Random(seed)
    found = []
    for place in range(number):
        features: dict[str, float | str] = {
            "industry": drawn.choice(["software", "retail", "farming"]),
            "country": drawn.choice(["DE", "AT"]),
            "recent page_view": drawn.choice([0.0, 0.7, 1.4]),
            "employees": drawn.choice(EMPLOYEES),
        }
        found.append(Example(features, drawn.random() < true_chance(features), NOW - place * DAY / 24))
    return found


def test_chances_come_true_on_deals_that_were_not_seen() -> None:
    learnt = learn(deals(4_000))
    unseen = deals(4_000, seed=8)
    errors = [abs(learnt.model.predict(one.features).probability - true_chance(one.features)) for one in unseen]
    assert sum(errors) / len(errors) < 0.03
    assert did_better(learnt.quality)
    for bin in learnt.quality["reliability"]:
        assert bin["rate_low"] - 0.05 <= bin["told"] <= bin["rate_high"] + 0.05
    assert learnt.quality["tried_on"]["deals"] == 1_000
    assert learnt.quality["lift"][0]["lift"] > 1.3
    assert learnt.quality["lift"][-1]["share_of_won"] == 1
    assert learnt.quality["auc"] > 0.7


def test_contributions_add_up_and_name_what_matters() -> None:
    model = learn(deals(2_000)).model
    known: Features = {"industry": "software", "country": "AT", "recent page_view": 1.4, "employees": "unknown"}
    told = model.predict(known)
    assert sum(one.log_odds for one in told.contributions) + model.usual == pytest.approx(told.log_odds)
    assert told.log_odds == pytest.approx(log(told.probability / (1 - told.probability)))
    by_name = {one.feature: one.log_odds for one in told.contributions}
    assert {one.feature for one in told.contributions[:2]} == {"industry", "recent page_view"}
    assert by_name["industry"] > 0.5
    assert by_name["employees"] == 0  # what is unknown counts as usual
    assert Model.of(model.as_json()) == model


def test_a_rare_category_is_no_feature() -> None:
    rare = [
        Example({**one.features, "use_case": "the only one"}, one.won, one.closed_at)
        for one in deals(LEAST_OF_A_CATEGORY - 1)
    ]
    learnt = learn([*deals(500, seed=2), *rare])
    assert not [weight for weight in learnt.model.weights if weight.category == "the only one"]


def test_of_more_than_was_ever_seen_no_more_is_claimed() -> None:
    model = learn(deals(500)).model
    known: Features = {"industry": "software", "country": "AT", "recent page_view": 1.4, "employees": "unknown"}
    assert model.predict({**known, "recent page_view": 9.0}).log_odds == model.predict(known).log_odds


def test_what_is_the_same_of_all_of_whom_it_is_known_says_nothing() -> None:
    for number in range(100, 110):  # so that rounding tells the mean from the value in some
        examples = [
            replace(one, features={**one.features, "days": 1.0986122886681096 if place % 10 else "unknown"})
            for place, one in enumerate(deals(number))
        ]
        assert "days" not in {weight.feature for weight in learn(examples).model.weights}


@pytest.mark.parametrize(("won", "lost"), [(19, 500), (500, 19), (0, 0)])
def test_too_few_deals_are_not_learnt_from(won: int, lost: int) -> None:
    examples = [Example({"industry": "software"}, place < won, NOW) for place in range(won + lost)]
    with pytest.raises(NotEnoughData, match="of at least 20"):
        learn(examples)


def test_the_outcome_does_not_reach_into_its_own_features() -> None:
    at = NOW
    touches = [
        Seen("page_view", "Email", date(2026, 11, 1), 3),
        Seen("page_view", "Direct", date(2026, 7, 1), 5),
        Seen("contract_signed", "Direct", date(2026, 11, 20), 1),
        Seen("onboarded", "Direct", date(2026, 11, 25), 9),
    ]
    features = features_of({"country": " AT ", "employees": 0, "free_mail": False}, touches, at)
    assert features["country"] == "at"
    assert features["first_channel"] == "Direct"
    assert features["recent page_view"] == pytest.approx(log(4))
    assert features["days_since_last_touch"] == pytest.approx(log(20))
    assert (features["employees"], features["employees_known"], features["annual_revenue"]) == (0, "true", "unknown")
    assert not [name for name in features if "contract" in name or "onboarded" in name]


def test_the_bar_that_is_proposed_is_the_upper_quartile_of_opportunities() -> None:
    good = [HandOff(float(points), 30, points + 30.0, NOW - 90 * DAY, True) for points in range(1, 101)]
    others = [HandOff(10.0, 30, 40.0, NOW - 5 * DAY, False)] * 50
    advice = advise([*good, *others], won=20, leads=500, now=NOW)
    assert (advice.enough_data, advice.reason) == (True, None)
    assert (advice.proposed_engagement, advice.proposed_total) == (75, 105)
    assert [(bar.value, bar.share_of_opportunities, bar.share_of_others) for bar in advice.engagement] == [
        (25, 0.76, 0),
        (50, 0.51, 0),
        (75, 0.26, 0),
    ]
    few = advise([*good, *others], won=19, leads=500, now=NOW)
    assert (few.enough_data, few.proposed_engagement) == (False, None)
    assert few.reason == "not enough data: 19 won deals of at least 20"
    young = advise([one._replace(at=NOW - DAY) for one in good], won=50, leads=500, now=NOW)
    assert not young.enough_data
    quiet = advise(good, won=50, leads=99, now=NOW)
    assert quiet.proposed_engagement == 75
    assert "recency" in (quiet.reason or "")


def test_few_deals_that_a_line_parts_cleanly_are_no_reason_to_be_certain() -> None:
    """Of 22 won and 22 lost deals hardly any overlap; among as many more some do, and certainty would cost much."""
    told, truth = [], []
    for seed in (0, 1, 2, 3):
        learnt = learn(parted(random.Random(seed), 44))
        unseen = parted(random.Random(seed + 100), 200)
        told += [learnt.model.predict(one.features).probability for one in unseen]
        truth += [one.won for one in unseen]
    brier = sum((chance - won) ** 2 for chance, won in zip(told, truth, strict=True)) / len(told)
    surprise = -sum(log(chance if won else 1 - chance) for chance, won in zip(told, truth, strict=True)) / len(told)
    assert brier < 0.25 / 5
    assert surprise < 0.2
    assert max(told) < 0.999999
    assert min(told) > 0.000001


def parted(drawn: random.Random, number: int) -> list[Example]:
    """As many won deals as lost ones, told apart by one number of seven, four deviations apart."""
    found = []
    for place in range(number):
        won = place % 2 == 0
        features = {"visits": drawn.gauss(4.0 if won else 0.0, 1)} | {f"n{n}": drawn.gauss(0, 1) for n in range(6)}
        found.append(Example(features, won, NOW + place * DAY / 24))
    return found
