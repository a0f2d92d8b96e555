"""All marks of a person, and the sums that they are part of: pure."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import NamedTuple

from services.attribution.channels.domain import NOT_SET
from services.attribution.pipeline.answering import answer_marks
from services.attribution.pipeline.domain import NOBODY, TIMED, Circumstances, Mark, Story
from services.attribution.pipeline.earning import deals_marks, payment_marks
from services.attribution.pipeline.funnels import LIFECYCLE, lead_way

Cell = tuple[str, str, str, date, str, str, int, str]
"""A sum that is kept: kind, dimension (`all`: none), level (`day`, `month`), first day, key, step, bucket, currency."""


class Total(NamedTuple):
    """What is summed."""

    number: int = 0
    value_minor: int = 0
    weighted_minor: int = 0
    microseconds: int = 0

    def plus(self, other: "Total") -> "Total":
        """The sum of two."""
        return Total(*(one + another for one, another in zip(self, other, strict=True)))


def marks_of(story: Story) -> list[Mark]:
    """All that is counted of a person, each thing once; what comes to nothing is left out.

    The person counts for the rep who was given the lead last, an offer for the rep who got it, a deal for its own.
    """
    owner = max(story.assignments, key=lambda one: one.place).owner if story.assignments else NOBODY
    deal_owners = {deal: max(steps, key=lambda step: step.revision).owner for deal, steps in story.deals.items()}
    marks = [
        *lead_way(_stages(story), owner),
        *answer_marks(story, owner),
        *deals_marks(story.deals),
        *payment_marks(story.payments, owner, deal_owners),
    ]
    return list(_netted(marks))


def _stages(story: Story) -> Mapping[str, datetime]:
    """When each stage was entered. Whoever is captured is in the first one, which nobody tells."""
    if story.captured_at is None:
        return story.stages
    first = min(story.captured_at, story.stages.get(LIFECYCLE[0], story.captured_at))
    return {**story.stages, LIFECYCLE[0]: first}


def cells_of(mark: Mark, circumstances: Circumstances) -> Iterator[Cell]:
    """The sums that a mark is part of. Of a rep in several teams it is in the sum of each. See `TIMED` for the days."""
    kind, step, bucket, currency, day = mark.kind, mark.step, mark.bucket, mark.currency, mark.at.date()
    keys = [
        ("all", ""),
        ("rep", mark.owner.rep),
        *(("team", team) for team in mark.owner.teams or (NOT_SET,)),
        ("channel", circumstances.channel),
        ("source", circumstances.source),
        ("campaign", circumstances.campaign),
        ("country", circumstances.country),
        ("account", circumstances.account),
    ]
    month = day.replace(day=1)
    for dimension, key in keys:
        yield kind, dimension, "month", month, key, step, bucket, currency
    for dimension, key in keys[:1] if kind in TIMED else keys:
        yield kind, dimension, "day", day, key, step, bucket, currency


def total_of(mark: Mark) -> Total:
    """What a mark adds to its sums."""
    return Total(mark.number, mark.value_minor, mark.weighted_minor, mark.lapse or 0)


def _netted(marks: Iterable[Mark]) -> Iterator[Mark]:
    """What a deal adds and takes away in the same moment is one mark, or none."""
    found: dict[tuple[object, ...], Mark] = {}
    for mark in marks:
        name = (mark.kind, mark.ref, mark.step, mark.at)
        known = found.get(name)
        found[name] = mark if known is None else _sum(known, mark)
    return (mark for mark in found.values() if mark.number or mark.value_minor or mark.weighted_minor)


def _sum(one: Mark, other: Mark) -> Mark:
    return one._replace(
        number=one.number + other.number,
        value_minor=one.value_minor + other.value_minor,
        weighted_minor=one.weighted_minor + other.weighted_minor,
    )
