"""Leads that wait for a rep or for their profile, and the statements about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg

from shared.db import Connection
from shared.ids import EventId, LeadId, RepId

Why = Literal["nobody", "passed_by", "profile", "claim"]
HOLD_COLUMNS = """
person_id, lead_id, cause_id, entry_id, reason, trace, rules_version, awaits, since, retry_at, attempts, why, queue,
claimants
"""
PUT_HOLD = """
INSERT INTO holds AS known (
    person_id, lead_id, cause_id, entry_id, reason, trace, rules_version, awaits, since, retry_at, why, queue, claimants
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (person_id) DO UPDATE
SET lead_id = excluded.lead_id, cause_id = excluded.cause_id, entry_id = excluded.entry_id, reason = excluded.reason,
    trace = excluded.trace, rules_version = excluded.rules_version, awaits = excluded.awaits,
    retry_at = excluded.retry_at, why = excluded.why, queue = excluded.queue, claimants = excluded.claimants,
    attempts = known.attempts + 1
"""
DROP_HOLDS = "DELETE FROM holds WHERE person_id = ANY($1)"
MOVE_HOLD = "UPDATE holds SET person_id = $2 WHERE person_id = $1"
# What is open to be claimed waits for its time, and not for another rep.
RETRY_ALL = """
UPDATE holds SET retry_at = $1 WHERE awaits IS NULL AND claimants IS NULL AND (retry_at IS NULL OR retry_at > $1)
"""
RETRY_SOME = """
UPDATE holds SET retry_at = $2
WHERE person_id = ANY($1) AND awaits IS NULL AND claimants IS NULL AND (retry_at IS NULL OR retry_at > $2)
"""
WAITS_UNDER_OTHER_RULES = """
SELECT 1 FROM holds
WHERE rules_version <> $1 AND awaits IS NULL AND claimants IS NULL AND (retry_at IS NULL OR retry_at > $2) LIMIT 1
"""
RETRY_UNDER_OTHER_RULES = """
UPDATE holds SET retry_at = $2
WHERE rules_version <> $1 AND awaits IS NULL AND claimants IS NULL AND (retry_at IS NULL OR retry_at > $2)
"""
# Leads whose profile, and the account that it names, arrived while they were being held: whoever folded it did not see
# the hold yet.
IS_HERE = """
profiles.lead_id = holds.person_id AND profiles.revision >= holds.awaits AND retry_at > $1 AND (
    profiles.fields->>'account_id' IS NULL
    OR EXISTS (SELECT 1 FROM accounts WHERE account_id = profiles.fields->>'account_id')
)
"""
ARRIVED = f"SELECT 1 FROM holds JOIN profiles ON {IS_HERE} LIMIT 1"
RETRY_ARRIVED = f"UPDATE holds SET retry_at = $1 FROM profiles WHERE {IS_HERE}"
HOLDS_DUE = f"""
SELECT {HOLD_COLUMNS} FROM holds WHERE retry_at <= $1 ORDER BY retry_at, since LIMIT $2 FOR UPDATE SKIP LOCKED
"""
NEXT_RETRY = "SELECT min(retry_at) FROM holds"
HOLDS_OF = f"SELECT {HOLD_COLUMNS} FROM holds WHERE person_id = ANY($1) ORDER BY since, person_id"
CLAIMABLE = f"""
SELECT {HOLD_COLUMNS} FROM holds
WHERE queue = $1 AND claimants IS NOT NULL AND ($2::text IS NULL OR $2 = ANY(claimants))
    AND (since, person_id) > ($3, $4)
ORDER BY since, person_id LIMIT $5
"""
ALL_HOLDS = f"""
SELECT {HOLD_COLUMNS} FROM holds
WHERE (since, person_id) > ($1, $2) AND ($3::text[] IS NULL OR person_id = ANY($3))
    AND ($4::text IS NULL OR why = $4) AND ($5::text IS NULL OR reason = $5)
ORDER BY since, person_id LIMIT $6
"""
LOCK_HOLD = f"SELECT {HOLD_COLUMNS} FROM holds WHERE person_id = $1 FOR UPDATE"
RELEASE = """
UPDATE holds SET retry_at = $1, awaits = NULL
WHERE ($2::text IS NULL OR why = $2) AND ($3::text IS NULL OR reason = $3) AND (claimants IS NULL OR $2 = 'claim')
"""
REASONS = "SELECT why, reason, count(*) AS leads FROM holds GROUP BY why, reason ORDER BY leads DESC, reason LIMIT 200"


@dataclass(frozen=True, slots=True)
class Hold:
    """A lead that waits for a rep, or (`awaits`) for a revision of its profile, or to be claimed by `claimants`.

    `why` is the kind of its reason.
    """

    person_id: LeadId
    lead_id: LeadId
    cause_id: EventId
    entry_id: EventId
    reason: str
    trace: Sequence[Mapping[str, Any]]
    rules_version: int
    awaits: int | None
    since: datetime
    retry_at: datetime | None
    attempts: int = 1
    why: Why = "nobody"
    queue: str | None = None
    claimants: Sequence[RepId] | None = None


async def put(connection: Connection, holds: Sequence[Hold]) -> None:
    """Leads that wait; one that waited already goes on waiting, for what is known now."""
    rows = [
        (
            hold.person_id,
            hold.lead_id,
            hold.cause_id,
            hold.entry_id,
            hold.reason,
            list(hold.trace),
            hold.rules_version,
            hold.awaits,
            hold.since,
            hold.retry_at,
            hold.why,
            hold.queue,
            None if hold.claimants is None else list(hold.claimants),
        )
        for hold in holds
    ]
    await connection.executemany(PUT_HOLD, rows)


async def drop(connection: Connection, person_ids: Sequence[LeadId]) -> None:
    """These wait no more."""
    await connection.execute(DROP_HOLDS, person_ids)


async def move(connection: Connection, person_id: LeadId, into: LeadId) -> None:
    """The person who waits is another one now."""
    await connection.execute(MOVE_HOLD, person_id, into)


async def retry_all(connection: Connection, at: datetime) -> None:
    """Reps changed: every lead that waits for one is tried again."""
    await connection.execute(RETRY_ALL, at)


async def retry_under_other_rules(connection: Connection, rules_version: int, at: datetime) -> None:
    """Other rules became active: every lead that waits since earlier ones is tried again."""
    await connection.execute(RETRY_UNDER_OTHER_RULES, rules_version, at)


async def retry(connection: Connection, person_ids: Sequence[LeadId], at: datetime) -> None:
    """Something about these persons changed: those that wait for a rep are looked at again."""
    await connection.execute(RETRY_SOME, person_ids, at)


async def waits_under_other_rules(connection: Connection, rules_version: int, at: datetime) -> bool:
    """Whether any lead waits since rules that do not count any more."""
    return await connection.fetchval(WAITS_UNDER_OTHER_RULES, rules_version, at) is not None


async def arrived(connection: Connection, at: datetime) -> bool:
    """Whether the profile of any lead that waits for one is here."""
    return await connection.fetchval(ARRIVED, at) is not None


async def retry_arrived(connection: Connection, at: datetime) -> None:
    """Leads whose profile is here wait for it no longer."""
    await connection.execute(RETRY_ARRIVED, at)


async def due(connection: Connection, at: datetime, limit: int) -> list[Hold]:
    """Leads to be tried again, locked."""
    return [Hold(**row) for row in await connection.fetch(HOLDS_DUE, at, limit)]


async def next_retry(connection: Connection) -> datetime | None:
    """When the next lead is to be tried again."""
    due: datetime | None = await connection.fetchval(NEXT_RETRY)
    return due


async def of_persons(connection: Connection, person_ids: Sequence[LeadId]) -> list[Hold]:
    """Those of these persons who wait."""
    return [Hold(**row) for row in await connection.fetch(HOLDS_OF, person_ids)]


async def locked(connection: Connection, person_id: LeadId) -> Hold | None:
    """The hold of a person, if they wait; nobody else lets them go meanwhile."""
    row = await connection.fetchrow(LOCK_HOLD, person_id)
    return None if row is None else Hold(**row)


async def release(connection: Connection, at: datetime, why: Why | None, reason: str | None) -> int:
    """Those that wait for this reason are tried again at once, with what is known. Answers how many."""
    return int((await connection.execute(RELEASE, at, why, reason)).split()[-1])


async def reasons(connection: Connection) -> list[asyncpg.Record]:
    """For what leads wait, and how many."""
    return await connection.fetch(REASONS)


async def listed(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    after: tuple[datetime, str],
    ids: Sequence[LeadId] | None,
    why: Why | None,
    reason: str | None,
    limit: int,
) -> list[Hold]:
    """Leads that wait, after a place in the list, the longest first."""
    return [Hold(**row) for row in await connection.fetch(ALL_HOLDS, *after, ids, why, reason, limit)]


async def claimable(
    connection: Connection, queue: str, rep_id: str | None, after: tuple[datetime, str], limit: int
) -> list[Hold]:
    """Leads open to be claimed in a queue, perhaps by one rep, after a place in the list."""
    return [Hold(**row) for row in await connection.fetch(CLAIMABLE, queue, rep_id, *after, limit)]
