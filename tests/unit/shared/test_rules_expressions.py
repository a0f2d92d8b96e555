"""Expressions are refused at the fault when they are saved, and say why when they do not hold."""

from datetime import UTC, datetime

import pytest

from shared.rules import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OPEN,
    TEXT,
    TEXTS,
    TIME,
    Evaluation,
    ExpressionFault,
    Vocabulary,
    compile_expression,
    present,
)

VOCABULARY = Vocabulary(
    {
        "lead": {"employees": INTEGER, "country": TEXT, "tags": TEXTS, "attributes": OPEN, "account": {"name": TEXT}},
        "event": {"type": TEXT, "path": TEXT, "automated": BOOLEAN, "occurred_at": TIME},
        "score": {"total": NUMBER},
        "stage": TEXT,
    }
)


def fault_of(source: str) -> ExpressionFault:
    with pytest.raises(ExpressionFault) as caught:
        compile_expression(source, VOCABULARY, "/rules/3/when")
    assert caught.value.pointer == "/rules/3/when"
    return caught.value


@pytest.mark.parametrize(
    ("source", "column", "words"),
    [
        ("lead.emplyees > 3", 6, "no lead.emplyees"),
        ("lead.employees > 3 && nope", 23, "no nope"),
        ("lead['emplyees'] > 3", 6, "no lead.emplyees"),
        ("lead.account.nme == 'a'", 14, "no lead.account.nme"),
        ("lead.country.code == 'a'", 14, "no lead.country.code"),
        ("event.type == 'x' ||\n  event.tpe == 'y'", 9, "no event.tpe"),
        ("r'\\' + event.tpe == ''", 14, "no event.tpe"),
        ("'\\'' + event.tpe == ''", 14, "no event.tpe"),
        ("event.type == \"it's\" || event.tpe == 'x'", 31, "no event.tpe"),
        ("{'a': event.tpe}['a'] == ''", 13, "no event.tpe"),
        ("now > event.occurred_at", 1, "no now"),
        ("false && .event.type == 'x'", 11, "no .event"),
        ("Order{size: 1}.size == 1", 1, "no Order"),
        ("lead.tags.exists(x, x == 'a') && x == 'b'", 34, "no x"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_where_it_stands(source: str, column: int, words: str) -> None:
    fault = fault_of(source)
    assert (fault.column, words in fault.detail) == (column, True), fault


@pytest.mark.parametrize(
    ("source", "column"),
    [("event.type >", 13), ("1 +* 2", 4), ("event.type == 'x", 15), ("lead.tags.exists(x x)", 20), ("", 1)],
)
def test_bad_syntax_is_refused_with_its_column(source: str, column: int) -> None:
    assert fault_of(source).column == column


@pytest.mark.parametrize(
    ("source", "column"),
    [("lower(lead.country) == 'at'", 1), ("lead.country.lower() == 'at'", 14), ("cel.bind(a, 1, a == 1)", 5)],
)
def test_a_function_that_does_not_exist_is_refused(source: str, column: int) -> None:
    fault = fault_of(source)
    assert (fault.column, "no function" in fault.detail) == (column, True), fault


@pytest.mark.parametrize(
    "source", ["lead == event", "size(lead) > 0", "event[stage] == 'x'", "'type' in event", "lead.account == 'x'"]
)
def test_a_group_of_fields_is_not_a_value(source: str) -> None:
    assert "not a value" in fault_of(source).detail


@pytest.mark.parametrize(
    "source",
    ["42", "lead.country", "lead.employees + 1", "'a' + 'b'"],
)
def test_a_condition_that_is_not_true_or_false_is_refused(source: str) -> None:
    assert "true or false" in fault_of(source).detail


@pytest.mark.parametrize(
    "source",
    ["lead.employees > '50'", "score.total - 5 > 1.0", "event.type.contains(3)", "event.type.matches('(')", "!stage"],
)
def test_types_that_never_fit_are_refused(source: str) -> None:
    fault_of(source)


@pytest.mark.parametrize("source", ["(" * 500 + "true" + ")" * 500, "true" + " && true" * 500, "lead" + ".a" * 70_000])
def test_an_expression_has_bounds(source: str) -> None:
    fault_of(source)


def test_what_is_nested_too_deeply_is_refused_in_plain_words() -> None:
    assert fault_of("(" * 200 + "true" + ")" * 200).detail == "it is nested too deeply; use fewer brackets"


def test_nested_comprehensions_have_a_bound() -> None:
    compile_expression("lead.tags.exists(x, lead.tags.exists(y, x == y))", VOCABULARY)
    assert "nested" in fault_of("lead.tags.all(x, lead.tags.all(y, lead.tags.all(z, x == y && y == z)))").detail


@pytest.mark.parametrize(
    "source",
    [
        "event.type == 'lead.emplyees'",
        "event.type == 'x' // lead.emplyees",
        "lead.tags.exists(lead, lead == 'a')",
        "has(event.path) && event.path.startsWith('/pricing')",
        "stage in ['mql', 'sal']",
        "lead.attributes.anything.at.all == 3",
        "lead.attributes['any thing'] == 3",
        "type(lead.country) == string",
        "event.occurred_at > timestamp('2026-01-01T00:00:00Z')",
        "lead.account['name'] == 'Acme'",
        "score.total >= 50 && lead.employees > 49.5",
    ],
)
def test_what_can_work_is_accepted(source: str) -> None:
    assert compile_expression(source, VOCABULARY).source == source


@pytest.mark.parametrize(
    ("values", "holds", "why"),
    [
        ({"lead": {"employees": 5, "country": "AT"}}, True, "true"),
        ({"lead": {"employees": 3, "country": "AT"}}, False, "false"),
        ({"lead": {"country": "AT"}}, False, "lead.employees is missing"),
        ({}, False, "lead is missing"),
        ({"lead": {"employees": "5", "country": "AT"}}, False, "No such overload"),
    ],
)
def test_what_is_missing_or_of_the_wrong_type_is_false_and_says_why(
    values: dict[str, object], holds: bool, why: str
) -> None:
    expression = compile_expression("lead.country == 'AT' && lead.employees > 4", VOCABULARY)
    result, said = expression.holds(values)
    assert (result, why in said) == (holds, True), said


def test_a_value_that_is_not_true_or_false_does_not_hold() -> None:
    expression = compile_expression("lead.attributes.vip", VOCABULARY)
    assert expression.holds({"lead": {"attributes": {"vip": 3}}}) == (False, "it is int, not true or false")
    assert expression.holds({"lead": {"attributes": {"vip": True}}})[0]


def test_one_evaluation_serves_many_expressions() -> None:
    evaluation = Evaluation({"event": present(type="page_view", path="/pricing", automated=None)})
    assert compile_expression("event.type == 'page_view'", VOCABULARY).holds(evaluation) == (True, "true")
    assert compile_expression("event.automated", VOCABULARY).holds(evaluation) == (False, "event.automated is missing")


def test_a_weight_may_be_a_number() -> None:
    expression = compile_expression("event.automated ? 0.0 : score.total * 2.0", VOCABULARY, boolean=False)
    assert expression.value({"event": {"automated": False}, "score": {"total": 4.0}}) == 8.0


def test_an_expression_tells_what_it_reads() -> None:
    expression = compile_expression("lead.tags.exists(t, t == event.type) && lead.tags.size() > 1", VOCABULARY)
    assert expression.references == (("lead", "tags"), ("event", "type"))
    assert expression.reads("lead")
    assert expression.reads("event", "type")
    assert not expression.reads("event", "path")


def test_times_compare() -> None:
    expression = compile_expression("event.occurred_at < timestamp('2026-01-01T00:00:00Z')", VOCABULARY)
    assert expression.holds({"event": {"occurred_at": datetime(2025, 1, 1, tzinfo=UTC)}})[0]


def test_an_expression_tells_its_numbers_and_operators() -> None:
    expression = compile_expression("score.total * 2.0 >= 50 && lead.employees > 0x10 && stage != '99'", VOCABULARY)
    assert expression.numbers == (2.0, 16.0, 50.0)
    assert "_*_" in expression.functions
