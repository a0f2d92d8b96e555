"""The statements about connections to CRMs, and the ids that records have there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from shared.db import Connection

COLUMNS = """
each.endpoint_id AS connection_id, crm, name, base_url, auth_url, ways, subscription_id, author, each.created_at,
each.updated_at, endpoint.state, endpoint.reason, endpoint.failures,
(SELECT count(*) FROM webhook_deliveries AS one WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting')
    AS waiting
"""
FROM = "FROM crm_connections AS each JOIN webhook_endpoints AS endpoint ON endpoint.endpoint_id = each.endpoint_id"
ADD = """
INSERT INTO crm_connections
    (endpoint_id, subscription_id, crm, name, base_url, auth_url, ways, sealed, author, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
"""
ONE = f"SELECT {COLUMNS} {FROM} WHERE each.endpoint_id = $1"
LOCK = "SELECT 1 FROM crm_connections WHERE endpoint_id = $1 FOR UPDATE"
LIST = f"""
SELECT {COLUMNS} {FROM} WHERE (each.created_at, each.endpoint_id) > ($1, $2)
ORDER BY each.created_at, each.endpoint_id LIMIT $3
"""
CHANGE = """
UPDATE crm_connections SET name = $2, base_url = $3, auth_url = $4, ways = $5, sealed = coalesce($6, sealed),
    updated_at = $7
WHERE endpoint_id = $1
"""
DROP_RECORDS = "DELETE FROM crm_records WHERE endpoint_id = $1"
DROP = "DELETE FROM crm_connections WHERE endpoint_id = $1"
TO_WRITE = "SELECT crm, base_url, auth_url, ways, sealed, updated_at FROM crm_connections WHERE endpoint_id = $1"
PUT_RECORD = """
INSERT INTO crm_records (endpoint_id, kind, our_id, crm_id, written_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (endpoint_id, kind, our_id)
    DO UPDATE SET crm_id = excluded.crm_id, written_at = excluded.written_at, sealed = NULL, sealed_for = NULL
"""
BEGIN_RECORD = """
INSERT INTO crm_records AS known (endpoint_id, kind, our_id, sealed_for, sealed, written_at)
VALUES ($1, 'lead', $2, $3, $4, $5)
ON CONFLICT (endpoint_id, kind, our_id) DO UPDATE SET written_at = excluded.written_at WHERE known.crm_id IS NULL
RETURNING sealed_for, sealed
"""
DROP_BEGUN = "DELETE FROM crm_records WHERE endpoint_id = $1 AND kind = 'lead' AND our_id = $2 AND crm_id IS NULL"
NOTE_ERASURE = """
UPDATE crm_records SET erased_at = $3, erasure = $4 WHERE endpoint_id = $1 AND kind = 'lead' AND our_id = $2
"""
RECORD = """
SELECT kind, our_id, crm_id, written_at, erased_at, erasure, sealed_for, sealed FROM crm_records
WHERE endpoint_id = $1 AND kind = $2 AND our_id = $3
"""


async def add(  # noqa: PLR0913  # what a connection is made of
    connection: Connection,
    endpoint_id: str,
    subscription_id: str,
    told: Mapping[str, Any],
    sealed: str,
    author: str,
    at: datetime,
) -> None:
    """A new connection: its endpoint and its subscription are there."""
    columns = [told[name] for name in ("crm", "name", "base_url", "auth_url", "ways")]
    await connection.execute(ADD, endpoint_id, subscription_id, *columns, sealed, author, at)


async def one(connection: Connection, endpoint_id: str, *, locked: bool = False) -> asyncpg.Record | None:
    """A connection and its health."""
    if locked:
        await connection.execute(LOCK, endpoint_id)
    return await connection.fetchrow(ONE, endpoint_id)


async def listed(connection: Connection, after: tuple[datetime, str], limit: int) -> list[asyncpg.Record]:
    """Connections in the order in which they were made."""
    return await connection.fetch(LIST, *after, limit)


async def change(
    connection: Connection, endpoint_id: str, told: Mapping[str, Any], sealed: str | None, at: datetime
) -> None:
    """What a connection is from now on; without `sealed` its credentials stay."""
    columns = [told[name] for name in ("name", "base_url", "auth_url", "ways")]
    await connection.execute(CHANGE, endpoint_id, *columns, sealed, at)


async def drop(connection: Connection, endpoint_id: str) -> None:
    """Forget a connection; what was written stays in the CRM."""
    await connection.execute(DROP_RECORDS, endpoint_id)
    await connection.execute(DROP, endpoint_id)


async def to_write(connection: Connection, endpoint_id: str) -> asyncpg.Record | None:
    """What a call needs to know."""
    return await connection.fetchrow(TO_WRITE, endpoint_id)


async def put_record(  # noqa: PLR0913  # a row
    connection: Connection, endpoint_id: str, kind: str, our_id: str, crm_id: str, at: datetime
) -> None:
    """Which record of the CRM ours is."""
    await connection.execute(PUT_RECORD, endpoint_id, kind, our_id, crm_id, at)


async def begin_record(  # noqa: PLR0913  # a row
    connection: Connection, endpoint_id: str, lead_id: str, sealed_for: str | None, sealed: str | None, at: datetime
) -> asyncpg.Record | None:
    """A lead is about to be written; answers what its first try is found by, sealed. None where its id is known."""
    return await connection.fetchrow(BEGIN_RECORD, endpoint_id, lead_id, sealed_for, sealed, at)


async def drop_begun(connection: Connection, endpoint_id: str, lead_id: str) -> None:
    """Forget a lead that was about to be written, and does not stand there."""
    await connection.execute(DROP_BEGUN, endpoint_id, lead_id)


async def note_erasure(connection: Connection, endpoint_id: str, lead_id: str, at: datetime | None, said: str) -> None:
    """What the CRM answered when a lead was to be erased there, and when it was; None: not yet."""
    await connection.execute(NOTE_ERASURE, endpoint_id, lead_id, at, said)


async def record(connection: Connection, endpoint_id: str, kind: str, our_id: str) -> asyncpg.Record | None:
    """The record of the CRM that ours is, as it was written last."""
    return await connection.fetchrow(RECORD, endpoint_id, kind, our_id)
