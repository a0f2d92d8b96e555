"""Reports out of sums."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import SeveralCurrencies
from services.attribution.reports.domain import Period, Span, Sum, choose_currency, compared, rows_of, spans_of


def conversions(number: float, value_minor: int = 0) -> Sum:
    return Sum(round(number * SHARE_UNITS), value_minor)


def test_largest_value_comes_first_and_what_only_cost_comes_too() -> None:
    rows = rows_of({"Email": conversions(1, 500), "Direct": conversions(2, 900)}, {"Email": 200, "Display": 300})
    assert [(row.key, row.sum.value_minor, row.cost_minor, row.roi) for row in rows] == [
        ("Direct", 900, None, None),
        ("Email", 500, 200, 1.5),
        ("Display", 0, 300, -1.0),
    ]


def test_without_a_cost_there_is_no_return_on_it() -> None:
    (row,) = rows_of({"Email": conversions(1, 500)}, {"Email": 0})
    assert row.roi is None


def test_undivided_conversions_are_whole_numbers() -> None:
    assert repr(conversions(3).conversions) == "3"
    assert conversions(0.5).conversions == 0.5


def test_several_currencies_are_listed_unless_one_is_asked_for() -> None:
    with pytest.raises(SeveralCurrencies, match="EUR, JPY, USD"):
        choose_currency(["USD", "EUR", "JPY", "EUR"], None)
    assert choose_currency(["USD", "EUR"], "EUR") == "EUR"
    assert choose_currency(["USD"], None) == "USD"
    assert choose_currency([], None) is None


def test_comparison_has_every_key_of_any_model() -> None:
    sums = {1: {"Email": conversions(1, 100)}, 2: {"Direct": conversions(1, 100)}}
    assert compared(sums, [1, 2]) == [
        ("Email", [conversions(1, 100), Sum()]),
        ("Direct", [Sum(), conversions(1, 100)]),
    ]


def test_days_begin_at_midnight_of_their_zone() -> None:
    berlin = Period(date(2026, 3, 29), date(2026, 3, 30), ZoneInfo("Europe/Berlin"))
    assert berlin.moments == (datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC))
    assert not berlin.is_utc
    assert Period(date(2026, 3, 29), None, ZoneInfo("UTC")).is_utc
    assert Period(None, None, ZoneInfo("Europe/Berlin")).is_utc


@pytest.mark.parametrize(
    ("first", "end", "spans"),
    [
        (None, None, [Span("month", date.min, date.max)]),
        (date(2026, 1, 1), date(2026, 3, 1), [Span("month", date(2026, 1, 1), date(2026, 3, 1))]),
        (date(2026, 1, 2), date(2026, 1, 31), [Span("day", date(2026, 1, 2), date(2026, 1, 31))]),
        (date(2026, 1, 31), date(2026, 2, 2), [Span("day", date(2026, 1, 31), date(2026, 2, 2))]),
        (
            date(2026, 1, 15),
            date(2026, 4, 15),
            [
                Span("day", date(2026, 1, 15), date(2026, 2, 1)),
                Span("month", date(2026, 2, 1), date(2026, 4, 1)),
                Span("day", date(2026, 4, 1), date(2026, 4, 15)),
            ],
        ),
        (
            None,
            date(2026, 4, 2),
            [Span("month", date.min, date(2026, 4, 1)), Span("day", date(2026, 4, 1), date(2026, 4, 2))],
        ),
        (
            date(2026, 12, 31),
            None,
            [Span("day", date(2026, 12, 31), date(2027, 1, 1)), Span("month", date(2027, 1, 1), date.max)],
        ),
    ],
)
def test_period_is_read_as_whole_months_and_the_days_at_its_ends(
    first: date | None, end: date | None, spans: list[Span]
) -> None:
    assert spans_of(first, end) == spans
