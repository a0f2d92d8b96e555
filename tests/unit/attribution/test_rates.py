"""Exchange: the rate of the day, exact sums, and clear refusals."""

from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.attribution.errors import MissingRates, SeveralCrossings
from services.attribution.rates.domain import Exchange, Rate

DAY = date(2026, 3, 10)


def rate(base: str, quote: str, value: str, days_before: int = 0) -> Rate:
    return Rate(DAY - timedelta(days=days_before), base, quote, Decimal(value))


def test_the_last_rate_at_or_before_the_day_counts_for_a_week() -> None:
    exchange = Exchange("EUR", [rate("USD", "EUR", "0.9", 8), rate("USD", "EUR", "0.5", 9)])
    assert exchange.total({("USD", DAY - timedelta(days=8)): 100}) == 90
    assert exchange.total({("USD", DAY - timedelta(days=1)): 100}) == 90
    with pytest.raises(MissingRates) as refusal:
        exchange.total({("USD", DAY): 100, ("USD", DAY + timedelta(days=5)): 1, ("GBP", DAY): 1, ("CHF", DAY): 0})
    assert [error.detail for error in refusal.value.errors] == [
        "there is no rate from GBP to EUR on 2026-03-10 or in the 7 days before",
        "there is no rate from USD to EUR on 2026-03-10 or in the 7 days before, and on 1 more days",
    ]


def test_minor_units_of_any_exponent_are_converted() -> None:
    exchange = Exchange("EUR", [rate("JPY", "EUR", "0.006"), rate("KWD", "EUR", "3")])
    assert exchange.total({("JPY", DAY): 1_000}) == 600
    assert exchange.total({("KWD", DAY): 1_000}) == 300
    assert Exchange("KWD", [rate("JPY", "KWD", "0.002")]).total({("JPY", DAY): 1}) == 2
    assert exchange.total({("EUR", DAY - timedelta(days=900)): 7}) == 7


def test_a_pair_is_turned_around_exactly_and_the_newer_one_counts() -> None:
    exchange = Exchange("EUR", [rate("EUR", "USD", "3")])
    assert exchange.exactly({("USD", DAY): 100}) == Fraction(100, 3)
    newer = Exchange("EUR", [rate("EUR", "USD", "3", 1), rate("USD", "EUR", "0.5")])
    assert newer.total({("USD", DAY): 100}) == 50
    same_day = Exchange("EUR", [rate("EUR", "USD", "3"), rate("USD", "EUR", "0.5")])
    assert same_day.total({("USD", DAY): 100}) == 50


def test_crossing_goes_through_the_one_common_currency_or_the_one_asked_for() -> None:
    rates = [rate("GBP", "USD", "1.25"), rate("EUR", "USD", "1.25", 3)]
    exchange = Exchange("EUR", rates)
    assert exchange.total({("GBP", DAY): 100}) == 100
    assert exchange.crossed == {"GBP": {"USD"}}
    rates += [rate("GBP", "CHF", "1.1"), rate("EUR", "CHF", "1")]
    with pytest.raises(SeveralCrossings) as refusal:
        Exchange("EUR", rates).total({("GBP", DAY): 100})
    assert refusal.value.errors[0].detail == "send one of CHF, USD"
    assert Exchange("EUR", rates, "CHF").total({("GBP", DAY): 100}) == 110


def test_rounding_is_half_to_even_and_once() -> None:
    exchange = Exchange("EUR", [rate("USD", "EUR", "0.5"), rate("GBP", "EUR", "0.25")])
    assert [exchange.total({("USD", DAY): minor}) for minor in (1, 3, 5)] == [0, 2, 2]
    assert exchange.total({("USD", DAY): 1, ("GBP", DAY): 2}) == 1


@given(st.lists(st.tuples(st.integers(-(10**15), 10**15), st.integers(1, 10**24)), min_size=1, max_size=30))
def test_sums_are_those_of_fractions(parts: list[tuple[int, int]]) -> None:
    days = [DAY + timedelta(days=number) for number in range(len(parts))]
    rates = [Decimal(scaled).scaleb(-18) for _, scaled in parts]
    posted = [Rate(day, "EUR", "USD", one) for day, one in zip(days, rates, strict=True)]
    amounts = {("USD", day): minor for day, (minor, _) in zip(days, parts, strict=True)}
    expected = sum(Fraction(minor) / Fraction(one) for (minor, _), one in zip(parts, rates, strict=True))
    assert Exchange("EUR", posted).exactly(amounts) == expected
