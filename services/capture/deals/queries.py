"""The statements about deals of CRMs and whom they are tied to."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.capture.deals.domain import Reason, Tie
from shared.db import Connection
from shared.ids import AccountId, LeadId, SourceId

MOST_DELIVERIES = 200
# Locks the deal until the transaction ends, so that a tie made at the same moment is not missed.
MEET = """
INSERT INTO crm_deals AS known (source_id, deal_id, reason, stage, deliveries, last_at)
VALUES ($1, $2, 'no_account', $3, ARRAY[$4::text], $5)
ON CONFLICT (source_id, deal_id) DO UPDATE
SET stage = coalesce(excluded.stage, known.stage), last_at = greatest(known.last_at, excluded.last_at),
    deliveries = CASE WHEN known.lead_id IS NULL AND NOT $4 = ANY(known.deliveries)
        THEN (ARRAY[$4::text] || known.deliveries)[:$6] ELSE known.deliveries END
RETURNING lead_id, account_id
"""
SETTLE = """
INSERT INTO crm_deals AS known (source_id, deal_id, lead_id, account_id, reason, tied_by, last_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (source_id, deal_id) DO UPDATE SET lead_id = excluded.lead_id, reason = excluded.reason,
    account_id = coalesce(excluded.account_id, known.account_id), tied_by = excluded.tied_by
WHERE (known.lead_id, known.reason, known.tied_by, known.account_id) IS DISTINCT FROM
    (excluded.lead_id, excluded.reason, excluded.tied_by, coalesce(excluded.account_id, known.account_id))
"""
# What waited for it is mapped as soon as it is tied. The sealed requests are kept for two weeks.
MAP_WAITING = """
WITH waiting AS (
    SELECT source_id, unnest(deliveries) AS delivery_id FROM crm_deals
    WHERE source_id = $1 AND deal_id = $2 AND deliveries <> '{}'
), emptied AS (
    UPDATE crm_deals SET deliveries = '{}' WHERE source_id = $1 AND deal_id = $2 AND deliveries <> '{}'
)
UPDATE deliveries SET state = 'pending', try_at = $3 FROM waiting
WHERE deliveries.source_id = waiting.source_id AND deliveries.delivery_id = waiting.delivery_id
    AND deliveries.state = 'quarantined' AND deliveries.sealed IS NOT NULL
"""
PEOPLE = """
SELECT asked.account_id, people.lead_id FROM unnest($1::text[]) AS asked (account_id)
CROSS JOIN LATERAL (
    SELECT lead_id FROM lead_accounts JOIN leads USING (lead_id)
    WHERE lead_accounts.account_id = (
        SELECT coalesce(accounts.merged_into, accounts.account_id) FROM accounts
        WHERE accounts.account_id = asked.account_id
    ) AND merged_into IS NULL AND erased_at IS NULL
    ORDER BY lead_id LIMIT $2
) AS people ORDER BY 1, 2
"""
COLUMNS = "source_id, deal_id, account_id, stage, lead_id, reason, tied_by, deliveries, first_at, last_at"
LIST = """
SELECT {columns} FROM crm_deals
WHERE lead_id IS {null} AND ($1::text IS NULL OR source_id = $1)
    AND ($2::timestamptz IS NULL OR (last_at, source_id, deal_id) < ($2, $3, $4))
ORDER BY last_at DESC, source_id DESC, deal_id DESC LIMIT $5
"""
UNTIED = LIST.format(columns=COLUMNS, null="NULL")
TIED = LIST.format(columns=COLUMNS, null="NOT NULL")
ONE = f"SELECT {COLUMNS} FROM crm_deals WHERE source_id = $1 AND deal_id = $2"
FORGET = "DELETE FROM crm_deals WHERE lead_id = ANY($1)"
DROP_OLD = "DELETE FROM crm_deals WHERE lead_id IS NULL AND last_at < $1"
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'deal.tied', $2, $3)"


async def meet(  # noqa: PLR0913  # what a delivery tells of a deal
    connection: Connection, source_id: SourceId, deal_id: str, stage: str | None, delivery_id: str, at: datetime
) -> tuple[LeadId | None, AccountId | None]:
    """A deal that names no contact was told of. Answers whose it is, and which account's, if that was said before."""
    row = await connection.fetchrow(MEET, source_id, deal_id, stage, delivery_id, at, MOST_DELIVERIES)
    assert row is not None
    return row["lead_id"], row["account_id"]


async def settle(  # noqa: PLR0913  # a deal, whose it is, and who says so
    connection: Connection, source_id: SourceId, deal_id: str, tied: Tie, by: str | None, at: datetime
) -> None:
    """Write down whose a deal is, or why it is nobody's; what waited for that is mapped now."""
    await connection.execute(SETTLE, source_id, deal_id, tied.lead_id, tied.account_id, tied.reason, by, at)
    if tied.lead_id is not None:
        await connection.execute(MAP_WAITING, source_id, deal_id, at)


async def people_of(
    connection: Connection, account_ids: Collection[AccountId], limit: int
) -> dict[AccountId, list[LeadId]]:
    """Those of each account, in the order of their ids."""
    found: dict[AccountId, list[LeadId]] = {account_id: [] for account_id in account_ids}
    for row in await connection.fetch(PEOPLE, sorted(found), limit):
        found[row["account_id"]].append(LeadId(row["lead_id"]))
    return found


async def deals(
    connection: Connection, source_id: str | None, after: Sequence[Any], limit: int, *, untied: bool
) -> list[asyncpg.Record]:
    """Deals that are nobody's, or somebody's; those told of last first."""
    return await connection.fetch(UNTIED if untied else TIED, source_id, *after, limit)


async def deal(connection: Connection, source_id: str, deal_id: str) -> asyncpg.Record | None:
    """One deal."""
    return await connection.fetchrow(ONE, source_id, deal_id)


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Whose deals were this is not known any more."""
    await connection.execute(FORGET, lead_ids)


async def drop_old(connection: Connection, before: datetime) -> None:
    """Forget deals of nobody that were not told of for long."""
    await connection.execute(DROP_OLD, before)


async def audit(connection: Connection, actor: str, source_id: str, deal_id: str, reason: Reason) -> None:
    """That somebody tied a deal by hand."""
    await connection.execute(AUDIT, actor, f"{source_id}/{deal_id}", {"reason": reason})
