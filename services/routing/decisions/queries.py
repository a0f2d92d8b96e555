"""The statements about what decisions saw. A pool is kept as its members, and each rep's states as they changed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from services.routing.assignments.domain import Case, Pool
from services.routing.decisions.domain import Record
from services.routing.fairness.queries import books_before
from services.routing.reps.calendar import Period
from services.routing.reps.domain import Cap, Rep
from services.routing.reps.schedules import schedule_again
from services.routing.reps.spans import Span
from shared.db import Connection
from shared.ids import AssignmentId

PUT_DECISIONS = """
INSERT INTO decisions (assignment_id, number, pool_hash, previous_owner, previous_at, account_owner, passed_by)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""
PUT_POOLS = "INSERT INTO pools (pool_hash, rep_ids) VALUES ($1, $2) ON CONFLICT DO NOTHING"
PUT_PROFILES = """
INSERT INTO rep_profiles (profile_hash, profile) SELECT * FROM unnest($1::text[], $2::jsonb[]) ON CONFLICT DO NOTHING
RETURNING profile->>'calendar' AS digest
"""
PUT_SCHEDULES = """
INSERT INTO rep_schedules (digest, made_of) SELECT * FROM unnest($1::text[], $2::jsonb[]) ON CONFLICT DO NOTHING
"""
PUT_STATES = """
INSERT INTO rep_states (rep_id, number, profile_hash, open_leads, last_assigned_at, caps)
SELECT told.* FROM unnest($1::text[], $2::bigint[], $3::text[], $4::integer[], $5::timestamptz[], $6::jsonb[])
    AS told (rep_id, number, profile_hash, open_leads, last_assigned_at, caps)
LEFT JOIN LATERAL (
    SELECT profile_hash, open_leads, last_assigned_at, caps FROM rep_states AS known
    WHERE known.rep_id = told.rep_id AND known.number < told.number ORDER BY known.number DESC LIMIT 1
) AS known ON true
WHERE (known.profile_hash, known.open_leads, known.last_assigned_at, known.caps)
    IS DISTINCT FROM (told.profile_hash, told.open_leads, told.last_assigned_at, told.caps)
"""
ONE = """
SELECT number, rep_ids, previous_owner, account_owner, passed_by, previous_at
FROM decisions JOIN pools USING (pool_hash) WHERE assignment_id = $1
"""
STATES = """
SELECT state.open_leads, state.last_assigned_at, state.caps, profile, made_of
FROM unnest($1::text[]) WITH ORDINALITY AS member (rep_id, place)
CROSS JOIN LATERAL (
    SELECT * FROM rep_states WHERE rep_states.rep_id = member.rep_id AND number <= $2 ORDER BY number DESC LIMIT 1
) AS state
JOIN rep_profiles USING (profile_hash)
JOIN rep_schedules ON digest = profile->>'calendar'
ORDER BY place
"""
LAST_BEFORE = """
SELECT number FROM assignments JOIN decisions USING (assignment_id)
WHERE assigned_at < $1 ORDER BY assigned_at DESC LIMIT 1
"""
FORGET_DECISIONS = """
DELETE FROM decisions WHERE assignment_id IN
    (SELECT assignment_id FROM decisions WHERE number <= $1 ORDER BY number LIMIT $2)
"""
# The first decision that is kept looks for the last state up to its own number.
FORGET_STATES = """
WITH kept AS (SELECT min(number) AS first FROM decisions)
DELETE FROM rep_states AS old USING kept WHERE old.number < kept.first AND EXISTS (
    SELECT 1 FROM rep_states AS later
    WHERE later.rep_id = old.rep_id AND later.number > old.number AND later.number <= kept.first
)
"""
FORGET_UNUSED = (
    FORGET_STATES,
    "DELETE FROM pools WHERE NOT EXISTS (SELECT 1 FROM decisions WHERE decisions.pool_hash = pools.pool_hash)",
    """
    DELETE FROM rep_profiles AS unused
    WHERE NOT EXISTS (SELECT 1 FROM rep_states WHERE rep_states.profile_hash = unused.profile_hash)
    """,
    """
    DELETE FROM rep_schedules AS unused
    WHERE NOT EXISTS (SELECT 1 FROM rep_profiles WHERE profile->>'calendar' = unused.digest)
    """,
)
NO_PROFILE = frozenset({"calendar", "schedule", "open_leads", "last_assigned_at", "caps"})
"""What of a rep is kept apart: calendars by what they are made of, and what changes with every lead."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision, what it saw, and those reps who did not stand like this at the one before."""

    number: int
    assignment_id: AssignmentId
    case: Case
    pool: Pool
    changed: tuple[Rep, ...]


async def put(connection: Connection, decisions: Sequence[Seen]) -> None:
    """Keep what decisions saw, in order; the dispatcher is locked."""
    pools = [[rep.rep_id for rep in seen.pool.reps] for seen in decisions]
    hashes = [hashlib.sha256(orjson.dumps(rep_ids)).hexdigest() for rep_ids in pools]
    await connection.executemany(PUT_POOLS, list(dict(zip(hashes, pools, strict=True)).items()))
    await _put_states(connection, [(seen.number, rep) for seen in decisions for rep in seen.changed])
    await connection.executemany(
        PUT_DECISIONS,
        [
            (
                seen.assignment_id,
                seen.number,
                pool_hash,
                seen.case.previous_owner,
                seen.case.previous_at,
                seen.case.account_owner,
                sorted(seen.case.passed_by),
            )
            for seen, pool_hash in zip(decisions, hashes, strict=True)
        ],
    )


async def _put_states(connection: Connection, states: Sequence[tuple[int, Rep]]) -> None:
    profiles = [_profile(rep) for _, rep in states]
    hashes = [hashlib.sha256(orjson.dumps(profile)).hexdigest() for profile in profiles]
    by_hash = dict(zip(hashes, profiles, strict=True))
    new = await connection.fetch(PUT_PROFILES, list(by_hash), list(by_hash.values()))
    schedules = {rep.schedule.digest: rep.schedule for _, rep in states if rep.schedule is not None}
    unseen = [schedules[digest] for digest in sorted({row["digest"] for row in new})]
    if unseen:
        await connection.execute(PUT_SCHEDULES, [one.digest for one in unseen], [one.as_json() for one in unseen])
    await connection.execute(
        PUT_STATES,
        [rep.rep_id for _, rep in states],
        [number for number, _ in states],
        hashes,
        [rep.open_leads for _, rep in states],
        [rep.last_assigned_at for _, rep in states],
        [{cap.of: _cap_as_json(cap) for cap in rep.caps} for _, rep in states],
    )


async def one(connection: Connection, assignment_id: AssignmentId) -> Record | None:
    """What a decision saw; None when it was not kept."""
    row = await connection.fetchrow(ONE, assignment_id)
    if row is None:
        return None
    number, rep_ids, previous_owner, account_owner, passed_by, previous_at = row
    return Record(number, tuple(rep_ids), previous_owner, account_owner, frozenset(passed_by), previous_at)


async def last_before(connection: Connection, at: datetime) -> int | None:
    """The number of the last decision before a time, of those whose sight is kept."""
    number: int | None = await connection.fetchval(LAST_BEFORE, at)
    return number


async def forget_decisions(connection: Connection, number: int, limit: int) -> int:
    """What some of the decisions up to this one saw is dropped. Answers how many."""
    return int((await connection.execute(FORGET_DECISIONS, number, limit)).split()[-1])


async def forget_unused(connection: Connection) -> None:
    """States, profiles and calendars that no decision saw of those that are kept; the dispatcher is locked."""
    for statement in FORGET_UNUSED:
        await connection.execute(statement)


async def pool_before(connection: Connection, record: Record) -> Pool:
    """The reps and the books as a decision found them."""
    rows = await connection.fetch(STATES, list(record.rep_ids), record.number)
    reps = tuple(_rep(row) for row in rows)
    return Pool(reps, await books_before(connection, record.number))


def _profile(rep: Rep) -> dict[str, Any]:
    """A rep without what changes with every lead, and with the calendar by its name."""
    assert rep.schedule is not None  # whoever comes from the database has one
    plain = {one.name: getattr(rep, one.name) for one in fields(Rep) if one.name not in NO_PROFILE}
    return {**plain, "calendar": rep.schedule.digest}


def _rep(row: asyncpg.Record) -> Rep:
    schedule = schedule_again(row["made_of"])
    told = {name: tuple(value) if isinstance(value, list) else value for name, value in row["profile"].items()}
    return Rep(
        **told
        | {
            "calendar": schedule.calendar,
            "schedule": schedule,
            "open_leads": row["open_leads"],
            "last_assigned_at": row["last_assigned_at"],
            "caps": tuple(_cap(of, told) for of, told in row["caps"].items()),
        }
    )


def _cap_as_json(cap: Cap) -> list[Any]:
    return [cap.most, cap.given, cap.period.start.isoformat(), cap.period.end.isoformat()]


def _cap(of: Period, told: list[Any]) -> Cap:
    most, given, start, end = told
    return Cap(of, most, given, Span(datetime.fromisoformat(start), datetime.fromisoformat(end)))
