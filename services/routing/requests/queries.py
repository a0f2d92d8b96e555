"""The statements about what sequences ask."""

from datetime import datetime

from shared.db import Connection
from shared.ids import LeadId, RepId

REP = """
SELECT rep_id FROM reps WHERE active AND (rep_id = $1 OR email = lower(btrim($1))) ORDER BY rep_id = $1 DESC LIMIT 1
"""
KEEP_WORDS = """
INSERT INTO notice_words (about, lead_id, sealed, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
WORDS = "SELECT lead_id, sealed FROM notice_words WHERE about = $1"


async def rep_called(connection: Connection, name: str) -> RepId | None:
    """The active rep with this id or address."""
    found: str | None = await connection.fetchval(REP, name)
    return None if found is None else RepId(found)


async def keep_words(connection: Connection, about: str, lead_id: LeadId, sealed: str, at: datetime) -> None:
    """What a notice says, sealed with the lead's key."""
    await connection.execute(KEEP_WORDS, about, lead_id, sealed, at)


async def words_of(connection: Connection, about: str) -> tuple[LeadId, str] | None:
    """What a notice says, sealed, and with whose key."""
    row = await connection.fetchrow(WORDS, about)
    return None if row is None else (LeadId(row["lead_id"]), row["sealed"])
