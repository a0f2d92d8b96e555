"""Reports out of sums: pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from services.attribution.domain import SHARE_UNITS
from services.attribution.errors import SeveralCurrencies
from shared.errors import FieldError


@dataclass(frozen=True, slots=True)
class Sum:
    """What is credited to one key: parts of conversions in `SHARE_UNITS`, and their value."""

    units: int = 0
    value_minor: int = 0

    @property
    def conversions(self) -> float:
        """The credited conversions: a whole number where no conversion was divided."""
        whole, rest = divmod(self.units, SHARE_UNITS)
        return whole if not rest else round(self.units / SHARE_UNITS, 6)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the attribution report. Without a cost there is no return on it: None, not zero and not infinity."""

    key: str
    sum: Sum
    cost_minor: int | None

    @property
    def roi(self) -> float | None:
        """(value - cost) / cost."""
        return round((self.sum.value_minor - self.cost_minor) / self.cost_minor, 6) if self.cost_minor else None


@dataclass(frozen=True, slots=True)
class Period:
    """Whole days from `first` until before `end`, in a time zone; None is open."""

    first: date | None
    end: date | None
    zone: ZoneInfo

    @property
    def is_utc(self) -> bool:
        """Whether its days are days of UTC, which are those that the sums are kept by."""
        return self.zone.key in {"UTC", "Etc/UTC"} or (self.first is None and self.end is None)

    @property
    def moments(self) -> tuple[datetime | None, datetime | None]:
        """From when until before when."""
        return self._midnight(self.first), self._midnight(self.end)

    def _midnight(self, day: date | None) -> datetime | None:
        return datetime.combine(day, time(), self.zone).astimezone(UTC) if day is not None else None


@dataclass(frozen=True, slots=True)
class Span:
    """Sums of one level, from `first` until before `end`."""

    level: Literal["day", "month"]
    first: date
    end: date


def spans_of(first: date | None, end: date | None) -> list[Span]:
    """The sums that make up the days from `first` until before `end`: whole months, and the days at both ends."""
    first, end = first or date.min, end or date.max
    month = first if first.day == 1 else (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    last = end if end == date.max else end.replace(day=1)
    if month >= last:
        return [Span("day", first, end)]
    spans = (Span("day", first, month), Span("month", month, last), Span("day", last, end))
    return [span for span in spans if span.first < span.end]


def choose_currency(present: Iterable[str], asked: str | None) -> str | None:
    """The currency of the answer; None when there is nothing to answer.

    Raises SeveralCurrencies, which lists them, when it is not asked for one.
    """
    found = sorted(set(present))
    if asked is not None:
        return asked
    if len(found) > 1:
        listed = ", ".join(found)
        fault = FieldError("query:currency", f"send one of {listed}")
        raise SeveralCurrencies(f"there are amounts in {listed}, and different currencies are never added", [fault])
    return found[0] if found else None


def rows_of(sums: Mapping[str, Sum], costs: Mapping[str, int]) -> list[Row]:
    """A row for each key that earned or cost something, the largest value first."""
    rows = [Row(key, sums.get(key, Sum()), costs.get(key)) for key in {*sums, *costs}]
    return sorted(rows, key=lambda row: (-row.sum.value_minor, -row.sum.units, row.key))


def compared(sums: Mapping[int, Mapping[str, Sum]], runs: Sequence[int]) -> list[tuple[str, list[Sum]]]:
    """For each key the sum by each run of a model; in order of the first one's value, then of the next ones'."""
    keys = {key for run in runs for key in sums.get(run, {})}
    lines = [(key, [sums.get(run, {}).get(key, Sum()) for run in runs]) for key in keys]
    return sorted(lines, key=lambda line: ([-one.value_minor for one in line[1]], line[0]))
