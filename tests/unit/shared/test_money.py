"""Money is exact, and only money."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.money import Currency, Money, NotAnAmount, UnknownCurrency, exponent, parse_minor

CURRENCY: TypeAdapter[str] = TypeAdapter(Currency)


@pytest.mark.parametrize(
    ("currency", "digits"), [("JPY", 0), ("EUR", 2), ("KWD", 3), ("ISK", 0), ("UGX", 0), ("CLF", 4)]
)
def test_exponents_are_those_of_iso_4217(currency: str, digits: int) -> None:
    assert exponent(currency) == digits


@pytest.mark.parametrize("code", ["XYZ", "eur", "EURO", "", "XXX", "XAU", "XTS", "None", "€", "EUR "])
def test_what_is_no_currency_is_refused(code: str) -> None:
    with pytest.raises(ValidationError, match="ISO 4217"):
        CURRENCY.validate_python(code)
    with pytest.raises(UnknownCurrency):
        exponent(code)


@pytest.mark.parametrize("code", ["EUR", "XCG", "BGN", "HRK"])
def test_present_and_withdrawn_currencies_are_known(code: str) -> None:
    assert CURRENCY.validate_python(code) == code


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("249.90", "USD", 24990),
        ("249.9", "USD", 24990),
        ("249", "USD", 24900),
        ("1000.00", "JPY", 1000),
        ("1.234", "KWD", 1234),
        ("1.23400", "KWD", 1234),
        ("-0.01", "EUR", -1),
        ("-10.00", "EUR", -1000),
        ("0.00", "EUR", 0),
        ("90071992547409.93", "USD", 9007199254740993),
    ],
)
def test_decimal_text_becomes_minor_units(text: str, currency: str, minor: int) -> None:
    assert parse_minor(text, currency) == minor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1.005",
        "0.001",
        "1,00",
        "1.000,00",
        "1e3",
        "NaN",
        "Infinity",
        "+1",
        "--1",
        ".5",
        "1.",
        "0x1",
        "\u0661",
        "1" * 31,
    ],
)
def test_what_is_no_amount_in_cents_is_refused(text: str) -> None:
    with pytest.raises(NotAnAmount):
        parse_minor(text, "USD")


@given(st.integers(min_value=-(10**25), max_value=10**25), st.sampled_from(["JPY", "EUR", "KWD", "CLF"]))
def test_an_amount_written_out_is_read_back(minor: int, currency: str) -> None:
    assert Money.parse(f"{Money(minor, currency).amount:f}", currency) == Money(minor, currency)


def test_money_shows_its_major_units() -> None:
    assert str(Money(2368150, "EUR")) == "23,681.50 EUR"
    assert str(Money(1200, "JPY")) == "1,200 JPY"
    assert Money(5, "KWD").amount == Decimal("0.005")
