"""The statements about messages that ask for confirmation. Due times and claims go by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.db import Connection
from shared.events import OptinRequested
from shared.ids import LeadId

ADD = """
INSERT INTO optins (optin_id, lead_id, form_name, language, sealed, requested_at, expires_at, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp()) ON CONFLICT DO NOTHING
"""
COLUMNS = "optin_id, lead_id, form_name, language, sealed, requested_at, expires_at"
CLAIM_DUE = f"""
UPDATE optins SET claim = $1, due_at = clock_timestamp() + $2
WHERE optin_id IN (
    SELECT optin_id FROM optins WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING {COLUMNS}
"""
LOCK_CLAIMED = "SELECT optin_id FROM optins WHERE optin_id = $1 AND claim = $2 AND due_at IS NOT NULL FOR UPDATE"
HOLD = """
UPDATE optins SET due_at = clock_timestamp() + $2, hold = $3, claim = NULL WHERE optin_id = $1
"""
HAND_OUT = "UPDATE optins SET due_at = NULL, hold = NULL, claim = NULL WHERE optin_id = $1"
FINISH = "UPDATE optins SET due_at = NULL, hold = NULL, claim = NULL, sealed = NULL WHERE optin_id = ANY($1)"
NEXT_DUE = "SELECT min(due_at) - clock_timestamp() FROM optins WHERE due_at IS NOT NULL"
FORGET = "DELETE FROM optins WHERE lead_id = ANY($1)"
EMPTY_EXPIRED = "UPDATE optins SET sealed = NULL WHERE sealed IS NOT NULL AND expires_at < clock_timestamp()"


@dataclass(frozen=True, slots=True)
class DueOptin:
    """A message that is to be sent, its address and link sealed."""

    optin_id: str
    lead_id: LeadId
    form_name: str
    language: str
    sealed: str | None
    requested_at: datetime
    expires_at: datetime


async def add(connection: Connection, event: OptinRequested) -> None:
    """Have a message sent; the same again changes nothing."""
    await connection.execute(
        ADD,
        event.optin_id,
        event.lead_id,
        event.form_name,
        event.language,
        event.personal,
        event.occurred_at,
        event.expires_at,
    )


async def claim_due(connection: Connection, claim: str, lasting: timedelta, limit: int) -> list[DueOptin]:
    """Take messages that are due; others see them again only when the claim has run out."""
    return [DueOptin(**dict(row)) for row in await connection.fetch(CLAIM_DUE, claim, lasting, limit)]


async def lock_claimed(connection: Connection, optin_id: str, claim: str) -> bool:
    """Lock a message that we have taken; False when another has it now, or it is done."""
    return await connection.fetchval(LOCK_CLAIMED, optin_id, claim) is not None


async def hold(connection: Connection, optin_id: str, pause: timedelta, why: str) -> None:
    """Let a message wait for a time, saying why."""
    await connection.execute(HOLD, optin_id, pause, why)


async def hand_out(connection: Connection, optin_id: str) -> None:
    """Take a message off the list: it stands in the ledger now, claimed."""
    await connection.execute(HAND_OUT, optin_id)


async def finish(connection: Connection, optin_ids: Sequence[str]) -> None:
    """Forget what messages would have held: their outcome is known."""
    await connection.execute(FINISH, optin_ids)


async def next_due(connection: Connection) -> timedelta | None:
    """How long until the next message is due."""
    left: timedelta | None = await connection.fetchval(NEXT_DUE)
    return left


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Delete everything about these leads."""
    await connection.execute(FORGET, lead_ids)


async def empty_expired(connection: Connection) -> None:
    """Forget what links that have run out were sent with."""
    await connection.execute(EMPTY_EXPIRED)
