"""The statements about providers of data, what they were asked, and what is still to be asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg

from services.capture.enrichment.domain import Ask, Permit, ProviderState
from shared.db import Connection, one
from shared.ids import LeadId

KIND = "enrichment"
PROVIDERS = """
SELECT known.*, document.version, document.document, document.author, document.created_at
FROM enrichment_providers AS known
CROSS JOIN LATERAL (
    SELECT version FROM rule_activations
    WHERE kind = 'enrichment' AND name = known.provider_id AND effective_at <= clock_timestamp()
    ORDER BY effective_at DESC, sequence DESC LIMIT 1
) AS active
JOIN rule_documents AS document
    ON document.kind = 'enrichment' AND document.name = known.provider_id AND document.version = active.version
WHERE ($1::text IS NULL OR known.provider_id = $1) AND (known.active OR NOT $2)
ORDER BY known.provider_id
"""
COUNT = "SELECT count(*) FROM enrichment_providers WHERE provider_id <> $1"
SAVE_PROVIDER = """
INSERT INTO enrichment_providers (provider_id, active) VALUES ($1, $2)
ON CONFLICT (provider_id) DO UPDATE SET active = excluded.active
"""
SET_CREDENTIAL = """
UPDATE enrichment_providers SET credential = $2, failures = 0, closed_until = NULL, trial_until = NULL
WHERE provider_id = $1 RETURNING provider_id
"""
CREDENTIAL = "SELECT credential FROM enrichment_providers WHERE provider_id = $1"
LOCK_STATE = """
SELECT next_slot, failures, closed_until, trial_until FROM enrichment_providers WHERE provider_id = $1 FOR UPDATE
"""
CALLS = """
SELECT coalesce(sum(calls) FILTER (WHERE day = $2), 0) AS today, coalesce(sum(calls), 0) AS month
FROM enrichment_usage WHERE provider_id = $1 AND day BETWEEN date_trunc('month', $2::date) AND $2
"""
TAKE_SLOT = (
    "UPDATE enrichment_providers SET next_slot = coalesce($2, next_slot), trial_until = $3 WHERE provider_id = $1"
)
ADD_USAGE = """
INSERT INTO enrichment_usage AS known
    (provider_id, day, calls, hits, misses, failures, cache_hits, spent_minor) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (provider_id, day) DO UPDATE SET calls = known.calls + excluded.calls, hits = known.hits + excluded.hits,
    misses = known.misses + excluded.misses, failures = known.failures + excluded.failures,
    cache_hits = known.cache_hits + excluded.cache_hits, spent_minor = known.spent_minor + excluded.spent_minor
"""
USAGE = """
SELECT provider_id, coalesce(sum(calls), 0) AS calls, coalesce(sum(hits), 0) AS hits,
    coalesce(sum(misses), 0) AS misses, coalesce(sum(failures), 0) AS failures,
    coalesce(sum(cache_hits), 0) AS cache_hits, coalesce(sum(spent_minor), 0) AS spent_minor
FROM enrichment_usage WHERE day BETWEEN $1 AND $2 GROUP BY provider_id
"""
WORKED = """
UPDATE enrichment_providers SET failures = 0, trial_until = NULL, closed_until = NULL
WHERE provider_id = $1 AND (failures > 0 OR trial_until IS NOT NULL)
"""
# The failure that makes the number full closes the door; so does the one call that tried it again.
FAILED = """
UPDATE enrichment_providers SET failures = failures + 1, trial_until = NULL,
    closed_until = CASE WHEN failures + 1 >= $2 THEN greatest(closed_until, $3) ELSE closed_until END
WHERE provider_id = $1
"""
LEAVE_ALONE = """
UPDATE enrichment_providers SET closed_until = greatest(closed_until, $2), trial_until = NULL WHERE provider_id = $1
"""
SCHEDULE = """
INSERT INTO enrichments AS known (lead_id, due_at)
SELECT lead_id, $2 FROM unnest($1::text[]) AS lead_id
WHERE EXISTS (SELECT 1 FROM enrichment_providers WHERE active) ORDER BY lead_id
ON CONFLICT (lead_id) DO UPDATE SET wanted = known.wanted + 1, tries = 0,
    due_at = CASE WHEN known.held_until > $2 THEN known.due_at ELSE least(known.due_at, excluded.due_at) END
"""
FORCE = """
INSERT INTO enrichments AS known (lead_id, due_at, forced_at) VALUES ($1, $2, $2)
ON CONFLICT (lead_id) DO UPDATE SET wanted = known.wanted + 1, tries = 0, forced_at = excluded.forced_at,
    due_at = CASE WHEN known.held_until > $2 THEN known.due_at ELSE excluded.due_at END
"""
CLAIM = """
UPDATE enrichments SET claim = $3, held_until = $4, due_at = $4, tries = tries + 1
WHERE lead_id IN (
    SELECT lead_id FROM enrichments WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING lead_id, claim, wanted, forced_at, tries
"""
HOLD = "UPDATE enrichments SET held_until = $3, due_at = $3 WHERE lead_id = $1 AND claim = $2 RETURNING lead_id"
# What was asked for meanwhile is due at once.
AGAIN = """
UPDATE enrichments SET claim = NULL, held_until = NULL, tries = 0,
    due_at = CASE WHEN wanted = $3 THEN $4::timestamptz ELSE $5 END,
    forced_at = CASE WHEN wanted = $3 AND NOT $6 THEN NULL ELSE forced_at END
WHERE lead_id = $1 AND claim = $2
"""
DONE = "DELETE FROM enrichments WHERE lead_id = $1 AND claim = $2 AND wanted = $3 RETURNING lead_id"
NEXT_DUE = "SELECT min(due_at) FROM enrichments"
DUE_AT = "SELECT due_at FROM enrichments WHERE lead_id = $1"
ASKS = "SELECT * FROM enrichment_asks WHERE lead_id = ANY($1) ORDER BY asked_at"
SAVE_ASK = """
INSERT INTO enrichment_asks AS known
    (lead_id, provider_id, outcome, detail, fields, version, input, tries, asked_at, until, retry_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (lead_id, provider_id) DO UPDATE SET outcome = excluded.outcome, detail = excluded.detail,
    fields = excluded.fields, version = excluded.version, input = excluded.input, tries = excluded.tries,
    asked_at = excluded.asked_at, until = excluded.until, retry_at = excluded.retry_at
"""
ANSWER = "SELECT sealed, answered_at FROM enrichment_answers WHERE provider_id = $1 AND key = $2 AND until > $3"
SAVE_ANSWER = """
INSERT INTO enrichment_answers (provider_id, key, sealed, lead_id, answered_at, until) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (provider_id, key) DO UPDATE SET sealed = excluded.sealed, lead_id = excluded.lead_id,
    answered_at = excluded.answered_at, until = excluded.until
"""
DROP_OLD_ANSWERS = "DELETE FROM enrichment_answers WHERE until < $1"
DROP_OLD_USAGE = "DELETE FROM enrichment_usage WHERE day < $1"
FORGET = """
WITH asks AS (DELETE FROM enrichment_asks WHERE lead_id = ANY($1)),
    answers AS (DELETE FROM enrichment_answers WHERE lead_id = ANY($1))
DELETE FROM enrichments WHERE lead_id = ANY($1)
"""
USAGE_KEPT = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Usage:
    """What is added to the account of a provider."""

    calls: int = 0
    hits: int = 0
    misses: int = 0
    failures: int = 0
    cache_hits: int = 0
    spent_minor: int = 0


async def schedule(connection: Connection, lead_ids: Sequence[LeadId], now: datetime) -> None:
    """Let the providers be asked about leads, if there are any providers."""
    await connection.execute(SCHEDULE, lead_ids, now)


async def force(connection: Connection, lead_id: LeadId, now: datetime) -> None:
    """Let all providers be asked about a lead, whatever they said before."""
    await connection.execute(FORCE, lead_id, now)


async def providers(connection: Connection, *, active: bool = False) -> list[asyncpg.Record]:
    """The providers with the documents that count."""
    return await connection.fetch(PROVIDERS, None, active)


async def provider(connection: Connection, provider_id: str) -> asyncpg.Record | None:
    """A provider with the document that counts."""
    return await connection.fetchrow(PROVIDERS, provider_id, False)


async def usage_between(connection: Connection, first: date, last: date) -> dict[str, dict[str, int]]:
    """The account of each provider over some days."""
    rows = await connection.fetch(USAGE, first, last)
    return {row["provider_id"]: {name: int(row[name]) for name in Usage.__slots__} for row in rows}


async def lock_state(connection: Connection, provider_id: str, today: date) -> ProviderState:
    """What all processes know of a provider, locked against the others' calls."""
    row = await one(connection, LOCK_STATE, provider_id)
    calls = await one(connection, CALLS, provider_id, today)
    return ProviderState(**dict(row), calls_today=int(calls["today"]), calls_this_month=int(calls["month"]))


async def take_slot(connection: Connection, provider_id: str, permit: Permit) -> None:
    """Write down that a call is about to be made."""
    await connection.execute(TAKE_SLOT, provider_id, permit.next_slot, permit.trial_until)


async def add_usage(connection: Connection, provider_id: str, day: date, usage: Usage) -> None:
    """Add to the account of a provider."""
    counts = [getattr(usage, name) for name in Usage.__slots__]
    await connection.execute(ADD_USAGE, provider_id, day, *counts)


async def asks_of(connection: Connection, lead_ids: Sequence[LeadId]) -> dict[str, Ask]:
    """How it went with a person, by provider; of several leads of theirs, the last time."""
    rows = await connection.fetch(ASKS, lead_ids)
    return {row["provider_id"]: Ask(**{name: row[name] for name in Ask.__slots__}) for row in rows}


async def save_ask(connection: Connection, lead_id: LeadId, ask: Ask) -> None:
    """Write down how it went with a lead and a provider."""
    await connection.execute(
        SAVE_ASK,
        lead_id,
        ask.provider_id,
        ask.outcome,
        ask.detail,
        list(ask.fields),
        ask.version,
        ask.input,
        ask.tries,
        ask.asked_at,
        ask.until,
        ask.retry_at,
    )


async def finish(  # noqa: PLR0913  # whose turn it was, and when it comes again
    connection: Connection,
    lead_id: LeadId,
    claim: str,
    wanted: int,
    next_at: datetime | None,
    now: datetime,
    *,
    keep_forced: bool = False,
) -> None:
    """End a turn: nothing more to do, or when to go on. What was asked for meanwhile is due at once."""
    if next_at is None and await connection.fetchval(DONE, lead_id, claim, wanted):
        return
    await connection.execute(AGAIN, lead_id, claim, wanted, next_at or now, now, keep_forced)


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Drop all that was asked and answered about erased persons."""
    await connection.execute(FORGET, lead_ids)


async def drop_old(connection: Connection, now: datetime) -> None:
    """Drop answers that are good no more, and old accounts."""
    await connection.execute(DROP_OLD_ANSWERS, now)
    await connection.execute(DROP_OLD_USAGE, (now - USAGE_KEPT).date())


def document_of(row: asyncpg.Record) -> dict[str, Any]:
    """The document in a provider's row."""
    return dict(row["document"])
