"""Touches that turned out not to be a person's, as each service that folds touches remembers them.

A withdrawal and its touch come in either order, and at once to two consumers. It stays whatever is told of the touch
later, so that the order does not matter. Expects a table `withdrawals` in the service's projection.
"""

from collections.abc import Iterable, Sequence

import asyncpg

from shared.db import Connection
from shared.events import TouchRecorded, TouchWithdrawn
from shared.ids import EventId

TouchKey = tuple[str, str]
"""Origin and touch id."""

# Two statements that must see each other: a touch that is being folded cannot be withdrawn at the same moment.
FOLDING = "SELECT pg_advisory_xact_lock_shared(hashtextextended(current_schema() || '.withdrawals', 0))"
WITHDRAWING = "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.withdrawals', 0))"
ANY = "SELECT EXISTS (SELECT 1 FROM withdrawals)"
AMONG = """
SELECT origin, touch_id, reason FROM withdrawals
JOIN unnest($1::text[], $2::text[]) AS touch (origin, touch_id) USING (origin, touch_id)
"""
KEEP = """
INSERT INTO withdrawals AS known (origin, touch_id, reason, event_id, received_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
ON CONFLICT (origin, touch_id) DO UPDATE
SET reason = excluded.reason, event_id = excluded.event_id, received_at = excluded.received_at
WHERE (known.received_at, known.event_id) < (excluded.received_at, excluded.event_id)
"""


async def as_they_count(
    connection: Connection, events: Sequence[TouchRecorded]
) -> tuple[Sequence[TouchRecorded], set[EventId]]:
    """Touches that are about to be folded, those withdrawn before as automated; and which these are.

    None of them can be withdrawn by another before this transaction ends.
    """
    await connection.execute(FOLDING)
    if not await connection.fetchval(ANY):
        return events, set()
    rows = await _among(connection, ((event.origin, event.touch_id) for event in events))
    reasons = {(row["origin"], row["touch_id"]): row["reason"] for row in rows}
    counted: list[TouchRecorded] = []
    marked: set[EventId] = set()
    for event in events:
        key = event.origin, event.touch_id
        if event.automated or key not in reasons:
            counted.append(event)
        else:
            marked.add(event.event_id)
            counted.append(event.model_copy(update={"automated": True, "automated_reason": reasons[key]}))
    return counted, marked


async def keep_withdrawals(connection: Connection, events: Sequence[TouchWithdrawn]) -> list[TouchWithdrawn]:
    """Remember withdrawals; answers one of each touch, the one received last."""
    await connection.execute(WITHDRAWING)
    latest = {(event.origin, event.touch_id): event for event in sorted(events, key=_received)}
    kept = [latest[key] for key in sorted(latest)]
    await connection.execute(
        KEEP,
        [event.origin for event in kept],
        [event.touch_id for event in kept],
        [event.reason for event in kept],
        [event.event_id for event in kept],
        [event.received_at for event in kept],
    )
    return kept


def why_withdrawn(origin: str, touch_id: str, reason: str | None) -> str:
    """The sentence that says which touch was withdrawn, and why."""
    return f"touch {touch_id} of {origin} was withdrawn" + (f" ({reason})" if reason else "")


def _received(event: TouchWithdrawn) -> tuple[object, str]:
    return event.received_at, event.event_id


async def _among(connection: Connection, keys: Iterable[TouchKey]) -> list[asyncpg.Record]:
    origins, touch_ids = zip(*keys, strict=True)
    return await connection.fetch(AMONG, origins, touch_ids)
