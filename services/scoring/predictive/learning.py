"""Learn from own deals which leads buy: a logistic regression, calibrated, and tried on deals that it never saw.

Everything goes by time. What is shown of a model was measured on the newest quarter of the deals after learning from
the older ones; the model that is used then learns from all. Its chances are calibrated by Platt's method (1999) on
deals that came after those that it had learnt from, which also chooses how much to believe single features.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import TimeSeriesSplit
from threadpoolctl import threadpool_limits

from services.scoring.predictive.domain import Example, Features, Model, NotEnoughData, Weight

LEAST_WINS = 20
LEAST_LOSSES = 20
LEAST_OF_A_CATEGORY = 10
"""Of fewer deals nothing can be said; and a rare category might tell who somebody is."""

SAME = 1e-6
"""What varies less than this is the same for all: only rounding tells them apart, and nothing follows from it."""

MOST_CATEGORIES = 30
HELD_OUT = 0.25
FOLDS = 5
BINS = 10
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
Z95 = 1.959964

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model, and how well its like did on deals that it had not seen."""

    model: Model
    quality: dict[str, Any]


def learn(examples: Sequence[Example]) -> Learnt:
    """Learn from deals that ended. Raises NotEnoughData."""
    won = sum(example.won for example in examples)
    if won < LEAST_WINS or len(examples) - won < LEAST_LOSSES:
        detail = f"{won} won deals of at least {LEAST_WINS}, {len(examples) - won} lost ones of at least {LEAST_LOSSES}"
        raise NotEnoughData(detail)
    ordered = sorted(examples, key=lambda example: example.closed_at)
    newest = ordered[round(len(ordered) * (1 - HELD_OUT)) :]
    older = ordered[: -len(newest)]
    with threadpool_limits(1):  # small problems, on a machine that has other things to do
        tried = _fit(older) if len({example.won for example in older}) == 2 else None
        return Learnt(_fit(ordered), _quality(tried, older, newest))


def _fit(examples: Sequence[Example]) -> Model:
    """A calibrated model out of deals in the order of time, of which some were won and some lost."""
    columns = _columns(examples)
    table = np.array([[_cell(example.features, column) for column in columns] for example in examples])
    means = np.nanmean(table, axis=0) if len(columns) else np.zeros(0)
    lows, highs = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    table = np.where(np.isnan(table), means, table) - means
    scales = table.std(axis=0)
    kept = scales > SAME
    table, scales = table[:, kept] / scales[kept], scales[kept]
    won = np.array([example.won for example in examples], dtype=float)
    strength, slope, offset = _calibrated(table, won)
    regression = LogisticRegression(C=strength, max_iter=1_000).fit(table, won)
    weights = [
        Weight(name, category, float(mean), float(slope * weight / scale), float(low), float(high))
        for (name, category), mean, weight, scale, low, high in zip(
            [column for column, is_kept in zip(columns, kept, strict=True) if is_kept],
            means[kept],
            regression.coef_[0],
            scales,
            lows[kept],
            highs[kept],
            strict=True,
        )
    ]
    return Model(float(slope * regression.intercept_[0] + offset), tuple(weights))


def _columns(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    """The features that are numbers, and the frequent categories of the others."""
    numbers: set[str] = set()
    categories: dict[str, Counter[str]] = {}
    for example in examples:
        for name, value in example.features.items():
            if isinstance(value, str):
                categories.setdefault(name, Counter())[value] += 1
            else:
                numbers.add(name)
    found: list[tuple[str, str | None]] = [(name, None) for name in sorted(numbers)]
    for name in sorted(categories.keys() - numbers):
        frequent = [
            value for value, number in categories[name].most_common(MOST_CATEGORIES) if number >= LEAST_OF_A_CATEGORY
        ]
        found += [(name, value) for value in sorted(frequent)]
    return found


def _cell(features: Features, column: tuple[str, str | None]) -> float:
    name, category = column
    value = features.get(name, 0.0)
    if category is not None:
        return float(value == category)
    return float("nan") if isinstance(value, str) else value


def _calibrated(table: Floats, won: Floats) -> tuple[float, float, float]:
    """The strength that predicts later deals best, and Platt's slope and offset of its log-odds for them."""
    best: tuple[float, float, float, float] | None = None
    folds = [(past, later) for past, later in TimeSeriesSplit(FOLDS).split(table) if 0 < won[past].sum() < len(past)]
    for strength in STRENGTHS:
        fitted = [
            (LogisticRegression(C=strength, max_iter=1_000).fit(table[past], won[past]), later) for past, later in folds
        ]
        if not fitted:
            continue
        log_odds = np.concatenate([regression.decision_function(table[later]) for regression, later in fitted])
        truth = np.concatenate([won[later] for _, later in fitted])
        if not 0 < truth.sum() < len(truth):
            continue
        platt = _platt(log_odds.reshape(-1, 1), truth)
        slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
        loss = float(log_loss(truth, platt.predict_proba(log_odds.reshape(-1, 1))[:, 1]))
        if best is None or loss < best[0]:
            best = (loss, strength, max(slope, 0.0), offset)
    return best[1:] if best is not None else (STRENGTHS[0], 1.0, 0.0)


def _platt(log_odds: Floats, won: Floats) -> LogisticRegression:
    """Chances by log-odds, fitted to Platt's targets: of n won deals each counts as won by (n + 1) / (n + 2), of n lost
    ones by 1 / (n + 2). So few deals that a line parts cleanly are no reason to be certain.
    """
    wins = won.sum()
    target = np.where(won > 0, (wins + 1) / (wins + 2), 1 / (len(won) - wins + 2))
    either = np.repeat([1.0, 0.0], len(won))
    weights = np.concatenate([target, 1 - target])
    return LogisticRegression(C=1e6).fit(np.concatenate([log_odds, log_odds]), either, sample_weight=weights)


def _quality(model: Model | None, older: Sequence[Example], newest: Sequence[Example]) -> dict[str, Any]:
    """What a model learnt from the older deals says of the newest ones, against what became of them."""
    truth = np.array([example.won for example in newest], dtype=float)
    base_rate = sum(example.won for example in older) / len(older)
    measured: dict[str, Any] = {
        "learnt_from": {
            "deals": len(older),
            "won": sum(example.won for example in older),
            "until": older[-1].closed_at,
        },
        "tried_on": {"deals": len(newest), "won": int(truth.sum()), "from": newest[0].closed_at},
        "base_rate": round(base_rate, 6),
        "brier_of_base_rate": round(float(np.mean((base_rate - truth) ** 2)), 6),
        "brier": None,
        "log_loss": None,
        "auc": None,
        "reliability": [],
        "lift": [],
    }
    if model is None:
        return measured
    told = np.array([model.predict(example.features).probability for example in newest])
    both = 0 < truth.sum() < len(truth)
    return measured | {
        "brier": round(float(brier_score_loss(truth, told)), 6),
        "log_loss": round(float(log_loss(truth, told, labels=[0.0, 1.0])), 6),
        "auc": round(float(roc_auc_score(truth, told)), 6) if both else None,
        "reliability": _reliability(truth, told),
        "lift": _lift(truth, told) if truth.sum() else [],
    }


def _reliability(truth: Floats, told: Floats) -> list[dict[str, Any]]:
    """Of leads that were told about the same chance, how many bought; with Wilson's interval of 95 % (1927)."""
    found = []
    for places in np.array_split(np.argsort(told, kind="stable"), min(BINS, max(1, len(told) // 5))):
        number, won = len(places), int(truth[places].sum())
        low, high = _wilson(won, number)
        found.append(
            {
                "deals": number,
                "told": round(float(told[places].mean()), 6),
                "won": won,
                "rate": round(won / number, 6),
                "rate_low": low,
                "rate_high": high,
            }
        )
    return found


def _wilson(won: int, number: int) -> tuple[float, float]:
    rate, z2 = won / number, Z95**2
    centre = (rate + z2 / (2 * number)) / (1 + z2 / number)
    half = Z95 / (1 + z2 / number) * sqrt(rate * (1 - rate) / number + z2 / (4 * number**2))
    return round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)


def _lift(truth: Floats, told: Floats) -> list[dict[str, Any]]:
    """Of the deals with the best chances, by tenths: which part of all that were won, and how much above the mean."""
    ordered = truth[np.argsort(-told, kind="stable")]
    found = []
    for tenth in range(1, 11):
        taken = max(1, round(len(ordered) * tenth / 10))
        won = float(ordered[:taken].sum())
        share = won / float(truth.sum())
        found.append(
            {
                "best": round(tenth / 10, 1),
                "deals": taken,
                "share_of_won": round(share, 6),
                "lift": round(share * len(ordered) / taken, 6),
            }
        )
    return found
