"""What conversions come to: their paths, how each run divides them, and by how much the sums move. Pure."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from services.attribution.channels.domain import NOT_SET
from services.attribution.domain import (
    NOBODY,
    Combo,
    Conversion,
    CreditingRun,
    Deal,
    Division,
    Path,
    PathRow,
    PathTouch,
    Profile,
    TotalsModel,
    Touch,
    divide,
    path_to,
)
from shared.ids import ConversionId, LeadId, RepId


@dataclass(frozen=True, slots=True)
class Person:
    """All that credit depends on of a person, but for the conversion and its deal.

    `touches` are in any order; `conversions` (their times) and `reps` (whom the person was given to, and when) in
    order of time.
    """

    person_id: LeadId
    touches: Sequence[Touch]
    conversions: Sequence[datetime]
    reps: Sequence[tuple[datetime, RepId]]
    profile: Profile | None = None

    def rep_at(self, at: datetime) -> str | None:
        """Whom the person was given to last by then."""
        place = bisect_right(self.reps, at, key=itemgetter(0))
        return self.reps[place - 1][1] if place else None

    def conversion_before(self, at: datetime) -> datetime | None:
        """When the person's conversion before that time was."""
        place = bisect_left(self.conversions, at)
        return self.conversions[place - 1] if place else None


Divisions = dict[int, Division]
"""By run."""


@dataclass(frozen=True, slots=True)
class Credited:
    """What is stored of a conversion."""

    path: PathRow
    divisions: Divisions


def credit(
    person: Person,
    conversion: Conversion,
    deal: Deal | None,
    runs: Iterable[CreditingRun],
    lookback: timedelta | None,
) -> Credited:
    """The path to a conversion, as far back as `lookback`, and the credits by each run."""
    path = path_to(
        conversion.occurred_at,
        person.touches,
        lookback,
        lead_created_at=person.profile.created_at if person.profile else None,
        deal_created_at=deal.opened_at if deal else None,
    )
    previous = person.conversion_before(conversion.occurred_at)
    divisions = {
        run.run: divide(path, conversion.value_minor, run.model, previous)
        for run in runs
        if not isinstance(run.model, TotalsModel)
    }
    return Credited(_path_row(person, conversion, deal, path), divisions)


def _path_row(person: Person, conversion: Conversion, deal: Deal | None, path: Path) -> PathRow:
    profile = person.profile
    return PathRow(
        conversion_id=conversion.conversion_id,
        person_id=person.person_id,
        touches=tuple(
            [PathTouch(touch.touch_id, touch.origin, touch.combo, touch.occurred_at) for touch in path.touches]
        ),
        lead_place=path.lead,
        deal_place=path.deal,
        conversion_type=conversion.type,
        currency=conversion.currency,
        value_minor=conversion.value_minor,
        occurred_at=conversion.occurred_at,
        country=(profile and profile.country) or NOT_SET,
        account=(profile and profile.account) or NOT_SET,
        rep=(deal and deal.rep) or person.rep_at(conversion.occurred_at) or NOT_SET,
    )


# Keys of the tables of sums, in the order of their columns: plain tuples, since crediting makes them by the thousand.
CreditCell = tuple[int, str, str, date, str, str, int]
"""A row of `credit_sums`: run, basis, level, day, currency, conversion type, combo."""

ChannelCell = tuple[int, str, str, date, str, str, str]
"""A row of `channel_sums`: run, basis, level, day, currency, conversion type, channel."""

ConversionCell = tuple[str, date, str, str, str, str, str]
"""A row of `conversion_sums`: level, day, currency, conversion type, country, account, rep."""

OwnerCell = tuple[str, str, date, str, str, str]
"""A row of `owner_sums`: dimension, level, day, currency, conversion type, key."""

Cell = TypeVar("Cell", bound=tuple[Any, ...])
Pair = list[int]
"""Two sums: units and value, or conversions and value."""


def _sums() -> Any:
    return defaultdict(lambda: [0, 0])


@dataclass(slots=True)
class Moves:
    """By how much sums move when conversions are credited otherwise than before."""

    _by_days: dict[tuple[int, date, date, str, str, int], Pair] = field(default_factory=_sums)
    _conversions: dict[tuple[date, str, str, str, str, str], Pair] = field(default_factory=_sums)
    combos: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """How many places on paths each combo gains."""

    known: dict[int, Combo] = field(default_factory=dict)
    _channels: dict[int, str] = field(default_factory=lambda: {NOBODY.combo_id: NOBODY.channel})

    def path(self, row: PathRow, sign: int) -> None:
        """A conversion counts, or counts no more (-1)."""
        place = (row.day, row.currency, row.conversion_type, row.country, row.account, row.rep)
        pair = self._conversions[place]
        pair[0] += sign
        pair[1] += sign * row.value_minor
        for touch in row.touches:
            self.combos[touch.combo.combo_id] += sign
            self.known[touch.combo.combo_id] = touch.combo

    def credits(self, row: PathRow, run: int, division: Division, sign: int) -> None:
        """The credits of a conversion count, or count no more (-1)."""
        day, currency, kind = row.day, row.currency, row.conversion_type
        by_days = self._by_days
        for index, (units, minor) in enumerate(zip(division.units, division.value_minor, strict=True)):
            if units or minor:
                touch = row.touches[index - 1] if index else None
                touch_day = touch.occurred_at.date() if touch else day
                combo_id = touch.combo.combo_id if touch else NOBODY.combo_id
                if touch:
                    self._channels[combo_id] = touch.combo.channel
                pair = by_days[run, day, touch_day, currency, kind, combo_id]
                pair[0] += sign * units
                pair[1] += sign * minor

    def credit_cells(self) -> dict[CreditCell, Pair]:
        """The rows of `credit_sums` that move."""
        cells: dict[CreditCell, Pair] = _sums()
        for (run, day, touch_day, currency, kind, combo_id), (units, minor) in self._by_days.items():
            if units or minor:
                for basis, level, first in _places(day, touch_day):
                    pair = cells[run, basis, level, first, currency, kind, combo_id]
                    pair[0] += units
                    pair[1] += minor
        return _moved(cells)

    def channel_cells(self) -> dict[ChannelCell, Pair]:
        """The rows of `channel_sums` that move."""
        cells: dict[ChannelCell, Pair] = _sums()
        channels = self._channels
        for (run, day, touch_day, currency, kind, combo_id), (units, minor) in self._by_days.items():
            if units or minor:
                channel = channels[combo_id]
                for basis, level, first in _places(day, touch_day):
                    pair = cells[run, basis, level, first, currency, kind, channel]
                    pair[0] += units
                    pair[1] += minor
        return _moved(cells)

    def conversion_cells(self) -> dict[ConversionCell, Pair]:
        """The rows of `conversion_sums` that move."""
        cells: dict[ConversionCell, Pair] = _sums()
        for (day, currency, kind, country, account, rep), (number, minor) in self._conversions.items():
            for level, first in (("day", day), ("month", day.replace(day=1))):
                pair = cells[level, first, currency, kind, country, account, rep]
                pair[0] += number
                pair[1] += minor
        return _moved(cells)

    def owner_cells(self) -> dict[OwnerCell, Pair]:
        """The rows of `owner_sums` that move."""
        cells: dict[OwnerCell, Pair] = _sums()
        for (day, currency, kind, country, _, rep), (number, minor) in self._conversions.items():
            for dimension, key in (("country", country), ("rep", rep)):
                for level, first in (("day", day), ("month", day.replace(day=1))):
                    pair = cells[dimension, level, first, currency, kind, key]
                    pair[0] += number
                    pair[1] += minor
        return _moved(cells)


@lru_cache(maxsize=65_536)
def _places(day: date, touch_day: date) -> tuple[tuple[str, str, date], ...]:
    """Where a credit counts: by the day and the month of its conversion, and of its touch."""
    return (
        ("c", "day", day),
        ("c", "month", day.replace(day=1)),
        ("t", "day", touch_day),
        ("t", "month", touch_day.replace(day=1)),
    )


def _moved(cells: dict[Cell, Pair]) -> dict[Cell, Pair]:
    """The cells that move, in the order in which all lock them."""
    return {cell: cells[cell] for cell in sorted(cells) if any(cells[cell])}


def moves(before: Mapping[ConversionId, Credited], after: Mapping[ConversionId, Credited]) -> Moves:
    """By how much the sums move between what was stored of conversions and what they come to."""
    found = Moves()
    for conversion_id, new in after.items():
        old = before.get(conversion_id)
        moved = old is None or old.path != new.path
        if moved:
            found.path(new.path, 1)
            if old is not None:
                found.path(old.path, -1)
        for run, division in new.divisions.items():
            known = old.divisions.get(run) if old else None
            if moved or division != known:
                found.credits(new.path, run, division, 1)
                if old is not None and known is not None:
                    found.credits(old.path, run, known, -1)
    return found
