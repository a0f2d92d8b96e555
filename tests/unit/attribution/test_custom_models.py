"""Custom models: a base, multiplied where an expression holds."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from services.attribution.domain import LOOKBACK, Model, TotalsModel, Touch, divide, path_to
from services.attribution.models.custom import DEFAULT_MODELS, ModelDocument, compile_model
from shared.ids import TouchId
from shared.rules import InvalidDocument

CONVERTED = datetime(2026, 11, 1, 12, tzinfo=UTC)


def touch(days_before: float, kind: str = "page_view", channel: str = "Email") -> Touch:
    at = CONVERTED - timedelta(days=days_before)
    return Touch("api", TouchId(f"t{days_before}"), at, at, kind, channel, "caller")


def compiled(document: dict[str, Any]) -> Model:
    model = compile_model("mine", 1, ModelDocument.model_validate({"title": "Mine", **document}))
    assert not isinstance(model, TotalsModel)
    return model


def shares(document: dict[str, Any], *touches: Touch, lead_days_before: float | None = None) -> list[Fraction]:
    created = None if lead_days_before is None else CONVERTED - timedelta(days=lead_days_before)
    weights = compiled(document).weigh(path_to(CONVERTED, touches, LOOKBACK, lead_created_at=created))
    return [Fraction(weight, sum(weights)) for weight in weights]


def rule(when: str, multiply: float) -> dict[str, Any]:
    return {"when": when, "multiply": multiply}


def test_without_rules_it_is_its_base() -> None:
    assert shares({"base": "position_based"}, touch(3), touch(2), touch(1)) == [
        Fraction(2, 5),
        Fraction(1, 5),
        Fraction(2, 5),
    ]


def test_all_rules_that_hold_multiply() -> None:
    document = {"rules": [rule("touch.channel == 'Paid Search'", 3), rule("from_end == 1", 0.5)]}
    found = shares(document, touch(3), touch(2, channel="Paid Search"), touch(1, channel="Paid Search"))
    assert found == [Fraction(2, 11), Fraction(6, 11), Fraction(3, 11)]


def test_places_are_counted_from_one() -> None:
    found = shares({"rules": [rule("index == 1 && from_end == count", 3)]}, touch(2), touch(1))
    assert found == [Fraction(3, 4), Fraction(1, 4)]


def test_age_and_milestones_can_be_asked_for() -> None:
    document = {"rules": [rule("age_days > 1.5", 0), rule("'lead' in milestones", 5)]}
    assert shares(document, touch(2), touch(1), touch(0.5), lead_days_before=1) == [0, Fraction(5, 6), Fraction(1, 6)]


def test_where_rules_leave_nothing_every_touch_earns_the_same() -> None:
    assert shares({"base": "first_touch", "rules": [rule("true", 0)]}, touch(2), touch(1)) == [Fraction(1, 2)] * 2


def test_half_life_of_a_decaying_base_can_be_set() -> None:
    found = shares({"base": "time_decay", "half_life_days": 1}, touch(2), touch(1), touch(0))
    assert [float(share) for share in found] == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_missing_value_makes_a_rule_not_hold() -> None:
    assert shares({"rules": [rule("touch.source == 'google'", 9)]}, touch(2), touch(1)) == [Fraction(1, 2)] * 2


def test_every_expression_that_cannot_work_is_pointed_at() -> None:
    document = {"title": "x", "rules": [rule("touch.chanel == 'x'", 1), rule("true", 1), rule("index >", 1)]}
    with pytest.raises(InvalidDocument) as refused:
        compile_model("mine", 1, ModelDocument.model_validate(document))
    assert [(fault.pointer, fault.column) for fault in refused.value.errors] == [
        ("/rules/0/when", 7),
        ("/rules/2/when", 8),
    ]


@pytest.mark.parametrize(
    "document",
    [
        {"title": "x", "rules": [{"when": "true", "multiply": -1}]},
        {"title": "x", "rules": [{"when": "true", "multiply": 0.0000001}]},
        {"title": "x", "lookback_days": 0},
        {"title": "x", "half_life_days": 0},
        {"base": "linear", "weights": {"first": 1}},
        {"base": "position_based", "weights": {"first": 1, "lead": 1}},
        {"base": "w_shaped", "weights": {"middle": 1}},
        {"base": "position_based", "weights": {"first": 0, "middle": 0, "last": 0}},
        {"base": "position_based", "weights": {"first": -1, "last": 2}},
        {"base": "position_based", "weights": {}},
        {"base": "position_based", "weights": [1, 2]},
        {"base": "position_based", "weights": [1, "NaN", 2]},
        {"base": "position_based", "weights": [1, 1e400, 2]},
        {"base": "w_shaped", "weights": [1, 2, 3]},
        {"base": "linear", "order": 2},
        {"base": "markov", "order": 5},
        {"base": "markov", "lookback_days": 30},
        {"base": "shapley", "lookback_days": None},
        {"base": "markov", "game": "subset_rate"},
        {"base": "shapley", "game": "best"},
        {"base": "markov", "rules": [{"when": "true", "multiply": 2}]},
        {"base": "shapley", "reset_after_conversion": True},
        {"title": "", "base": "linear"},
        {"title": "x", "wieghts": []},
    ],
)
def test_document_that_means_nothing_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelDocument.model_validate(document)


def test_shipped_model_favours_what_people_did_themselves() -> None:
    found = shares(DEFAULT_MODELS["engaged"], touch(3, "email_opened"), touch(2, "page_view"), touch(1, "meeting_held"))
    assert found == [Fraction(1, 21), Fraction(4, 21), Fraction(16, 21)]


@pytest.mark.parametrize("base", ["position_based", "j_shaped", "inverse_j"])
@pytest.mark.parametrize(
    ("weights", "two", "four"),
    [
        ({"first": 0.5, "middle": 0.3, "last": 0.2}, ["5/7", "2/7"], ["1/2", "3/20", "3/20", "1/5"]),
        ([50, 30, 20], ["5/7", "2/7"], ["1/2", "3/20", "3/20", "1/5"]),
        ({"first": "0.1", "last": "0.3"}, ["1/4", "3/4"], ["1/4", "0", "0", "3/4"]),
        ([0, 1, 0], ["1/2", "1/2"], ["0", "1/2", "1/2", "0"]),
        ([0, 0, 0.000000001], ["0", "1"], ["0", "0", "0", "1"]),
    ],
)
def test_shares_of_positions_can_be_set(base: str, weights: Any, two: list[str], four: list[str]) -> None:
    document = {"base": base, "weights": weights}
    assert shares(document, touch(1)) == [1]
    assert shares(document, touch(2), touch(1)) == [Fraction(one) for one in two]
    assert shares(document, touch(4), touch(3), touch(2), touch(1)) == [Fraction(one) for one in four]


@pytest.mark.parametrize("base", ["u_shaped_lead", "w_shaped", "full_path"])
def test_shares_of_milestones_can_be_set(base: str) -> None:
    weights = {"first": 0.1, "lead": 0.2, "close": 0.3, "rest": 0.4}
    of_four = [touch(days) for days in (4, 3, 2, 1)]
    assert shares({"base": base, "weights": weights}, *of_four, lead_days_before=2) == [
        Fraction(1, 10),
        Fraction(4, 10),
        Fraction(2, 10),
        Fraction(3, 10),
    ]
    only_lead = {"base": base, "weights": {"lead": 1}}
    assert shares(only_lead, *of_four, lead_days_before=3) == [0, 1, 0, 0]
    assert shares(only_lead, *of_four) == [Fraction(1, 4)] * 4


def test_rules_take_channels_out_of_participation() -> None:
    model = compiled({"base": "participation", "rules": [rule("touch.channel == 'Direct'", 0)]})
    of = path_to(CONVERTED, [touch(3, channel="Direct"), touch(2), touch(1)], LOOKBACK)
    assert divide(of, 90, model).value_minor == (0, 0, 90, 0)
    alone = path_to(CONVERTED, [touch(3, channel="Direct"), touch(2, channel="Direct")], LOOKBACK)
    assert divide(alone, 90, model).value_minor == (0, 90, 0)


def test_model_that_totals_says_how() -> None:
    markov = compile_model("mine", 3, ModelDocument.model_validate({"base": "markov", "order": 2}))
    assert markov == TotalsModel("mine", "mine", "markov", 3, 2)
    shapley = ModelDocument.model_validate({"title": "Mine", "base": "shapley", "game": "subset_conversions"})
    assert compile_model("mine", 1, shapley) == TotalsModel(
        "mine", "Mine", "shapley", 1, 1, "subset_conversions", LOOKBACK
    )


def test_document_reads_back_as_it_was_saved() -> None:
    document = ModelDocument.model_validate({"base": "full_path", "weights": {"first": 0.1, "rest": 0.2}})
    assert ModelDocument.model_validate(document.model_dump(mode="json")) == document
