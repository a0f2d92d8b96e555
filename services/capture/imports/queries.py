"""The statements about imports, the pieces of their files, and their bad rows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import asyncpg

from services.capture.imports.columns import Kind
from services.capture.imports.rows import Format, Place, Shape
from services.capture.reading import looks_like_id
from shared.db import Connection
from shared.ids import LeadId

State = Literal["waiting", "ready", "queued", "running", "done", "cancelled", "failed"]
ADD = """
INSERT INTO imports (import_id, name, kind, format, source, mapping, defaults, delimiter, encoding, dry_run, state,
    created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'waiting', $11)
"""
IMPORT = "SELECT * FROM imports WHERE import_id = $1"
LOCK = "SELECT * FROM imports WHERE import_id = $1 FOR UPDATE"
NEWEST = """
SELECT * FROM imports
WHERE ($1::text IS NULL OR state = $1) AND ($2::timestamptz IS NULL OR (created_at, import_id) < ($2, $3))
ORDER BY created_at DESC, import_id DESC LIMIT $4
"""
CHANGE = """
UPDATE imports SET name = $2, source = $3, mapping = $4, defaults = $5, delimiter = $6, encoding = $7
WHERE import_id = $1
"""
ADD_PIECE = "INSERT INTO import_pieces (file_id, position, size, sealed) VALUES ($1, $2, $3, $4)"
PIECE = """
SELECT position, size, sealed FROM import_pieces WHERE file_id = $1 AND position <= $2 ORDER BY position DESC LIMIT 1
"""
DROP_FILE = "DELETE FROM import_pieces WHERE file_id = $1"
SET_FILE = """
UPDATE imports SET file_id = $2, file_bytes = $3, file_lines = $4, file_sha256 = $5, columns = $6, state = 'ready',
    uploaded_at = clock_timestamp()
WHERE import_id = $1
"""
QUEUE = """
UPDATE imports SET state = 'queued', dry_run = $2, mapping = $3, columns = $4, delimiter = $5, encoding = $6,
    position = $7, line = $8, content = $9, told_at = $10, queued_at = clock_timestamp(), worked_at = clock_timestamp()
WHERE import_id = $1
"""
CLAIM = """
UPDATE imports SET state = 'running', owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2),
    started_at = coalesce(started_at, clock_timestamp()), worked_at = clock_timestamp()
WHERE import_id = (
    SELECT import_id FROM imports
    WHERE state IN ('queued', 'running') AND (owner IS NULL OR owner = $1 OR lease_until < clock_timestamp())
      AND NOT EXISTS (
        SELECT 1 FROM imports AS same WHERE same.content = imports.content AND same.state IN ('queued', 'running')
          AND (same.queued_at, same.import_id) < (imports.queued_at, imports.import_id)
      )
    ORDER BY worked_at, import_id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING *
"""
# What the same file, read in the same way, told before; one that was cancelled only dates it.
DATE = """
UPDATE imports SET told_at = least(imports.told_at, before.told_at), again = before.again, told_before = before.told
FROM (
    SELECT min(same.told_at) AS told_at, coalesce(bool_or(same.state = 'done'), false) AS again,
        coalesce(bool_or(same.state = 'done' AND same.failed = 0), false) AS told
    FROM imports JOIN imports AS same USING (content)
    WHERE imports.import_id = $1 AND same.import_id <> $1 AND NOT same.dry_run AND same.started_at IS NOT NULL
) AS before
WHERE imports.import_id = $1 RETURNING imports.*
"""
HOLD = """
SELECT 1 FROM imports WHERE import_id = $1 AND owner = $2 AND position = $3 AND state = 'running' FOR UPDATE
"""
ADVANCE = """
UPDATE imports SET position = $2, line = $3, rows_done = rows_done + $4, created = created + $5, updated = updated + $6,
    unchanged = unchanged + $7, failed = failed + $8, rate = $9, worked_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => $10)
WHERE import_id = $1
"""
END = """
UPDATE imports SET state = $2, reason = $3, owner = NULL, lease_until = NULL, finished_at = clock_timestamp()
WHERE import_id = $1 RETURNING file_id
"""
LET_GO = "UPDATE imports SET owner = NULL, lease_until = NULL WHERE import_id = $1 AND owner = $2"
ADD_BAD = "INSERT INTO import_bad_rows (import_id, line, sealed) VALUES ($1, $2, $3)"
BAD = "SELECT line, sealed FROM import_bad_rows WHERE import_id = $1 AND line > $2 ORDER BY line LIMIT $3"
ADD_DRY = """
INSERT INTO import_dry_leads (import_id, lead_id) SELECT $1, own_id FROM unnest($2::text[]) AS own_id ORDER BY own_id
ON CONFLICT DO NOTHING RETURNING lead_id
"""
DROP_DRY = "DELETE FROM import_dry_leads WHERE import_id = $1"
DROP_OLD_BAD = """
DELETE FROM import_bad_rows WHERE import_id IN (
    SELECT import_id FROM imports WHERE finished_at < $1 AND failed > 0
)
"""
DROP_LOST_PIECES = """
DELETE FROM import_pieces AS piece WHERE stored_at < $1
  AND NOT EXISTS (SELECT 1 FROM imports WHERE imports.file_id = piece.file_id)
"""
DROP_UNUSED = """
UPDATE imports SET state = 'cancelled', reason = 'never started', finished_at = clock_timestamp(), file_id = NULL
WHERE state IN ('waiting', 'ready') AND coalesce(uploaded_at, created_at) < $1
"""
BEHIND = """
SELECT coalesce((SELECT max(position) FROM event_log WHERE log = $1), 0) - position FROM relay_cursors WHERE log = $1
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """An import as it stands."""

    import_id: str
    name: str
    kind: Kind
    format: Format
    source: str
    mapping: dict[str, Any] | None
    defaults: dict[str, Any]
    delimiter: str | None
    encoding: str | None
    dry_run: bool
    state: State
    reason: str | None
    file_id: str | None
    file_bytes: int | None
    file_lines: int | None
    file_sha256: str | None
    columns: tuple[str, ...]
    content: str | None
    told_at: datetime | None
    again: bool
    told_before: bool
    position: int
    line: int
    rows_done: int
    created: int
    updated: int
    unchanged: int
    failed: int
    rate: float | None
    owner: str | None
    lease_until: datetime | None
    created_by: str
    created_at: datetime
    uploaded_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    worked_at: datetime | None
    finished_at: datetime | None

    @property
    def place(self) -> Place:
        """Where its next row begins."""
        return Place(self.position, self.line)

    @property
    def shape(self) -> Shape:
        """How its file is to be read, once it was started."""
        return Shape(self.columns, self.delimiter or "", self.encoding or "", self.place)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of rows."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0


async def import_of(connection: Connection, import_id: str, *, lock: bool = False) -> Import | None:
    """An import, if there is one; locked against its worker and against another change."""
    if not looks_like_id(import_id):
        return None
    row = await connection.fetchrow(LOCK if lock else IMPORT, import_id.lower())
    return _import(row) if row else None


async def newest_imports(
    connection: Connection, state: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[Import]:
    """Imports, newest first, after a place in that list."""
    at, import_id = after or (None, None)
    return [_import(row) for row in await connection.fetch(NEWEST, state, at, import_id, limit)]


async def claim(connection: Connection, owner: str, lease_s: float) -> Import | None:
    """The import that has waited longest, for this worker alone as long as it goes on with it; None if none waits.

    Of the same file twice the second waits for the first, and is dated by it.
    """
    row = await connection.fetchrow(CLAIM, owner, lease_s)
    if row is not None and row["rows_done"] == 0:
        row = await connection.fetchrow(DATE, row["import_id"])
    return _import(row) if row else None


async def advance(  # noqa: PLR0913  # what a batch moves
    connection: Connection, import_id: str, after: Place, counts: Counts, rate: float | None, lease_s: float
) -> None:
    """Note that rows are done."""
    rows = counts.created + counts.updated + counts.unchanged + counts.failed
    await connection.execute(
        ADVANCE,
        import_id,
        after.position,
        after.line,
        rows,
        counts.created,
        counts.updated,
        counts.unchanged,
        counts.failed,
        rate,
        lease_s,
    )


async def end(connection: Connection, import_id: str, state: State, reason: str | None = None) -> None:
    """End an import, and drop its file."""
    file_id = await connection.fetchval(END, import_id, state, reason)
    await connection.execute(DROP_DRY, import_id)
    if file_id is not None:
        await connection.execute(DROP_FILE, file_id)


async def first_of_dry_run(connection: Connection, import_id: str, own_ids: Sequence[LeadId]) -> set[LeadId]:
    """Those of these identifiers that a dry run has not given to anybody before."""
    return {LeadId(row["lead_id"]) for row in await connection.fetch(ADD_DRY, import_id, own_ids)}


def _import(row: asyncpg.Record) -> Import:
    return Import(**{name: row[name] for name in _COLUMNS}, columns=tuple(row["columns"]))


_COLUMNS = [field.name for field in fields(Import) if field.name != "columns"]
