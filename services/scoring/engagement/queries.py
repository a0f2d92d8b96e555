"""Touches: kept once, corrected by the one received last."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from shared.db import COPIED_FROM, Connection
from shared.events import TouchRecorded
from shared.ids import LeadId

COLUMNS = (
    *("origin", "touch_id", "lead_id", "event_id", "position", "occurred_at", "type", "channel", "source", "medium"),
    *("campaign", "content", "page", "referrer_host", "automated", "personal"),
)
ADD = f"""
INSERT INTO touches ({", ".join(COLUMNS)})
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::boolean[], $16::text[])
ON CONFLICT DO NOTHING RETURNING origin, touch_id
"""
LOCK = """
SELECT origin, touch_id, lead_id, event_id, position, occurred_at, automated FROM touches
WHERE (origin, touch_id) IN (SELECT * FROM unnest($1::text[], $2::text[])) ORDER BY origin, touch_id FOR UPDATE
"""
MARK_AUTOMATED = """
WITH known AS (
    SELECT origin, touch_id FROM touches JOIN unnest($1::text[], $2::text[]) AS key (origin, touch_id)
        USING (origin, touch_id)
    WHERE NOT automated ORDER BY origin, touch_id FOR UPDATE OF touches
)
UPDATE touches SET automated = true FROM known
WHERE (touches.origin, touches.touch_id) = (known.origin, known.touch_id)
RETURNING touches.origin, touches.touch_id, lead_id, occurred_at
"""
REMOVE = "DELETE FROM touches WHERE (origin, touch_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
OF_IDS = """
SELECT lead_id, event_id, origin, occurred_at, type, channel, source, medium, campaign, content, page, referrer_host,
    automated, personal
FROM touches WHERE lead_id = ANY($1) ORDER BY occurred_at, event_id
"""
FORGET_PERSONAL = "UPDATE touches SET personal = NULL WHERE lead_id = $1 AND personal IS NOT NULL"
PAGE = 2_000

Key = tuple[str, str]


async def add_touches(connection: Connection, events: Sequence[TouchRecorded]) -> set[Key]:
    """Keep touches whose keys are new; answers these keys. Of many mostly all are new, and copying is fast."""
    rows = sorted(_row(event) for event in events)
    if len(rows) >= COPIED_FROM:
        with suppress(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.copy_records_to_table("touches", records=rows, columns=COLUMNS)
            return {(event.origin, event.touch_id) for event in events}
    added = await connection.fetch(ADD, *zip(*rows, strict=True))
    return {(row["origin"], row["touch_id"]) for row in added}


async def lock_touches(connection: Connection, keys: Iterable[Key]) -> dict[Key, asyncpg.Record]:
    """What is kept under keys."""
    origins, touch_ids = zip(*sorted(keys), strict=True)
    rows = await connection.fetch(LOCK, origins, touch_ids)
    return {(row["origin"], row["touch_id"]): row for row in rows}


async def mark_automated(connection: Connection, keys: Sequence[Key]) -> list[asyncpg.Record]:
    """Have touches count as a machine's; answers those that are known here and counted as a person's before."""
    origins, touch_ids = zip(*keys, strict=True)
    return await connection.fetch(MARK_AUTOMATED, origins, touch_ids)


async def replace_touches(connection: Connection, events: Sequence[TouchRecorded]) -> None:
    """Keep these instead of what is kept under their keys."""
    keys = sorted((event.origin, event.touch_id) for event in events)
    origins, touch_ids = zip(*keys, strict=True)
    await connection.execute(REMOVE, origins, touch_ids)
    await add_touches(connection, events)


async def touches_of(connection: Connection, lead_ids: Sequence[LeadId]) -> AsyncIterator[list[asyncpg.Record]]:
    """All touches of ids in time order, in pages. Needs a transaction."""
    cursor = await connection.cursor(OF_IDS, lead_ids)
    while page := await cursor.fetch(PAGE):
        yield page


async def forget_personal(connection: Connection, lead_id: LeadId) -> None:
    """Drop what is personal in touches of an id."""
    await connection.execute(FORGET_PERSONAL, lead_id)


def _row(event: TouchRecorded) -> tuple[Any, ...]:
    return (
        event.origin,
        event.touch_id,
        event.lead_id,
        event.event_id,
        event.position,
        event.occurred_at,
        event.type,
        event.channel,
        event.source,
        event.medium,
        event.campaign,
        event.content,
        event.page,
        event.referrer_host,
        event.automated,
        event.personal,
    )
