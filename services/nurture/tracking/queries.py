"""Messages as responses to them find them."""

from dataclasses import dataclass
from datetime import datetime

from services.nurture.sending.sealing import opened
from shared.db import Connection
from shared.ids import LeadId, MessageId, SequenceId, TouchId
from shared.personal import PersonKeys

SENT_MESSAGE = """
SELECT message_id, sequence_id, version, step_id, lead_id, subject, links, sealed, claimed_at FROM messages
WHERE message_id = $1 AND claimed_at IS NOT NULL
"""
PUT_RESPONSE = """
INSERT INTO responses (touch_id, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING touch_id
"""


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that was handed over, or may have been."""

    message_id: MessageId
    sequence_id: SequenceId
    version: int
    step_id: str
    lead_id: LeadId
    links: tuple[str, ...]
    claimed_at: datetime


async def sent_message(
    connection: Connection, message_id: MessageId, keys: PersonKeys | None = None
) -> SentMessage | None:
    """The message, its links only with `keys`; None when no such message ever left."""
    row = await connection.fetchrow(SENT_MESSAGE, message_id)
    if row is None:
        return None
    links = (await opened(connection, keys, [row]))[0].links if keys is not None else ()
    return SentMessage(
        message_id=MessageId(row["message_id"]),
        sequence_id=SequenceId(row["sequence_id"]),
        version=row["version"],
        step_id=row["step_id"],
        lead_id=LeadId(row["lead_id"]),
        links=links,
        claimed_at=row["claimed_at"],
    )


async def save_response(connection: Connection, touch_id: TouchId, message_id: MessageId) -> bool:
    """Note a response; False when it was noted before."""
    return await connection.fetchval(PUT_RESPONSE, touch_id, message_id) is not None
