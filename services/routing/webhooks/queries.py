"""The statements about endpoints, deliveries and tries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.routing.webhooks.domain import MOST_FAILURES, WAS_AWAY, EndpointKind, EndpointState
from shared.db import Connection, one
from shared.ids import LeadId
from shared.webhooks import DeliveryState, Verdict

ADD_ENDPOINT = """
INSERT INTO webhook_endpoints (endpoint_id, url, description, created_at, updated_at, kind)
VALUES ($1, $2, $3, $4, $4, $5)
"""
ENDPOINT_COLUMNS = """
endpoint_id, kind, url, description, state, reason, failures, changed_at, created_at, updated_at,
(SELECT count(*) FROM webhook_deliveries AS one WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting')
    AS waiting,
(SELECT coalesce(jsonb_agg(jsonb_build_object('n', n, 'created_at', created_at) ORDER BY n), '[]')
    FROM webhook_secrets AS one WHERE one.endpoint_id = each.endpoint_id) AS secrets
"""
ENDPOINT = f"SELECT {ENDPOINT_COLUMNS} FROM webhook_endpoints AS each WHERE endpoint_id = $1"
LOCK_ENDPOINT = "SELECT endpoint_id FROM webhook_endpoints WHERE endpoint_id = $1 FOR UPDATE"
ENDPOINTS = f"""
SELECT {ENDPOINT_COLUMNS} FROM webhook_endpoints AS each
WHERE (created_at, endpoint_id) > ($1, $2) ORDER BY created_at, endpoint_id LIMIT $3
"""
CHANGE_ENDPOINT = """
UPDATE webhook_endpoints SET url = coalesce($2, url), description = coalesce($3, description), updated_at = $4
WHERE endpoint_id = $1
"""
SET_STATE = """
UPDATE webhook_endpoints SET state = $2, reason = $3, changed_at = $4,
    failures = CASE WHEN $2 = 'active' THEN 0 ELSE failures END
WHERE endpoint_id = $1
"""
DROP_ENDPOINT = "DELETE FROM webhook_endpoints WHERE endpoint_id = $1"
DROP_SECRETS = "DELETE FROM webhook_secrets WHERE endpoint_id = $1"
DROP_DELIVERIES = "DELETE FROM webhook_deliveries WHERE endpoint_id = $1"
DROP_TRIES = "DELETE FROM webhook_tries WHERE endpoint_id = $1"
ADD_SECRET = """
INSERT INTO webhook_secrets (endpoint_id, n, sealed, created_at)
SELECT $1, coalesce(max(n), 0) + 1, $2, $3 FROM webhook_secrets WHERE endpoint_id = $1 RETURNING n, created_at
"""
SECRETS = "SELECT n, sealed FROM webhook_secrets WHERE endpoint_id = $1 ORDER BY n DESC"
DROP_SECRET = "DELETE FROM webhook_secrets WHERE endpoint_id = $1 AND n = $2"
ENQUEUE = """
INSERT INTO webhook_deliveries
    (endpoint_id, delivery_id, kind, ordering_key, body, sealed, sealed_for, created_at, due_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $8
WHERE EXISTS (SELECT 1 FROM webhook_endpoints WHERE endpoint_id = $1)
    AND NOT EXISTS (SELECT 1 FROM identity_erased WHERE lead_id = ANY($9))
ON CONFLICT (endpoint_id, delivery_id) DO NOTHING
"""
DUE = """
SELECT endpoint_id FROM webhook_endpoints AS each
WHERE state = 'active' AND (rest_until IS NULL OR rest_until <= $1) AND EXISTS (
    SELECT 1 FROM webhook_deliveries AS one
    WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting' AND one.due_at <= $1
)
"""
NEXT_DUE = """
SELECT min(greatest(rest_until, (SELECT min(due_at) FROM webhook_deliveries AS one
    WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting')))
FROM webhook_endpoints AS each
WHERE state = 'active' AND EXISTS (
    SELECT 1 FROM webhook_deliveries AS one WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting'
)
"""
# The first of each key that waits: what was enqueued later with the same key comes after it.
CLAIM = """
WITH free AS (
    SELECT one.delivery_id FROM webhook_deliveries AS one
    WHERE one.endpoint_id = $1 AND one.state = 'waiting' AND one.due_at <= $2 AND NOT EXISTS (
        SELECT 1 FROM webhook_deliveries AS before
        WHERE before.endpoint_id = $1 AND before.ordering_key = one.ordering_key AND before.state = 'waiting'
            AND before.place < one.place
    )
    ORDER BY one.due_at, one.place LIMIT $3 FOR UPDATE OF one SKIP LOCKED
)
UPDATE webhook_deliveries AS each SET claim = $4, due_at = $2 + $5, attempts = attempts + 1
FROM webhook_endpoints AS endpoint, free
WHERE each.endpoint_id = $1 AND each.delivery_id = free.delivery_id AND endpoint.endpoint_id = $1
    AND endpoint.state = 'active' AND (endpoint.rest_until IS NULL OR endpoint.rest_until <= $2)
RETURNING each.endpoint_id, each.delivery_id, endpoint.kind AS endpoint_kind, endpoint.url, each.body, each.sealed,
    each.sealed_for, each.ordering_key, each.attempts
"""
SETTLE = """
UPDATE webhook_deliveries SET state = $4, due_at = $5, said = $6, status = $7, claim = NULL, attempts = attempts - $9,
    settled_at = CASE WHEN $4 = 'waiting' THEN NULL ELSE $8::timestamptz END
WHERE endpoint_id = $1 AND delivery_id = $2 AND claim = $3 AND state = 'waiting'
"""
# What follows one that failed waits until that is tried again, and is not looked at before.
PUT_OFF = """
UPDATE webhook_deliveries SET due_at = $3
WHERE endpoint_id = $1 AND ordering_key = $2 AND state = 'waiting' AND due_at < $3
"""
ADD_TRY = """
INSERT INTO webhook_tries (endpoint_id, delivery_id, n, at, status, said, took_ms)
SELECT $1, $2, coalesce(max(n), 0) + 1, $3, $4, $5, $6 FROM webhook_tries WHERE endpoint_id = $1 AND delivery_id = $2
ON CONFLICT (endpoint_id, delivery_id, n) DO NOTHING
"""
# Why nothing arrives stands with the endpoint, until something does.
COUNT_SUCCESS = """
WITH was AS (SELECT failures FROM webhook_endpoints WHERE endpoint_id = $1 FOR UPDATE)
UPDATE webhook_endpoints SET failures = 0, reason = CASE WHEN state = 'active' THEN NULL ELSE reason END FROM was
WHERE endpoint_id = $1 AND (was.failures <> 0 OR state = 'active' AND reason IS NOT NULL) RETURNING was.failures
"""
REST = """
UPDATE webhook_endpoints SET rest_until = greatest(rest_until, $2),
    reason = CASE WHEN state = 'active' THEN $3 ELSE reason END
WHERE endpoint_id = $1
"""
REST_NO_MORE = "UPDATE webhook_endpoints SET rest_until = NULL WHERE endpoint_id = $1 AND rest_until IS NOT NULL"
COUNT_FAILURE = f"""
UPDATE webhook_endpoints SET failures = failures + 1,
    state = CASE WHEN state = 'active' AND failures + 1 >= {MOST_FAILURES} THEN 'suspended' ELSE state END,
    reason = CASE WHEN state <> 'active' THEN reason WHEN failures + 1 >= {MOST_FAILURES}
        THEN '{MOST_FAILURES} failures in a row, the last: ' || $2::text ELSE $2::text END,
    changed_at = CASE WHEN state = 'active' AND failures + 1 >= {MOST_FAILURES} THEN $3 ELSE changed_at END
WHERE endpoint_id = $1 RETURNING state = 'suspended' AND failures = {MOST_FAILURES} AS suspended
"""
DELIVERY_COLUMNS = "endpoint_id, delivery_id, kind, ordering_key, state, attempts, due_at, status, said, created_at"
DELIVERIES = f"""
SELECT {DELIVERY_COLUMNS}, settled_at, place FROM webhook_deliveries
WHERE endpoint_id = $1 AND place < $2 AND ($3::text IS NULL OR state = $3) AND ($4::text IS NULL OR ordering_key = $4)
ORDER BY place DESC LIMIT $5
"""
DELIVERY = f"""
SELECT {DELIVERY_COLUMNS}, settled_at, body, sealed, sealed_for FROM webhook_deliveries
WHERE endpoint_id = $1 AND delivery_id = $2
"""
TRIES_OF = """
SELECT n, at, status, said, took_ms FROM webhook_tries WHERE endpoint_id = $1 AND delivery_id = $2 ORDER BY n
"""
AGAIN = """
UPDATE webhook_deliveries SET state = 'waiting', due_at = $3, attempts = 0, settled_at = NULL, claim = NULL
WHERE endpoint_id = $1 AND delivery_id = $2
"""
FORGET_TRIES_OF = "DELETE FROM webhook_tries WHERE endpoint_id = $1 AND delivery_id = $2"
# What somebody is trying just now is left to them.
FREE_NOW = """
SELECT delivery_id FROM webhook_deliveries
WHERE endpoint_id = $1 AND state = 'waiting' AND claim IS NULL FOR UPDATE SKIP LOCKED
"""
TRY_NOW = f"""
UPDATE webhook_deliveries SET due_at = least(due_at, $2) WHERE endpoint_id = $1 AND delivery_id IN ({FREE_NOW})
"""
# With all its tries before it: while nobody was there, those it had were for nothing.
TRY_ANEW = f"""
UPDATE webhook_deliveries SET due_at = least(due_at, $2), attempts = 0
WHERE endpoint_id = $1 AND delivery_id IN ({FREE_NOW})
"""
GIVE_UP_OLD = """
UPDATE webhook_deliveries SET state = 'dropped', settled_at = $1, said = 'could not be delivered in 7 days'
WHERE state = 'waiting' AND created_at < $2
"""
FORGET_SETTLED = """
WITH gone AS (
    DELETE FROM webhook_deliveries WHERE settled_at < $1 RETURNING endpoint_id, delivery_id
)
DELETE FROM webhook_tries AS one USING gone
WHERE one.endpoint_id = gone.endpoint_id AND one.delivery_id = gone.delivery_id
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours to try; `attempts` counts this one."""

    endpoint_id: str
    delivery_id: str
    endpoint_kind: EndpointKind
    url: str
    body: bytes | None
    sealed: str | None
    sealed_for: LeadId | None
    ordering_key: str | None
    attempts: int


async def add_endpoint(  # noqa: PLR0913  # a row
    connection: Connection, endpoint_id: str, url: str, description: str, at: datetime, kind: EndpointKind = "webhook"
) -> None:
    """A new endpoint."""
    await connection.execute(ADD_ENDPOINT, endpoint_id, url, description, at, kind)


async def endpoint(connection: Connection, endpoint_id: str, *, locked: bool = False) -> asyncpg.Record | None:
    """An endpoint with its health; `locked` until the transaction ends."""
    if locked:
        await connection.execute(LOCK_ENDPOINT, endpoint_id)
    return await connection.fetchrow(ENDPOINT, endpoint_id)


async def endpoints(connection: Connection, after: tuple[datetime, str], limit: int) -> list[asyncpg.Record]:
    """Endpoints after a place in the list, the oldest first."""
    return await connection.fetch(ENDPOINTS, *after, limit)


async def change_endpoint(
    connection: Connection, endpoint_id: str, url: str | None, description: str | None, at: datetime
) -> None:
    """Change what is not None."""
    await connection.execute(CHANGE_ENDPOINT, endpoint_id, url, description, at)


async def set_state(
    connection: Connection, endpoint_id: str, state: EndpointState, reason: str | None, at: datetime
) -> None:
    """Suspend, end or resume an endpoint; resumed it begins healthy, and what waits is tried at once."""
    await connection.execute(SET_STATE, endpoint_id, state, reason, at)
    if state == "active":
        await try_now(connection, endpoint_id, at)


async def try_now(connection: Connection, endpoint_id: str, at: datetime) -> None:
    """Try at once what waits for an endpoint, as if it had not been tried, and whatever the endpoint asked for."""
    await connection.execute(REST_NO_MORE, endpoint_id)
    await connection.execute(TRY_ANEW, endpoint_id, at)


async def drop_endpoint(connection: Connection, endpoint_id: str) -> None:
    """Forget an endpoint with its secrets and deliveries."""
    for statement in (DROP_TRIES, DROP_DELIVERIES, DROP_SECRETS, DROP_ENDPOINT):
        await connection.execute(statement, endpoint_id)


async def add_secret(connection: Connection, endpoint_id: str, sealed: str, at: datetime) -> asyncpg.Record:
    """Another live secret; the endpoint is locked."""
    return await one(connection, ADD_SECRET, endpoint_id, sealed, at)


async def live_secrets(connection: Connection, endpoint_id: str) -> list[asyncpg.Record]:
    """Number and block of each live secret, the newest first."""
    return await connection.fetch(SECRETS, endpoint_id)


async def drop_secret(connection: Connection, endpoint_id: str, n: int) -> bool:
    """Retire a secret; False when there is none of this number."""
    return (await connection.execute(DROP_SECRET, endpoint_id, n)) == "DELETE 1"


async def enqueue(connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Deliveries in order; left out are those known already, of endpoints that are gone, and for who is erased."""
    await connection.executemany(ENQUEUE, rows)


async def due_endpoints(connection: Connection, at: datetime) -> list[str]:
    """Active endpoints that something is due for, without those that rest."""
    return [row["endpoint_id"] for row in await connection.fetch(DUE, at)]


async def next_due(connection: Connection) -> datetime | None:
    """When something is due next for an active endpoint."""
    due: datetime | None = await connection.fetchval(NEXT_DUE)
    return due


async def claim(  # noqa: PLR0913  # what a claim is made of
    connection: Connection, endpoint_id: str, at: datetime, limit: int, token: str, lasting: timedelta
) -> list[Claimed]:
    """Deliveries to try now, one of each key at most; a claim that falls silent lapses and is tried again."""
    rows = await connection.fetch(CLAIM, endpoint_id, at, limit, token, lasting)
    return [Claimed(**row) for row in rows]


async def record(  # noqa: PLR0913  # what a try leaves
    connection: Connection, claimed: Claimed, token: str, verdict: Verdict, at: datetime, took_ms: int
) -> bool:
    """What a try came to. Answers whether the endpoint was suspended by it."""
    place = (claimed.endpoint_id, claimed.delivery_id)
    due_at = at + verdict.pause
    told = (verdict.state, due_at, verdict.said, verdict.status, at)
    await connection.execute(SETTLE, *place, token, *told, int(not verdict.counts))
    await connection.execute(ADD_TRY, *place, at, verdict.status, verdict.said, took_ms)
    if verdict.state == "waiting":
        await connection.execute(PUT_OFF, claimed.endpoint_id, claimed.ordering_key, due_at)
    if verdict.is_success:
        if (await connection.fetchval(COUNT_SUCCESS, claimed.endpoint_id) or 0) >= WAS_AWAY:
            await connection.execute(TRY_NOW, claimed.endpoint_id, at)
        return False
    if verdict.rest is not None:
        if verdict.rest:
            until = at + verdict.rest
            why = f"{verdict.said}; goes on at {until:%Y-%m-%d %H:%M:%S} UTC"
            await connection.execute(REST, claimed.endpoint_id, until, why)
        return False
    if verdict.gone:
        await connection.execute(SET_STATE, claimed.endpoint_id, "ended", verdict.said, at)
    return bool(await connection.fetchval(COUNT_FAILURE, claimed.endpoint_id, verdict.said, at))


async def drop(connection: Connection, claimed: Claimed, token: str, why: str, at: datetime) -> None:
    """Give up on a delivery without having tried it."""
    await connection.execute(SETTLE, claimed.endpoint_id, claimed.delivery_id, token, "dropped", at, why, None, at, 0)


async def deliveries(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    endpoint_id: str,
    before: int,
    state: DeliveryState | None,
    ordering_key: str | None,
    limit: int,
) -> list[asyncpg.Record]:
    """Deliveries before a place in the list, the newest first."""
    return await connection.fetch(DELIVERIES, endpoint_id, before, state, ordering_key, limit)


async def delivery(connection: Connection, endpoint_id: str, delivery_id: str) -> asyncpg.Record | None:
    """One delivery with its body as it is kept."""
    return await connection.fetchrow(DELIVERY, endpoint_id, delivery_id)


async def tries(connection: Connection, endpoint_id: str, delivery_id: str) -> list[asyncpg.Record]:
    """Each try of a delivery."""
    return await connection.fetch(TRIES_OF, endpoint_id, delivery_id)


async def again(connection: Connection, endpoint_id: str, delivery_id: str, at: datetime) -> None:
    """Deliver anew, from the first try, whatever the endpoint asked for."""
    await connection.execute(REST_NO_MORE, endpoint_id)
    await connection.execute(FORGET_TRIES_OF, endpoint_id, delivery_id)
    await connection.execute(AGAIN, endpoint_id, delivery_id, at)


async def clean_up(connection: Connection, at: datetime, kept: timedelta) -> None:
    """Give up on what waited too long, and forget what was settled as long ago."""
    await connection.execute(GIVE_UP_OLD, at, at - kept)
    await connection.execute(FORGET_SETTLED, at - kept)
