"""Money: whole minor units of an ISO 4217 currency, never floats."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from iso4217 import raw_table
from pydantic import AfterValidator, Field

# ISO 4217 list three: codes withdrawn since 2015. Sales and refunds of those years keep their currency.
_WITHDRAWN = {
    "ANG": 2,
    "BGN": 2,
    "BYR": 0,
    "CUC": 2,
    "HRK": 2,
    "LTL": 2,
    "MRO": 2,
    "SLL": 2,
    "STD": 2,
    "VEF": 2,
    "ZWL": 2,
}
# Codes without minor units (gold, the test code, "no currency") measure nothing that is paid.
_EXPONENTS = _WITHDRAWN | {
    code: int(str(entry["CcyMnrUnts"]))
    for code, entry in raw_table.items()
    if code and str(entry["CcyMnrUnts"]).isdigit()
}
_DECIMAL = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?", re.ASCII)


class UnknownCurrency(ValueError):
    """Not the code of a currency that something can cost."""


class NotAnAmount(ValueError):
    """A text that is not an amount of this currency in whole minor units."""


def exponent(currency: str) -> int:
    """How many decimals the minor unit has: JPY 0, EUR 2, KWD 3. Raises UnknownCurrency."""
    try:
        return _EXPONENTS[currency]
    except KeyError:
        raise UnknownCurrency(f"{currency[:20]!r} is not an ISO 4217 currency code") from None


def _known(currency: str) -> str:
    exponent(currency)
    return currency


Currency = Annotated[
    str,
    AfterValidator(_known),
    Field(description="ISO 4217 code", json_schema_extra={"pattern": "^[A-Z]{3}$"}, examples=["EUR"]),
]


def parse_minor(decimal_text: str, currency: str) -> int:
    """The minor units in a plain decimal text: `249.90` US dollars are 24990.

    Raises NotAnAmount for anything else, also when the text is finer than the minor unit; UnknownCurrency.
    """
    digits = exponent(currency)
    if not _DECIMAL.fullmatch(decimal_text):
        raise NotAnAmount(f"{decimal_text[:40]!r} is not a decimal number")
    whole, _, fraction = decimal_text.partition(".")
    if len(fraction.rstrip("0")) > digits:
        raise NotAnAmount(f"{decimal_text[:40]!r} is finer than the minor unit of {currency}")
    return int(whole + fraction[:digits].ljust(digits, "0"))


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of one currency."""

    minor: int
    currency: str

    @classmethod
    def parse(cls, decimal_text: str, currency: str) -> "Money":
        """The amount in a plain decimal text; raises as `parse_minor` does."""
        return cls(parse_minor(decimal_text, currency), currency)

    @property
    def amount(self) -> Decimal:
        """In major units: 24990 US cents are 249.90."""
        return Decimal(self.minor).scaleb(-exponent(self.currency))

    def __str__(self) -> str:
        return f"{self.amount:,f} {self.currency}"
