"""The statements about the ledger of messages. Claims go by the database's clock."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import orjson

from services.nurture.enrolments.domain import Run
from services.nurture.sending.sealing import Said
from shared.db import Connection, one
from shared.events import ConsentChannel, MessageClaimed, MessageSettled, MessageState
from shared.ids import EventId, LeadId, MessageId, SequenceId
from shared.smtp import Outcome

NOW = "SELECT clock_timestamp()"
MESSAGE = """message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id, state,
    reason, subject, links, sealed, attempts, claimed_at, sent_at, created_at, settled_at, resend_at,
    provider, provider_id, variant"""
PLAN_MESSAGES = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, reason, settled_at)
SELECT given.*, clock_timestamp() FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[],
    $6::text[], $7::integer[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]) AS given
ON CONFLICT DO NOTHING RETURNING message_id
"""
STATES_OF = """
SELECT message_id, state, claim_until IS NOT NULL AS claimed, attempts FROM messages WHERE message_id = ANY($1)
ORDER BY message_id FOR UPDATE
"""
WHY_WAITING = "UPDATE messages SET reason = $2 WHERE message_id = $1 AND state = 'planned' AND claim_until IS NULL"
# Asked once by the id that a message went to and once by the person it was for then: each has its index.
ALREADY_HAD = """
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::integer[])
        AS asked (asked_id, id, sequence_id, run, step_id, visit)
)
SELECT asked_id FROM asked JOIN messages AS had ON had.lead_id = asked.id
WHERE had.sequence_id = asked.sequence_id AND had.run = asked.run AND had.step_id = asked.step_id
  AND had.visit = asked.visit AND had.message_id <> asked_id AND had.state <> 'suppressed'
UNION
SELECT asked_id FROM asked JOIN messages AS had ON had.person_id = asked.id AND had.sequence_id = asked.sequence_id
    AND had.run = asked.run AND had.step_id = asked.step_id AND had.visit = asked.visit
WHERE had.message_id <> asked_id AND had.state <> 'suppressed'
"""
CLAIM_MESSAGES = """
UPDATE messages SET claim = $1, claimed_at = clock_timestamp(), claim_until = clock_timestamp() + $2,
    attempts = attempts + 1, reason = NULL, subject = said.subject, links = said.links, sealed = said.block,
    person_id = said.owner, provider = said.provider
FROM (
    SELECT said_id, subject, ARRAY(SELECT jsonb_array_elements_text(links::jsonb)) AS links, block, owner, provider
    FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
        AS written (said_id, subject, links, block, owner, provider)
) AS said
WHERE message_id = said_id AND state = 'planned' AND claim_until IS NULL
RETURNING message_id, claimed_at, attempts
"""
# What a provider has reported meanwhile is known better than what the call came to.
SETTLE = f"""
UPDATE messages SET settled_at = clock_timestamp(), claim_until = NULL,
    claim = CASE WHEN told_state = 'planned' AND reported IS NULL THEN NULL ELSE $1 END,
    reason = CASE WHEN reported IS NULL THEN told_reason ELSE 'the provider reports it so' END,
    state = CASE WHEN reported IS NOT NULL THEN reported
                 WHEN told_state = 'planned' AND state = 'unknown' THEN 'failed' ELSE told_state END,
    sent_at = CASE WHEN reported IN ('sent', 'delivered', 'bounced') OR (reported IS NULL AND told_state = 'sent')
                   THEN claimed_at ELSE sent_at END,
    look_up_at = CASE WHEN told_state = 'unknown' THEN clock_timestamp() + interval '1 minute' END,
    resend_at = CASE WHEN resend_at IS NOT NULL AND reported IS NULL AND told_state = 'planned'
                     THEN clock_timestamp() + told_pause END,
    provider = coalesce(told_provider, provider), provider_id = coalesce(told_provider_id, provider_id)
FROM unnest($2::text[], $3::text[], $4::text[], $5::interval[], $6::text[], $7::text[])
    AS told (told_id, told_state, told_reason, told_pause, told_provider, told_provider_id)
WHERE message_id = told_id AND claim = $1 AND state IN ('planned', 'unknown')
RETURNING {MESSAGE}
"""
CLOSE_PLANNED = f"""
UPDATE messages SET state = $2, reason = $3, settled_at = clock_timestamp(), resend_at = NULL
WHERE message_id = $1 AND claim_until IS NULL RETURNING {MESSAGE}
"""
WITHDRAW = f"""
UPDATE messages SET state = 'suppressed', reason = told_reason, settled_at = clock_timestamp()
FROM unnest($1::text[], $2::text[]) AS told (told_id, told_reason)
WHERE enrolment_id = told_id AND state = 'planned' AND claim_until IS NULL AND resend_at IS NULL RETURNING {MESSAGE}
"""
DEAD_CLAIMS = """
SELECT message_id, lead_id FROM messages WHERE state = 'planned' AND claim_until <= statement_timestamp()
ORDER BY claim_until LIMIT 100
"""
GIVE_UP = f"""
UPDATE messages SET state = coalesce(reported, 'unknown'), settled_at = clock_timestamp(), claim_until = NULL,
    reason = CASE WHEN reported IS NULL THEN $2 ELSE 'the provider reports it so' END,
    sent_at = CASE WHEN reported IS NULL THEN sent_at ELSE claimed_at END,
    look_up_at = clock_timestamp(), resend_at = NULL
WHERE message_id = ANY($1) AND state = 'planned' AND claim_until <= clock_timestamp() RETURNING {MESSAGE}
"""
RESTORE_MESSAGE = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, reason, claimed_at, attempts, settled_at, look_up_at)
SELECT $1, $2, $3, coalesce((SELECT version FROM enrolments WHERE enrolment_id = $2), 0), $4, $5, $6, $7, $8, $9,
    'unknown', $10, $11, 1, $11, $11
ON CONFLICT DO NOTHING RETURNING message_id
"""
FOLD_CLAIM = """
UPDATE messages SET state = 'unknown', reason = $3, settled_at = $2, claimed_at = $2, look_up_at = $2, resend_at = NULL
WHERE message_id = $1 AND state IN ('planned', 'suppressed') AND (claimed_at IS NULL OR claimed_at < $2)
RETURNING message_id
"""
FOLD_SETTLED = """
UPDATE messages SET state = $2, reason = $3, settled_at = $4, claim_until = NULL,
    sent_at = CASE WHEN $2 IN ('sent', 'delivered') THEN coalesce(sent_at, claimed_at, $4) ELSE sent_at END,
    provider = coalesce($5, provider), provider_id = coalesce($6, provider_id)
WHERE message_id = $1 AND settled_at < $4 AND claim_until IS NULL
"""
FORGET = """
UPDATE messages SET subject = NULL, links = '{}', sealed = NULL WHERE lead_id = ANY($1) OR person_id = ANY($1)
"""
_FILTERS = """
  AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR sequence_id = $2)
  AND ($3::timestamptz IS NULL OR created_at >= $3)
ORDER BY created_at DESC, message_id DESC LIMIT $6
"""
LISTED = f"SELECT {MESSAGE} FROM messages WHERE (created_at, message_id) < ($4, $5) {_FILTERS}"
OF_PERSON = f"""
SELECT {MESSAGE} FROM messages
WHERE (lead_id = ANY($7) OR person_id = ANY($7)) AND (created_at, message_id) < ($4, $5) {_FILTERS}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it is entered in the ledger: which step of which run, for whom, and how it stands.

    `named` are the experiment at its step and the variant that it is.
    """

    message_id: MessageId
    run: Run
    step_id: str
    visit: int
    channel: ConsentChannel
    person_id: LeadId
    state: MessageState = "planned"
    reason: str | None = None
    named: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a message stands in the ledger."""

    state: MessageState
    claimed: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Which messages are listed."""

    state: MessageState | None = None
    sequence_id: str | None = None
    since: datetime | None = None


async def database_now(connection: Connection) -> datetime:
    """The time by which everything here is due."""
    now: datetime = await connection.fetchval(NOW)
    return now


async def plan_messages(connection: Connection, entries: Sequence[Entry]) -> set[MessageId]:
    """Enter messages in the ledger; answers those whose visit of a step was not in it already."""
    rows = await connection.fetch(
        PLAN_MESSAGES,
        [entry.message_id for entry in entries],
        [entry.run.enrolment_id for entry in entries],
        [entry.run.sequence_id for entry in entries],
        [entry.run.version for entry in entries],
        [entry.run.run for entry in entries],
        [entry.step_id for entry in entries],
        [entry.visit for entry in entries],
        [entry.channel for entry in entries],
        [entry.run.lead_id for entry in entries],
        [entry.person_id for entry in entries],
        [entry.state for entry in entries],
        [entry.reason for entry in entries],
    )
    return {MessageId(row["message_id"]) for row in rows}


async def standings_of(connection: Connection, message_ids: Collection[MessageId]) -> dict[MessageId, Standing]:
    """How messages stand, locked; without those that are not in the ledger."""
    return {
        MessageId(row["message_id"]): Standing(row["state"], row["claimed"], row["attempts"])
        for row in await connection.fetch(STATES_OF, list(message_ids))
    }


async def say_why_waiting(connection: Connection, message_id: MessageId, reason: str | None) -> None:
    """Note why a planned message has not left."""
    await connection.execute(WHY_WAITING, message_id, reason)


async def had_already(connection: Connection, asked: Sequence[tuple[Entry, Sequence[LeadId]]]) -> set[MessageId]:
    """Those messages whose persons had, or may have had, this visit of this step under any of their ids."""
    rows = [(entry, lead_id) for entry, ids in asked for lead_id in ids]
    found = await connection.fetch(
        ALREADY_HAD,
        [entry.message_id for entry, _ in rows],
        [lead_id for _, lead_id in rows],
        [entry.run.sequence_id for entry, _ in rows],
        [entry.run.run for entry, _ in rows],
        [entry.step_id for entry, _ in rows],
        [entry.visit for entry, _ in rows],
    )
    return {MessageId(row["asked_id"]) for row in found}


async def claim_messages(
    connection: Connection, claim: str, lasting: timedelta, said: Mapping[MessageId, tuple[LeadId, str | None, Said]]
) -> dict[MessageId, tuple[datetime, int]]:
    """Claim planned messages, each for a person and the provider it goes to if that is known: when, which attempt.

    From the commit on they are never claimed again unless they certainly did not leave.
    """
    rows = await connection.fetch(
        CLAIM_MESSAGES,
        claim,
        lasting,
        list(said),
        [each.subject for _, _, each in said.values()],
        [orjson.dumps(each.links).decode() for _, _, each in said.values()],
        [each.sealed for _, _, each in said.values()],
        [person_id for person_id, _, _ in said.values()],
        [provider for _, provider, _ in said.values()],
    )
    return {MessageId(row["message_id"]): (row["claimed_at"], row["attempts"]) for row in rows}


async def settle(
    connection: Connection, claim: str, outcomes: Mapping[MessageId, tuple[Outcome, timedelta]]
) -> list[asyncpg.Record]:
    """Note what became of messages, and when they may be tried again; without those whose outcome is known already.

    A message that did not leave is planned again, unless it was given up meanwhile: then it has failed.
    """
    rows: list[asyncpg.Record] = await connection.fetch(
        SETTLE,
        claim,
        list(outcomes),
        [outcome.state for outcome, _ in outcomes.values()],
        [outcome.reason for outcome, _ in outcomes.values()],
        [pause for _, pause in outcomes.values()],
        [outcome.provider for outcome, _ in outcomes.values()],
        [outcome.provider_id for outcome, _ in outcomes.values()],
    )
    return rows


async def close_planned(connection: Connection, message_id: MessageId, outcome: Outcome) -> asyncpg.Record:
    """Note that a message that nobody has claimed will not be sent."""
    return await one(connection, CLOSE_PLANNED, message_id, outcome.state, outcome.reason)


async def withdraw(connection: Connection, reasons: Mapping[str, str]) -> list[MessageSettled]:
    """Withdraw what runs have planned and not claimed, each for a reason; answers the facts that say so."""
    ordered = sorted(reasons)
    rows = await connection.fetch(WITHDRAW, ordered, [reasons[this] for this in ordered])
    return [settled(row) for row in rows]


async def dead_claims(connection: Connection) -> list[tuple[MessageId, LeadId]]:
    """Messages whose sender fell silent between the claim and the outcome, and whom they are for."""
    return [(MessageId(row["message_id"]), LeadId(row["lead_id"])) for row in await connection.fetch(DEAD_CLAIMS)]


async def give_up(connection: Connection, message_ids: Sequence[MessageId], reason: str) -> list[asyncpg.Record]:
    """Note that nobody knows whether messages left; without those of which that is not so any more."""
    rows: list[asyncpg.Record] = await connection.fetch(GIVE_UP, message_ids, reason)
    return rows


async def restore_message(connection: Connection, event: MessageClaimed, reason: str) -> bool:
    """Enter a message that was told as claimed and is not here, or not as claimed; False when all is known."""
    known = await connection.fetchval(
        RESTORE_MESSAGE,
        event.message_id,
        event.enrolment_id,
        event.sequence_id,
        event.run,
        event.step_id,
        event.visit,
        event.channel,
        event.lead_id,
        event.person_id,
        reason,
        event.occurred_at,
    )
    if known is None:
        known = await connection.fetchval(FOLD_CLAIM, event.message_id, event.occurred_at, reason)
    return known is not None


async def fold_settled(connection: Connection, event: MessageSettled) -> None:
    """Note an outcome that was told and is not here."""
    known = (event.provider, event.provider_id)
    await connection.execute(FOLD_SETTLED, event.message_id, event.state, event.reason, event.occurred_at, *known)


async def forget(connection: Connection, ids: Sequence[LeadId]) -> None:
    """Delete what a message says of its person."""
    await connection.execute(FORGET, ids)


async def messages_of(
    connection: Connection,
    ids: Sequence[LeadId] | None,
    filters: Filters,
    before: tuple[datetime, str],
    limit: int,
) -> list[asyncpg.Record]:
    """A person's messages, or all, the newest first."""
    given = (filters.state, filters.sequence_id, filters.since, *before, limit)
    rows: list[asyncpg.Record] = (
        await connection.fetch(LISTED, *given) if ids is None else await connection.fetch(OF_PERSON, *given, ids)
    )
    return rows


def settled(row: asyncpg.Record) -> MessageSettled:
    """The fact that tells how a message stands."""
    at = row["settled_at"]
    return MessageSettled(
        event_id=EventId(f"message-settled:{row['message_id']}:{row['state']}:{row['attempts']}"),
        lead_id=LeadId(row["lead_id"]),
        occurred_at=at,
        received_at=at,
        message_id=MessageId(row["message_id"]),
        enrolment_id=row["enrolment_id"],
        sequence_id=SequenceId(row["sequence_id"]),
        step_id=row["step_id"],
        channel=row["channel"],
        state=row["state"],
        reason=row["reason"],
        provider=row["provider"],
        provider_id=row["provider_id"],
    )
