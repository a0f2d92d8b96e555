"""The lines of a report out of what was read: in one currency, in order, beside those of another period. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import NamedTuple, Protocol

from services.attribution.reports.domain import Interval, bucket_number, conversions_of, nth_bucket

Keys = tuple[str, ...]


class Cell(NamedTuple):
    """What is credited in a currency under a key; in a day, week or month, and on a day, where these were asked."""

    currency: str
    bucket: date | None
    day: date | None
    keys: Keys
    units: int
    minor: int


class Cost(NamedTuple):
    """What was spent in a currency under a key."""

    currency: str
    bucket: date | None
    day: date | None
    keys: Keys
    minor: int


class Days(NamedTuple):
    """What is credited to a key in a currency, or spent on it, on each day that has an amount; the lists run parallel,
    in no order. `days` is the day whose rate converts an amount, None where nothing is to be converted.
    """

    currency: str
    keys: Keys
    buckets: Sequence[date]
    days: Sequence[date | None]
    minor: Sequence[int]


Amounts = Mapping[tuple[str, date], int]
"""Minor units by currency and, where they are to be converted, day."""


class Money(Protocol):
    """Adds amounts up in the currency of a report."""

    def total(self, amounts: Amounts) -> int:
        """The sum in whole minor units, rounded once."""
        ...

    def exactly(self, amounts: Amounts) -> int | Fraction:
        """The sum before it is rounded."""
        ...


class OneCurrency:
    """Adds amounts up that are of one currency as they are."""

    def total(self, amounts: Amounts) -> int:
        """The sum in minor units."""
        return sum(amounts.values())

    exactly = total


Place = tuple[date | None, Keys]
"""Which line: its day, week or month, and its keys."""


class Line(NamedTuple):
    """What was earned, and what it cost: None where that is not known, which is neither zero nor free."""

    place: Place
    units: int = 0
    value_minor: int = 0
    cost_minor: int | None = None

    @property
    def key(self) -> str:
        """Its keys as one text."""
        return " / ".join(self.place[1])

    @property
    def conversions(self) -> float:
        """The credited conversions."""
        return conversions_of(self.units)

    @property
    def roi(self) -> float | None:
        """(value - cost) / cost; without a cost there is no return on it."""
        return ratio(self.value_minor - self.cost_minor, self.cost_minor) if self.cost_minor else None


@dataclass(slots=True)
class _Sums:
    units: int = 0
    earned: dict[tuple[str, date], int] = field(default_factory=dict)
    spent: dict[tuple[str, date], int] | None = None

    def earn(self, place: tuple[str, date], units: int, minor: int) -> None:
        self.units += units
        self.earned[place] = self.earned.get(place, 0) + minor

    def spend(self, place: tuple[str, date], minor: int) -> None:
        if self.spent is None:
            self.spent = {}
        self.spent[place] = self.spent.get(place, 0) + minor

    def line(self, place: Place, money: Money) -> Line:
        cost = None if self.spent is None else money.total(self.spent)
        return Line(place, self.units, money.total(self.earned), cost)


def lines_of(cells: Iterable[Cell], costs: Iterable[Cost], money: Money) -> tuple[list[Line], Line]:
    """A line for each place where something was earned or spent, and their total, which is rounded on its own.

    In order of time, and within a day, week or month the largest value first.
    """
    sums: dict[Place, _Sums] = defaultdict(_Sums)
    total = _Sums()
    for currency, bucket, day, keys, units, minor in cells:
        place = (currency, day or date.min)
        sums[bucket, keys].earn(place, units, minor)
        total.earn(place, units, minor)
    for currency, bucket, day, keys, minor in costs:
        place = (currency, day or date.min)
        sums[bucket, keys].spend(place, minor)
        total.spend(place, minor)
    lines = [of_one.line(place, money) for place, of_one in sums.items()]
    return sorted(lines, key=in_order), total.line((None, ()), money)


def in_order(line: Line) -> tuple[date, int, int, tuple[str, ...]]:
    """Where a line stands: in order of time, then the largest value first."""
    bucket, keys = line.place
    return bucket or date.min, -line.value_minor, -line.units, keys


def beside(
    now: Iterable[Line], then: Iterable[Line], interval: Interval | None, first: date | None, first_then: date | None
) -> list[tuple[Line, Line]]:
    """Each line with that of the other period; days, weeks or months are counted from the first days of both.

    Where there was nothing in one of them, its line is an empty one.
    """

    def number(line: Line, start: date | None) -> tuple[int, tuple[str, ...]]:
        bucket, keys = line.place
        if interval is None or bucket is None or start is None:
            return 0, keys
        return bucket_number(bucket, interval) - bucket_number(start, interval), keys

    present = {number(line, first): line for line in now}
    past = {number(line, first_then): line for line in then}
    pairs = [(line, past.get(place, Line(line.place))) for place, line in present.items()]
    for place, line in past.items():
        if place not in present:
            bucket = nth_bucket(first, place[0], interval) if interval is not None and first is not None else None
            pairs.append((Line((bucket, place[1])), line))
    return sorted(pairs, key=lambda pair: in_order(pair[0]))


def compared(by_model: Iterable[Iterable[Line]]) -> list[tuple[Place, list[Line]]]:
    """For each place the line by each model; in order of the first model's value, then of the next ones'."""
    lines = [{line.place: line for line in of_one} for of_one in by_model]
    places = dict.fromkeys(place for of_one in lines for place in of_one)
    found = [(place, [of_one.get(place, Line(place)) for of_one in lines]) for place in places]
    return sorted(
        found,
        key=lambda one: (one[0][0] or date.min, [-line.value_minor for line in one[1]], one[0][1]),
    )


def ratio(part: float, whole: float) -> float | None:
    """One number by another, to six places; None where there is nothing to divide by."""
    return round(part / whole, 6) if whole else None


def divided(part: int, whole: int) -> int:
    """One number by another, rounded half to even: exactly, and for a fifth of what a fraction costs."""
    if whole < 0:
        part, whole = -part, -whole
    quotient, rest = divmod(part, whole)
    return quotient + (2 * rest > whole or (2 * rest == whole and quotient % 2))
