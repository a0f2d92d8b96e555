"""Dates, numbers and money as they are written in a language. A value that is absent stays what replaces it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, TypeVar

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency, format_decimal, format_percent, get_currency_precision, is_currency
from jinja2 import TemplateError, Undefined, pass_context
from jinja2.runtime import Context

LOCALE = "_locale"
FORMATS = ("short", "medium", "long", "full")
MOST_DECIMALS = 10
LARGEST = Decimal(10) ** 30
T = TypeVar("T")


class Unwritable(TemplateError):
    """A value that is no date, number or amount, or a way of writing that does not exist."""


@lru_cache(maxsize=256)
def locale_of(language: str) -> Locale:
    """How a language writes; that of its relative, or English, where nothing is known of it."""
    for name in (language, language.partition("-")[0]):
        try:
            return Locale.parse(name, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return Locale("en")


def _present(run: Callable[..., str]) -> Callable[..., str]:
    @pass_context
    def filtered(context: Context, value: Any, *given: Any) -> str:
        if isinstance(value, Undefined):
            return str(value)  # its fallback is words already
        return run(context[LOCALE], value, *given)

    return filtered


def _date(locale: Locale, value: Any, style: str = "medium") -> str:
    return format_date(_moment(value), _known(style, FORMATS), locale)


def _time(locale: Locale, value: Any, style: str = "short") -> str:
    return format_time(_moment(value), _known(style, FORMATS), locale=locale)


def _datetime(locale: Locale, value: Any, style: str = "medium") -> str:
    return format_datetime(_moment(value), _known(style, FORMATS), locale=locale)


def _number(locale: Locale, value: Any, decimals: int | None = None) -> str:
    number = _amount(value)
    if decimals is None:
        return format_decimal(number, locale=locale)
    if not 0 <= decimals <= MOST_DECIMALS:
        raise Unwritable(f"a number has 0 to {MOST_DECIMALS} decimals")
    return format_decimal(number, "#,##0" + ("." + "0" * decimals if decimals else ""), locale)


def _percent(locale: Locale, value: Any) -> str:
    return format_percent(_amount(value), locale=locale, decimal_quantization=False)


def _money(locale: Locale, value: Any, currency: str = "") -> str:
    """An amount in minor units, as everything here keeps them."""
    if not is_money(currency):
        raise Unwritable("money takes the code of a currency, as in money('EUR')")
    minor = _amount(value)
    if minor != minor.to_integral_value():
        raise Unwritable("money takes whole minor units: 1250 is 12.50")
    code = currency.upper()
    return format_currency(minor.scaleb(-get_currency_precision(code)), code, locale=locale)


def is_money(currency: Any) -> bool:
    """Whether a value is the code of a currency."""
    return isinstance(currency, str) and is_currency(currency.upper())


def _moment(value: Any) -> datetime:
    if isinstance(value, str) and value.strip():
        try:
            found = datetime.fromisoformat(value.strip())
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        except ValueError:
            pass
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    raise Unwritable("a value is no date such as 2027-03-31 or 2027-03-31T09:00:00Z")


def _amount(value: Any) -> Decimal:
    try:
        number = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value).strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) > LARGEST:
        raise Unwritable("a value is not a number")
    return number


def _known(style: str, styles: tuple[str, ...]) -> Any:
    if style not in styles:
        raise Unwritable(f"there are {', '.join(styles)}")
    return style


LOCALIZED: dict[str, Callable[..., str]] = {
    "date": _present(_date),
    "time": _present(_time),
    "datetime": _present(_datetime),
    "number": _present(_number),
    "percent": _present(_percent),
    "money": _present(_money),
}
