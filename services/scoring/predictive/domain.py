"""What a model says of a lead, and why: pure, and without the library that the model was learnt with.

A model is a logistic regression. Every feature stands for its distance from what is usual, so that its contribution is
what it adds to the log-odds of somebody of whom everything is usual; the contributions and `usual` sum to the lead's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from math import exp, inf, log1p
from typing import Any

CATEGORIES = ("industry", "country", "use_case", "origin", "free_mail")
NUMBERS = ("employees", "annual_revenue")
RECENT = timedelta(days=90)
UNKNOWN = "unknown"

Features = Mapping[str, float | str]
"""A number, or the name of a category, by the name of the feature."""


class NotEnoughData(Exception):
    """Too few deals to learn from; says how many of what are missing."""


@dataclass(frozen=True, slots=True)
class Example:
    """A deal that ended: its lead as it was known when the deal was opened."""

    features: Features
    won: bool
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """Touches of one type by one channel on one day of UTC; no machine made them."""

    type: str
    channel: str
    day: date
    number: int


@dataclass(frozen=True, slots=True)
class Weight:
    """What a feature adds to the log-odds for each unit that it is above what is usual, which is `mean`.

    With `category` the feature is 1 for a lead of this category, else 0. Of more than was ever seen, `high`, or less,
    `low`, nothing was learnt: it counts as that much.
    """

    feature: str
    category: str | None
    mean: float
    weight: float
    low: float = -inf
    high: float = inf


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a feature of a lead adds to its log-odds."""

    feature: str
    value: float | str
    log_odds: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """How likely a deal with a lead would be won, from 0 to 1, and what says so: the weightiest first."""

    probability: float
    log_odds: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What was learnt; `usual` are the log-odds of somebody of whom everything is usual."""

    usual: float
    weights: tuple[Weight, ...]

    def predict(self, features: Features) -> Prediction:
        """The chance of a lead."""
        by_feature: dict[str, float] = {}
        for weight in self.weights:
            value = features.get(weight.feature, 0.0)
            amount = _amount(value, weight)
            by_feature[weight.feature] = by_feature.get(weight.feature, 0.0) + weight.weight * (amount - weight.mean)
        log_odds = self.usual + sum(by_feature.values())
        contributions = [Contribution(name, features.get(name, 0.0), added) for name, added in by_feature.items()]
        ordered = sorted(contributions, key=lambda one: (-abs(one.log_odds), one.feature))
        return Prediction(chance(log_odds), log_odds, tuple(ordered))

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"usual": self.usual, "weights": [asdict(weight) for weight in self.weights]}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Model":
        """As it was stored."""
        return cls(stored["usual"], tuple(Weight(**weight) for weight in stored["weights"]))


def features_of(lead: Mapping[str, Any], touches: Sequence[Seen], at: datetime) -> dict[str, float | str]:
    """A person as they were known at a moment: the profile, and the touches until the day before.

    Numbers are taken as log(1 + x), since the tenth visit says less than the second.
    """
    features: dict[str, float | str] = {name: str(lead.get(name, UNKNOWN)).strip().lower() for name in CATEGORIES}
    for name in NUMBERS:
        known = lead.get(name)
        features[f"{name}_known"] = str(known is not None).lower()
        features[name] = log1p(max(known, 0)) if known is not None else UNKNOWN
    ordered = sorted((one for one in touches if one.day < at.date()), key=lambda one: (one.day, one.channel))
    features["first_channel"] = ordered[0].channel if ordered else UNKNOWN
    features["channels"] = float(len({one.channel for one in ordered}))
    features["days_active"] = log1p(len({one.day for one in ordered}))
    for name, place in (("days_since_first_touch", 0), ("days_since_last_touch", -1)):
        features[name] = log1p((at.date() - ordered[place].day).days) if ordered else UNKNOWN
    counts: dict[str, int] = {}
    for one in ordered:
        if one.day >= (at - RECENT).date():
            counts[one.type] = counts.get(one.type, 0) + one.number
    return features | {f"recent {kind}": log1p(number) for kind, number in counts.items()}


def did_better(quality: Mapping[str, Any]) -> bool:
    """Whether a model did better, on what it had not seen, than to tell everybody's chance of everybody."""
    return quality["brier"] is not None and bool(quality["brier"] < quality["brier_of_base_rate"])


def chance(log_odds: float) -> float:
    """The probability to these log-odds."""
    return 1 / (1 + exp(-log_odds)) if log_odds >= 0 else exp(log_odds) / (1 + exp(log_odds))


def _amount(value: float | str, weight: Weight) -> float:
    """How much of a feature a lead has; what is unknown counts as usual."""
    if weight.category is not None:
        return float(value == weight.category)
    return weight.mean if isinstance(value, str) else min(max(value, weight.low), weight.high)
