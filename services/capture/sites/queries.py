"""The statements about sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.capture.reading import looks_like_id
from shared.db import Connection, one

COLUMNS = "site_id, name, origins, consent, created_at, updated_at"
ADD = f"INSERT INTO sites (site_id, name, origins, consent) VALUES ($1, $2, $3, $4) RETURNING {COLUMNS}"
CHANGE = f"""
UPDATE sites SET name = coalesce($2, name), origins = coalesce($3, origins), consent = coalesce($4, consent),
    updated_at = clock_timestamp()
WHERE site_id = $1 RETURNING {COLUMNS}
"""
SITE = f"SELECT {COLUMNS} FROM sites WHERE site_id = $1"
SITES = f"SELECT {COLUMNS} FROM sites WHERE site_id > $1 ORDER BY site_id LIMIT $2"
DROP = "DELETE FROM sites WHERE site_id = $1 RETURNING site_id"


@dataclass(frozen=True, slots=True)
class SiteRow:
    """A site as it is stored."""

    site_id: str
    name: str
    origins: list[str]
    consent: str
    created_at: datetime
    updated_at: datetime


async def add_site(connection: Connection, site_id: str, name: str, origins: Sequence[str], consent: str) -> SiteRow:
    """Add a site."""
    return SiteRow(**dict(await one(connection, ADD, site_id, name, list(origins), consent)))


async def change_site(
    connection: Connection, site_id: str, name: str | None, origins: Sequence[str] | None, consent: str | None
) -> SiteRow | None:
    """Change what is given; None if there is no such site."""
    if not looks_like_id(site_id):
        return None
    row = await connection.fetchrow(CHANGE, site_id.lower(), name, list(origins) if origins else None, consent)
    return SiteRow(**dict(row)) if row else None


async def site(connection: Connection, site_id: str) -> SiteRow | None:
    """A site, None if there is none."""
    row = await connection.fetchrow(SITE, site_id.lower()) if looks_like_id(site_id) else None
    return SiteRow(**dict(row)) if row else None


async def sites(connection: Connection, after: str, limit: int) -> list[SiteRow]:
    """Sites after one, by their ids."""
    return [SiteRow(**dict(row)) for row in await connection.fetch(SITES, after, limit)]


async def drop_site(connection: Connection, site_id: str) -> bool:
    """Forget a site; False if there was none."""
    return looks_like_id(site_id) and await connection.fetchval(DROP, site_id.lower()) is not None
