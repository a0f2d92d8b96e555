"""Money of one currency told in another, by the rates of each day that the user posted: pure, and exact until the end.

A rate says how much of `quote` one unit of `base` is worth on a day. An amount is converted by the rate of its own day,
or by the last one before it that is at most a week old: the pair as it was posted or turned around, whichever is newer
(as posted, if both are of one day); if there is neither, through one currency that both have rates with.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

from services.attribution.errors import MissingRates, SeveralCrossings
from shared.errors import FieldError
from shared.money import exponent

OLDEST = timedelta(days=7)
DECIMALS = 18

Ratio = tuple[int, int]
"""A rate as numerator and denominator. Those of posted rates share one denominator, so that adding them is cheap."""

Amounts = Mapping[tuple[str, date], int]
"""Minor units by currency and day."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of `base` was worth in `quote` on a day."""

    day: date
    base: str
    quote: str
    rate: Decimal


class Exchange:
    """Converts amounts into one currency. `through` is the currency to cross by where a pair has no rates."""

    def __init__(self, target: str, rates: Iterable[Rate], through: str | None = None) -> None:
        self.target = target
        self._through = through
        self._posted: dict[tuple[str, str], list[tuple[date, Ratio]]] = defaultdict(list)
        for rate in sorted(rates, key=lambda rate: rate.day):
            ratio = (int(rate.rate.scaleb(DECIMALS)), 10**DECIMALS)
            self._posted[rate.base, rate.quote].append((rate.day, ratio))
        self._found: dict[tuple[str, date], tuple[Ratio, str | None] | None] = {}
        self.crossed: dict[str, set[str]] = defaultdict(set)

    def total(self, amounts: Amounts) -> int:
        """The sum in minor units of the target, rounded once, half to even. Raises MissingRates, SeveralCrossings."""
        return round(self.exactly(amounts))

    def exactly(self, amounts: Amounts) -> Fraction:
        """The sum in minor units of the target before rounding. Raises MissingRates, SeveralCrossings."""
        self.need(place for place, minor in amounts.items() if minor)
        sums: dict[int, int] = defaultdict(int)
        for (currency, day), minor in amounts.items():
            if minor:
                numerator, denominator = self._minor_rate(currency, day)
                sums[denominator] += minor * numerator
        return sum((Fraction(n, d) for d, n in sums.items()), Fraction())

    def need(self, places: Iterable[tuple[str, date]]) -> None:
        """See that there is a rate for each currency and day. Raises MissingRates that lists all without one."""
        missing: dict[str, list[date]] = defaultdict(list)
        for currency, day in places:
            if self._rate(currency, day) is None:
                missing[currency].append(day)
        if missing:
            raise _missing(missing, self.target)

    def _minor_rate(self, currency: str, day: date) -> Ratio:
        found = self._rate(currency, day)
        assert found is not None
        (numerator, denominator), through = found
        if through is not None:
            self.crossed[currency].add(through)
        shift = exponent(self.target) - exponent(currency)
        return (numerator * 10**shift, denominator) if shift >= 0 else (numerator, denominator * 10**-shift)

    def _rate(self, currency: str, day: date) -> tuple[Ratio, str | None] | None:
        """The rate of a day and what it crosses by; None where there is none."""
        if currency == self.target:
            return (1, 1), None
        place = (currency, day)
        if place not in self._found:
            direct = self._pair(currency, self.target, day)
            self._found[place] = (direct[1], None) if direct is not None else self._crossing(currency, day)
        return self._found[place]

    def _crossing(self, currency: str, day: date) -> tuple[Ratio, str | None] | None:
        known = sorted({code for pair in self._posted for code in pair} - {currency, self.target})
        ways: dict[str, Ratio] = {}
        for middle in known if self._through is None else [self._through]:
            first, second = self._pair(currency, middle, day), self._pair(middle, self.target, day)
            if first is not None and second is not None:
                ways[middle] = (first[1][0] * second[1][0], first[1][1] * second[1][1])
        if len(ways) > 1:
            raise _several(currency, self.target, day, list(ways))
        return next(((ratio, middle) for middle, ratio in ways.items()), None)

    def _pair(self, base: str, quote: str, day: date) -> tuple[date, Ratio] | None:
        """The newest rate between two currencies that counts on a day."""
        posted = _newest(self._posted.get((base, quote), []), day)
        turned = _newest(self._posted.get((quote, base), []), day)
        if turned is not None and (posted is None or posted[0] < turned[0]):
            numerator, denominator = turned[1]
            return turned[0], (denominator, numerator)
        return posted


def _newest(rates: list[tuple[date, Ratio]], day: date) -> tuple[date, Ratio] | None:
    place = bisect_right(rates, day, key=lambda rate: rate[0])
    return rates[place - 1] if place and day - rates[place - 1][0] <= OLDEST else None


def _missing(missing: Mapping[str, list[date]], target: str) -> MissingRates:
    faults = [
        FieldError(
            "query:convert_to",
            f"there is no rate from {currency} to {target} on {min(days)} or in the {OLDEST.days} days before"
            + (f", and on {len(days) - 1} more days" if len(days) > 1 else ""),
        )
        for currency, days in sorted(missing.items())
    ]
    listed = ", ".join(f"{currency} from {min(days)}" for currency, days in sorted(missing.items()))
    return MissingRates(f"rates into {target} are missing: {listed}; PUT them to /attribution/v1/rates", faults)


def _several(currency: str, target: str, day: date, ways: list[str]) -> SeveralCrossings:
    fault = FieldError("query:convert_through", f"send one of {', '.join(ways)}")
    detail = f"{currency} has no rate with {target} on {day}, and could cross by {' or '.join(ways)}"
    return SeveralCrossings(detail, [fault])
