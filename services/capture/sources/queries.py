"""The statements about sources, their secrets and their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.capture.reading import looks_like_id
from shared.db import Connection
from shared.ids import SourceId

ADD = """
INSERT INTO sources (source_id, kind, name, mapping, defaults) VALUES ($1, $2, $3, $4, $5)
"""
CHANGE = """
UPDATE sources SET name = coalesce($2, name), mapping = coalesce($3, mapping), defaults = coalesce($4, defaults),
    updated_at = clock_timestamp()
WHERE source_id = $1
"""
COLUMNS = "source_id, kind, name, mapping, defaults, credential, created_at, updated_at"
SOURCE = f"SELECT {COLUMNS} FROM sources WHERE source_id = $1"
SOURCES = f"SELECT {COLUMNS} FROM sources WHERE source_id > $1 ORDER BY source_id LIMIT $2"
SET_CREDENTIAL = "UPDATE sources SET credential = $2, updated_at = clock_timestamp() WHERE source_id = $1"
LOCK = "SELECT source_id FROM sources WHERE source_id = $1 FOR UPDATE"
SECRETS = """
SELECT source_id, n, sealed, created_at, retired_at FROM source_secrets WHERE source_id = ANY($1) ORDER BY source_id, n
"""
ADD_SECRET = """
INSERT INTO source_secrets (source_id, n, sealed)
SELECT $1, coalesce(max(n), 0) + 1, $2 FROM source_secrets WHERE source_id = $1
RETURNING source_id, n, sealed, created_at, retired_at
"""
RETIRE = """
UPDATE source_secrets SET retired_at = clock_timestamp(), sealed = ''
WHERE source_id = $1 AND n = $2 AND retired_at IS NULL RETURNING n
"""
DELIVERIES = """
SELECT delivery_id, state, facts, told, lead_id, reason, received, received_at, handled_at FROM deliveries
WHERE source_id = $1 AND ($2::text IS NULL OR state = $2)
  AND ($3::timestamptz IS NULL OR (received_at, delivery_id) < ($3, $4))
ORDER BY received_at DESC, delivery_id DESC LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A secret, sealed."""

    n: int
    sealed: str
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source with its secrets."""

    source_id: SourceId
    kind: str
    name: str
    mapping: dict[str, Any]
    defaults: dict[str, Any]
    credential: str | None
    created_at: datetime
    updated_at: datetime
    secrets: tuple[SecretRow, ...]

    @property
    def live(self) -> list[SecretRow]:
        """The secrets that count."""
        return [secret for secret in self.secrets if secret.retired_at is None]


async def add_source(  # noqa: PLR0913  # the columns of a source
    connection: Connection, source_id: SourceId, kind: str, name: str, mapping: object, defaults: object
) -> None:
    """Add a source."""
    await connection.execute(ADD, source_id, kind, name, mapping, defaults)


async def change_source(
    connection: Connection, source_id: SourceId, name: str | None, mapping: object, defaults: object
) -> None:
    """Change what is given."""
    await connection.execute(CHANGE, source_id, name, mapping, defaults)


async def source(connection: Connection, source_id: str, *, lock: bool = False) -> SourceRow | None:
    """A source, if there is one; locked against another change of its secrets."""
    if not looks_like_id(source_id):
        return None
    if lock:
        await connection.execute(LOCK, source_id)
    row = await connection.fetchrow(SOURCE, source_id)
    return (await _with_secrets(connection, [row]))[0] if row else None


async def sources(connection: Connection, after: str, limit: int) -> list[SourceRow]:
    """Sources by their ids, after one."""
    return await _with_secrets(connection, await connection.fetch(SOURCES, after, limit))


async def add_secret(connection: Connection, source_id: SourceId, sealed: str) -> SecretRow:
    """Add a secret to a source."""
    row = await connection.fetchrow(ADD_SECRET, source_id, sealed)
    assert row is not None, "an aggregate without groups has one row"
    return _secret(row)


async def retire_secret(connection: Connection, source_id: SourceId, n: int) -> bool:
    """Retire a live secret and forget its text. False if there is none of this number."""
    return await connection.fetchval(RETIRE, source_id, n) is not None


async def deliveries(
    connection: Connection, source_id: str, state: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """What became of a source's deliveries, newest first."""
    at, delivery_id = after or (None, None)
    return await connection.fetch(DELIVERIES, source_id, state, at, delivery_id, limit)


async def _with_secrets(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[SourceRow]:
    secrets: dict[str, list[SecretRow]] = {}
    for row in await connection.fetch(SECRETS, [row["source_id"] for row in rows]):
        secrets.setdefault(row["source_id"], []).append(_secret(row))
    return [SourceRow(**dict(row), secrets=tuple(secrets.get(row["source_id"], ()))) for row in rows]


def _secret(row: asyncpg.Record) -> SecretRow:
    return SecretRow(row["n"], row["sealed"], row["created_at"], row["retired_at"])
