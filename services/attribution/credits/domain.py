"""What conversions come to: their paths, how each run divides them, and by how much the sums move. Pure."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

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


class Place(NamedTuple):
    """What a credit counts under, whoever gives it: the day of the conversion, that of the touch, and the rest."""

    day: date
    touch_day: date
    currency: str
    conversion_type: str
    combo_id: int
    channel: str
    source: str
    medium: str
    campaign: str


def _place(day: date, touch_day: date, currency: str, kind: str, combo: Combo) -> Place:
    return Place(
        day, touch_day, currency, kind, combo.combo_id, combo.channel, combo.source, combo.medium, combo.campaign
    )


class Owner(NamedTuple):
    """What a conversion counts under."""

    day: date
    currency: str
    conversion_type: str
    country: str
    account: str
    rep: str


Sums = dict[Any, list[int]]
"""Two sums by a key: units and value, or conversions and value."""


def _sums() -> Any:
    return defaultdict(lambda: [0, 0])


@dataclass(slots=True)
class Moves:
    """By how much the sums of days move when conversions are credited otherwise than before.

    `credits` are by run and the number of a place, `combos` the places on paths that each combo gains.
    """

    places: dict[Place, int] = field(default_factory=dict)
    credits: Sums = field(default_factory=_sums)
    conversions: Sums = field(default_factory=_sums)
    combos: dict[Combo, int] = field(default_factory=lambda: defaultdict(int))

    def count(self, row: PathRow, sign: int) -> None:
        """A conversion counts, or counts no more (-1)."""
        owner = Owner(row.day, row.currency, row.conversion_type, row.country, row.account, row.rep)
        sums = self.conversions[owner]
        sums[0] += sign
        sums[1] += sign * row.value_minor
        for touch in row.touches:
            self.combos[touch.combo] += sign

    def credit(self, row: PathRow, divisions: Divisions, sign: int) -> None:
        """These credits of a conversion count, or count no more (-1)."""
        day, currency, kind = row.day, row.currency, row.conversion_type
        places, credits = self.places, self.credits
        found = [_place(day, day, currency, kind, NOBODY)]
        found += [_place(day, touch.occurred_at.date(), currency, kind, touch.combo) for touch in row.touches]
        numbers = [places.setdefault(place, len(places)) for place in found]
        for run, division in divisions.items():
            for number, units, minor in zip(numbers, division.units, division.value_minor, strict=True):
                if units or minor:
                    sums = credits[run, number]
                    sums[0] += sign * units
                    sums[1] += sign * minor


def moves_away(before: Mapping[ConversionId, Credited]) -> Moves:
    """By how much the sums move when conversions count no more."""
    found = Moves()
    for old in before.values():
        found.count(old.path, -1)
        found.credit(old.path, old.divisions, -1)
    return found


def moves(before: Mapping[ConversionId, Credited], after: Mapping[ConversionId, Credited]) -> Moves:
    """By how much the sums move between what was stored of conversions and what they come to."""
    found = Moves()
    for conversion_id, new in after.items():
        old = before.get(conversion_id)
        if old is None:
            found.count(new.path, 1)
            found.credit(new.path, new.divisions, 1)
            continue
        moved = old.path != new.path
        if moved:
            found.count(new.path, 1)
            found.count(old.path, -1)
        changed = [run for run, division in new.divisions.items() if moved or old.divisions.get(run) != division]
        found.credit(new.path, {run: new.divisions[run] for run in changed}, 1)
        found.credit(old.path, {run: old.divisions[run] for run in changed if run in old.divisions}, -1)
    return found
