"""Statements that an earlier version wrote in clear are sealed, some at a time."""

from datetime import timedelta

import orjson

from shared.ids import LeadId
from shared.service import Runtime

AT_ONCE = 500
IN_CLEAR = """
SELECT lead_id, statements FROM leads WHERE statements <> '{}' ORDER BY lead_id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
SEAL = """
UPDATE leads SET sealed = new.sealed, statements = '{}'
FROM unnest($1::text[], $2::text[]) AS new (lead_id, sealed) WHERE leads.lead_id = new.lead_id
"""


async def seal_clear(runtime: Runtime) -> timedelta | None:
    """Seal what stands in clear; a batch is one transaction."""
    while True:
        async with runtime.database.transaction() as tx:
            rows = await tx.connection.fetch(IN_CLEAR, AT_ONCE)
            if not rows:
                return None
            texts = {LeadId(row["lead_id"]): orjson.dumps(row["statements"]) for row in rows}
            blocks = await runtime.keys.seal_texts(tx, texts, runtime.clock.now())
            await tx.connection.execute(SEAL, list(blocks), list(blocks.values()))
