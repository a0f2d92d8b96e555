"""The statements about the consent ledger."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from shared.consents import Consent
from shared.db import Connection, one
from shared.events import ConsentChanged, ConsentRequested
from shared.ids import LeadId

TELL = """
INSERT INTO consent_entries (
    event_id, lead_id, channel, purpose, state, occurred_at, received_at, origin, reason, evidence
)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
    $8::text[], $9::text[], $10::text[]) AS new (event_id)
ORDER BY event_id ON CONFLICT DO NOTHING
"""
STANDING = "SELECT event_id FROM consent_entries WHERE event_id = ANY($1)"
CONSENTS = """
SELECT lead_id, channel, purpose, state, occurred_at FROM consent_entries
WHERE lead_id = ANY($1) AND occurred_at <= coalesce($2::timestamptz, 'infinity')
  AND received_at <= coalesce($3::timestamptz, 'infinity')
"""
LEDGER = """
SELECT event_id, lead_id, channel, purpose, state, occurred_at, received_at, origin, reason, evidence
FROM consent_entries
WHERE lead_id = ANY($1) AND occurred_at <= coalesce($2::timestamptz, 'infinity')
  AND received_at <= coalesce($3::timestamptz, 'infinity')
ORDER BY occurred_at DESC, event_id
"""
# Whoever writes has begun before what he writes is recorded. So what was recorded before the oldest transaction that
# is still open began is complete: nothing will appear among it any more.
COMPLETE_UNTIL = """
SELECT coalesce(min(xact_start), clock_timestamp()) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND xact_start IS NOT NULL
"""
CHANGED = """
SELECT entry.event_id, entry.lead_id, entry.channel, entry.purpose, entry.state, entry.occurred_at,
       entry.received_at, entry.recorded_at, entry.origin, entry.reason
FROM consent_entries AS entry LEFT JOIN leads USING (lead_id)
WHERE (entry.recorded_at, entry.event_id) > ($1, $2) AND entry.recorded_at < $3 AND leads.erased_at IS NULL
ORDER BY entry.recorded_at, entry.event_id LIMIT $4
"""
ROOTS = """
WITH RECURSIVE up AS (
    SELECT lead_id AS origin, lead_id, merged_into, 0 AS depth FROM leads WHERE lead_id = ANY($1)
    UNION ALL
    SELECT up.origin, leads.lead_id, leads.merged_into, depth + 1
    FROM up JOIN leads ON leads.lead_id = up.merged_into WHERE depth < 64
)
SELECT DISTINCT ON (origin) origin, lead_id FROM up ORDER BY origin, depth DESC
"""


async def standing(connection: Connection, event_ids: Sequence[str]) -> set[str]:
    """Those of these words that stand in the ledger."""
    return {row["event_id"] for row in await connection.fetch(STANDING, event_ids)}


async def tell(connection: Connection, facts: Sequence[ConsentChanged | ConsentRequested]) -> None:
    """Write words into the ledger that do not stand there already."""
    columns = [
        (
            fact.event_id, fact.lead_id, fact.channel, fact.purpose,
            fact.state if isinstance(fact, ConsentChanged) else "pending",
            fact.occurred_at, fact.received_at, fact.origin, fact.reason, fact.personal,
        )
        for fact in facts
    ]  # fmt: skip
    await connection.execute(TELL, *(list(column) for column in zip(*columns, strict=True)))


async def consents_of_each(connection: Connection, lead_ids: Sequence[str]) -> dict[str, list[Consent]]:
    """All words by the lead that they were said of."""
    words: dict[str, list[Consent]] = {}
    for row in await connection.fetch(CONSENTS, lead_ids, None, None):
        word = Consent(row["channel"], row["state"], row["occurred_at"], row["purpose"])
        words.setdefault(row["lead_id"], []).append(word)
    return words


async def consents_of(
    connection: Connection, members: Sequence[str], as_of: datetime | None = None, known_at: datetime | None = None
) -> list[Consent]:
    """All words of a person: those said by a moment, and heard by another."""
    return [
        Consent(row["channel"], row["state"], row["occurred_at"], row["purpose"])
        for row in await connection.fetch(CONSENTS, members, as_of, known_at)
    ]


async def ledger_of(
    connection: Connection, members: Sequence[str], as_of: datetime | None = None, known_at: datetime | None = None
) -> list[asyncpg.Record]:
    """The ledger's entries about a person, newest first."""
    return await connection.fetch(LEDGER, members, as_of, known_at)


async def changed_since(
    connection: Connection, after: tuple[datetime, str], limit: int
) -> tuple[list[asyncpg.Record], datetime]:
    """Entries in the order in which they came into the ledger, and until when that order is complete."""
    until: datetime = (await one(connection, COMPLETE_UNTIL))[0]
    return await connection.fetch(CHANGED, *after, until, limit), until


async def roots_of(connection: Connection, lead_ids: Sequence[str]) -> dict[str, LeadId]:
    """The lead that stands for the person of each lead."""
    return {row["origin"]: LeadId(row["lead_id"]) for row in await connection.fetch(ROOTS, lead_ids)}
