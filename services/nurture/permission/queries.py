"""What a person had lately, bad reports, and paused sequences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.nurture.permission.domain import Standing, Trouble
from shared.db import Connection, one
from shared.events import ConsentChannel, MessageReported
from shared.ids import LeadId, MessageId, SequenceId

# Also what is under way, and what nobody knows the outcome of: too few is better than too many.
HAD = """
SELECT message_id, person_id, lead_id, sequence_id, version, step_id, channel, claimed_at FROM messages
WHERE (person_id = ANY($1) OR lead_id = ANY($1)) AND claimed_at > $2
  AND (state IN ('sent', 'delivered', 'bounced', 'unknown') OR (state = 'planned' AND claim_until IS NOT NULL))
ORDER BY claimed_at DESC
"""
DUE_SINCE = """
SELECT created_at FROM messages WHERE enrolment_id = $1 AND step_id = $2 AND state = 'planned'
"""
WAITING = """
SELECT sequence_id FROM messages
WHERE (person_id = ANY($1) OR lead_id = ANY($1)) AND state = 'planned' AND claim_until IS NULL
  AND enrolment_id <> $2 AND starts_with(reason, $3)
"""
REPORTED_MESSAGE = """
SELECT message_id, sequence_id FROM messages WHERE message_id = split_part($1, '@', 1)
UNION ALL
SELECT message_id, sequence_id FROM messages WHERE provider_id = $1
LIMIT 1
"""
PUT_TROUBLE = """
INSERT INTO message_troubles (event_id, recipient, channel, trouble, message_id, sequence_id, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING event_id
"""
SOFT_BOUNCES = """
SELECT occurred_at FROM message_troubles WHERE recipient = $1 AND channel = $2 AND trouble = 'soft_bounce'
"""
STANDING = """
SELECT (SELECT count(*) FROM messages
        WHERE sequence_id = $1 AND claimed_at > $2 AND state IN ('sent', 'delivered')) AS taken,
       (SELECT count(*) FROM messages
        WHERE sequence_id = $1 AND claimed_at > $2 AND state = 'bounced') AS bounced,
       (SELECT count(DISTINCT coalesce(message_id, event_id)) FROM message_troubles AS told
        WHERE sequence_id = $1 AND occurred_at > $2 AND trouble = 'complaint' AND NOT EXISTS (
            SELECT FROM messages WHERE messages.message_id = told.message_id AND claimed_at <= $3::timestamptz
        )) AS complained
"""
LAST_VERSION = """
SELECT version FROM messages WHERE sequence_id = $1 AND claimed_at IS NOT NULL ORDER BY claimed_at DESC LIMIT 1
"""
TROUBLED = """
SELECT sequence_id FROM messages WHERE state = 'bounced' AND settled_at > $1
UNION
SELECT sequence_id FROM message_troubles WHERE occurred_at > $1 AND sequence_id IS NOT NULL
"""
PAUSE = """
INSERT INTO guarded_sequences AS known (sequence_id, paused_at, reason, taken, bounced, complained)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (sequence_id) DO UPDATE
SET paused_at = excluded.paused_at, reason = excluded.reason, taken = excluded.taken, bounced = excluded.bounced,
    complained = excluded.complained, resumed_at = NULL, resumed_by = NULL, resumed_because = NULL
WHERE known.resumed_at IS NOT NULL
RETURNING sequence_id
"""
GUARDED = "SELECT * FROM guarded_sequences WHERE sequence_id = $1"
WHY_PAUSED = "SELECT reason FROM guarded_sequences WHERE sequence_id = $1 AND resumed_at IS NULL"
LISTED = """
SELECT * FROM guarded_sequences
WHERE ($1::boolean IS NULL OR (resumed_at IS NULL) = $1) AND sequence_id > $2 ORDER BY sequence_id LIMIT $3
"""
POLICY_SEEN = """
INSERT INTO installation AS known (name, value) VALUES ('sending_policy_seen', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE known.value <> excluded.value
RETURNING name
"""
WAKE = """
UPDATE enrolments SET due_at = clock_timestamp()
WHERE active AND hold IS NOT NULL AND claim IS NULL AND due_at > clock_timestamp()
  AND (starts_with(hold, $1) OR starts_with(hold, $2))
"""
RESUME = """
UPDATE guarded_sequences SET resumed_at = $2, resumed_by = $3, resumed_because = $4
WHERE sequence_id = $1 AND resumed_at IS NULL RETURNING *
"""


@dataclass(frozen=True, slots=True)
class HadRow:
    """A message that went out, or may have, by the version that sent it."""

    sequence_id: SequenceId
    version: int
    step_id: str
    channel: ConsentChannel
    at: datetime


async def had_since(connection: Connection, persons: Sequence[Sequence[LeadId]], since: datetime) -> list[list[HadRow]]:
    """What each of these persons had, under any of their ids, the latest first: one statement for all."""
    by_id: dict[str, dict[str, asyncpg.Record]] = {}
    for row in await connection.fetch(HAD, sorted({own for ids in persons for own in ids}), since):
        for lead_id in (row["person_id"], row["lead_id"]):
            by_id.setdefault(lead_id, {})[row["message_id"]] = row
    return [[_had(row) for row in _latest_first([by_id.get(own, {}) for own in ids])] for ids in persons]


def _latest_first(found: Sequence[Mapping[str, asyncpg.Record]]) -> list[asyncpg.Record]:
    """Each message once, whichever of a person's ids it was found by."""
    once = {message_id: row for rows in found for message_id, row in rows.items()}
    return sorted(once.values(), key=lambda row: row["claimed_at"], reverse=True)


def _had(row: asyncpg.Record) -> HadRow:
    return HadRow(SequenceId(row["sequence_id"]), row["version"], row["step_id"], row["channel"], row["claimed_at"])


async def due_since(connection: Connection, enrolment_id: str, step_id: str) -> datetime | None:
    """Since when a message has waited; None when this is the first look at it."""
    found: datetime | None = await connection.fetchval(DUE_SINCE, enrolment_id, step_id)
    return found


async def waiting_sequences(
    connection: Connection, ids: Sequence[LeadId], apart_from: str, reason: str
) -> list[SequenceId]:
    """The sequences whose messages to a person wait for a reason that begins like this."""
    return [SequenceId(row["sequence_id"]) for row in await connection.fetch(WAITING, ids, apart_from, reason)]


async def reported_message(connection: Connection, named: str) -> tuple[MessageId, SequenceId] | None:
    """The message of the ledger that a report names, by our id or the provider's; None when it is none of ours."""
    row = await connection.fetchrow(REPORTED_MESSAGE, named)
    return None if row is None else (MessageId(row["message_id"]), SequenceId(row["sequence_id"]))


async def save_trouble(
    connection: Connection,
    event: MessageReported,
    recipient: str,
    trouble: Trouble,
    about: tuple[MessageId, SequenceId] | None,
) -> bool:
    """Keep a bad report; False when it was told before. `recipient` is the hash of an address, or else a lead's id."""
    message_id, sequence_id = about or (None, None)
    saved = await connection.fetchval(
        PUT_TROUBLE, event.event_id, recipient, event.channel, trouble, message_id, sequence_id, event.occurred_at
    )
    return saved is not None


async def soft_bounces(connection: Connection, recipient: str, channel: str) -> list[datetime]:
    """When messages to an address bounced for a while."""
    return [row["occurred_at"] for row in await connection.fetch(SOFT_BOUNCES, recipient, channel)]


async def standing_of(
    connection: Connection, sequence_id: SequenceId, since: datetime, resumed_at: datetime | None
) -> Standing:
    """What came of a sequence's messages since then; what left before somebody let it go on counts no more."""
    since = max(since, resumed_at or since)
    row = await one(connection, STANDING, sequence_id, since, resumed_at)
    return Standing(row["taken"], row["bounced"], row["complained"])


async def last_version(connection: Connection, sequence_id: SequenceId) -> int:
    """The version of a sequence that sent last; 0 when none did."""
    return await connection.fetchval(LAST_VERSION, sequence_id) or 0


async def troubled_sequences(connection: Connection, since: datetime) -> list[SequenceId]:
    """The sequences that anything bad was heard of since then."""
    return [SequenceId(row["sequence_id"]) for row in await connection.fetch(TROUBLED, since)]


async def pause(connection: Connection, sequence_id: SequenceId, standing: Standing, reason: str, at: datetime) -> bool:
    """Pause a sequence; False when it is paused already."""
    paused = await connection.fetchval(
        PAUSE, sequence_id, at, reason, standing.taken, standing.bounced, standing.complained
    )
    return paused is not None


async def guarded(connection: Connection, sequence_id: SequenceId) -> asyncpg.Record | None:
    """What the guard last did about a sequence; None if it never had to."""
    row: asyncpg.Record | None = await connection.fetchrow(GUARDED, sequence_id)
    return row


async def why_paused(connection: Connection, sequence_id: SequenceId) -> str | None:
    """Why a sequence is paused; None when it is not."""
    reason: str | None = await connection.fetchval(WHY_PAUSED, sequence_id)
    return reason


async def listed(connection: Connection, paused: bool | None, after: str, limit: int) -> list[asyncpg.Record]:
    """The sequences that the guard ever paused, by their ids; those that are, those that are not, or all."""
    rows: list[asyncpg.Record] = await connection.fetch(LISTED, paused, after, limit)
    return rows


async def resume(
    connection: Connection, sequence_id: SequenceId, at: datetime, by: str, because: str
) -> asyncpg.Record | None:
    """Let a sequence go on; None when it is not paused."""
    row: asyncpg.Record | None = await connection.fetchrow(RESUME, sequence_id, at, by, because)
    return row


async def policy_is_new(connection: Connection, version: int) -> bool:
    """Note which version of the policy counts; whether that is another one than at the last look."""
    return await connection.fetchval(POLICY_SEEN, str(version)) is not None


async def wake(connection: Connection, *reasons: str) -> None:
    """Look again at the messages that wait for reasons that begin like these two."""
    await connection.execute(WAKE, *reasons)
