"""What a person chose apart from consent: a language, and a break."""

from datetime import datetime

from shared.db import Connection
from shared.ids import LeadId

PUT_LANGUAGE = """
INSERT INTO contact_preferences (lead_id, language, changed_at) VALUES ($1, $2, $3)
ON CONFLICT (lead_id) DO UPDATE SET language = excluded.language, changed_at = excluded.changed_at
"""
PUT_PAUSE = """
INSERT INTO contact_preferences (lead_id, paused_until, changed_at) VALUES ($1, $2, $3)
ON CONFLICT (lead_id) DO UPDATE SET paused_until = excluded.paused_until, changed_at = excluded.changed_at
"""
END_PAUSES = "UPDATE contact_preferences SET paused_until = NULL WHERE lead_id = ANY($1) AND paused_until IS NOT NULL"
WAKE = """
UPDATE enrolments SET due_at = clock_timestamp()
WHERE lead_id = ANY($1) AND active AND hold IS NOT NULL AND claim IS NULL AND due_at > clock_timestamp()
"""
FORGET = "DELETE FROM contact_preferences WHERE lead_id = $1"


async def choose_language(connection: Connection, lead_id: LeadId, language: str, at: datetime) -> None:
    """Keep the language that a person wants to be written to in."""
    await connection.execute(PUT_LANGUAGE, lead_id, language, at)


async def pause(connection: Connection, lead_id: LeadId, until: datetime, at: datetime) -> None:
    """Keep that a person wants nothing until then."""
    await connection.execute(PUT_PAUSE, lead_id, until, at)


async def end_pause(connection: Connection, ids: tuple[LeadId, ...]) -> None:
    """End a person's break: what waited for its end is looked at again."""
    await connection.execute(END_PAUSES, ids)
    await connection.execute(WAKE, ids)


async def forget(connection: Connection, lead_id: LeadId) -> None:
    """Delete what an erased person chose."""
    await connection.execute(FORGET, lead_id)
