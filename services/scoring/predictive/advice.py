"""What the leads that became opportunities say about the bar of a marketing-qualified lead."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple

from services.scoring.predictive import queries
from shared.db import Connection

LEAST_WON = 20
LEAST_AGE = timedelta(days=60)
FEW_LEADS = 100
QUANTILES = (25, 50, 75)
PROPOSED = 75
MONTH = timedelta(days=30)


class HandOff(NamedTuple):
    """A lead's scores when it was handed to sales, and whether it became an opportunity."""

    engagement: float
    fit: int
    total: float
    at: datetime
    became_opportunity: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on one score: which part of those that became opportunities, and of the others, reached it at hand-off."""

    percentile: int
    value: float
    share_of_opportunities: float
    share_of_others: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to set the bars to; `reason` says why there is no proposal, or what to do instead."""

    enough_data: bool
    reason: str | None
    opportunities: int
    others: int
    won_deals: int
    leads_last_month: int
    engagement: tuple[Bar, ...]
    total: tuple[Bar, ...]
    proposed_engagement: float | None
    proposed_total: float | None


async def threshold_advice(connection: Connection, now: datetime, days: int) -> Advice:
    """The advice from the hand-offs of the last days."""
    rows = await queries.hand_offs(connection, now - timedelta(days=days))
    won, leads = await queries.won_and_new(connection, now - MONTH)
    return advise([HandOff(*row.values()) for row in rows], won, leads, now)


def advise(hand_offs: Sequence[HandOff], won: int, leads: int, now: datetime) -> Advice:
    """The 75th percentile of what leads that became opportunities had at hand-off, if there were enough of them."""
    good = [one for one in hand_offs if one.became_opportunity]
    others = [one for one in hand_offs if not one.became_opportunity]
    engagement = _bars([one.engagement for one in good], [one.engagement for one in others])
    total = _bars([one.total for one in good], [one.total for one in others])
    reason = _reason(good, won, leads, now)
    enough = bool(good) and won >= LEAST_WON and min(one.at for one in good) <= now - LEAST_AGE
    return Advice(
        enough_data=enough,
        reason=reason,
        opportunities=len(good),
        others=len(others),
        won_deals=won,
        leads_last_month=leads,
        engagement=engagement,
        total=total,
        proposed_engagement=_proposed(engagement) if enough else None,
        proposed_total=_proposed(total) if enough else None,
    )


def _reason(good: Sequence[HandOff], won: int, leads: int, now: datetime) -> str | None:
    if won < LEAST_WON:
        return f"not enough data: {won} won deals of at least {LEAST_WON}"
    if not good or min(one.at for one in good) > now - LEAST_AGE:
        return f"not enough data: hand-offs are known for less than {LEAST_AGE.days} days"
    if leads < FEW_LEADS:
        return f"{leads} new leads in the last month: with fewer than {FEW_LEADS}, sort them by recency instead"
    return None


def _bars(good: Sequence[float], others: Sequence[float]) -> tuple[Bar, ...]:
    ordered = sorted(good)
    if not ordered:
        return ()
    values = [(share, ordered[max(0, ceil(len(ordered) * share / 100) - 1)]) for share in QUANTILES]
    return tuple(
        Bar(
            share,
            round(value, 6),
            round(sum(one >= value for one in good) / len(good), 6),
            round(sum(one >= value for one in others) / len(others), 6) if others else None,
        )
        for share, value in values
    )


def _proposed(bars: Sequence[Bar]) -> float | None:
    return next((bar.value for bar in bars if bar.percentile == PROPOSED), None)
