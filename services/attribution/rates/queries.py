"""The statements about rates of exchange."""

from collections.abc import Collection, Sequence
from datetime import date

from services.attribution.rates.domain import OLDEST, Exchange, Rate
from shared.db import Connection

PUT = """
INSERT INTO exchange_rates AS known (day, base, quote, rate, posted_by)
SELECT day, base, quote, rate, $5
FROM unnest($1::date[], $2::text[], $3::text[], $4::numeric[]) AS posted (day, base, quote, rate)
ORDER BY base, quote, day  -- two posts at once lock in one order
ON CONFLICT (base, quote, day) DO UPDATE SET
    rate = excluded.rate, posted_by = excluded.posted_by, posted_at = clock_timestamp()
"""
DELETE = "DELETE FROM exchange_rates WHERE base = $1 AND quote = $2 AND day = $3 RETURNING day"
PAGE = """
SELECT day, base, quote, rate FROM exchange_rates
WHERE ($1::text IS NULL OR base = $1) AND ($2::text IS NULL OR quote = $2)
    AND ($3::date IS NULL OR day >= $3) AND ($4::date IS NULL OR day < $4)
    AND ($5::date IS NULL OR (day <= $5 AND (day < $5 OR (base, quote) > ($6::text, $7::text))))
ORDER BY day DESC, base, quote LIMIT $8
"""
CONCERNING = """
SELECT day, base, quote, rate FROM exchange_rates
WHERE day BETWEEN $2 AND $3 AND (base = ANY($1) OR quote = ANY($1))
"""


async def put_rates(connection: Connection, rates: Sequence[Rate], author: str) -> None:
    """Store rates, one per pair and day; the last one posted stays."""
    await connection.execute(
        PUT,
        [rate.day for rate in rates],
        [rate.base for rate in rates],
        [rate.quote for rate in rates],
        [rate.rate for rate in rates],
        author,
    )


async def delete_rate(connection: Connection, base: str, quote: str, day: date) -> bool:
    """Forget a rate; answers whether there was one."""
    return await connection.fetchval(DELETE, base, quote, day) is not None


async def rates_page(  # what a list of rates is chosen by
    connection: Connection,
    pair: tuple[str | None, str | None],
    days: tuple[date | None, date | None],
    *,
    after: tuple[date, str, str] | None,
    limit: int,
) -> list[Rate]:
    """The rates after a place in the list, the newest day first."""
    return [Rate(*row.values()) for row in await connection.fetch(PAGE, *pair, *days, *(after or (None,) * 3), limit)]


async def exchange(
    connection: Connection,
    target: str,
    places: Collection[tuple[str, date]],
    through: str | None = None,
) -> Exchange:
    """What converts amounts of these currencies and days into one currency."""
    days = [day for currency, day in places if currency != target]
    if not days:
        return Exchange(target, [], through)
    codes = sorted({currency for currency, _ in places} | {target})
    rows = await connection.fetch(CONCERNING, codes, min(days) - OLDEST, max(days))
    return Exchange(target, [Rate(*row.values()) for row in rows], through)
