"""Days that are free by law where a rep works, and those that the company says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

import holidays as public_holidays


class UnknownPlace(ValueError):
    """There are no holidays for this country or subdivision; says which there are."""


@dataclass(frozen=True, slots=True)
class CompanyDay:
    """A day that the company says is free, or with `worked` that it is worked although it is a holiday.

    It counts everywhere, or only in `country`, or only in its `subdivision`.
    """

    day: date
    name: str
    country: str | None = None
    subdivision: str | None = None
    worked: bool = False

    def counts_in(self, country: str | None, subdivision: str | None) -> bool:
        """Whether it counts for somebody who works there."""
        return self.country in (None, country) and self.subdivision in (None, subdivision)


@dataclass(frozen=True, slots=True, eq=False)
class Holidays:
    """The holidays of one place. True when there are any."""

    country: str | None = None
    subdivision: str | None = None
    free: Mapping[date, str] = field(default_factory=dict)
    worked: frozenset[date] = frozenset()

    def __bool__(self) -> bool:
        return self.country is not None or bool(self.free)

    def on(self, day: date) -> str | None:
        """The name of the holiday that a day is; None when it is none."""
        if (name := self.free.get(day)) is not None:
            return name
        if self.country is None or day in self.worked:
            return None
        return _by_law(self.country, self.subdivision, day.year).get(day)


NO_HOLIDAYS = Holidays()


def holidays_of(country: str | None, subdivision: str | None, company: Sequence[CompanyDay] = ()) -> Holidays:
    """The holidays of somebody who works there. What the company says last about a day counts."""
    own = {one.day: one for one in company if one.counts_in(country, subdivision)}
    return Holidays(
        country,
        subdivision,
        {day: one.name for day, one in own.items() if not one.worked},
        frozenset(day for day, one in own.items() if one.worked),
    )


def check_place(country: str, subdivision: str | None) -> None:
    """Raises UnknownPlace unless there are holidays by law for it."""
    try:
        known = public_holidays.country_holidays(country)
    except NotImplementedError:
        raise UnknownPlace(f"{country!r} is not the ISO 3166 code of a country whose holidays are known") from None
    if subdivision is None or subdivision in known.subdivisions:
        return
    listed = ", ".join(known.subdivisions)
    detail = f"there are {listed}" if listed else "it has none"
    raise UnknownPlace(f"{subdivision[:40]!r} is no subdivision of {country} with holidays of its own; {detail}")


@lru_cache(maxsize=4_000)
def _by_law(country: str, subdivision: str | None, year: int) -> Mapping[date, str]:
    found = public_holidays.country_holidays(country, subdiv=subdivision, years=year, language="en_US")
    return dict(found.items())
