"""The statements about reps who leave."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from services.routing.assignments.domain import Assignment
from services.routing.assignments.queries import COLUMNS
from shared.db import Connection
from shared.ids import RepId

LEAVE = """
UPDATE reps SET active = false, left_at = coalesce(left_at, $2), left_because = $3, updated_at = $2 WHERE rep_id = $1
"""
COME_BACK = """
UPDATE reps SET active = true, left_at = NULL, left_because = NULL, updated_at = $2
WHERE rep_id = $1 AND NOT active RETURNING rep_id
"""
HELD = f"""
SELECT {COLUMNS} FROM assignments
WHERE rep_id = $1 AND ended_at IS NULL AND (assigned_at, assignment_id) > ($2, $3)
ORDER BY assigned_at, assignment_id LIMIT $4
"""
COUNT_HELD = "SELECT count(*) FROM assignments WHERE rep_id = $1 AND ended_at IS NULL"
OPEN_DEALS = """
SELECT deal_id, lead_id, external_id, stage, value_minor, currency, opened_at FROM deals
WHERE rep_id = $1 AND status = 'open' ORDER BY opened_at, deal_id LIMIT $2
"""
ASK = """
INSERT INTO reroutes (rep_id, reason, asked_at) VALUES ($1, $2, $3)
ON CONFLICT (rep_id) DO UPDATE SET reason = excluded.reason, asked_at = excluded.asked_at
"""
NO_MORE = "DELETE FROM reroutes WHERE rep_id = $1"
NEXT_ASKED = """
SELECT reroutes.rep_id, reason, active FROM reroutes JOIN reps USING (rep_id) ORDER BY asked_at, rep_id LIMIT 1
"""


async def leave(connection: Connection, rep_id: RepId, at: datetime, reason: str) -> None:
    """The rep works no more."""
    await connection.execute(LEAVE, rep_id, at, reason)


async def come_back(connection: Connection, rep_id: RepId, at: datetime) -> bool:
    """The rep works again. False if they did all the time."""
    return await connection.fetchval(COME_BACK, rep_id, at) is not None


async def held(connection: Connection, rep_id: RepId, after: tuple[datetime, str], limit: int) -> Sequence[Assignment]:
    """What a rep holds, after a place in the list, the longest first."""
    return [Assignment(**row) for row in await connection.fetch(HELD, rep_id, *after, limit)]


async def count_held(connection: Connection, rep_id: RepId) -> int:
    """How many leads a rep holds."""
    return int(await connection.fetchval(COUNT_HELD, rep_id))


async def open_deals(connection: Connection, rep_id: RepId, limit: int) -> list[asyncpg.Record]:
    """The open deals of a rep, the oldest first."""
    return await connection.fetch(OPEN_DEALS, rep_id, limit)


async def ask_for_reroute(connection: Connection, rep_id: RepId, reason: str, at: datetime) -> None:
    """What the rep holds is given to others in the background."""
    await connection.execute(ASK, rep_id, reason, at)


async def reroute_no_more(connection: Connection, rep_id: RepId) -> None:
    """What the rep still holds stays where it is."""
    await connection.execute(NO_MORE, rep_id)


async def next_asked(connection: Connection) -> asyncpg.Record | None:
    """The rep whose leads are to be given to others next."""
    return await connection.fetchrow(NEXT_ASKED)
