"""How often domains were asked to take emails."""

from datetime import datetime

from shared.db import Connection, one

# Everybody who asks within a minute gets a number, and those past the limit a minute of their own to come back in.
TAKE_NUMBER = """
INSERT INTO domain_minutes AS known (domain, minute, asked)
VALUES ($1, date_trunc('minute', clock_timestamp()), 1)
ON CONFLICT (domain) DO UPDATE
SET asked = CASE WHEN known.minute >= excluded.minute THEN known.asked + 1 ELSE 1 END,
    minute = greatest(known.minute, excluded.minute)
RETURNING minute, asked
"""


async def take_number(connection: Connection, domain: str) -> tuple[datetime, int]:
    """The minute, and the number in it of one who asks now."""
    row = await one(connection, TAKE_NUMBER, domain)
    return row["minute"], row["asked"]
