"""The statements about dry runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from shared.db import Connection, one
from shared.ids import LeadId, SequenceId, new_id

DRY_RUN = "dry_run_id, broadcast_id, state, listed_to, listed, people, would_get, held_back, started_at, finished_at"
BEGIN_DRY_RUN = f"""
INSERT INTO broadcast_dry_runs (broadcast_id, dry_run_id, state) VALUES ($1, $2, 'running')
ON CONFLICT (broadcast_id) DO UPDATE SET dry_run_id = excluded.dry_run_id, state = 'running', listed_to = NULL,
    listed = false, people = 0, would_get = 0, held_back = '[]', started_at = clock_timestamp(), finished_at = NULL
RETURNING {DRY_RUN}
"""
GET_DRY_RUN = f"SELECT {DRY_RUN} FROM broadcast_dry_runs WHERE broadcast_id = $1"
LOCK_DRY_RUN = f"{GET_DRY_RUN} AND state = 'running' FOR UPDATE SKIP LOCKED"
DRY_RUNS_TO_DO = "SELECT broadcast_id FROM broadcast_dry_runs WHERE state = 'running' ORDER BY started_at"
ADVANCE_DRY_RUN = """
UPDATE broadcast_dry_runs SET listed_to = $2, listed = $3, people = people + $4, would_get = would_get + $5,
    held_back = $6
WHERE broadcast_id = $1
"""
FINISH_DRY_RUN = """
UPDATE broadcast_dry_runs SET state = 'done', finished_at = clock_timestamp() WHERE broadcast_id = $1
"""
ADD_ADDRESSES = """
INSERT INTO broadcast_addresses (broadcast_id, address_hash, lead_id)
SELECT $1, * FROM unnest($2::text[], $3::text[]) AS given (address_hash, lead_id) ORDER BY address_hash, lead_id
ON CONFLICT DO NOTHING RETURNING lead_id
"""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a broadcast would do, as far as it has been looked at."""

    dry_run_id: str
    broadcast_id: SequenceId
    state: str
    listed_to: str | None
    listed: bool
    people: int
    would_get: int
    held_back: list[dict[str, Any]]
    started_at: datetime
    finished_at: datetime | None


async def begin(connection: Connection, broadcast_id: SequenceId) -> DryRun:
    """A dry run, instead of the one before."""
    return _dry_run(await one(connection, BEGIN_DRY_RUN, broadcast_id, new_id()))


async def dry_run_of(connection: Connection, broadcast_id: str) -> DryRun | None:
    """The last dry run of a broadcast."""
    row = await connection.fetchrow(GET_DRY_RUN, broadcast_id)
    return None if row is None else _dry_run(row)


async def to_do(connection: Connection) -> list[str]:
    """The broadcasts of which a dry run is under way, the oldest first."""
    return [row["broadcast_id"] for row in await connection.fetch(DRY_RUNS_TO_DO)]


async def lock(connection: Connection, broadcast_id: str) -> DryRun | None:
    """A dry run that is under way, ours alone; None when another has it or it is over."""
    row = await connection.fetchrow(LOCK_DRY_RUN, broadcast_id)
    return None if row is None else _dry_run(row)


async def advance(  # noqa: PLR0913  # what a piece moves
    connection: Connection,
    broadcast_id: SequenceId,
    to: str,
    people: int,
    would_get: int,
    held_back: list[dict[str, Any]],
    *,
    all_of_them: bool,
) -> None:
    """Note what a piece came to."""
    await connection.execute(ADVANCE_DRY_RUN, broadcast_id, to, all_of_them, people, would_get, held_back)


async def finish(connection: Connection, broadcast_id: str) -> None:
    """A dry run is over."""
    await connection.execute(FINISH_DRY_RUN, broadcast_id)


async def first_at_address(
    connection: Connection, dry_run_id: str, hashes: Sequence[str], lead_ids: Sequence[LeadId]
) -> set[str]:
    """Of these leads those whose address nobody had before."""
    return {row["lead_id"] for row in await connection.fetch(ADD_ADDRESSES, dry_run_id, hashes, lead_ids)}


def _dry_run(row: asyncpg.Record) -> DryRun:
    return DryRun(**dict(row))
