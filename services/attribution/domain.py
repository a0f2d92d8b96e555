"""Journeys, conversions and credits: pure values, and the rules that tie them together.

The rules R1 to R10 are stated in this service's README.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Literal, Protocol

import orjson

from services.attribution.channels.domain import NOT_SET, UNATTRIBUTED
from shared.events import INTERNAL
from shared.ids import ConversionId, DealId, LeadId, TouchId

Dimension = Literal["channel", "source", "medium", "campaign", "content", "landing_page", "touch_type"]
DIMENSIONS: tuple[Dimension, ...] = (
    "channel",
    "source",
    "medium",
    "campaign",
    "content",
    "landing_page",
    "touch_type",
)
Milestone = Literal["first", "lead", "deal", "close"]
Reason = Literal[
    "too_old",
    "after_conversion",
    "automated",
    "internal",
    "before_previous_conversion",
    "other_person",
    "corrected",
]

Game = Literal["subset_rate", "subset_conversions", "observed_set_rate"]

LOOKBACK = timedelta(days=90)
_DIGITS = Context(prec=28)
SHARE_UNITS = 10**10
"""The shares of one conversion sum to this many units, so that adding and subtracting them is exact."""


@dataclass(frozen=True, slots=True)
class Combo:
    """What a touch counts under, by every dimension; `combo_id` is made from these, so it is the same everywhere."""

    combo_id: int
    channel: str
    source: str
    medium: str
    campaign: str
    content: str
    landing_page: str
    touch_type: str


NOBODY = Combo(0, *[UNATTRIBUTED] * len(DIMENSIONS))
"""What the credit that no touch earned counts under."""


@lru_cache(maxsize=4_096)
def combo_of(keys: tuple[str, ...]) -> Combo:
    """The combo of these keys, in the order of `DIMENSIONS`."""
    digest = blake2b(orjson.dumps(keys), digest_size=8).digest()
    return Combo(int.from_bytes(digest, "big", signed=True) or 1, *keys)


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
    automated_reason: str | None = None

    @property
    def place(self) -> tuple[datetime, TouchId, str]:
        """R2: touches are ordered by their time; of two in the same instant, the id decides."""
        return self.occurred_at, self.touch_id, self.origin

    @property
    def combo(self) -> Combo:
        """What the touch counts under in reports; a page counts without what follows its path."""
        page = self.page and self.page.partition("#")[0].partition("?")[0]
        keys = (self.channel, self.source, self.medium, self.campaign, self.content, page, self.type)
        return combo_of(tuple([key or NOT_SET for key in keys]))


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
class Profile:
    """When a person was first known, and where they belong."""

    created_at: datetime
    country: str | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Deal:
    """When a deal was created, and whose it is."""

    opened_at: datetime
    rep: str | None = None


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

    def after(self, skipped: int) -> "Path":
        """The path without so many touches at its beginning; a milestone on one of these is on none."""
        if not skipped:
            return self
        lead, deal = [
            place - skipped if place is not None and place >= skipped else None for place in (self.lead, self.deal)
        ]
        return Path(self.at, self.touches[skipped:], lead, deal)

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
    """Says how the credit of a conversion is divided.

    With `reset_after_conversion` only touches after the person's conversion before it may earn. With `whole` every
    touch that has a weight has the conversion whole, so that they sum to more than it. `rational` says whether the
    weights are exact.
    """

    @property
    def model_id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def lookback(self) -> timedelta | None: ...
    @property
    def reset_after_conversion(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    @property
    def rational(self) -> bool: ...
    def weigh(self, path: Path) -> Sequence[int]:
        """A weight for each touch of a path that has some: whole numbers, proportional to the shares, not all zero."""
        ...


@dataclass(frozen=True, slots=True)
class TotalsModel:
    """A model that gives totals by channel and does not split single conversions.

    `order` is that of Markov's chain, `game` what Shapley's coalitions are worth.
    """

    model_id: str
    title: str
    base: Literal["markov", "shapley"]
    version: int = 0
    order: int = 1
    game: Game = "subset_rate"
    lookback: timedelta | None = LOOKBACK
    reset_after_conversion: bool = False


@dataclass(frozen=True, slots=True)
class CreditingRun:
    """A run of a model that conversions are credited under: it serves, or is being built."""

    run: int
    model: Model | TotalsModel


def longest_lookback(runs: Iterable[CreditingRun]) -> timedelta | None:
    """How far back the paths reach: as far as any model looks; None when one has no limit."""
    lookbacks = [run.model.lookback for run in runs]
    return None if None in lookbacks else max((one for one in lookbacks if one is not None), default=timedelta())


def is_longer(lookback: timedelta | None, than: timedelta | None) -> bool:
    """Whether one look-back reaches further than another; None has no limit."""
    return than is not None and (lookback is None or lookback > than)


@dataclass(frozen=True, slots=True)
class PathTouch:
    """A touch on a path, as far as reports of paths look at it."""

    touch_id: TouchId
    origin: str
    combo: Combo
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class PathRow:
    """The path to a conversion as it is stored, with what the conversion counts under.

    The path reaches as far back as any model looks. Milestones are places in `touches`, None where they never happened.
    """

    conversion_id: ConversionId
    person_id: LeadId
    touches: tuple[PathTouch, ...]
    lead_place: int | None
    deal_place: int | None
    conversion_type: str
    currency: str
    value_minor: int
    occurred_at: datetime
    country: str
    account: str
    rep: str

    @property
    def day(self) -> date:
        """R10: credit is dated by the conversion, in UTC."""
        return self.occurred_at.date()

    @property
    def channels(self) -> tuple[str, ...]:
        """The channel of each touch."""
        return tuple([touch.combo.channel for touch in self.touches])


@dataclass(frozen=True, slots=True)
class Division:
    """How a model divides a conversion: first what nobody earned, then what each touch of the whole path did.

    `units` sum to `SHARE_UNITS` and `value_minor` to the value of the conversion, unless the model gives it whole.
    """

    units: tuple[int, ...]
    value_minor: tuple[int, ...]


def reason_against(touch: Touch, at: datetime, lookback: timedelta | None) -> Reason | None:
    """R1: why a touch of the same person earns nothing from a conversion at this time; None when it may earn."""
    if touch.occurred_at > at:
        return "after_conversion"
    if lookback is not None and touch.occurred_at < at - lookback:
        return "too_old"
    if not touch.automated:
        return None
    return "internal" if touch.automated_reason == INTERNAL else "automated"


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


def divide(path: Path, value_minor: int, model: Model, previous: datetime | None = None) -> Division:
    """The credits of one conversion by one model, R8, out of the path by the longest look-back of all.

    `previous` is when the person's conversion before it was.
    """
    left_out = skipped(path, model, previous)
    nobody = [0] * (left_out + 1)
    mine = path.after(left_out)
    if not mine.touches:
        rest = [0] * left_out
        return Division((SHARE_UNITS, *rest), (value_minor, *rest))
    weights = model.weigh(mine)
    if model.whole:
        units = [SHARE_UNITS if weight else 0 for weight in weights]
        minor = [value_minor if weight else 0 for weight in weights]
        return Division((*nobody, *units), (*nobody, *minor))
    return Division((*nobody, *split(SHARE_UNITS, weights)), (*nobody, *split(value_minor, weights)))


def skipped(path: Path, model: Model, previous: datetime | None) -> int:
    """How many touches at the beginning of the path the model does not look at."""
    times = [touch.occurred_at for touch in path.touches]
    left_out = 0 if model.lookback is None else bisect_left(times, path.at - model.lookback)
    if model.reset_after_conversion and previous is not None:
        left_out = max(left_out, bisect_right(times, previous))
    return left_out


def told_weights(path: Path, model: Model) -> list[str]:
    """The share of each touch of a model's own path: a fraction as in `1/3`, or 28 digits where it is not rational."""
    weights = model.weigh(path)
    whole = sum(weights)
    if model.whole:
        return [str(int(weight > 0)) for weight in weights]
    if model.rational:
        return [str(Fraction(weight, whole)) for weight in weights]
    return [str(_DIGITS.divide(Decimal(weight), Decimal(whole))) for weight in weights]


def left_after_refunds(value_minor: int, refunds_minor: Iterable[int]) -> int:
    """R9: refunds lower the value of a conversion, never below zero."""
    return max(0, value_minor - sum(refunds_minor))
