"""Who is scored under which rules."""

from collections.abc import Sequence
from datetime import datetime

from shared.db import Connection
from shared.ids import LeadId

CLAIM_OLDER = """
SELECT person_id FROM scores WHERE rules_version < $1 ORDER BY rules_version LIMIT $2 FOR UPDATE SKIP LOCKED
"""
CLAIM_NEWER = """
SELECT person_id FROM scores WHERE rules_version > $1 ORDER BY rules_version DESC LIMIT $2 FOR UPDATE SKIP LOCKED
"""
PROGRESS = "SELECT count(*) AS persons, count(*) FILTER (WHERE rules_version <> $1) AS remaining FROM scores"
ACTIVE_SINCE = """
SELECT person_id FROM scores WHERE person_id > $1 AND greatest(newest, fit_at) >= $2 ORDER BY person_id LIMIT $3
"""


async def claim_outdated(connection: Connection, version: int, limit: int) -> Sequence[LeadId]:
    """Persons scored under another version of the rules, locked."""
    rows = await connection.fetch(CLAIM_OLDER, version, limit)
    rows = rows or await connection.fetch(CLAIM_NEWER, version, limit)
    return [LeadId(row["person_id"]) for row in rows]


async def progress(connection: Connection, version: int) -> tuple[int, int]:
    """How many persons are scored, and how many of them not yet under this version."""
    row = await connection.fetchrow(PROGRESS, version)
    return (row["persons"], row["remaining"]) if row else (0, 0)


async def active_since(connection: Connection, after: LeadId, since: datetime, limit: int) -> list[LeadId]:
    """Persons of whom something was told since a time, in the order of their ids."""
    rows = await connection.fetch(ACTIVE_SINCE, after, since, limit)
    return [LeadId(row["person_id"]) for row in rows]
