"""The statements about trainings, models, and what deals and leads are known by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from services.scoring.predictive.domain import Seen
from shared.db import Connection
from shared.identity import Member
from shared.ids import LeadId

LEASE = timedelta(minutes=5)
"""How long a worker may be silent before another one takes its training."""

QUEUE = "INSERT INTO trainings (training_id, author, state) VALUES ($1, $2, 'queued') ON CONFLICT DO NOTHING"
WAITING = "SELECT training_id FROM trainings WHERE state IN ('queued', 'running') ORDER BY asked_at LIMIT 1"
TAKE = """
UPDATE trainings SET
    state = 'running', started_at = coalesce(started_at, clock_timestamp()), alive_at = clock_timestamp()
WHERE training_id = (
    SELECT training_id FROM trainings
    WHERE state = 'queued' OR (state = 'running' AND alive_at < clock_timestamp() - $1::interval)
    ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING training_id, author
"""
KEEP = "UPDATE trainings SET alive_at = clock_timestamp() WHERE training_id = $1 AND state = 'running'"
FINISH = """
UPDATE trainings SET state = $2, reason = $3, version = $4, finished_at = clock_timestamp()
WHERE training_id = $1 AND state = 'running' RETURNING training_id
"""
COLUMNS = "training_id, author, state, reason, version, asked_at, started_at, finished_at"
TRAINING = f"SELECT {COLUMNS} FROM trainings WHERE training_id = $1"
LAST_TRAINING = f"SELECT {COLUMNS} FROM trainings ORDER BY asked_at DESC LIMIT 1"
PUT_MODEL = """
INSERT INTO predictive_models (version, author, deals, won, model, quality)
SELECT coalesce(max(version), 0) + 1, $1::text, $2::integer, $3::integer, $4::json, $5::json FROM predictive_models
RETURNING version
"""
MODEL_COLUMNS = "version, author, trained_at, deals, won, model, quality"
MODEL = f"SELECT {MODEL_COLUMNS} FROM predictive_models WHERE version = $1"
MODELS = f"SELECT {MODEL_COLUMNS} FROM predictive_models WHERE version < $1 ORDER BY version DESC LIMIT $2"
ACTIVATE = "INSERT INTO predictive_activations (version, author, by_hand) VALUES ($1, $2, $3)"
ACTIVE = "SELECT version, by_hand FROM predictive_activations ORDER BY place DESC LIMIT 1"
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('scoring/predictive', 0))"
CLOSED = """
SELECT deal_id, lead_id, status, opened_at, closed_at FROM deals
WHERE status IN ('won', 'lost') AND opened_at IS NOT NULL AND closed_at IS NOT NULL
ORDER BY closed_at DESC, deal_id LIMIT $1
"""
CLOSED_SINCE = (
    "SELECT count(*) FROM deals WHERE status IN ('won', 'lost') AND ($1::timestamptz IS NULL OR closed_at > $1)"
)
SEEN = """
SELECT asked.place, touch.type, coalesce(touch.channel, '') AS channel,
    (touch.occurred_at AT TIME ZONE 'UTC')::date AS day, count(*) AS number
FROM unnest($1::integer[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS asked (place, lead_id, since, until)
JOIN touches AS touch ON touch.lead_id = asked.lead_id AND NOT touch.automated
    AND (asked.since IS NULL OR touch.occurred_at >= asked.since)
    AND (asked.until IS NULL OR touch.occurred_at < asked.until)
GROUP BY 1, 2, 3, 4
"""

# Of each person the newest hand-off before the opportunity; without one, what scoring knew when it became one.
HAND_OFFS = """
WITH RECURSIVE walk AS (
    SELECT DISTINCT person_id AS id, person_id AS here, 0 AS depth
    FROM stage_changes WHERE stage IN ('mql', 'opportunity', 'customer')
    UNION ALL
    SELECT walk.id, alias.into_id, walk.depth + 1
    FROM walk JOIN identity_aliases AS alias ON alias.lead_id = walk.here AND alias.active WHERE walk.depth < 64
), owners AS (
    SELECT DISTINCT ON (id) id, here AS person_id FROM walk ORDER BY id, depth DESC
), changes AS (
    SELECT owners.person_id, change.stage, change.at, change.revision, change.engagement, change.fit, change.total
    FROM stage_changes AS change JOIN owners ON owners.id = change.person_id
    WHERE change.stage IN ('mql', 'opportunity', 'customer')
), opportunities AS (
    SELECT person_id, min(at) AS at FROM changes WHERE stage <> 'mql' GROUP BY person_id
)
SELECT DISTINCT ON (change.person_id) change.engagement, change.fit, change.total, change.at,
    opportunity.person_id IS NOT NULL AS became_opportunity
FROM changes AS change LEFT JOIN opportunities AS opportunity ON opportunity.person_id = change.person_id
WHERE change.at >= $1 AND (opportunity.at IS NULL OR change.at <= opportunity.at)
ORDER BY change.person_id, change.stage <> 'mql', change.at DESC, change.revision DESC
"""
WON_DEALS = "SELECT count(*) FROM deals WHERE status = 'won'"
NEW_LEADS = "SELECT count(*) FROM profiles WHERE captured_at >= $1 AND NOT erased"


class Closed(NamedTuple):
    """A deal that ended."""

    lead_id: LeadId
    won: bool
    opened_at: datetime
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version: what was learnt, from how many deals, and how well its like did."""

    version: int
    author: str
    trained_at: datetime
    deals: int
    won: int
    model: Mapping[str, Any]
    quality: Mapping[str, Any]


async def queue(connection: Connection, training_id: str, author: str) -> str:
    """Ask for a training; answers the id of the one that waits or runs, which may be an earlier one."""
    await connection.execute(LOCK)
    waiting: str | None = await connection.fetchval(WAITING)
    if waiting is None:
        await connection.execute(QUEUE, training_id, author)
    return waiting or training_id


async def take(connection: Connection) -> asyncpg.Record | None:
    """The training that is to be carried out next: one that waits, or whose worker died."""
    return await connection.fetchrow(TAKE, LEASE)


async def keep(connection: Connection, training_id: str) -> None:
    """Somebody is working on it."""
    await connection.execute(KEEP, training_id)


async def finish(
    connection: Connection, training_id: str, state: str, reason: str | None = None, version: int | None = None
) -> bool:
    """Say what became of a training; false if that was said already."""
    return await connection.fetchval(FINISH, training_id, state, reason, version) is not None


async def training(connection: Connection, training_id: str) -> asyncpg.Record | None:
    """A training."""
    return await connection.fetchrow(TRAINING, training_id)


async def last_training(connection: Connection) -> asyncpg.Record | None:
    """The training that was asked for last."""
    return await connection.fetchrow(LAST_TRAINING)


async def take_turn(connection: Connection) -> None:
    """Choose alone: what counts, and what there is to choose from, stays as it is to the end of the transaction."""
    await connection.execute(LOCK)


async def put_model(  # noqa: PLR0913  # what a version is made of
    connection: Connection, author: str, deals: int, won: int, model: Mapping[str, Any], quality: Mapping[str, Any]
) -> int:
    """Store a model as the next version; answers which."""
    await connection.execute(LOCK)
    version: int = await connection.fetchval(PUT_MODEL, author, deals, won, dict(model), dict(quality))
    return version


async def stored(connection: Connection, version: int) -> StoredModel | None:
    """A version."""
    row = await connection.fetchrow(MODEL, version)
    return StoredModel(**row) if row is not None else None


async def versions(connection: Connection, before: int, limit: int) -> list[StoredModel]:
    """Versions before one, the newest first."""
    return [StoredModel(**row) for row in await connection.fetch(MODELS, before, limit)]


async def activate(connection: Connection, version: int | None, author: str, *, by_hand: bool) -> None:
    """This version counts from now; None: none does."""
    await connection.execute(ACTIVATE, version, author, by_hand)


async def active(connection: Connection) -> tuple[int | None, bool]:
    """The version that counts, and whether somebody chose it."""
    row = await connection.fetchrow(ACTIVE)
    return (row["version"], row["by_hand"]) if row is not None else (None, False)


async def closed_deals(connection: Connection, limit: int) -> list[Closed]:
    """Deals that ended, the newest first."""
    rows = await connection.fetch(CLOSED, limit)
    return [Closed(LeadId(row["lead_id"]), row["status"] == "won", row["opened_at"], row["closed_at"]) for row in rows]


async def closed_since(connection: Connection, since: datetime | None) -> int:
    """How many deals ended since then."""
    number: int = await connection.fetchval(CLOSED_SINCE, since)
    return number


async def seen(connection: Connection, spans: Sequence[tuple[Iterable[Member], datetime]]) -> list[list[Seen]]:
    """For each person, by the ids whose facts are theirs, the touches until a moment, in the same order."""
    rows = [
        (place, member.lead_id, member.since, until if member.until is None else min(until, member.until))
        for place, (members, until) in enumerate(spans)
        for member in members
    ]
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [(), (), (), ()]
    found: list[list[Seen]] = [[] for _ in spans]
    for row in await connection.fetch(SEEN, *columns):
        day: date = row["day"]
        found[row["place"]].append(Seen(row["type"], row["channel"], day, row["number"]))
    return found


async def hand_offs(connection: Connection, since: datetime) -> list[asyncpg.Record]:
    """The scores at which leads were handed to sales since then, and whether they became opportunities."""
    return await connection.fetch(HAND_OFFS, since)


async def won_and_new(connection: Connection, since: datetime) -> tuple[int, int]:
    """How many deals were ever won, and how many leads were captured since then."""
    return await connection.fetchval(WON_DEALS), await connection.fetchval(NEW_LEADS, since)
