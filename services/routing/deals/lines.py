"""What is sold: products at a price, once or again and again. All of it in whole minor units."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from shared.web import Input

Interval = Literal["day", "week", "month", "quarter", "year"]
PER_YEAR: dict[Interval, int] = {"day": 365, "week": 52, "month": 12, "quarter": 4, "year": 1}
MOST_MINOR = 10**15


class Recurring(Input):
    """Paid every `count` intervals, `periods` times as far as agreed; without that, for a year."""

    interval: Interval
    count: Annotated[int, Field(strict=True, ge=1, le=366)] = 1
    periods: Annotated[int, Field(strict=True, ge=1, le=3_660)] | None = None

    @property
    def payments(self) -> int:
        """How often it is paid as far as agreed."""
        return self.periods or max(PER_YEAR[self.interval] // self.count, 1)


class Line(Input):
    """So many of a product at `unit_minor` each; with `recurring`, that much each time."""

    product: Annotated[str, Field(min_length=1, max_length=200)]
    quantity: Annotated[int, Field(strict=True, ge=1, le=10**9)] = 1
    unit_minor: Annotated[int, Field(strict=True, ge=0, le=MOST_MINOR)]
    recurring: Recurring | None = None

    @property
    def amount_minor(self) -> int:
        """What it costs once, or each time."""
        return self.quantity * self.unit_minor


def total_minor(lines: Sequence[Line]) -> int:
    """The value of the deal: what is paid once, and the payments that are agreed of what recurs."""
    return sum(line.amount_minor * (line.recurring.payments if line.recurring else 1) for line in lines)


def amounts_of(lines: Sequence[Line]) -> tuple[int, int | None]:
    """The value of lines, and what recurs of them every month; None where nothing recurs."""
    return total_minor(lines), monthly_minor(lines) if any(line.recurring for line in lines) else None


def annual_minor(lines: Sequence[Line]) -> int:
    """What recurs in a year of 12 months, 52 weeks or 365 days (ARR), rounded to whole minor units once."""
    return round(_annual(lines))


def monthly_minor(lines: Sequence[Line]) -> int:
    """A twelfth of what recurs in a year (MRR), rounded to whole minor units once."""
    return round(_annual(lines) / 12)


def _annual(lines: Sequence[Line]) -> Fraction:
    return sum(
        (
            Fraction(line.amount_minor * PER_YEAR[line.recurring.interval], line.recurring.count)
            for line in lines
            if line.recurring is not None
        ),
        Fraction(0),
    )
