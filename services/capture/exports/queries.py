"""The statements that exports read by: a page after the one before it, in one snapshot."""

from datetime import datetime
from typing import Any

from services.capture.leads import queries as leads
from services.capture.leads.queries import Family
from shared.consents import Consent
from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonKeys

PAGE = 500
PERSONS = """
SELECT lead_id FROM leads
WHERE merged_into IS NULL AND erased_at IS NULL AND revision > 0 AND lead_id > $1
  AND ($2::timestamptz IS NULL OR updated_at >= $2)
ORDER BY lead_id LIMIT $3
"""
CONSENTS = "SELECT lead_id, channel, purpose, state, occurred_at FROM consent_entries WHERE lead_id = ANY($1)"
LEDGER = """
SELECT event_id, lead_id, channel, purpose, state, occurred_at, received_at, origin, reason FROM consent_entries
WHERE event_id > $1 AND ($2::timestamptz IS NULL OR received_at >= $2) ORDER BY event_id LIMIT $3
"""
DELIVERIES = """
SELECT source_id, delivery_id, kind, state, facts, received, lead_id, reason, received_at, handled_at FROM deliveries
WHERE (source_id, delivery_id) > ($1, $2) AND ($3::timestamptz IS NULL OR received_at >= $3)
ORDER BY source_id, delivery_id LIMIT $4
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'export.read', $2, $3)"


async def persons_after(
    connection: Connection, keys: PersonKeys, after: str, since: datetime | None
) -> list[tuple[Family, list[Consent]]]:
    """Persons by the ids of the leads that stand for them, each with what they allow."""
    roots = [LeadId(row["lead_id"]) for row in await connection.fetch(PERSONS, after, since, PAGE)]
    families = await leads.families_of(connection, keys, roots) if roots else {}
    members = {lead_id: root for root, family in families.items() for lead_id in family.members}
    consents: dict[LeadId, list[Consent]] = {}
    for row in await connection.fetch(CONSENTS, sorted(members)) if members else ():
        told = Consent(row["channel"], row["state"], row["occurred_at"], row["purpose"])
        consents.setdefault(members[row["lead_id"]], []).append(told)
    return [(families[root], consents.get(root, [])) for root in roots]


async def ledger_after(connection: Connection, after: str, since: datetime | None) -> list[dict[str, Any]]:
    """Entries of the consent ledger by their ids."""
    return [dict(row) for row in await connection.fetch(LEDGER, after, since, PAGE)]


async def deliveries_after(
    connection: Connection, after: tuple[str, str], since: datetime | None
) -> list[dict[str, Any]]:
    """What became of deliveries, by source and name."""
    return [dict(row) for row in await connection.fetch(DELIVERIES, *after, since, PAGE)]
