"""What a journey counts in: pure. All sums of sequences of channels follow from these cells.

A journey ends in a conversion, or in nothing: then it is the remainder of a person's touches after their last
conversion. Whatever is counted is counted by adding the cells of journeys and subtracting them again.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Literal, NamedTuple

from services.attribution.domain import LOOKBACK, PathRow
from services.attribution.reports.domain import Period, nth_bucket

Subject = Literal["step", "last", "gram", "tail", "set", "part", "assist", "length", "lag", "path", "route"]
"""What a sum is about.

- `step`: going on to a channel; its keys are the channel before, if there is one, and the channel.
- `last`: ending after a channel.
- `gram`, `tail`: the same with up to four channels before, by month and over all time.
- `set`: the distinct channels. `part`: a channel on any touch to a conversion, `assist`: on any but the last.
- `path`, `route`: the sequence of channels with and without runs. `length`: its touches. `lag`: days from its first.
"""

Sequenced = Literal["path", "route"]
Level = Literal["day", "month", "all"]
Keys = tuple[str, ...]

EPOCH = date(1970, 1, 1)
"""The day of sums over all time."""

LONGEST_STATE = 4
NO_LAG = -1
"""Stands for the lag of a conversion that no touch led to."""

_DAY = timedelta(days=1)
SHORT = 16
"""Sequences up to this length come again and again, so that what follows from them is remembered."""

_BY_MONTH = frozenset({"gram", "tail"})
"""On a day there are nearly as many of these as journeys."""


@dataclass(frozen=True, slots=True)
class Journey:
    """A sequence of channels and what it came to. Without a conversion currency and type are empty."""

    channels: Keys
    day: date
    currency: str = ""
    conversion_type: str = ""
    value_minor: int = 0
    lag_days: int = NO_LAG

    @property
    def converted(self) -> bool:
        """Whether it ends in a conversion."""
        return bool(self.currency)


class Cell(NamedTuple):
    """A sum. `key_id` names its keys, or is itself the number of touches or days."""

    subject: Subject
    level: Level
    day: date
    currency: str
    conversion_type: str
    key_id: int
    keys: Keys


class Amount(NamedTuple):
    """Journeys and what they are worth."""

    journeys: int
    value_minor: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A conversion, and when and by which channel each touch before it came."""

    currency: str
    conversion_type: str
    value_minor: int
    occurred_at: datetime
    touches: Sequence[tuple[datetime, str]]

    @property
    def journey(self) -> Journey:
        """The journey to it, by the default look-back."""
        touches = [touch for touch in self.touches if touch[0] >= self.occurred_at - LOOKBACK]
        return Journey(
            channels=tuple(channel for _, channel in touches),
            day=self.occurred_at.date(),
            currency=self.currency,
            conversion_type=self.conversion_type,
            value_minor=self.value_minor,
            lag_days=(self.occurred_at - touches[0][0]) // _DAY if touches else NO_LAG,
        )


def journey_of(row: PathRow) -> Journey:
    """The journey to a conversion."""
    touches = [(touch.occurred_at, touch.combo.channel) for touch in row.touches]
    return Arrival(row.currency, row.conversion_type, row.value_minor, row.occurred_at, touches).journey


def remainder(channels: Sequence[str], last_at: datetime) -> Journey:
    """The journey of those touches that led to nothing so far; it counts on the day of its last touch."""
    return Journey(collapsed(channels), last_at.date())


def moved(before: Iterable[Journey], after: Iterable[Journey]) -> dict[Cell, Amount]:
    """By how much each sum moves when journeys take the place of others.

    Sums over all time do not tell types of conversions apart, and some subjects are not summed by day.
    """
    times = Counter(after)
    times.subtract(before)
    days: dict[tuple[date, str, str], Facets] = {}
    for journey, number in times.items():
        if number:
            facets = days.setdefault((journey.day, journey.currency, journey.conversion_type), {})
            _add(facets, _facets(journey), number, number * journey.value_minor)
    months: dict[tuple[date, str, str], Facets] = {}
    over_all: dict[str, Facets] = {}
    for (day, currency, kind), facets in days.items():
        into_month = months.setdefault((day.replace(day=1), currency, kind), {})
        into_all = over_all.setdefault(currency, {})
        for facet, (number, value) in facets.items():
            _add(into_month, (facet,), number, value)
            _add(into_all, (facet,), number, value)
    cells: dict[Cell, Amount] = {}
    levels: tuple[tuple[Level, dict[tuple[date, str, str], Facets]], ...] = (
        ("day", days),
        ("month", months),
        ("all", {(EPOCH, currency, ""): facets for currency, facets in over_all.items()}),
    )
    for level, sums in levels:
        for (day, currency, kind), facets in sums.items():
            for (subject, number_of, keys), (number, value) in facets.items():
                if (number or value) and (level != "day" or subject not in _BY_MONTH):
                    cells[Cell(subject, level, day, currency, kind, number_of, keys)] = Amount(number, value)
    return cells


def _add(facets: "Facets", more: Iterable["Facet"], number: int, value: int) -> None:
    for facet in more:
        known = facets.get(facet)
        if known is None:
            facets[facet] = [number, value]
        else:
            known[0] += number
            known[1] += value


Facet = tuple[Subject, int, Keys]
"""What a journey counts under on its day: a subject, the number of the keys, the keys."""

Facets = dict[Facet, list[int]]


def _facets(journey: Journey) -> Iterator[Facet]:
    is_short = len(journey.channels) <= SHORT  # what is long does not come again
    yield from (_steps if is_short else _steps.__wrapped__)(collapsed(journey.channels))
    if journey.converted:
        yield from (_ways if is_short else _ways.__wrapped__)(journey.channels)
        yield "lag", journey.lag_days, ()


@lru_cache(maxsize=2_048)
def _steps(visits: Keys) -> tuple[Facet, ...]:
    """What every journey counts under."""
    if not visits:
        return ()
    places = range(len(visits))
    return (
        *(_named("step", visits[max(0, place - 1) : place + 1]) for place in places),
        *(_named("gram", visits[max(0, place - LONGEST_STATE) : place + 1]) for place in places),
        _named("last", visits[-1:]),
        _named("tail", visits[-LONGEST_STATE:]),
        _named("set", tuple(sorted(set(visits)))),
    )


@lru_cache(maxsize=2_048)
def _ways(channels: Keys) -> tuple[Facet, ...]:
    """What a path to a conversion counts under, but for its lag."""
    return (
        *(_named("part", (channel,)) for channel in sorted(set(channels))),
        *(_named("assist", (channel,)) for channel in sorted(set(channels[:-1]))),
        ("length", len(channels), ()),
        _named("path", channels),
        _named("route", collapsed(channels)),
    )


def _named(subject: Subject, keys: Keys) -> Facet:
    return subject, (key_id if len(keys) <= SHORT else key_id.__wrapped__)(keys), keys


@lru_cache(maxsize=4_096)
def key_id(keys: Keys) -> int:
    """The number that names keys: the same everywhere."""
    return int.from_bytes(blake2b("\0".join(keys).encode(), digest_size=8).digest(), "big", signed=True)


def collapsed(channels: Sequence[str]) -> Keys:
    """A run of one channel is one visit."""
    return (*channels[:1], *(channel for before, channel in pairwise(channels) if channel != before))


class Span(NamedTuple):
    """Sums of a level from a day until before another, to be added (`sign` 1) or taken away (-1)."""

    level: Level
    first: date
    end: date
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Reach:
    """What a period is read from: sums, and where it begins and ends within a day of UTC the paths themselves."""

    spans: tuple[Span, ...]
    parts_of_days: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether the sums over all time answer."""
        return self.spans[:1] == _EVERYTHING


class Counted(NamedTuple):
    """A sum over a period. In sums of lost journeys the currency is empty."""

    subject: Subject
    currency: str
    key_id: int
    keys: Keys
    journeys: int
    value_minor: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be counted: a period, only these types of conversions, only this currency; empty: all of them."""

    period: Period
    types: tuple[str, ...] = ()
    currency: str | None = None

    @property
    def reach(self) -> Reach:
        """What that is read from."""
        return reach_of(self.period, by_type=bool(self.types))


_EVERYTHING = (Span("all", EPOCH, EPOCH + _DAY),)


def reach_of(period: Period, *, by_type: bool) -> Reach:
    """Whole months, the days by which the period differs from them, parts of days in a time zone other than UTC.

    The sums over all time do not tell types of conversions apart.
    """
    cut = period.cut
    if cut.first is None and cut.end is None and not by_type:
        return Reach(_EVERYTHING)
    spans: list[Span] = []
    for one in cut.spans():
        spans += [Span("month", one.first, one.end)] if one.level == "month" else _nearest(one.first, one.end)
    return Reach(tuple(spans), cut.parts)


def _nearest(first: date, end: date) -> Iterator[Span]:
    """Some days as they are, or most of a month as all of it without the rest: what are the fewest days."""
    while first < end:
        month = first.replace(day=1)
        next_month = nth_bucket(month, 1, "month")
        until = min(end, next_month)
        if 2 * (until - first) > next_month - month:
            yield Span("month", month, next_month)
            rest = (Span("day", month, first, -1), Span("day", until, next_month, -1))
            yield from (span for span in rest if span.first < span.end)
        else:
            yield Span("day", first, until)
        first = until
