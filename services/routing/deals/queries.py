"""The statements about deals."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from datetime import datetime
from typing import Any

import asyncpg

from services.routing.deals.domain import Deal
from shared.db import Connection
from shared.ids import DealId, LeadId, RepId

COLUMNS = ", ".join(column.name for column in fields(Deal))
EXCLUDED = ", ".join(f"excluded.{column.name}" for column in fields(Deal))
PLACES = ", ".join(f"${index}" for index in range(1, len(fields(Deal)) + 1))
INSERT = f"""
INSERT INTO deals ({COLUMNS}, opened_with) VALUES ({PLACES}, ${len(fields(Deal)) + 1})
ON CONFLICT (deal_id) DO NOTHING RETURNING deal_id
"""
PUT = f"""
INSERT INTO deals AS known ({COLUMNS}) VALUES ({PLACES})
ON CONFLICT (deal_id) DO UPDATE SET ({COLUMNS}) = ROW ({EXCLUDED})
WHERE known.revision < excluded.revision
"""
UPDATE = f"""
UPDATE deals SET ({COLUMNS}) = ROW ({PLACES}) WHERE deal_id = $1
"""
ONE = f"SELECT {COLUMNS} FROM deals WHERE deal_id = $1"
LOCK_ONE = f"{ONE} FOR UPDATE"
OPENED_WITH = "SELECT opened_with FROM deals WHERE deal_id = $1"
FORGET_TEXTS = "UPDATE deals SET name = '', reason = NULL, sealed = NULL, opened_with = NULL WHERE lead_id = $1"
REVISIONS = "SELECT deal_id, revision FROM deals WHERE deal_id = ANY($1)"
ADD_HISTORY = """
INSERT INTO deal_history (deal_id, revision, at, status, stage, probability, value_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""
HISTORY = """
SELECT revision, at, status, stage, probability, value_minor FROM deal_history WHERE deal_id = $1 ORDER BY revision
"""
LIST = f"""
SELECT {COLUMNS} FROM deals
WHERE (opened_at, deal_id) < ($1, $2)
    AND ($3::text[] IS NULL OR lead_id = ANY($3)) AND ($4::text IS NULL OR rep_id = $4)
    AND ($5::text IS NULL OR stage = $5) AND ($6::text IS NULL OR external_id = $6)
ORDER BY opened_at DESC, deal_id DESC LIMIT $7
"""
OPEN_BY_STAGE = """
SELECT stage, currency, probability, count(*) AS deals, sum(value_minor) AS value_minor FROM deals
WHERE status = 'open' AND changed_at >= $1 GROUP BY stage, currency, probability ORDER BY stage, currency, probability
"""
OWNER = """
SELECT rep_id FROM assignments WHERE lead_id = ANY($1) AND (state = 'accepted' OR ended_at IS NULL)
ORDER BY (ended_at IS NULL) DESC, assigned_at DESC LIMIT 1
"""


async def insert_deal(connection: Connection, deal: Deal, opened_with: dict[str, Any]) -> bool:
    """A new deal; False when there is one with this id already."""
    inserted = await connection.fetchval(INSERT, *astuple(deal), opened_with) is not None
    if inserted:
        await _add_history(connection, deal)
    return inserted


async def update_deal(connection: Connection, deal: Deal) -> None:
    """A deal after a change; its row is locked."""
    await connection.execute(UPDATE, *astuple(deal))
    await _add_history(connection, deal)


async def put_deal(connection: Connection, deal: Deal) -> None:
    """A deal as it was told once, unless a newer change of it is known."""
    await connection.execute(PUT, *astuple(deal))
    await _add_history(connection, deal)


async def deal_by_id(connection: Connection, deal_id: DealId, *, locked: bool = False) -> Deal | None:
    """A deal."""
    row = await connection.fetchrow(LOCK_ONE if locked else ONE, deal_id)
    return None if row is None else Deal(**row)


async def opened_with(connection: Connection, deal_id: DealId) -> dict[str, Any] | None:
    """What the deal was opened with, if that is known."""
    told: dict[str, Any] | None = await connection.fetchval(OPENED_WITH, deal_id)
    return told


async def forget_texts(connection: Connection, lead_id: LeadId) -> None:
    """Forget what was written about deals with an erased person; their figures stay."""
    await connection.execute(FORGET_TEXTS, lead_id)


async def known_revisions(connection: Connection, deal_ids: Sequence[DealId]) -> dict[DealId, int]:
    """The newest revision of each deal that is known."""
    return {row["deal_id"]: row["revision"] for row in await connection.fetch(REVISIONS, deal_ids)}


async def history(connection: Connection, deal_id: DealId) -> list[asyncpg.Record]:
    """How a deal stood after each change."""
    return await connection.fetch(HISTORY, deal_id)


async def deals_of(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    before: tuple[datetime, str],
    lead_ids: Sequence[LeadId] | None,
    rep_id: str | None,
    stage: str | None,
    external_id: str | None,
    limit: int,
) -> list[Deal]:
    """Deals before a place in the list, the newest first."""
    rows = await connection.fetch(LIST, *before, lead_ids, rep_id, stage, external_id, limit)
    return [Deal(**row) for row in rows]


async def owner_of(connection: Connection, lead_ids: Sequence[LeadId]) -> RepId | None:
    """The rep who has, or had last, the person with these ids."""
    owner: RepId | None = await connection.fetchval(OWNER, lead_ids)
    return owner


async def open_by_stage(connection: Connection, since: datetime) -> list[asyncpg.Record]:
    """Number and value of the open deals that changed since then, by stage."""
    return await connection.fetch(OPEN_BY_STAGE, since)


async def _add_history(connection: Connection, deal: Deal) -> None:
    await connection.execute(
        ADD_HISTORY,
        deal.deal_id,
        deal.revision,
        deal.changed_at,
        deal.status,
        deal.stage,
        deal.probability,
        deal.value_minor,
    )
