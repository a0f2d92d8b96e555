"""Custom models: a base, multiplied where an expression holds."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from services.attribution.domain import LOOKBACK, Touch, path_to
from services.attribution.models.custom import DEFAULT_MODELS, ModelDocument, compile_model
from shared.ids import TouchId
from shared.rules import InvalidDocument

CONVERTED = datetime(2026, 11, 1, 12, tzinfo=UTC)


def touch(days_before: float, kind: str = "page_view", channel: str = "Email") -> Touch:
    at = CONVERTED - timedelta(days=days_before)
    return Touch("api", TouchId(f"t{days_before}"), at, at, kind, channel, "caller")


def shares(document: dict[str, Any], *touches: Touch, lead_days_before: float | None = None) -> list[Fraction]:
    model = compile_model("mine", 1, ModelDocument.model_validate({"title": "Mine", **document}))
    created = None if lead_days_before is None else CONVERTED - timedelta(days=lead_days_before)
    weights = model.weigh(path_to(CONVERTED, touches, LOOKBACK, lead_created_at=created))
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
        {"title": "x", "base": "markov"},
        {"title": "x", "rules": [{"when": "true", "multiply": -1}]},
        {"title": "x", "rules": [{"when": "true", "multiply": 0.0000001}]},
        {"title": "x", "lookback_days": 0},
        {"title": "x", "half_life_days": 0},
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
