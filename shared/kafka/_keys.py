"""The feed of persons' keys: a small consumer of its own, so that a batch can wait for a key without holding it up."""

from __future__ import annotations

import asyncpg

from shared.db import Database, one
from shared.events import PersonKeyCreated
from shared.ids import LeadId
from shared.kafka._batch import Batch
from shared.kafka._positions import FURTHEST, Fenced, position_columns, watermark_columns
from shared.kafka._records import Decoded
from shared.personal import PersonKeys

# A whole batch, committed by itself: all of it, or nothing where the positions are elsewhere. Not waited for to be on
# disk: whoever opens something by a key commits later, and with that the key is; else it is read again.
KEEP = f"""
WITH held AS MATERIALIZED (
    SELECT topic, partition, next_offset, set_config('synchronous_commit', 'off', true)
    FROM consumer_positions WHERE consumer = $1 AND (topic, partition) IN
        (SELECT * FROM unnest($2::text[], $3::integer[])) ORDER BY topic, partition FOR UPDATE
), due AS MATERIALIZED (
    SELECT batch.* FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[])
        AS batch (topic, partition, expected, next_offset, last_event_id, last_timestamp_ms)
    JOIN held ON held.topic = batch.topic AND held.partition = batch.partition AND held.next_offset = batch.expected
), moved AS (
    UPDATE consumer_positions AS known
    SET next_offset = due.next_offset, last_event_id = due.last_event_id,
        last_timestamp_ms = due.last_timestamp_ms, updated_at = clock_timestamp()
    FROM due WHERE known.consumer = $1 AND known.topic = due.topic AND known.partition = due.partition
      AND (SELECT count(*) FROM due) = cardinality($2::text[])
    RETURNING 1
), kept AS (
    INSERT INTO person_keys (lead_id, wrapped_key) SELECT * FROM unnest($8::text[], $9::text[])
    WHERE EXISTS (SELECT FROM moved) ON CONFLICT DO NOTHING
), marked AS (
    INSERT INTO feed_watermarks AS known (topic, partition, source, at, repair, appended_ms)
    SELECT * FROM unnest($10::text[], $11::integer[], $12::text[], $13::timestamptz[], $14::bigint[], $15::bigint[])
    WHERE EXISTS (SELECT FROM moved) {FURTHEST}
)
SELECT count(*) AS moved FROM moved
"""


class KeysProcessor:
    """Folds the keys topic into `person_keys`; a tombstone destroys. Idempotent, so it needs no inbox."""

    serving = True
    kinds = frozenset({PersonKeyCreated.ce_type})

    def __init__(self, database: Database, keys: PersonKeys, positions: str) -> None:
        self._database = database
        self._keys = keys
        self._positions = positions

    def awaits(self, record: Decoded) -> bool:
        """Whether it is to be carried out at once: somebody may wait for any key."""
        return True

    async def process(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch) -> None:
        """Carry out a batch and commit; see `Processor.process`."""
        latest = _latest(batch)
        kept = {lead_id: fact.wrapped_key for lead_id, fact in sorted(latest.items()) if fact is not None}
        self._keys.tell(kept)
        if gone := [(lead_id, fact) for lead_id, fact in latest.items() if fact is None]:
            await self._keys.fold_keys(connection, gone)  # for good, whoever is first: so it may stand before the rest
        columns = (*position_columns(batch), list(kept), list(kept.values()), *watermark_columns(batch))
        if (await one(connection, KEEP, self._positions, *columns))["moved"] != len(batch.spans):
            raise Fenced("another process moved the positions")
        if batch.watermarks:
            await self._keys.note_arrival(connection)
        self._keys.tell({})


def _latest(batch: Batch) -> dict[LeadId, PersonKeyCreated | None]:
    """What was told last of each person's key; None where it is destroyed."""
    latest: dict[LeadId, PersonKeyCreated | None] = {}
    for record in batch.records:
        if isinstance(record.event, PersonKeyCreated):
            latest[record.event.lead_id] = record.event
        elif record.value is None and record.key is not None:
            latest[LeadId(record.key.decode("utf-8", "replace"))] = None
    return latest
