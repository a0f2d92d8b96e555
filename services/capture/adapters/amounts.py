"""Amounts and ids as shops and schedulers write them: read exactly, or refused."""

import re
from collections.abc import Mapping
from typing import Any

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import text
from shared.money import NotAnAmount, UnknownCurrency, exponent, parse_minor

LONGEST_ID = 255
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def decimal_amount(amount: Any, currency: Any) -> tuple[int, str]:
    """The minor units of a decimal, text or number, with the currency's code in capitals; Unmappable."""
    code = (text(currency) or "").upper()
    try:
        minor = parse_minor(text(amount) or "", code)
    except (NotAnAmount, UnknownCurrency) as exc:
        raise Unmappable(str(exc)) from exc
    return minor, code


def whole_amount(amount: Any, currency: Any) -> tuple[int, str]:
    """The minor units of an amount that is written in them, with the currency's code in capitals; Unmappable."""
    code = (text(currency) or "").upper()
    try:
        exponent(code)
    except UnknownCurrency as exc:
        raise Unmappable(str(exc)) from exc
    return whole_number(amount), code


def whole_number(amount: Any) -> int:
    """A number of smallest units, as a number or as text; Unmappable."""
    if isinstance(amount, str) and _WHOLE.fullmatch(amount):
        return int(amount)
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise Unmappable("an amount is a whole number of the smallest unit")
    return amount


def paid(amount: tuple[int, str]) -> tuple[int, str]:
    """The amount, unless it is negative, which nobody pays; Unmappable."""
    if amount[0] < 0:
        raise Unmappable("a price is not negative")
    return amount


def id_at(record: Mapping[str, Any], name: str = "id") -> str | None:
    """The id under this name, a text or a number; None if there is none."""
    found = record.get(name)
    if isinstance(found, bool) or not isinstance(found, int | str):
        return None
    return written if 0 < len(written := str(found).strip()) <= LONGEST_ID else None


def needed_id(record: Mapping[str, Any], name: str = "id") -> str:
    """The id under this name; Unmappable if there is none."""
    found = id_at(record, name)
    if found is None:
        raise Unmappable(f"there is no {name}")
    return found
