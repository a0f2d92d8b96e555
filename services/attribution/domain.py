"""Journeys, conversions and credits: pure values, and the rules that tie them together.

The rules R1 to R10 are stated in this service's README.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Literal, Protocol

from services.attribution.channels.domain import NOT_SET, UNATTRIBUTED
from shared.ids import ConversionId, DealId, LeadId, TouchId

Dimension = Literal["channel", "source", "medium", "campaign"]
DIMENSIONS: tuple[Dimension, ...] = ("channel", "source", "medium", "campaign")
Milestone = Literal["first", "lead", "deal", "close"]
Reason = Literal["too_old", "after_conversion", "automated"]

LOOKBACK = timedelta(days=90)
SHARE_UNITS = 10**10
"""The shares of one conversion sum to this many units, so that adding and subtracting them is exact."""


@dataclass(frozen=True, slots=True)
class Touch:
    """An interaction, as far as credit depends on it. `origin` and `touch_id` name it together."""

    origin: str
    touch_id: TouchId
    occurred_at: datetime
    received_at: datetime
    type: str
    channel: str
    channel_rule: str
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    page: str | None = None
    automated: bool = False

    @property
    def place(self) -> tuple[datetime, TouchId, str]:
        """R2: touches are ordered by their time; of two in the same instant, the id decides."""
        return self.occurred_at, self.touch_id, self.origin

    def key(self, dimension: Dimension) -> str:
        """What the touch counts under in a report by this dimension."""
        value: str | None = getattr(self, dimension)
        return value or NOT_SET


@dataclass(frozen=True, slots=True)
class Conversion:
    """Money earned, or a success that counts as such. `value_minor` is what is left of it after refunds (R9)."""

    conversion_id: ConversionId
    origin: str
    external_id: str
    lead_id: LeadId
    type: str
    value_minor: int
    currency: str
    occurred_at: datetime
    received_at: datetime
    deal_id: DealId | None = None
    refunded_minor: int = 0

    @property
    def day(self) -> date:
        """R10: credit is dated by the conversion."""
        return self.occurred_at.date()


@dataclass(frozen=True, slots=True)
class Path:
    """The touches that may earn from a conversion, in order, and those of them that carry a milestone.

    Milestones are indexes into `touches`: `lead` is the last touch at or before the lead was created, `deal` the last
    at or before its deal was; None where that never happened. `close` is the last touch, always.
    """

    at: datetime
    touches: tuple[Touch, ...]
    lead: int | None = None
    deal: int | None = None

    def milestones(self, index: int) -> list[Milestone]:
        """The milestones that a touch carries."""
        last = len(self.touches) - 1
        carried: list[tuple[Milestone, int | None]] = [
            ("first", 0),
            ("lead", self.lead),
            ("deal", self.deal),
            ("close", last),
        ]
        return [name for name, place in carried if place == index]


class Model(Protocol):
    """Says how the credit of a conversion is divided."""

    @property
    def model_id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def lookback(self) -> timedelta | None: ...
    def weigh(self, path: Path) -> Sequence[int]:
        """A weight for each touch of a path that has some: whole numbers, proportional to the shares, not all zero."""
        ...


@dataclass(frozen=True, slots=True)
class Credit:
    """One touch's credit from one conversion by one model; without a touch, the credit that no touch earned (R3)."""

    units: int
    value_minor: int
    touch_id: TouchId | None = None
    origin: str | None = None
    keys: Mapping[Dimension, str] = field(default_factory=lambda: dict.fromkeys(DIMENSIONS, UNATTRIBUTED))

    @property
    def share(self) -> float:
        """The part of the conversion that the touch earned."""
        return self.units / SHARE_UNITS


def reason_against(touch: Touch, at: datetime, lookback: timedelta | None) -> Reason | None:
    """R1: why a touch of the same person earns nothing from a conversion at this time; None when it may earn."""
    if touch.occurred_at > at:
        return "after_conversion"
    if lookback is not None and touch.occurred_at < at - lookback:
        return "too_old"
    return "automated" if touch.automated else None


def path_to(
    at: datetime,
    touches: Iterable[Touch],
    lookback: timedelta | None,
    *,
    lead_created_at: datetime | None = None,
    deal_created_at: datetime | None = None,
) -> Path:
    """The path to a conversion at this time, out of the touches of its person in any order."""
    eligible = sorted(
        (t for t in touches if reason_against(t, at, lookback) is None),
        key=attrgetter("place"),
    )
    times = [touch.occurred_at for touch in eligible]

    def last_before(moment: datetime | None) -> int | None:
        return (bisect_right(times, moment) - 1) if moment is not None and times and times[0] <= moment else None

    return Path(at, tuple(eligible), last_before(lead_created_at), last_before(deal_created_at))


def split(total: int, weights: Sequence[int]) -> list[int]:
    """R8: whole parts, proportional to the weights, that sum exactly to the total.

    By largest remainder; of equal remainders the earlier one is rounded up. Needs a total that is not negative.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    missing = total - sum(parts)
    if missing:
        by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
        for index in by_remainder[:missing]:
            parts[index] += 1
    return parts


def credits_of(path: Path, value_minor: int, model: Model) -> list[Credit]:
    """The credits of one conversion by one model, in the order of its path; touches that earn nothing are left out."""
    if not path.touches:
        return [Credit(SHARE_UNITS, value_minor)]
    weights = model.weigh(path)
    return [
        Credit(
            units,
            minor,
            touch.touch_id,
            touch.origin,
            {name: touch.key(name) for name in DIMENSIONS},
        )
        for touch, weight, units, minor in zip(
            path.touches,
            weights,
            split(SHARE_UNITS, weights),
            split(value_minor, weights),
            strict=True,
        )
        if weight
    ]


def left_after_refunds(value_minor: int, refunds_minor: Iterable[int]) -> int:
    """R9: refunds lower the value of a conversion, never below zero."""
    return max(0, value_minor - sum(refunds_minor))
