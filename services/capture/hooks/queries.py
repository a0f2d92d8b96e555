"""The statements about what became of deliveries, and about the names of purchases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db import Connection
from shared.ids import LeadId, SourceId

HANDLED = """
SELECT source_id, delivery_id FROM deliveries
WHERE (source_id, delivery_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
RECORD = """
INSERT INTO deliveries AS known
    (source_id, delivery_id, state, facts, lead_id, reason, kind, sealed, received_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (source_id, delivery_id) DO UPDATE SET state = excluded.state, facts = excluded.facts,
    lead_id = excluded.lead_id, reason = excluded.reason, sealed = excluded.sealed, handled_at = clock_timestamp()
WHERE known.state = 'quarantined'
"""
QUARANTINED = """
SELECT delivery_id FROM deliveries
WHERE source_id = $1 AND state = 'quarantined' AND sealed IS NOT NULL ORDER BY received_at LIMIT $2
"""
TAKE_QUARANTINED = """
SELECT kind, sealed, received_at FROM deliveries
WHERE source_id = $1 AND delivery_id = $2 AND state = 'quarantined' AND sealed IS NOT NULL FOR UPDATE SKIP LOCKED
"""
EMPTY_OLD = "UPDATE deliveries SET sealed = NULL WHERE sealed IS NOT NULL AND received_at < $1"
DROP_OLD = "DELETE FROM deliveries WHERE received_at < $1"
PURCHASES = "SELECT name, external_id FROM purchase_names WHERE source_id = $1 AND name = ANY($2)"
NAME_PURCHASE = """
INSERT INTO purchase_names (source_id, name, external_id)
SELECT $1, name, $3 FROM unnest($2::text[]) AS name ORDER BY name
ON CONFLICT (source_id, name) DO UPDATE SET external_id = excluded.external_id
WHERE purchase_names.external_id <> excluded.external_id
"""


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a delivery."""

    state: str
    facts: int = 0
    lead_id: LeadId | None = None
    reason: str | None = None


async def handled_already(
    connection: Connection, deliveries: Sequence[tuple[SourceId, str]]
) -> set[tuple[SourceId, str]]:
    """Those of these deliveries that are done."""
    rows = await connection.fetch(HANDLED, [source for source, _ in deliveries], [name for _, name in deliveries])
    return {(SourceId(row["source_id"]), row["delivery_id"]) for row in rows}


async def record_handled(  # noqa: PLR0913  # the columns of a delivery
    connection: Connection,
    source_id: SourceId,
    delivery_id: str,
    kind: str,
    handled: Handled,
    sealed: str | None,
    received_at: datetime,
) -> None:
    """Write down what became of a delivery; the sealed request is kept only of what could not be mapped."""
    await connection.execute(
        RECORD,
        source_id,
        delivery_id,
        handled.state,
        handled.facts,
        handled.lead_id,
        handled.reason,
        kind,
        sealed,
        received_at,
    )


async def quarantined(connection: Connection, source_id: SourceId, limit: int) -> list[str]:
    """The quarantined deliveries of a source, the oldest first."""
    return [row["delivery_id"] for row in await connection.fetch(QUARANTINED, source_id, limit)]


async def drop_old_deliveries(connection: Connection, sealed_before: datetime, before: datetime) -> None:
    """Forget what deliveries held, and later that they were."""
    await connection.execute(EMPTY_OLD, sealed_before)
    await connection.execute(DROP_OLD, before)


async def purchases_of(connection: Connection, source_id: SourceId, names: Sequence[str]) -> set[str]:
    """The purchases that go by any of these names."""
    return {row["external_id"] for row in await connection.fetch(PURCHASES, source_id, names)}


async def name_purchase(connection: Connection, source_id: SourceId, names: Sequence[str], external_id: str) -> None:
    """Let all these names mean one purchase."""
    await connection.execute(NAME_PURCHASE, source_id, names, external_id)
