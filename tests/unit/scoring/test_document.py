"""The scoring document: the shipped one works, and a fault is pointed at."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from services.scoring.rules.document import rule_set, shipped_document
from shared.rules import InvalidDocument
from shared.web import faults_of


def changed(path: str, value: object) -> dict[str, Any]:
    """The shipped document with one value replaced."""
    document: Any = copy.deepcopy(shipped_document())
    *way, last = path.strip("/").split("/")
    place = document
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[int(last) if isinstance(place, list) else last] = value
    result: dict[str, Any] = document
    return result


def test_the_shipped_document_compiles() -> None:
    rules = rule_set(1, shipped_document())
    assert len(rules.engagement.rules) == 17
    assert rules.nobody.grade == "D"
    assert rules.reads_personal
    assert not rules.stages_read_personal
    assert not rules.engagement.reads_properties


@pytest.mark.parametrize(
    ("path", "value", "pointer", "column"),
    [
        ("/engagement/rules/3/when", "event.tipe == 'page_view'", "/engagement/rules/3/when", 7),
        ("/engagement/rules/0/when", "lead.country == 'AT'", "/engagement/rules/0/when", 1),
        ("/engagement/rules/0/when", "event.type == ", "/engagement/rules/0/when", 15),
        ("/engagement/rules/0/when", "now > event.type", "/engagement/rules/0/when", 1),
        ("/engagement/rules/3/group", "wob", "/engagement/rules/3/group", None),
        ("/engagement/rules/3/id", "demo-requested", "/engagement/rules/3/id", None),
        ("/engagement/groups/web", 0, "/engagement/groups/web", None),
        ("/engagement/rules/3/points", 0, "/engagement/rules/3/points", None),
        ("/fit/rules/3/when", "lead.employes > 3", "/fit/rules/3/when", 6),
        ("/fit/rules/3/when", "score.total > 3", "/fit/rules/3/when", 1),
        ("/fit/exclude", "lead.title", "/fit/exclude", 1),
        ("/fit/grades/B", 80, "/fit/grades", None),
        ("/stages/2/when", "score.engagment > 3", "/stages/2/when", 7),
        ("/stages/2/leave_when", "now > now", "/stages/2/leave_when", 1),
        ("/stages/2/stage", "lead", "/stages/2/stage", None),
    ],
)
def test_a_fault_is_pointed_at(path: str, value: object, pointer: str, column: int | None) -> None:
    with pytest.raises(InvalidDocument) as caught:
        rule_set(1, changed(path, value))
    assert [(error.pointer, error.column) for error in caught.value.errors] == [(pointer, column)]


def test_all_faults_are_told_at_once() -> None:
    document = changed("/engagement/rules/3/when", "event.tipe == 'page_view'")
    document["fit"]["rules"][0]["when"] = "lead.titel == 'x'"
    with pytest.raises(InvalidDocument) as caught:
        rule_set(1, document)
    assert [error.pointer for error in caught.value.errors] == ["/engagement/rules/3/when", "/fit/rules/0/when"]


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        ("/engagement/rules/3/points", "many", "/engagement/rules/3/points"),
        ("/engagement/rules/3/per_day", 0, "/engagement/rules/3/per_day"),
        ("/engagement/half_life_days", 0, "/engagement/half_life_days"),
        ("/engagement/half_life_days", float("inf"), "/engagement/half_life_days"),
        ("/engagement/rules/3/wen", "true", "/engagement/rules/3/wen"),
        ("/stages/2/stage", "vip", "/stages/2/stage"),
        ("/surprise", {}, "/surprise"),
        ("/engagement/rules/3/description", "a\x00b", "/engagement/rules/3/description"),
    ],
)
def test_a_wrong_shape_is_pointed_at(path: str, value: object, pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        rule_set(1, changed(path, value))
    assert [fault.pointer for fault in faults_of(caught.value)] == [pointer]


def test_fit_points_grade_and_exclusion() -> None:
    judge = rule_set(1, shipped_document()).fit.judge
    known = {"title": "VP Sales", "employees": 200, "country": "AT", "use_case": "support", "industry": "Software"}
    assert (judge(known).points, judge(known).grade) == (70, "A")
    assert judge(known).rules[0] == ("title-senior", 15)
    assert judge(known | {"free_mail": True}).points == 50
    assert judge(known | {"title": "Student"}).grade == "F"
    assert judge(known | {"attributes": {"competitor": True}}).grade == "F"
    assert judge({}).grade == "D"
