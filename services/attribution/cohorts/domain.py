"""Cohorts: persons by the week or month in which they were first heard of, and what they bought since. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, NamedTuple, TypeVar

from services.attribution.channels.domain import UNATTRIBUTED
from services.attribution.reports.domain import bucket_number, bucket_of
from shared.ids import ConversionId

Level = Literal["week", "month"]
Cell = TypeVar("Cell", bound=tuple[Any, ...])
LEVELS: tuple[Level, ...] = ("week", "month")


@dataclass(frozen=True, slots=True)
class Bought:
    """A conversion of a person; `value_minor` is what refunds have left of it."""

    conversion_id: ConversionId
    occurred_at: datetime
    currency: str
    value_minor: int


@dataclass(frozen=True, slots=True)
class Contact:
    """When a person was first heard of and by which channel; what they bought, in order of time."""

    first_at: datetime
    channel: str
    bought: tuple[Bought, ...] = ()


def contact(first_touch: tuple[datetime, str] | None, bought: Iterable[Bought]) -> Contact | None:
    """The contact with a person whose first touch was then, by that channel; None when nothing is known of them.

    Who bought before any touch was first heard of by buying, by no channel; so nobody buys before they are known.
    """
    in_order = tuple(sorted(bought, key=lambda one: (one.occurred_at, one.conversion_id)))
    if first_touch is not None and (not in_order or first_touch[0] <= in_order[0].occurred_at):
        return Contact(*first_touch, in_order)
    return Contact(in_order[0].occurred_at, UNATTRIBUTED, in_order) if in_order else None


class SizeCell(NamedTuple):
    """A row of `cohort_sizes`."""

    level: Level
    cohort: date
    channel: str


class SumCell(NamedTuple):
    """A row of `cohort_sums`: `age` is in whole weeks or months of the calendar, 0 in the cohort's own."""

    level: Level
    cohort: date
    channel: str
    currency: str
    age: int


class Part(NamedTuple):
    """What a cohort bought in a currency at an age; `day` only where amounts are converted by the rates of days."""

    cohort: date
    channel: str
    currency: str
    age: int
    day: date | None
    people: int
    conversions: int
    first_minor: int
    value_minor: int


Sizes = dict[SizeCell, list[int]]
Sums = dict[SumCell, list[int]]


def age_of(first_day: date, day: date, level: Level) -> int:
    """How many weeks or months of the calendar lie between two days."""
    return bucket_number(day, level) - bucket_number(first_day, level)


def moves(before: Iterable[Contact], after: Iterable[Contact]) -> tuple[Sizes, Sums]:
    """By how much the sums move when contacts are others than before, in the order of their keys."""
    sizes: Sizes = defaultdict(lambda: [0])
    sums: Sums = defaultdict(lambda: [0, 0, 0, 0])
    for sign, contacts in ((-1, before), (1, after)):
        for one in contacts:
            for level in LEVELS:
                _count(one, level, sign, sizes, sums)
    return _moved(sizes), _moved(sums)


def _count(one: Contact, level: Level, sign: int, sizes: Sizes, sums: Sums) -> None:
    first_day = one.first_at.date()
    cohort = bucket_of(first_day, level)
    sizes[SizeCell(level, cohort, one.channel)][0] += sign
    for place, bought in enumerate(one.bought):
        age = age_of(first_day, bought.occurred_at.date(), level)
        cell = sums[SumCell(level, cohort, one.channel, bought.currency, age)]
        first = place == 0
        parts = (first, 1, bought.value_minor if first else 0, bought.value_minor)
        for index, part in enumerate(parts):
            cell[index] += sign * part


def _moved(cells: dict[Cell, list[int]]) -> dict[Cell, list[int]]:
    return {cell: cells[cell] for cell in sorted(cells) if any(cells[cell])}
