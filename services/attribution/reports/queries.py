"""The statements of the reports."""

from collections.abc import Sequence
from datetime import date, datetime

from services.attribution.channels.domain import NOT_SET
from services.attribution.domain import DIMENSIONS, Dimension
from services.attribution.reports.domain import Period, Sum, spans_of
from shared.db import Connection

TOPICS = ("leads", "touches", "conversions", "costs", "deals")
BY_SPANS = {
    dimension: f"""
    SELECT sums.currency, sums.run, combos.{dimension} AS key, sum(sums.units) AS units,
        sum(sums.value_minor) AS value_minor
    FROM unnest($1::integer[]) AS wanted (run) CROSS JOIN unnest($2::text[], $3::date[], $4::date[])
        AS span (level, first, until)
    JOIN credit_sums AS sums ON sums.run = wanted.run AND sums.basis = 'c' AND sums.level = span.level
        AND sums.day >= span.first AND sums.day < span.until
    JOIN combos USING (combo_id)
    GROUP BY 1, 2, 3
    """
    for dimension in DIMENSIONS
}
BY_MOMENTS = {
    dimension: f"""
    SELECT paths.currency, credits.run, combos.{dimension} AS key, sum(part.units) AS units,
        sum(part.value_minor) AS value_minor
    FROM paths JOIN credits USING (conversion_id)
    CROSS JOIN LATERAL unnest(paths.combos, credits.units, credits.value_minor) AS part (combo_id, units, value_minor)
    JOIN combos USING (combo_id)
    WHERE credits.run = ANY($1) AND ($2::timestamptz IS NULL OR paths.occurred_at >= $2)
        AND ($3::timestamptz IS NULL OR paths.occurred_at < $3) AND (part.units <> 0 OR part.value_minor <> 0)
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

Sums = dict[str, dict[int, dict[str, Sum]]]
"""By currency, run and key."""


async def credit_sums(connection: Connection, runs: Sequence[int], dimension: Dimension, period: Period) -> Sums:
    """What is credited in a period. Days of UTC are read from the sums, others from the credits themselves."""
    if period.is_utc:
        spans = spans_of(period.first, period.end)
        columns = [[span.level for span in spans], [span.first for span in spans], [span.end for span in spans]]
        rows = await connection.fetch(BY_SPANS[dimension], runs, *columns)
    else:
        rows = await connection.fetch(BY_MOMENTS[dimension], runs, *period.moments)
    sums: Sums = {}
    for row in rows:
        by_key = sums.setdefault(row["currency"], {}).setdefault(row["run"], {})
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
