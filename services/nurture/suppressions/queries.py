"""The entries of the list."""

from collections.abc import Sequence

import asyncpg

from services.nurture.people.queries import suppression_id
from services.nurture.suppressions.domain import Entry
from shared.db import Connection

ENTRY = "suppression_id, lead_id, address_hash, channel, reason, since, origin, kind, value"
PUT = """
INSERT INTO suppressions AS known
    (suppression_id, lead_id, address_hash, channel, reason, since, origin, kind, value)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
    $8::text[], $9::text[])
ON CONFLICT (suppression_id) DO UPDATE SET since = greatest(known.since, excluded.since)
RETURNING old.suppression_id IS NULL AS fresh
"""
READ = f"SELECT {ENTRY} FROM suppressions WHERE suppression_id = $1"
LISTED = f"""
SELECT {ENTRY} FROM suppressions
WHERE ($1::text[] IS NULL OR address_hash = ANY($1)) AND ($2::text IS NULL OR channel = $2)
  AND ($3::text IS NULL OR reason = $3) AND ($4::text IS NULL OR origin = $4)
  AND suppression_id > $5 ORDER BY suppression_id LIMIT $6
"""
LIFT = "DELETE FROM suppressions WHERE suppression_id = $1 RETURNING suppression_id"


async def put(connection: Connection, entries: Sequence[Entry]) -> int:
    """Enter what is new, and let what is known count from the later time; answers how many were new."""
    latest: dict[str, Entry] = {}
    for entry in entries:
        this = suppression_id(entry.about, entry.reason, entry.channel)
        if this not in latest or latest[this].since < entry.since:
            latest[this] = entry
    rows = sorted(latest.items())
    columns = ("lead_id", "address_hash", "channel", "reason", "since", "origin", "kind", "value")
    found = await connection.fetch(
        PUT, [this for this, _ in rows], *([getattr(entry, name) for _, entry in rows] for name in columns)
    )
    return sum(row["fresh"] for row in found)


async def read(connection: Connection, this: str) -> asyncpg.Record | None:
    """One entry."""
    row: asyncpg.Record | None = await connection.fetchrow(READ, this)
    return row


async def listed(  # noqa: PLR0913  # what a list can be narrowed by
    connection: Connection,
    *,
    hashes: Sequence[str] | None,
    channel: str | None,
    reason: str | None,
    origin: str | None,
    after: str,
    limit: int,
) -> list[asyncpg.Record]:
    """A page of the list, or of what it has of one address."""
    rows: list[asyncpg.Record] = await connection.fetch(LISTED, hashes, channel, reason, origin, after, limit)
    return rows


async def lift(connection: Connection, this: str) -> bool:
    """Take an entry off the list; False when it is not there."""
    return await connection.fetchval(LIFT, this) is not None
