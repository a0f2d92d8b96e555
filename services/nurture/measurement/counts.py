"""Counts of messages, kept as they change: added up in the background, read with what is not added up yet.

The database counts, in the transaction that changes a message or a response (migration 0017), so nobody can forget to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import asyncpg

from shared.db import Connection, Database
from shared.ids import SequenceId

# Two may add up at once: each takes what the other leaves, and both go in the same order.
ADD_UP = """
WITH taken AS (
    DELETE FROM message_changes WHERE change_id IN (
        SELECT change_id FROM message_changes ORDER BY change_id LIMIT $1 FOR UPDATE SKIP LOCKED
    ) RETURNING *
), spread AS (
    SELECT sequence_id, span, place AS at, step_id, variant, name, sum(times) AS times
    FROM taken CROSS JOIN LATERAL (VALUES ('quarter', at), ('day', date_trunc('day', at, 'UTC'))) AS each (span, place)
    GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(times) <> 0 ORDER BY 1, 2, 3, 4, 5, 6
), added AS (
    INSERT INTO message_counts AS known (sequence_id, span, at, step_id, variant, name, times)
    SELECT * FROM spread
    ON CONFLICT (sequence_id, span, at, step_id, variant, name) DO UPDATE SET times = known.times + excluded.times
)
SELECT count(*) FROM taken
"""
COUNTS = """
SELECT step_id, nullif(variant, '') AS variant, name, sum(times)::bigint AS times FROM (
    SELECT step_id, variant, name, times
    FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS asked (wanted, begins, ends)
    JOIN message_counts ON sequence_id = $1 AND span = wanted AND at >= begins AND at < ends
    UNION ALL
    SELECT step_id, variant, name, times FROM message_changes WHERE sequence_id = $1 AND at >= $5 AND at < $6
) AS counted
GROUP BY 1, 2, 3 HAVING sum(times) <> 0
"""
AT_ONCE = 20_000
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a period, counted by quarters of an hour or by days of UTC."""

    span: Literal["quarter", "day"]
    begins: datetime
    ends: datetime


def stretches(begins: datetime, ends: datetime) -> list[Stretch]:
    """A period as whole days of UTC, and the quarters before and after them; both ends lie on a quarter."""
    first, last = _day_of(begins + DAY - timedelta.resolution), _day_of(ends)
    if first >= last:
        return [Stretch("quarter", begins, ends)]
    found = [Stretch("quarter", begins, first), Stretch("day", first, last), Stretch("quarter", last, ends)]
    return [one for one in found if one.begins < one.ends]


def _day_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def add_up(database: Database) -> timedelta | None:
    """Add up what has changed; answers when to look again, at once while more is left."""
    async with database.transaction() as tx:
        taken = await tx.connection.fetchval(ADD_UP, AT_ONCE)
    return timedelta() if taken == AT_ONCE else None


async def counts_of(
    connection: Connection, sequence_id: SequenceId, span: tuple[datetime, datetime]
) -> Sequence[asyncpg.Record]:
    """How many messages of a sequence and a period stand in a state or were responded to, by step and variant."""
    parts = stretches(*span)
    rows: Sequence[asyncpg.Record] = await connection.fetch(
        COUNTS,
        sequence_id,
        [part.span for part in parts],
        [part.begins for part in parts],
        [part.ends for part in parts],
        *span,
    )
    return rows
