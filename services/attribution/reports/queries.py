"""The statements of the reports."""

from collections.abc import Sequence
from datetime import date, datetime

from services.attribution.channels.domain import NOT_SET
from services.attribution.domain import DIMENSIONS, Dimension
from services.attribution.reports.domain import Period, Sum
from shared.db import Connection

TOPICS = ("leads", "touches", "conversions", "costs", "deals")
BY_DAYS = """
SELECT currency, model, key, sum(units) AS units, sum(value_minor) AS value_minor FROM credit_days
WHERE model = ANY($1) AND dimension = $2 AND ($3::date IS NULL OR day >= $3) AND ($4::date IS NULL OR day < $4)
GROUP BY currency, model, key
"""
BY_MOMENTS = {
    dimension: f"""
    SELECT credits.currency, credits.model, credits.{dimension} AS key, sum(credits.units) AS units,
        sum(credits.value_minor) AS value_minor
    FROM conversions JOIN credits USING (conversion_id)
    WHERE credits.model = ANY($1) AND ($2::timestamptz IS NULL OR conversions.occurred_at >= $2)
        AND ($3::timestamptz IS NULL OR conversions.occurred_at < $3)
    GROUP BY 1, 2, 3
    """
    for dimension in DIMENSIONS
}
COSTS = {
    "channel": "channel",
    "campaign": f"CASE campaign WHEN '' THEN '{NOT_SET}' ELSE campaign END",
}
COST_SUMS = """
SELECT currency, {key} AS key, sum(amount_minor) AS amount_minor FROM costs
WHERE ($1::date IS NULL OR day >= $1) AND ($2::date IS NULL OR day < $2) GROUP BY 1, 2
"""
# What every source told until then has been taken in: the oldest watermark of all feeds.
AS_OF = "SELECT min(at) FROM feed_watermarks WHERE topic = ANY($1)"

Sums = dict[str, dict[str, dict[str, Sum]]]
"""By currency, model and key."""


async def credit_sums(connection: Connection, models: Sequence[str], dimension: Dimension, period: Period) -> Sums:
    """What is credited in a period. Days of UTC are read from the daily sums, others from the credits themselves."""
    if period.is_utc:
        rows = await connection.fetch(BY_DAYS, models, dimension, period.first, period.end)
    else:
        rows = await connection.fetch(BY_MOMENTS[dimension], models, *period.moments)
    sums: Sums = {}
    for row in rows:
        by_key = sums.setdefault(row["currency"], {}).setdefault(row["model"], {})
        by_key[row["key"]] = Sum(int(row["units"]), int(row["value_minor"]))
    return sums


async def cost_sums(
    connection: Connection, dimension: Dimension, first: date | None, end: date | None
) -> dict[str, dict[str, int]]:
    """What was spent in a period, by currency and key; costs are known by channel and campaign only."""
    if dimension not in COSTS:
        return {}
    costs: dict[str, dict[str, int]] = {}
    for row in await connection.fetch(COST_SUMS.format(key=COSTS[dimension]), first, end):
        costs.setdefault(row["currency"], {})[row["key"]] = int(row["amount_minor"])
    return costs


async def as_of(connection: Connection) -> datetime | None:
    """Until when everything that was told is in the reports; None while no feed has said so."""
    at: datetime | None = await connection.fetchval(AS_OF, TOPICS)
    return at
