"""The statements about what became of deliveries, and about the names of purchases."""

from collections.abc import Mapping, Sequence
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
    (source_id, delivery_id, state, facts, told, lead_id, reason, kind, sealed, received_at, try_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (source_id, delivery_id) DO UPDATE SET state = excluded.state, facts = excluded.facts,
    told = excluded.told, lead_id = excluded.lead_id, reason = excluded.reason, sealed = excluded.sealed,
    try_at = excluded.try_at, handled_at = clock_timestamp()
WHERE known.state IN ('quarantined', 'pending') OR known.sealed IS NOT NULL
"""
AGAIN = """
UPDATE deliveries SET received = received + again.times
FROM unnest($1::text[], $2::text[], $3::integer[]) AS again (source_id, delivery_id, times)
WHERE deliveries.source_id = again.source_id AND deliveries.delivery_id = again.delivery_id
"""
CLAIM = """
UPDATE deliveries SET try_at = $1::timestamptz + interval '1 minute', tries = tries + 1
WHERE (source_id, delivery_id) IN (
    SELECT source_id, delivery_id FROM deliveries WHERE state = 'pending' AND try_at <= $1
    ORDER BY try_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING source_id, delivery_id, kind, sealed, received_at, tries
"""
TRY_AGAIN = """
UPDATE deliveries SET try_at = $3, reason = $4 WHERE source_id = $1 AND delivery_id = $2 AND state = 'pending'
"""
SIGN_ONCE = """
INSERT INTO signed_once AS known (source_id, token, body_sha256) VALUES ($1, $2, $3)
ON CONFLICT (source_id, token) DO UPDATE SET token = known.token
RETURNING body_sha256 = $3
"""
DROP_SIGNED = "DELETE FROM signed_once WHERE seen_at < $1"
NEXT_DUE = "SELECT min(try_at) FROM deliveries WHERE state = 'pending'"
DELIVERY = """
SELECT delivery_id, state, facts, told, lead_id, reason, received, received_at, handled_at, sealed FROM deliveries
WHERE source_id = $1 AND delivery_id = $2
"""
DISCARD = """
UPDATE deliveries SET state = 'ignored', reason = $3, sealed = NULL, try_at = NULL, handled_at = clock_timestamp()
WHERE source_id = $1 AND delivery_id = $2 AND (state IN ('quarantined', 'pending') OR sealed IS NOT NULL)
RETURNING delivery_id
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'delivery.discarded', $2, $3)"
# One statement, so that all counts are of one moment: what was taken in and is not in the table yet is pending too.
SUMMARY = """
WITH known AS (
    SELECT state, count(*) AS deliveries, sum(received - 1) AS again FROM deliveries
    WHERE source_id = $1 AND ($2::timestamptz IS NULL OR received_at >= $2)
      AND ($3::timestamptz IS NULL OR received_at < $3) GROUP BY state
), under_way AS (
    SELECT count(*) AS deliveries FROM event_log AS row
    WHERE row.type = 'throughline.delivery.received.v1' AND row.subject = $1
      AND ($2::timestamptz IS NULL OR row.recorded_at >= $2) AND ($3::timestamptz IS NULL OR row.recorded_at < $3)
      AND (NOT EXISTS (
               SELECT 1 FROM inbox WHERE inbox.event_id = row.event_id
               AND inbox.day BETWEEN row.recorded_at::date - 1 AND row.recorded_at::date + 1)
           OR EXISTS (SELECT 1 FROM parked_events AS parked WHERE parked.event_id = row.event_id))
)
SELECT coalesce((SELECT sum(deliveries) FROM known WHERE state = 'mapped'), 0) AS mapped,
    coalesce((SELECT sum(deliveries) FROM known WHERE state = 'ignored'), 0) AS ignored,
    coalesce((SELECT sum(again) FROM known), 0) AS duplicate,
    coalesce((SELECT sum(deliveries) FROM known WHERE state = 'quarantined'), 0) AS quarantined,
    coalesce((SELECT sum(deliveries) FROM known WHERE state = 'pending'), 0)
        + (SELECT deliveries FROM under_way) AS pending
"""
UNMAPPED = """
SELECT delivery_id FROM deliveries
WHERE source_id = $1 AND state <> 'pending' AND sealed IS NOT NULL ORDER BY handled_at, delivery_id LIMIT $2
"""
TAKE_UNMAPPED = """
SELECT source_id, delivery_id, kind, sealed, received_at FROM deliveries
WHERE source_id = $1 AND delivery_id = $2 AND state <> 'pending' AND sealed IS NOT NULL FOR UPDATE SKIP LOCKED
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


NO_IDENTIFIER = "no_identifier"


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a delivery."""

    state: str
    facts: int = 0
    lead_id: LeadId | None = None
    reason: str | None = None
    told: tuple[dict[str, str], ...] = ()

    @property
    def unmapped(self) -> bool:
        """Whether another mapping could make something of it; so it does not where it names nobody."""
        return self.state == "quarantined" or (self.state == "ignored" and self.reason == NO_IDENTIFIER)


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
    try_at: datetime | None = None,
) -> None:
    """Write down what became of a delivery; the sealed request is kept only of what is not mapped yet."""
    await connection.execute(
        RECORD,
        source_id,
        delivery_id,
        handled.state,
        handled.facts,
        list(handled.told),
        handled.lead_id,
        handled.reason,
        kind,
        sealed,
        received_at,
        try_at,
    )


async def count_again(connection: Connection, times: Mapping[tuple[SourceId, str], int]) -> None:
    """Count deliveries that came another time."""
    if times:
        keys = sorted(times)
        await connection.execute(
            AGAIN, [source for source, _ in keys], [name for _, name in keys], [times[key] for key in keys]
        )


async def unmapped(connection: Connection, source_id: SourceId, limit: int) -> list[str]:
    """The deliveries of a source that are not mapped yet, those first that were looked at the longest ago."""
    return [row["delivery_id"] for row in await connection.fetch(UNMAPPED, source_id, limit)]


async def drop_old_deliveries(connection: Connection, sealed_before: datetime, before: datetime) -> None:
    """Forget what deliveries held, and later that they were."""
    await connection.execute(EMPTY_OLD, sealed_before)
    await connection.execute(DROP_OLD, before)


async def is_first_body(connection: Connection, source_id: SourceId, token: str, body_sha256: bytes) -> bool:
    """Whether a token that is good for one body has not come with another one."""
    first: bool = await connection.fetchval(SIGN_ONCE, source_id, token, body_sha256)
    return first


async def drop_signed(connection: Connection, before: datetime) -> None:
    """Forget tokens that are too old to be accepted anyway."""
    await connection.execute(DROP_SIGNED, before)


async def purchases_of(connection: Connection, source_id: SourceId, names: Sequence[str]) -> set[str]:
    """The purchases that go by any of these names."""
    return {row["external_id"] for row in await connection.fetch(PURCHASES, source_id, names)}


async def name_purchase(connection: Connection, source_id: SourceId, names: Sequence[str], external_id: str) -> None:
    """Let all these names mean one purchase."""
    await connection.execute(NAME_PURCHASE, source_id, names, external_id)
