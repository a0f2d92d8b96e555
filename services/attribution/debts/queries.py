"""The statements about conversions that are credited later, and about how much a transaction has credited so far."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from services.attribution.conversions.queries import Placed
from services.attribution.domain import Conversion
from services.attribution.journeys.queries import NEAR, near_columns
from shared.db import Connection
from shared.identity import Member
from shared.ids import ConversionId, LeadId

TOPICS = ("leads", "touches", "conversions", "deals")
# Until when what is credited holds everything that was told; nothing is owed: null, unknown: the beginning of time.
PAID_UNTIL = "(SELECT min(coalesce(as_of, '-infinity')) FROM credit_debts)"
# What every source told until then has been taken in: the oldest watermark of all feeds, or that at which the oldest
# debt was made.
AS_OF = f"SELECT nullif(least(min(at), {PAID_UNTIL}), '-infinity') FROM feed_watermarks WHERE topic = ANY($1)"

# What is too much is not counted to its end.
PATHS_AT_MOST = f"""
SELECT person_id, count(*)::integer AS touches,
    coalesce(nullif(current_setting('attribution.credited', true), ''), '0')::integer AS credited
FROM {NEAR.format(columns="", which="AND NOT automated LIMIT $8")} GROUP BY person_id
"""
CREDITED = "SELECT set_config('attribution.credited', $1::text, true)"
OWE = """
INSERT INTO credit_debts (conversion_id, touches, person_id, occurred_at, as_of)
SELECT conversion_id, touches, person_id, occurred_at, (SELECT min(at) FROM feed_watermarks WHERE topic = ANY($5))
FROM unnest($1::text[], $2::integer[], $3::text[], $4::timestamptz[])
    AS owed (conversion_id, touches, person_id, occurred_at)
ON CONFLICT DO NOTHING
"""
# The least first: who owes much keeps nobody waiting.
OWED = """
SELECT conversion_id, debt.touches, conversion.lead_id, conversion.occurred_at
FROM credit_debts AS debt JOIN conversions AS conversion USING (conversion_id) WHERE conversion.lead_id IS NOT NULL
ORDER BY debt.touches, debt.person_id, debt.occurred_at, conversion_id LIMIT $1
"""
PAID = "DELETE FROM credit_debts WHERE conversion_id = ANY($1)"
OWES = "SELECT EXISTS (SELECT FROM credit_debts WHERE conversion_id = $1)"
OWES_RUNS = """
SELECT EXISTS (
    SELECT FROM credit_debts AS debt CROSS JOIN unnest($1::integer[]) AS wanted (run)
    WHERE NOT EXISTS (
        SELECT FROM credits WHERE credits.conversion_id = debt.conversion_id AND credits.run = wanted.run))
"""


async def paths_at_most(
    connection: Connection,
    people: Mapping[LeadId, Sequence[Member]],
    windows: Mapping[LeadId, tuple[datetime | None, datetime]],
    most: int,
) -> tuple[dict[LeadId, int], int]:
    """How many touches of each person may earn in their window, as far as `most` of each id's, plus one.

    Answers also how many touches on paths the transaction at hand has credited so far.
    """
    rows = await connection.fetch(PATHS_AT_MOST, *near_columns(people, windows), most + 1)
    return {row["person_id"]: row["touches"] for row in rows}, max((row["credited"] for row in rows), default=0)


async def count_credited(connection: Connection, touches: int) -> None:
    """The transaction at hand has credited so many touches on paths so far."""
    await connection.execute(CREDITED, str(touches))


async def owe(connection: Connection, debts: Sequence[tuple[Conversion, int, LeadId]]) -> None:
    """Remember that conversions are to be credited later, with how long their paths may be. Their locks are held."""
    await connection.execute(
        OWE,
        [conversion.conversion_id for conversion, _, _ in debts],
        [touches for _, touches, _ in debts],
        [person for _, _, person in debts],
        [conversion.occurred_at for conversion, _, _ in debts],
        TOPICS,
    )


async def owed(connection: Connection, limit: int) -> list[tuple[Placed, int]]:
    """What is to be credited next, and how long its path may be; conversions of one person stand together in time."""
    rows = await connection.fetch(OWED, limit)
    return [(Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]), row["touches"]) for row in rows]


async def forgive(connection: Connection, conversion_ids: Collection[ConversionId]) -> None:
    """These conversions are credited, or nobody's."""
    await connection.execute(PAID, list(conversion_ids))


async def is_owed(connection: Connection, conversion_id: ConversionId) -> bool:
    """Whether the credits of a conversion are not up to date."""
    return bool(await connection.fetchval(OWES, conversion_id))


async def owes_runs(connection: Connection, runs: Sequence[int]) -> bool:
    """Whether any of these runs still lacks a conversion that is to be credited later."""
    return bool(await connection.fetchval(OWES_RUNS, runs))
