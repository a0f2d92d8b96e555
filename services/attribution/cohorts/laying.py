"""The rows of the cohort reports out of what was counted. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from services.attribution.cohorts.domain import Level, Part, age_of
from services.attribution.reports.domain import nth_bucket
from services.attribution.reports.figures import Money, ratio

Key = tuple[date, str | None]
"""A cohort's first day, and the channel where it is told apart by channels."""

Amounts = dict[tuple[str, date], int]


@dataclass(slots=True)
class Bought:
    """What persons bought: amounts by currency and, where they are converted, day."""

    people: int = 0
    conversions: int = 0
    first: Amounts = field(default_factory=lambda: defaultdict(int))
    again: Amounts = field(default_factory=lambda: defaultdict(int))
    value: Amounts = field(default_factory=lambda: defaultdict(int))

    def add(self, part: Part) -> None:
        """Count a part as well."""
        place = (part.currency, part.day or date.min)
        self.people += part.people
        self.conversions += part.conversions
        self.first[place] += part.first_minor
        self.again[place] += part.value_minor - part.first_minor
        self.value[place] += part.value_minor


@dataclass(slots=True)  # frozen ones cost three times as much to make, and there are hundreds of these
class Age:
    """What a cohort bought in the week or month that is `age` after its own, and until its end.

    `converted` are persons who bought for the first time; their share is of all persons of the cohort.
    """

    age: int
    converted: int
    converted_so_far: int
    share_so_far: float | None
    conversions: int
    value_minor: int
    value_so_far_minor: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """Persons first heard of in one week or month, how they did since, and at the first of their ages."""

    key: Key
    people: int
    converted: int
    conversions: int
    value_minor: int
    ages: list[Age]


@dataclass(frozen=True, slots=True)
class Split:
    """What was bought in a week or month: by those who bought for the first time, and again."""

    key: Key
    new_conversions: int
    new_minor: int
    conversions: int
    returning_minor: int


def cohorts_of(  # noqa: PLR0913  # what a report is laid out by
    sizes: Mapping[tuple[date, str], int],
    parts: Iterable[Part],
    money: Money,
    level: Level,
    today: date,
    by_channel: bool,
    most_ages: int,
) -> list[Cohort]:
    """Cohorts in order of time, the largest first; ages up to the one that they have reached today, or the most."""
    people: dict[Key, int] = defaultdict(int)
    for (cohort, channel), number in sizes.items():
        people[cohort, channel if by_channel else None] += number
    bought: dict[Key, dict[int, Bought]] = defaultdict(lambda: defaultdict(Bought))
    for part in parts:
        bought[part.cohort, part.channel if by_channel else None][part.age].add(part)
    found = [
        _cohort(key, number, bought.get(key, {}), money, age_of(key[0], today, level), most_ages)
        for key, number in people.items()
    ]
    return sorted(found, key=lambda one: (one.key[0], -one.people, one.key[1] or ""))


def _cohort(  # noqa: PLR0913  # a line, and what it is laid out by
    key: Key, people: int, by_age: Mapping[int, Bought], money: Money, oldest: int, most_ages: int
) -> Cohort:
    ages: list[Age] = []
    told = min(max([oldest, *by_age]) + 1, most_ages)
    converted, share, conversions, total = 0, ratio(0, people), 0, 0
    value: Amounts = defaultdict(int)
    for age in sorted(by_age):
        ages += [Age(each, 0, converted, share, 0, 0, total) for each in range(len(ages), min(age, told))]
        now = by_age[age]
        converted, conversions = converted + now.people, conversions + now.conversions
        for place, minor in now.value.items():
            value[place] += minor
        share, total = ratio(converted, people), money.total(value)
        if age < told:
            ages.append(Age(age, now.people, converted, share, now.conversions, money.total(now.value), total))
    ages += [Age(each, 0, converted, share, 0, 0, total) for each in range(len(ages), told)]
    return Cohort(key, people, converted, conversions, total, ages)


def splits_of(parts: Iterable[Part], money: Money, level: Level, by_channel: bool) -> list[Split]:
    """What was bought in each week or month, by those who did so for the first time and again, in order of time."""
    sums: dict[Key, Bought] = defaultdict(Bought)
    for part in parts:
        sums[nth_bucket(part.cohort, part.age, level), part.channel if by_channel else None].add(part)
    found = [
        Split(key, one.people, money.total(one.first), one.conversions, money.total(one.again))
        for key, one in sums.items()
    ]
    return sorted(found, key=lambda one: (one.key[0], -one.new_minor - one.returning_minor, one.key[1] or ""))
