"""Messages as responses to them find them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.nurture.sending.sealing import opened
from services.nurture.tracking.domain import Response
from shared.db import Connection
from shared.events import ConsentChannel
from shared.ids import LeadId, MessageId, SequenceId, TouchId
from shared.personal import PersonKeys

SENT_MESSAGE = """
SELECT message_id, sequence_id, version, step_id, lead_id, subject, links, sealed, claimed_at, channel FROM messages
WHERE message_id = $1 AND claimed_at IS NOT NULL
"""
# Ids that begin alike; which one is meant the address proves.
SENT_BETWEEN = "SELECT message_id FROM messages WHERE message_id BETWEEN $1 AND $2 AND claimed_at IS NOT NULL"
# Two clicks at once on links of one message must see each other.
LOCK_MESSAGE = "SELECT 1 FROM messages WHERE message_id = $1 FOR NO KEY UPDATE"
RESPONSES = """
SELECT touch_id, kind, number, at, coalesce(seen_at, at) AS seen_at, automated_reason AS reason FROM responses
WHERE message_id = $1 AND kind <> 'unsubscribed' ORDER BY at, touch_id
"""
PUT_RESPONSE = """
INSERT INTO responses AS known (touch_id, message_id, kind, number, at, seen_at, automated_reason)
VALUES ($1, $2, $3, $4, $5, $5, $6)
ON CONFLICT (touch_id) DO UPDATE SET seen_at = excluded.seen_at
RETURNING old.touch_id IS NULL
"""
PUT_UNSUBSCRIBED = """
INSERT INTO responses (touch_id, message_id, kind, number, at, seen_at) VALUES ($1, $2, 'unsubscribed', 0, $3, $3)
ON CONFLICT DO NOTHING
"""
WITHDRAW = "UPDATE responses SET automated_reason = $2 WHERE touch_id = ANY($1)"


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
    channel: ConsentChannel


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
        channel=row["channel"],
    )


async def sent_between(connection: Connection, first: MessageId, last: MessageId) -> list[MessageId]:
    """The messages that left whose ids lie between two."""
    return [MessageId(row["message_id"]) for row in await connection.fetch(SENT_BETWEEN, first, last)]


async def responses_of(connection: Connection, message_id: MessageId) -> list[Response]:
    """The responses to a message so far, none of which another transaction adds to before this one ends."""
    await connection.execute(LOCK_MESSAGE, message_id)
    return [Response(**dict(row)) for row in await connection.fetch(RESPONSES, message_id)]


async def save_response(connection: Connection, response: Response, message_id: MessageId) -> bool:
    """Note a response; False when it was noted before."""
    return bool(
        await connection.fetchval(
            PUT_RESPONSE, response.touch_id, message_id, response.kind, response.number, response.at, response.reason
        )
    )


async def withdraw_responses(connection: Connection, touch_ids: Sequence[TouchId], reason: str) -> None:
    """Note that responses are a machine's after all."""
    await connection.execute(WITHDRAW, touch_ids, reason)


async def save_unsubscribed(connection: Connection, touch_id: TouchId, message_id: MessageId, at: datetime) -> None:
    """Note by which message somebody unsubscribed."""
    await connection.execute(PUT_UNSUBSCRIBED, touch_id, message_id, at)
