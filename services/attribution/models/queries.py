"""The statements about how far conversions are credited by a custom model's active version."""

from dataclasses import dataclass
from datetime import datetime

from services.attribution.conversions.queries import Placed
from shared.db import Connection

BEGIN = """
INSERT INTO model_backfills AS known (model, version, projection) SELECT $1, $2, version FROM projections
ON CONFLICT (model) DO UPDATE
SET version = excluded.version, projection = excluded.projection, after = '', credited = 0,
    started_at = clock_timestamp(), finished_at = NULL
WHERE (known.version, known.projection) <> (excluded.version, excluded.projection)
"""
LOCK = "SELECT version, after, credited, started_at, finished_at FROM model_backfills WHERE model = $1 FOR UPDATE"
LOOK = "SELECT version, after, credited, started_at, finished_at FROM model_backfills WHERE model = $1"
NEXT = """
SELECT conversion_id, lead_id, occurred_at FROM conversions
WHERE conversion_id > $1 AND lead_id IS NOT NULL ORDER BY conversion_id LIMIT $2
"""
ADVANCE = """
UPDATE model_backfills SET after = $2, credited = credited + $3,
    finished_at = CASE WHEN $4 THEN clock_timestamp() END
WHERE model = $1
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far the walk through all conversions has come for a version of a model."""

    version: int
    after: str
    credited: int
    started_at: datetime
    finished_at: datetime | None


async def begin_backfill(connection: Connection, model: str, version: int) -> Backfill:
    """The walk for this version of the model and of the projection, locked; it begins anew where either is another."""
    await connection.execute(BEGIN, model, version)
    row = await connection.fetchrow(LOCK, model)
    assert row is not None
    return Backfill(*row.values())


async def backfill_of(connection: Connection, model: str) -> Backfill | None:
    """The walk as it stands."""
    row = await connection.fetchrow(LOOK, model)
    return Backfill(*row.values()) if row else None


async def conversions_after(connection: Connection, conversion_id: str, limit: int) -> list[Placed]:
    """The next conversions of the walk."""
    rows = await connection.fetch(NEXT, conversion_id, limit)
    return [Placed(row["conversion_id"], row["lead_id"], row["occurred_at"]) for row in rows]


async def advance(connection: Connection, model: str, *, after: str, credited: int, finished: bool) -> None:
    """Remember how far the walk has come."""
    await connection.execute(ADVANCE, model, after, credited, finished)
