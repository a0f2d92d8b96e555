"""The language of filters: what it understands, and that it says where it does not."""

import pytest

from services.attribution.errors import InvalidFilter
from services.attribution.reports.conditions import Arguments, condition_sql
from services.attribution.reports.filters import (
    Compared,
    Field,
    Fixed,
    Matched,
    Not,
    OneOf,
    Together,
    fields_of,
    parse_filter,
)
from services.attribution.reports.patterns import PatternFault, postgres_pattern
from shared.rules import INTEGER, TEXT, Vocabulary

FIELDS = Vocabulary({"channel": TEXT, "campaign": TEXT, "value_minor": INTEGER})
CHANNEL, VALUE = Field("channel", TEXT), Field("value_minor", INTEGER)


def test_and_binds_closer_than_or_and_not_closest() -> None:
    found = parse_filter('channel == "a" || !(channel != "b") && value_minor >= -5', FIELDS)
    right = Together(True, (Not(Compared(CHANNEL, "!=", "b")), Compared(VALUE, ">=", -5)))
    assert found == Together(False, (Compared(CHANNEL, "==", "a"), right))


def test_texts_are_read_as_cel_reads_them() -> None:
    found = parse_filter(
        r"""channel in ['a\'b', "\u00e9", r'\d',] || campaign.startsWith("""
        r'''"""x"y""") // and no more''',
        FIELDS,
    )
    assert found == Together(
        False,
        (OneOf(CHANNEL, ("a'b", "é", r"\d")), Matched(Field("campaign", TEXT), "startsWith", 'x"y')),
    )
    assert fields_of(found) == {"channel", "campaign"}


def test_values_may_stand_on_either_side() -> None:
    assert parse_filter("0x10 < value_minor", FIELDS) == Compared(16, "<", VALUE)
    assert parse_filter("channel == campaign && true", FIELDS) == Together(
        True, (Compared(CHANNEL, "==", Field("campaign", TEXT)), Fixed(True))
    )


def test_nothing_of_a_filter_becomes_sql() -> None:
    text = "x' OR 1=1; DROP TABLE credits; --"
    arguments = Arguments(7)
    sql = condition_sql(
        parse_filter(f'channel == "{text}" || channel in ["{text}"]', FIELDS), {"channel": "c"}, arguments
    )
    assert sql == '(c = $2::text COLLATE "pg_c_utf8") OR (c = ANY($3::text[]))'
    assert arguments.values == [7, text, [text]]


@pytest.mark.parametrize(
    ("source", "column", "says"),
    [
        ("colour == 'red'", 1, "there is no colour; there are"),
        ("channel == 'a' &&", 18, "end of the expression"),
        ("channel = 'a'", 9, "token recognition error"),
        ("channel", 1, "a value, not a condition"),
        ("channel == 'a' || campaign", 19, "a value, not a condition"),
        ("value_minor > 1.5", 15, "whole numbers"),
        ("value_minor > '1'", 15, "of kind text"),
        ("value_minor == '1'", 16, "of kind text"),
        ("value_minor in [1, 'a']", 20, "of kind text and never"),
        ("channel in [campaign]", 13, "not fields"),
        ("value_minor + 1 > 2", 13, "a filter is made of"),
        ("channel == 'a' ? true : false", 16, "a filter is made of"),
        ("(channel == 'a') == true", 18, "a filter is made of"),
        ("size(channel) > 3", 1, "a filter is made of"),
        ("['a'].exists(x, x == channel)", 1, "a filter is made of"),
        ("channel.contains(value_minor)", 18, "is for texts"),
        ("channel.matches(campaign)", 17, "written out"),
        ("channel.matches('(?P<x>a)')", 17, "(?i) at its beginning"),
        ("channel.matches('a{1000}')", 17, "100 times"),
        ("channel.matches('a(')", 1, "regex"),
        ("channel == null", 12, "a filter is made of"),
        ("channel == 'a\\x00'", 12, "no stored text"),
        ("channel == b'a'", 12, "a filter is made of"),
        ("\n  colour == 'red'", 3, "line 2"),
        ("(" * 60 + "channel == 'a'" + ")" * 60, 51, "nested"),
        ("channel == '" + "a" * 5_000 + "'", 4_001, "at most 4000 characters"),
    ],
)
def test_what_it_does_not_understand_is_shown_by_its_column(source: str, column: int, says: str) -> None:
    with pytest.raises(InvalidFilter) as refusal:
        parse_filter(source, FIELDS)
    (error,) = refusal.value.errors
    assert error.pointer == "query:filter"
    assert says in error.detail
    assert error.column == column


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (r"^brand-\d+.$", r"^brand-\d+[^\n]$"),
        (r"(?i)\bsale\b", r"(?i)\ysale\y"),
        (r"[^]a-z\-[:digit:]]+?", r"[^]a-z\-0-9]+?"),
        (r"(?:a|b){2,5}", r"(?:a|b){2,5}"),
        (r"[.[:upper:]-z]", r"[.A-Z\u002Dz]"),
        (r"[-[:space:]]", r"[-\t\n\v\f\r ]"),
        (r"\.\/\z", r"\.\/\Z"),
    ],
)
def test_patterns_are_written_for_postgresql(pattern: str, written: str) -> None:
    assert postgres_pattern(pattern) == written


@pytest.mark.parametrize(
    "pattern",
    [
        r"\pL",
        r"[[a]]",
        r"[a&&b]",
        r"[+--]",
        r"[[:digit:]--]",
        r"[+-[:alpha:]]",
        r"(?s).",
        r"(?=a)",
        r"a{1,101}",
        "a" * 501,
        r"[\b]",
    ],
)
def test_patterns_that_would_mean_something_else_are_refused(pattern: str) -> None:
    with pytest.raises(PatternFault):
        postgres_pattern(pattern)
