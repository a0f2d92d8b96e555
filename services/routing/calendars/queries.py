"""The statements about reps' calendars."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from services.routing.calendars.domain import RepCalendar, Source
from shared.db import Connection
from shared.ids import RepId

COLUMNS = ", ".join(column.name for column in fields(RepCalendar))
PUT = """
INSERT INTO rep_calendars AS known (rep_id, version, source, address, host, next_at) VALUES ($1, 1, $2, $3, $4, $5)
ON CONFLICT (rep_id) DO UPDATE SET version = known.version + 1, source = excluded.source, address = excluded.address,
    host = excluded.host, etag = NULL, last_modified = NULL, content = NULL, content_digest = NULL, busy = NULL,
    busy_digest = NULL, expanded_on = NULL, events = NULL, read_at = NULL, checked_at = NULL, error = NULL,
    failing_since = NULL, failures = 0, next_at = excluded.next_at
RETURNING version
"""
REMOVE = "DELETE FROM rep_calendars WHERE rep_id = $1 RETURNING rep_id"
OF = f"SELECT {COLUMNS} FROM rep_calendars WHERE rep_id = ANY($1)"
REFRESH = "UPDATE rep_calendars SET next_at = least(next_at, $2) WHERE rep_id = $1"
NEXT_DUE = "SELECT min(next_at) FROM rep_calendars"
CLAIM = f"""
UPDATE rep_calendars SET next_at = $2
WHERE rep_id IN (
    SELECT rep_id FROM rep_calendars WHERE next_at <= $1 ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING {COLUMNS}
"""
EMAIL = "SELECT email FROM reps WHERE rep_id = $1"
# Whoever put another calendar there meanwhile has the last word.
READ = """
UPDATE rep_calendars SET content = $3, content_digest = $4, busy = $5, busy_digest = $6, expanded_on = $7, events = $8,
    etag = $9, last_modified = $10, read_at = $11, checked_at = $12, error = NULL, failing_since = NULL, failures = 0,
    next_at = $13
WHERE rep_id = $1 AND version = $2 RETURNING rep_id
"""
AS_BEFORE = """
UPDATE rep_calendars SET read_at = $3, checked_at = $3, error = NULL, failing_since = NULL, failures = 0, next_at = $4
WHERE rep_id = $1 AND version = $2
"""
FAILED = """
UPDATE rep_calendars SET checked_at = $3, error = $4, failing_since = coalesce(failing_since, $3),
    failures = failures + 1, next_at = $5
WHERE rep_id = $1 AND version = $2
"""
SET_BUSY = "UPDATE reps SET busy_digest = $2 WHERE rep_id = $1 AND busy_digest IS DISTINCT FROM $2"


async def put(  # noqa: PLR0913  # what a calendar is known by
    connection: Connection, rep_id: RepId, source: Source, address: str | None, host: str | None, next_at: datetime
) -> int:
    """A calendar in place of any before it; answers its version. Nothing is known of what it says yet."""
    await connection.execute(SET_BUSY, rep_id, None)
    version: int = await connection.fetchval(PUT, rep_id, source, address, host, next_at)
    return version


async def remove(connection: Connection, rep_id: RepId) -> bool:
    """The rep has no calendar any more. False if there was none."""
    await connection.execute(SET_BUSY, rep_id, None)
    return await connection.fetchval(REMOVE, rep_id) is not None


async def calendars_of(connection: Connection, rep_ids: Sequence[RepId]) -> dict[RepId, RepCalendar]:
    """The calendars of those reps who have one."""
    return {RepId(row["rep_id"]): RepCalendar(**row) for row in await connection.fetch(OF, rep_ids)}


async def refresh(connection: Connection, rep_id: RepId, at: datetime) -> None:
    """Look for it now."""
    await connection.execute(REFRESH, rep_id, at)


async def next_due(connection: Connection) -> datetime | None:
    """When the next calendar is to be looked for."""
    due: datetime | None = await connection.fetchval(NEXT_DUE)
    return due


async def claim(connection: Connection, at: datetime, limit: int, within: timedelta) -> list[RepCalendar]:
    """Calendars to look for; nobody else does until `within` is over."""
    return [RepCalendar(**row) for row in await connection.fetch(CLAIM, at, at + within, limit)]


async def email_of(connection: Connection, rep_id: str) -> str:
    """The address by which invitations know a rep."""
    return str(await connection.fetchval(EMAIL, rep_id) or "")


async def save_read(connection: Connection, calendar: RepCalendar, busy: Mapping[str, Any], busy_digest: str) -> None:
    """A calendar was read, and this is what it says."""
    saved = await connection.fetchval(
        READ,
        calendar.rep_id,
        calendar.version,
        calendar.content,
        calendar.content_digest,
        dict(busy),
        busy_digest,
        calendar.expanded_on,
        calendar.events,
        calendar.etag,
        calendar.last_modified,
        calendar.read_at,
        calendar.checked_at,
        calendar.next_at,
    )
    if saved is not None:
        await connection.execute(SET_BUSY, calendar.rep_id, busy_digest)


async def save_as_before(connection: Connection, calendar: RepCalendar, at: datetime, next_at: datetime) -> None:
    """A calendar says what it said before."""
    await connection.execute(AS_BEFORE, calendar.rep_id, calendar.version, at, next_at)


async def save_failure(
    connection: Connection, calendar: RepCalendar, error: str, at: datetime, next_at: datetime
) -> None:
    """A calendar could not be read; what it said last counts on."""
    await connection.execute(FAILED, calendar.rep_id, calendar.version, at, error, next_at)
