"""The statements about broadcasts, whom they mean, and how far they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.nurture.broadcasts.document import STEP, BroadcastDocument
from services.nurture.broadcasts.domain import STOPPED, Pace, State, Turn, cause_of
from services.nurture.enrolments.domain import Run
from shared.db import Connection, one
from shared.ids import LeadId, SequenceId

BROADCAST = """broadcast_id, document, version, state, reason, author, created_at, send_at, started_at, listed_to,
    listed_at, people, entered, free_from, finished_at"""
ADD = (
    f"INSERT INTO broadcasts (broadcast_id, document, state, author) VALUES ($1, $2, 'draft', $3) RETURNING {BROADCAST}"
)
GET = f"SELECT {BROADCAST} FROM broadcasts WHERE broadcast_id = $1"
LOCK = f"{GET} FOR UPDATE"
NEWEST = f"""
SELECT {BROADCAST} FROM broadcasts
WHERE ($1::text IS NULL OR state = $1) AND ($2::timestamptz IS NULL OR (created_at, broadcast_id) < ($2, $3))
ORDER BY created_at DESC, broadcast_id DESC LIMIT $4
"""
CHANGE = f"UPDATE broadcasts SET document = $2 WHERE broadcast_id = $1 RETURNING {BROADCAST}"
SET_STATE = f"""
UPDATE broadcasts SET state = $2, reason = $3,
    finished_at = CASE WHEN $2 = 'cancelled' AND started_at IS NULL THEN clock_timestamp() ELSE finished_at END
WHERE broadcast_id = $1 RETURNING {BROADCAST}
"""
START = f"""
UPDATE broadcasts SET state = 'running', version = $2, send_at = $3, started_at = clock_timestamp()
WHERE broadcast_id = $1 RETURNING {BROADCAST}
"""
GO_ON = f"""
UPDATE broadcasts SET state = 'running', reason = NULL, free_from = NULL,
    send_at = CASE WHEN send_at > clock_timestamp() THEN send_at END
WHERE broadcast_id = $1 RETURNING {BROADCAST}
"""
TAKE_WORD = "SELECT pg_advisory_xact_lock(1853191, hashtext($1))"
RELEASE = """
UPDATE enrolments SET due_at = clock_timestamp()
WHERE sequence_id = $1 AND active AND hold = $2
"""
# Also those who wait for a time of day.
ALL_DUE = """
UPDATE enrolments SET due_at = clock_timestamp(), step_id = $2, waits_at = NULL, waiting_since = NULL
WHERE sequence_id = $1 AND active AND (due_at > clock_timestamp() OR step_id <> $2)
"""
TO_DO = """
SELECT broadcast_id FROM broadcasts
WHERE state IN ('running', 'cancelled') AND finished_at IS NULL
  AND (state = 'cancelled' OR send_at IS NULL OR send_at <= clock_timestamp())
ORDER BY created_at, broadcast_id
"""
LOCK_TO_DO = f"{GET} AND state IN ('running', 'cancelled') AND finished_at IS NULL FOR UPDATE SKIP LOCKED"
IN_SEGMENT = """
SELECT lead_id FROM segments WHERE segment_id = $1 AND member AND lead_id > $2 ORDER BY lead_id LIMIT $3
"""
WITH_PROFILE = "SELECT lead_id FROM profiles WHERE lead_id > $1 ORDER BY lead_id LIMIT $2"
ADD_MEMBERS = """
INSERT INTO broadcast_members (broadcast_id, lead_id) SELECT $1, lead_id FROM unnest($2::text[]) AS lead_id
ORDER BY lead_id ON CONFLICT DO NOTHING RETURNING lead_id
"""
LISTED = """
UPDATE broadcasts SET listed_to = $2, people = people + $3, listed_at = CASE WHEN $4 THEN clock_timestamp() END
WHERE broadcast_id = $1
"""
BEFORE_SENDER = """
SELECT count(*) FROM (
    SELECT FROM enrolments WHERE sequence_id = $1 AND active
      AND due_at < clock_timestamp() + interval '15 minutes' LIMIT $2
) AS soon
"""
ANY_ACTIVE = """
SELECT EXISTS (SELECT FROM enrolments WHERE sequence_id = $1 AND active)
"""
GIVE_TURNS = """
WITH chosen AS (
    SELECT lead_id, row_number() OVER (ORDER BY lead_id) - 1 AS place FROM (
        SELECT lead_id FROM broadcast_members WHERE broadcast_id = $1 AND turn_at IS NULL ORDER BY lead_id LIMIT $2
    ) AS waiting
)
UPDATE broadcast_members AS member SET turn_at = $3::timestamptz + chosen.place * $4::interval FROM chosen
WHERE member.broadcast_id = $1 AND member.lead_id = chosen.lead_id RETURNING member.lead_id, member.turn_at
"""
ENTER = """
INSERT INTO enrolments
    (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, step_id, started_at, due_at)
SELECT enrolment_id, $1, $2, lead_id, 1, cause, $3, $4, $5, due_at
FROM unnest($6::text[], $7::text[], $8::text[], $9::timestamptz[]) AS given (enrolment_id, lead_id, cause, due_at)
ON CONFLICT DO NOTHING RETURNING enrolment_id
"""
ENTERED = "UPDATE broadcasts SET entered = entered + $2, free_from = $3 WHERE broadcast_id = $1"
DROP_MEMBERS = """
DELETE FROM broadcast_members WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM broadcast_members WHERE broadcast_id = $1 LIMIT 10000
))
"""
DROP_ADDRESSES = """
DELETE FROM broadcast_addresses WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM broadcast_addresses WHERE broadcast_id = $1 LIMIT 10000
))
"""
FINISH = """
UPDATE broadcasts SET finished_at = clock_timestamp(), state = CASE state WHEN 'running' THEN 'done' ELSE state END
WHERE broadcast_id = $1
"""
DROP_SHARES = "DELETE FROM domain_minutes WHERE starts_with(domain, $1 || '/')"
FORGET = """
WITH gone AS (DELETE FROM broadcast_members WHERE lead_id = ANY($1))
DELETE FROM broadcast_addresses WHERE lead_id = ANY($1)
"""
ACTIVE = """
SELECT count(*) FROM enrolments WHERE sequence_id = $1 AND active
"""
STATES = """
SELECT state, count(*) AS messages,
    count(*) FILTER (WHERE claimed_at > clock_timestamp() - interval '1 minute') AS lately
FROM messages WHERE sequence_id = $1 AND starts_with(sequence_id, 'broadcast-') GROUP BY state
"""
REASONS = """
SELECT state, reason, count(*) AS messages FROM messages
WHERE sequence_id = $1 AND starts_with(sequence_id, 'broadcast-') AND reason IS NOT NULL
  AND state NOT IN ('sent', 'delivered')
GROUP BY state, reason ORDER BY count(*) DESC, state, reason LIMIT 1000
"""
RESPONSES = """
SELECT kind, count(DISTINCT message_id) AS messages FROM responses JOIN messages USING (message_id)
WHERE sequence_id = $1 AND starts_with(sequence_id, 'broadcast-') AND automated_reason IS NULL AND kind IS NOT NULL
GROUP BY kind
"""
FIRST_CLAIM = "SELECT min(claimed_at) FROM messages WHERE sequence_id = $1 AND starts_with(sequence_id, 'broadcast-')"


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A broadcast as it stands. `listed_to` is how far its people are known, `free_from` the first turn not given."""

    broadcast_id: SequenceId
    document: BroadcastDocument
    version: int | None
    state: State
    reason: str | None
    author: str
    created_at: datetime
    send_at: datetime | None
    started_at: datetime | None
    listed_to: str | None
    listed_at: datetime | None
    people: int
    entered: int
    free_from: datetime | None
    finished_at: datetime | None


async def add(connection: Connection, broadcast_id: SequenceId, document: BroadcastDocument, author: str) -> Broadcast:
    """Keep a draft."""
    return _broadcast(await one(connection, ADD, broadcast_id, document.as_json(), author))


async def broadcast_of(connection: Connection, broadcast_id: str, *, lock: bool = False) -> Broadcast | None:
    """A broadcast, if there is one; locked against its worker and against another change."""
    row = await connection.fetchrow(LOCK if lock else GET, broadcast_id)
    return None if row is None else _broadcast(row)


async def newest(
    connection: Connection, state: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[Broadcast]:
    """Broadcasts, the newest first, after a place in that list."""
    at, broadcast_id = after or (None, None)
    return [_broadcast(row) for row in await connection.fetch(NEWEST, state, at, broadcast_id, limit)]


async def change(connection: Connection, broadcast_id: SequenceId, document: BroadcastDocument) -> Broadcast:
    """Replace what a draft says."""
    return _broadcast(await one(connection, CHANGE, broadcast_id, document.as_json()))


async def start(connection: Connection, broadcast_id: SequenceId, version: int, send_at: datetime | None) -> Broadcast:
    """From now on, or from then, it is carried out."""
    return _broadcast(await one(connection, START, broadcast_id, version, send_at))


async def set_state(connection: Connection, broadcast_id: SequenceId, state: State, reason: str | None) -> Broadcast:
    """Stop or cancel: none of its messages is claimed after the commit. Those being claimed are waited for."""
    await connection.execute(TAKE_WORD, broadcast_id)
    return _broadcast(await one(connection, SET_STATE, broadcast_id, state, reason))


async def hurry(connection: Connection, broadcast_id: SequenceId) -> None:
    """Make all that waits due: it ends when it is looked at."""
    await connection.execute(ALL_DUE, broadcast_id, STEP)


async def go_on(connection: Connection, broadcast_id: SequenceId) -> Broadcast:
    """Continue: what was held by the stop is due."""
    await connection.execute(RELEASE, broadcast_id, STOPPED)
    return _broadcast(await one(connection, GO_ON, broadcast_id))


async def to_do(connection: Connection) -> list[SequenceId]:
    """Broadcasts that something is to be done about, the oldest first."""
    return [SequenceId(row["broadcast_id"]) for row in await connection.fetch(TO_DO)]


async def lock_to_do(connection: Connection, broadcast_id: SequenceId) -> Broadcast | None:
    """The broadcast, ours alone; None when another has it or nothing is to be done any more."""
    row = await connection.fetchrow(LOCK_TO_DO, broadcast_id)
    return None if row is None else _broadcast(row)


async def in_segment(connection: Connection, segment: str, after: str, limit: int) -> list[LeadId]:
    """Ids in a segment, in their order."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(IN_SEGMENT, segment, after, limit)]


async def with_profile(connection: Connection, after: str, limit: int) -> list[LeadId]:
    """Ids of which a profile is known, in their order."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(WITH_PROFILE, after, limit)]


async def add_members(connection: Connection, list_id: str, persons: Sequence[LeadId]) -> list[LeadId]:
    """Put people on a list; answers those who were not on it."""
    return [LeadId(row["lead_id"]) for row in await connection.fetch(ADD_MEMBERS, list_id, persons)]


async def listed(connection: Connection, broadcast_id: SequenceId, to: str, people: int, *, all_of_them: bool) -> None:
    """Note how far the people of a broadcast are listed."""
    await connection.execute(LISTED, broadcast_id, to, people, all_of_them)


async def before_the_sender(connection: Connection, broadcast_id: SequenceId, most: int) -> int:
    """How many are due now or soon; counts no further than `most`."""
    return int(await connection.fetchval(BEFORE_SENDER, broadcast_id, most))


async def any_active(connection: Connection, broadcast_id: SequenceId) -> bool:
    """Whether any of its people is under way."""
    return bool(await connection.fetchval(ANY_ACTIVE, broadcast_id))


async def give_turns(connection: Connection, broadcast_id: SequenceId, pace: Pace) -> list[Turn]:
    """Give those who wait their turns."""
    rows = await connection.fetch(GIVE_TURNS, broadcast_id, pace.count, pace.first, pace.interval)
    return [Turn(LeadId(row["lead_id"]), row["turn_at"]) for row in rows]


async def enter(connection: Connection, step_id: str, runs: Sequence[tuple[Run, datetime]]) -> set[str]:
    """Begin runs at a step, each due then; answers the ids of those that had not begun before."""
    first = runs[0][0]
    rows = await connection.fetch(
        ENTER,
        first.sequence_id,
        first.version,
        first.triggered_at,
        step_id,
        first.started_at,
        [run.enrolment_id for run, _ in runs],
        [run.lead_id for run, _ in runs],
        [cause_of(run) for run, _ in runs],
        [due_at for _, due_at in runs],
    )
    return {row["enrolment_id"] for row in rows}


async def entered(connection: Connection, broadcast_id: SequenceId, people: int, free_from: datetime | None) -> None:
    """Note how many more have come to the sender, and from when on turns are left."""
    await connection.execute(ENTERED, broadcast_id, people, free_from)


async def drop_list(connection: Connection, list_id: str) -> bool:
    """Delete a piece of a list that has served; False when nothing was left."""
    gone = [await connection.execute(statement, list_id) for statement in (DROP_MEMBERS, DROP_ADDRESSES)]
    return any(int(word.rpartition(" ")[2]) for word in gone)


async def finish(connection: Connection, broadcast_id: SequenceId) -> None:
    """Nothing is to be done any more."""
    await connection.execute(DROP_SHARES, broadcast_id)
    await connection.execute(FINISH, broadcast_id)


async def forget(connection: Connection, lead_ids: Sequence[LeadId]) -> None:
    """Take erased people from all lists."""
    await connection.execute(FORGET, lead_ids)


async def active(connection: Connection, broadcast_id: SequenceId) -> int:
    """How many of its people are under way."""
    return int(await connection.fetchval(ACTIVE, broadcast_id))


async def states(connection: Connection, broadcast_id: SequenceId) -> dict[str, tuple[int, int]]:
    """Its messages by state, and how many of each were claimed in the last minute."""
    rows = await connection.fetch(STATES, broadcast_id)
    return {row["state"]: (row["messages"], row["lately"]) for row in rows}


async def reasons(connection: Connection, broadcast_id: SequenceId) -> list[tuple[str, str, int]]:
    """Why its messages stand as they do: state, reason, how many; the most frequent first."""
    return [(row["state"], row["reason"], row["messages"]) for row in await connection.fetch(REASONS, broadcast_id)]


async def responses(connection: Connection, broadcast_id: SequenceId) -> dict[str, int]:
    """How many of its messages people responded to, by kind."""
    return {row["kind"]: row["messages"] for row in await connection.fetch(RESPONSES, broadcast_id)}


async def first_claim(connection: Connection, broadcast_id: SequenceId) -> datetime | None:
    """When its first message was claimed."""
    at: datetime | None = await connection.fetchval(FIRST_CLAIM, broadcast_id)
    return at


def _broadcast(row: asyncpg.Record) -> Broadcast:
    return Broadcast(**{**dict(row), "document": BroadcastDocument.model_validate(row["document"])})
