"""The ledger of messages, and runs whose time has come. Due times and claims go by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.nurture.enrolments.domain import Run
from services.nurture.enrolments.queries import RUN, as_run
from services.nurture.sending.domain import Outcome
from services.nurture.sending.sealing import Said
from shared.db import Connection, one
from shared.events import MessageClaimed, MessageSettled, MessageState
from shared.ids import EventId, LeadId, MessageId, SequenceId

NOW = "SELECT clock_timestamp()"
CLAIM_DUE = f"""
UPDATE enrolments SET claim = $1, due_at = clock_timestamp() + $2
WHERE enrolment_id IN (
    SELECT enrolment_id FROM enrolments WHERE active AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING {RUN}, step_id, visits
"""
LOCK_CLAIMED = f"""
SELECT {RUN}, step_id, visits FROM enrolments WHERE enrolment_id = $1 AND active AND claim = $2 FOR UPDATE
"""
NEXT_DUE = "SELECT min(due_at) - clock_timestamp() FROM enrolments WHERE active"
MOVE = """
UPDATE enrolments SET step_id = $2, due_at = $3, visits = $4, hold = NULL, claim = NULL
WHERE enrolment_id = $1 AND active
"""
STAND_BEFORE = "UPDATE enrolments SET step_id = $2 WHERE enrolment_id = $1 AND active AND step_id <> $2"
HOLD = """
UPDATE enrolments SET due_at = clock_timestamp() + $2, hold = $3, claim = NULL WHERE enrolment_id = $1 AND active
"""
WAIT = """
UPDATE enrolments SET hold = $2, claim = NULL,
    holds = CASE WHEN hold = $2 THEN holds + 1 ELSE 0 END,
    due_at = clock_timestamp() + make_interval(secs => CASE WHEN hold = $2 THEN 2 ^ least(holds, 6) ELSE 1 END)
WHERE enrolment_id = $1 AND active
"""
RELEASE_HELD = "UPDATE enrolments SET due_at = clock_timestamp() WHERE active AND hold = $1"
MESSAGE = """message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, state, reason,
    subject, links, sealed, attempts, claimed_at, sent_at, created_at, settled_at"""
PLAN_MESSAGE = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, reason, settled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'email', $8, $9, $10, $11, clock_timestamp())
ON CONFLICT DO NOTHING RETURNING message_id
"""
STATE_OF = "SELECT state, claim_until IS NOT NULL AS claimed, attempts FROM messages WHERE message_id = $1 FOR UPDATE"
WHY_WAITING = "UPDATE messages SET reason = $2 WHERE message_id = $1 AND state = 'planned' AND claim_until IS NULL"
ALREADY_HAD = """
SELECT message_id FROM messages
WHERE (lead_id = ANY($1) OR person_id = ANY($1)) AND sequence_id = $2 AND run = $3 AND step_id = $4 AND visit = $5
  AND message_id <> $6 AND state <> 'suppressed' LIMIT 1
"""
CLAIM_MESSAGE = """
UPDATE messages SET claim = $2, claimed_at = clock_timestamp(), claim_until = clock_timestamp() + $3,
    attempts = attempts + 1, reason = NULL, subject = $4, links = $5, sealed = $6, person_id = $7
WHERE message_id = $1 AND state = 'planned' AND claim_until IS NULL
RETURNING claimed_at, attempts
"""
SETTLE = (
    """
UPDATE messages SET reason = $4, settled_at = clock_timestamp(), claim_until = NULL, claim = $5,
    state = CASE WHEN $3 = 'planned' AND state = 'unknown' THEN 'failed' ELSE $3 END,
    sent_at = CASE WHEN $3 = 'sent' THEN claimed_at ELSE sent_at END
WHERE message_id = $1 AND claim = $2 AND state IN ('planned', 'unknown')
RETURNING """
    + MESSAGE
)
CLOSE_PLANNED = f"""
UPDATE messages SET state = $2, reason = $3, settled_at = clock_timestamp()
WHERE message_id = $1 AND claim_until IS NULL RETURNING {MESSAGE}
"""
WITHDRAW = f"""
UPDATE messages SET state = 'suppressed', reason = $2, settled_at = clock_timestamp()
WHERE enrolment_id = $1 AND state = 'planned' AND claim_until IS NULL RETURNING {MESSAGE}
"""
DEAD_CLAIMS = """
SELECT message_id, lead_id FROM messages WHERE state = 'planned' AND claim_until <= clock_timestamp()
ORDER BY claim_until LIMIT 100
"""
GIVE_UP = f"""
UPDATE messages SET state = 'unknown', reason = $2, settled_at = clock_timestamp(), claim_until = NULL
WHERE message_id = $1 AND state = 'planned' AND claim_until <= clock_timestamp() RETURNING {MESSAGE}
"""
RESTORE_MESSAGE = """
INSERT INTO messages (message_id, enrolment_id, sequence_id, version, run, step_id, visit, channel, lead_id, person_id,
    state, reason, claimed_at, attempts, settled_at)
SELECT $1, $2, $3, coalesce((SELECT version FROM enrolments WHERE enrolment_id = $2), 0), $4, $5, $6, $7, $8, $9,
    'unknown', $10, $11, 1, $11
ON CONFLICT DO NOTHING RETURNING message_id
"""
FOLD_CLAIM = """
UPDATE messages SET state = 'unknown', reason = $3, settled_at = $2, claimed_at = $2
WHERE message_id = $1 AND state IN ('planned', 'suppressed') AND (claimed_at IS NULL OR claimed_at < $2)
RETURNING message_id
"""
FOLD_SETTLED = """
UPDATE messages SET state = $2, reason = $3, settled_at = $4, claim_until = NULL,
    sent_at = CASE WHEN $2 = 'sent' THEN coalesce(claimed_at, $4) ELSE sent_at END
WHERE message_id = $1 AND settled_at < $4 AND claim_until IS NULL
"""
RUN_OF_MESSAGE = f"""
SELECT {RUN}, step_id, visits FROM enrolments WHERE enrolment_id = $1 AND active AND step_id = $2 FOR UPDATE
"""
FORGET = """
UPDATE messages SET subject = NULL, links = '{}', sealed = NULL WHERE lead_id = ANY($1) OR person_id = ANY($1)
"""
OF_PERSON = f"""
SELECT {MESSAGE} FROM messages
WHERE (lead_id = ANY($1) OR person_id = ANY($1)) AND (created_at, message_id) < ($2, $3)
ORDER BY created_at DESC, message_id DESC LIMIT $4
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A run whose next step is due: where it stands, and how often each step was visited."""

    run: Run
    step_id: str
    visits: dict[str, int]

    def visit(self, step_id: str) -> int:
        """The number of the visit that begins now."""
        return self.visits.get(step_id, 0) + 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How a message stands in the ledger."""

    state: MessageState
    claimed: bool
    attempts: int


async def database_now(connection: Connection) -> datetime:
    """The time by which everything here is due."""
    now: datetime = await connection.fetchval(NOW)
    return now


async def claim_due(connection: Connection, claim: str, lasting: timedelta, limit: int) -> list[Due]:
    """Take runs that are due, those due longest first; others see them again only when the claim has run out."""
    rows = await connection.fetch(CLAIM_DUE, claim, lasting, limit)
    return [_due(row) for row in rows]


async def lock_claimed(connection: Connection, enrolment_id: str, claim: str) -> Due | None:
    """The run again, locked; None when it is over or was taken by another."""
    row = await connection.fetchrow(LOCK_CLAIMED, enrolment_id, claim)
    return None if row is None else _due(row)


async def next_due(connection: Connection) -> timedelta | None:
    """How long until the next run is due; negative when one is."""
    left: timedelta | None = await connection.fetchval(NEXT_DUE)
    return left


async def move_run(
    connection: Connection, enrolment_id: str, step_id: str, due_at: datetime, visits: dict[str, int]
) -> None:
    """Put a run before another step."""
    await connection.execute(MOVE, enrolment_id, step_id, due_at, visits)


async def stand_before(connection: Connection, enrolment_id: str, step_id: str) -> None:
    """Put a run before the message that branches have led it to, due as it is."""
    await connection.execute(STAND_BEFORE, enrolment_id, step_id)


async def hold_run(connection: Connection, enrolment_id: str, pause: timedelta, why: str) -> None:
    """Let a run wait for a time, saying why."""
    await connection.execute(HOLD, enrolment_id, pause, why)


async def wait_longer(connection: Connection, enrolment_id: str, why: str) -> None:
    """Let a run wait a second, then longer and longer up to a minute, saying why."""
    await connection.execute(WAIT, enrolment_id, why)


async def release_held(connection: Connection, why: str) -> None:
    """Make the runs that waited for this reason due: it is gone."""
    await connection.execute(RELEASE_HELD, why)


async def plan_message(  # noqa: PLR0913  # a row of the ledger
    connection: Connection,
    message_id: MessageId,
    run: Run,
    step_id: str,
    visit: int,
    person_id: LeadId,
    state: MessageState,
    reason: str | None,
) -> bool:
    """Enter a message in the ledger; False when this visit of this step is in it already."""
    saved = await connection.fetchval(
        PLAN_MESSAGE,
        message_id,
        run.enrolment_id,
        run.sequence_id,
        run.version,
        run.run,
        step_id,
        visit,
        run.lead_id,
        person_id,
        state,
        reason,
    )
    return saved is not None


async def standing_of(connection: Connection, message_id: MessageId) -> Standing | None:
    """How a message stands, locked; None when it is not in the ledger."""
    row = await connection.fetchrow(STATE_OF, message_id)
    return None if row is None else Standing(row["state"], row["claimed"], row["attempts"])


async def say_why_waiting(connection: Connection, message_id: MessageId, reason: str) -> None:
    """Note why a planned message has not left."""
    await connection.execute(WHY_WAITING, message_id, reason)


async def had_already(  # noqa: PLR0913  # the key of the ledger
    connection: Connection,
    ids: Sequence[LeadId],
    sequence_id: SequenceId,
    run: int,
    step_id: str,
    visit: int,
    apart_from: MessageId,
) -> bool:
    """Whether the person had, or may have had, this visit of this step under any of their ids."""
    found = await connection.fetchval(ALREADY_HAD, ids, sequence_id, run, step_id, visit, apart_from)
    return found is not None


async def claim_message(  # noqa: PLR0913  # what is known before the provider is called
    connection: Connection,
    message_id: MessageId,
    claim: str,
    lasting: timedelta,
    said: Said,
    person_id: LeadId,
) -> tuple[datetime, int] | None:
    """Claim a planned message: from the commit on it is never claimed again unless it certainly did not leave."""
    row = await connection.fetchrow(
        CLAIM_MESSAGE, message_id, claim, lasting, said.subject, list(said.links), said.sealed, person_id
    )
    return None if row is None else (row["claimed_at"], row["attempts"])


async def settle(connection: Connection, message_id: MessageId, claim: str, outcome: Outcome) -> asyncpg.Record | None:
    """Note what became of a message; None when the claim is not ours any more and the outcome is known.

    A message that did not leave is planned again, unless it was given up meanwhile: then it has failed.
    """
    kept = None if outcome.state == "planned" else claim
    row: asyncpg.Record | None = await connection.fetchrow(
        SETTLE, message_id, claim, outcome.state, outcome.reason, kept
    )
    return row


async def close_planned(connection: Connection, message_id: MessageId, outcome: Outcome) -> asyncpg.Record:
    """Note that a message that nobody has claimed will not be sent."""
    return await one(connection, CLOSE_PLANNED, message_id, outcome.state, outcome.reason)


async def withdraw(connection: Connection, enrolment_id: str, reason: str) -> list[MessageSettled]:
    """Withdraw what a run has planned and not claimed; answers the facts that say so."""
    return [settled(row) for row in await connection.fetch(WITHDRAW, enrolment_id, reason)]


async def dead_claims(connection: Connection) -> list[tuple[MessageId, LeadId]]:
    """Messages whose sender fell silent between the claim and the outcome, and whom they are for."""
    return [(MessageId(row["message_id"]), LeadId(row["lead_id"])) for row in await connection.fetch(DEAD_CLAIMS)]


async def give_up(connection: Connection, message_id: MessageId, reason: str) -> asyncpg.Record | None:
    """Note that nobody knows whether a message left; None when that is not so any more."""
    row: asyncpg.Record | None = await connection.fetchrow(GIVE_UP, message_id, reason)
    return row


async def run_before(connection: Connection, enrolment_id: str, step_id: str) -> Due | None:
    """An active run that stands before this step, locked."""
    row = await connection.fetchrow(RUN_OF_MESSAGE, enrolment_id, step_id)
    return None if row is None else _due(row)


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
    await connection.execute(FOLD_SETTLED, event.message_id, event.state, event.reason, event.occurred_at)


async def forget(connection: Connection, ids: Sequence[LeadId]) -> None:
    """Delete what a message says of its person."""
    await connection.execute(FORGET, ids)


async def messages_of(
    connection: Connection, ids: Sequence[LeadId], before: tuple[datetime, str], limit: int
) -> list[asyncpg.Record]:
    """A person's messages, the newest first."""
    rows: list[asyncpg.Record] = await connection.fetch(OF_PERSON, ids, *before, limit)
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
    )


def _due(row: asyncpg.Record) -> Due:
    visits: dict[str, Any] = row["visits"]
    return Due(as_run(row), row["step_id"], visits)
