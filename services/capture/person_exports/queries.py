"""The statements about exports, and about what capture itself holds of a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from shared.db import Connection
from shared.events import ExportAnswered
from shared.ids import LeadId

OPEN = """
INSERT INTO person_exports (export_id, lead_id, lead_ids, requested_at, expires_at) VALUES ($1, $2, $3, $4, $5)
"""
ONE = """
SELECT export_id, lead_id, lead_ids, requested_at, expires_at FROM person_exports
WHERE export_id = $1 AND expires_at > $2
"""
KEEP = """
INSERT INTO person_export_chunks (export_id, service, chunk, chunks, plain, sealed)
SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT 1 FROM person_exports WHERE export_id = $1 FOR KEY SHARE)
ON CONFLICT DO NOTHING
"""
CHUNKS = """
SELECT service, chunk, chunks, plain, sealed FROM person_export_chunks WHERE export_id = $1 ORDER BY service, chunk
"""
ARRIVED = """
SELECT service, count(*) = min(chunks) AS complete FROM person_export_chunks WHERE export_id = $1 GROUP BY service
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'lead.exported', $2, $3)"
DROP_OLD = "DELETE FROM person_exports WHERE expires_at <= $1"
HAS_KEY = "SELECT EXISTS (SELECT 1 FROM person_keys WHERE lead_id = $1 AND wrapped_key IS NOT NULL)"
IDENTIFIERS = "SELECT own_id FROM identifiers WHERE lead_id = ANY($1) AND kind <> 'anonymous'"
HELD = {
    "leads": """
        SELECT lead_id, made_from, revision, statements, sealed, origin, captured_at, created_at, updated_at,
            merged_into
        FROM leads WHERE lead_id = ANY($1) ORDER BY captured_at, lead_id
    """,
    "identifiers": "SELECT own_id, kind, lead_id, since FROM identifiers WHERE lead_id = ANY($1) ORDER BY own_id",
    "browsers": "SELECT anonymous_id, at, lead_id FROM links WHERE lead_id = ANY($1) ORDER BY at, anonymous_id",
    "consent": """
        SELECT event_id, lead_id, channel, purpose, state, occurred_at, received_at, origin, reason, evidence
        FROM consent_entries WHERE lead_id = ANY($1) ORDER BY occurred_at, event_id
    """,
    "deliveries": """
        SELECT source_id, delivery_id, state, lead_id, kind, received_at, handled_at
        FROM deliveries WHERE lead_id = ANY($1) ORDER BY received_at, delivery_id
    """,
    "account": """
        SELECT lead_id, account_id, matched_by, reason FROM lead_accounts WHERE lead_id = ANY($1) ORDER BY lead_id
    """,
    "crm_deals": """
        SELECT source_id, deal_id, stage, lead_id, reason, first_at, last_at FROM crm_deals
        WHERE lead_id = ANY($1) ORDER BY source_id, deal_id
    """,
    "form_submissions": """
        SELECT submission_id, form_id, version, state, lead_id, received_at FROM form_submissions
        WHERE lead_id = ANY($1) ORDER BY received_at, submission_id
    """,
    "optins": """
        SELECT optin_id, form_id, version, lead_id, requested_at, expires_at, confirmed_at FROM optins
        WHERE lead_id = ANY($1) ORDER BY requested_at, optin_id
    """,
    "asked_of_providers": """
        SELECT * FROM enrichment_asks WHERE lead_id = ANY($1) ORDER BY 1, 2
    """,
    "kept_apart_from": """
        SELECT lead_id, other_id, at FROM separations WHERE lead_id = ANY($1) OR other_id = ANY($1) ORDER BY at
    """,
}
"""All that is held about a person's leads."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """An export as it was asked for."""

    export_id: str
    lead_id: LeadId
    lead_ids: list[LeadId]
    requested_at: datetime
    expires_at: datetime


async def open_export(connection: Connection, export: ExportRow) -> None:
    """Begin an export."""
    await connection.execute(
        OPEN, export.export_id, export.lead_id, export.lead_ids, export.requested_at, export.expires_at
    )


async def export(connection: Connection, export_id: str, now: datetime) -> ExportRow | None:
    """An export that has not expired."""
    row = await connection.fetchrow(ONE, export_id, now)
    return ExportRow(**dict(row)) if row else None


async def keep(connection: Connection, event: ExportAnswered) -> None:
    """Keep a piece of a service's part, once; nothing of an export that is gone."""
    await connection.execute(
        KEEP, event.export_id, event.service, event.chunk, event.chunks, event.plain, event.personal
    )


async def chunks_of(connection: Connection, export_id: str) -> list[asyncpg.Record]:
    """The pieces of all parts, in order."""
    return await connection.fetch(CHUNKS, export_id)


async def complete(connection: Connection, export_id: str) -> set[str]:
    """The services whose part has arrived whole."""
    return {row["service"] for row in await connection.fetch(ARRIVED, export_id) if row["complete"]}


async def identifiers_of(connection: Connection, lead_ids: Sequence[LeadId]) -> set[LeadId]:
    """The ids made from identifiers of leads, without those of browsers."""
    return {LeadId(row["own_id"]) for row in await connection.fetch(IDENTIFIERS, lead_ids)}


async def has_key(connection: Connection, lead_id: LeadId) -> bool:
    """Whether anything personal was ever told under an id, and can still be read."""
    return bool(await connection.fetchval(HAS_KEY, lead_id))


async def drop_expired(connection: Connection, now: datetime) -> None:
    """Drop exports whose time is over."""
    await connection.execute(DROP_OLD, now)
