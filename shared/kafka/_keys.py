"""The feed of persons' keys: a small consumer of its own, so that a batch can wait for a key without holding it up."""

from __future__ import annotations

import asyncpg

from shared.db import Database
from shared.events import PersonKeyCreated
from shared.ids import LeadId
from shared.kafka._batch import Batch, move_positions, put_watermarks
from shared.personal import PersonKeys


class KeysProcessor:
    """Folds the keys topic into `person_keys`; a tombstone destroys. Idempotent, so it needs no inbox."""

    serving = True

    def __init__(self, database: Database, keys: PersonKeys, positions: str) -> None:
        self._database = database
        self._keys = keys
        self._positions = positions

    async def process(self, connection: asyncpg.Connection[asyncpg.Record], batch: Batch) -> None:
        """Carry out a batch and commit; see `Processor.process`."""
        latest = _latest(batch)
        self._keys.tell({lead_id: fact.wrapped_key for lead_id, fact in latest.items() if fact is not None})
        async with connection.transaction():
            await move_positions(connection, self._positions, batch)
            await self._keys.fold_keys(connection, list(latest.items()))
            await put_watermarks(connection, batch)
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
