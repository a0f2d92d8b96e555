"""The statements about subscriptions, and how far each has read."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg

from services.routing.subscriptions.domain import Subscription, checked_filter
from shared.db import Connection

COLUMNS = """
subscription_id, each.endpoint_id, name, types, filter, personal, paused, since, run, author, each.created_at,
each.updated_at,
(SELECT coalesce(jsonb_object_agg(topic || '/' || partition, next_offset), '{}') FROM subscription_places AS place
    WHERE place.subscription_id = each.subscription_id) AS places
"""
ADD = """
INSERT INTO subscriptions
    (subscription_id, endpoint_id, name, types, filter, personal, since, run, author, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9, $9)
"""
ONE = f"SELECT {COLUMNS} FROM subscriptions AS each WHERE subscription_id = $1"
LOCK = "SELECT 1 FROM subscriptions WHERE subscription_id = $1 FOR UPDATE"
LIST = f"""
SELECT {COLUMNS} FROM subscriptions AS each
WHERE (created_at, subscription_id) > ($1, $2) ORDER BY created_at, subscription_id LIMIT $3
"""
CHANGE = """
UPDATE subscriptions SET name = $2, types = $3, filter = $4, personal = $5, paused = $6, updated_at = $7
WHERE subscription_id = $1
"""
BEGIN_ANEW = "UPDATE subscriptions SET since = $2, run = run + $3, updated_at = $4 WHERE subscription_id = $1"
FORGET_PLACES = "DELETE FROM subscription_places WHERE subscription_id = $1"
DROP = "DELETE FROM subscriptions WHERE subscription_id = $1"
OF_ENDPOINT = "SELECT subscription_id FROM subscriptions WHERE endpoint_id = $1 ORDER BY 1"
NUMBER = "SELECT count(*) FROM subscriptions"
# Those that can go on: an endpoint that is away keeps them where they are, since Kafka forgets nothing.
READING = f"""
SELECT {COLUMNS} FROM subscriptions AS each
JOIN webhook_endpoints AS endpoint ON endpoint.endpoint_id = each.endpoint_id
WHERE NOT paused AND endpoint.state = 'active'
    AND (SELECT count(*) FROM (
        SELECT 1 FROM webhook_deliveries AS one
        WHERE one.endpoint_id = each.endpoint_id AND one.state = 'waiting' LIMIT $1
    ) AS waiting) < $1
ORDER BY subscription_id
"""
STILL = (
    "SELECT 1 FROM subscriptions WHERE subscription_id = $1 AND run = $2 AND updated_at = $3 AND NOT paused FOR SHARE"
)
PUT_PLACES = """
INSERT INTO subscription_places AS known (subscription_id, topic, partition, next_offset)
SELECT $1, * FROM unnest($2::text[], $3::integer[], $4::bigint[])
ON CONFLICT (subscription_id, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
WHERE known.next_offset < excluded.next_offset
"""

Place = tuple[str, int]
FIRST = (datetime.min.replace(tzinfo=UTC), "")


async def add(  # noqa: PLR0913  # what a subscription is made of
    connection: Connection,
    subscription_id: str,
    endpoint_id: str,
    told: Mapping[str, Any],
    since: datetime,
    author: str,
    at: datetime,
) -> None:
    """A new subscription."""
    columns = [told[name] for name in ("name", "types", "filter", "personal")]
    await connection.execute(ADD, subscription_id, endpoint_id, *columns, since, author, at)


async def one(connection: Connection, subscription_id: str, *, locked: bool = False) -> asyncpg.Record | None:
    """A subscription and how far it has read."""
    if locked:
        await connection.execute(LOCK, subscription_id)
    return await connection.fetchrow(ONE, subscription_id)


async def listed(connection: Connection, after: tuple[datetime, str], limit: int) -> list[asyncpg.Record]:
    """Subscriptions in the order in which they were made."""
    return await connection.fetch(LIST, *after, limit)


async def change(connection: Connection, subscription_id: str, told: Mapping[str, Any], at: datetime) -> None:
    """Other types, another filter."""
    columns = [told[name] for name in ("name", "types", "filter", "personal", "paused")]
    await connection.execute(CHANGE, subscription_id, *columns, at)


async def begin_anew(
    connection: Connection, subscription_id: str, since: datetime, at: datetime, *, again: bool
) -> None:
    """Read from a time on; `again` tells also what was told before."""
    await connection.execute(BEGIN_ANEW, subscription_id, since, int(again), at)
    await connection.execute(FORGET_PLACES, subscription_id)


async def drop(connection: Connection, subscription_id: str) -> None:
    """Forget a subscription; what is on its way stays so."""
    await connection.execute(FORGET_PLACES, subscription_id)
    await connection.execute(DROP, subscription_id)


async def number(connection: Connection) -> int:
    """How many there are."""
    found: int = await connection.fetchval(NUMBER)
    return found


async def of_endpoint(connection: Connection, endpoint_id: str) -> list[str]:
    """The subscriptions of an endpoint."""
    return [row["subscription_id"] for row in await connection.fetch(OF_ENDPOINT, endpoint_id)]


async def reading(connection: Connection, most_waiting: int) -> list[asyncpg.Record]:
    """The subscriptions that can take more."""
    return await connection.fetch(READING, most_waiting)


async def still(connection: Connection, row: asyncpg.Record) -> bool:
    """Whether a subscription is as it was when it was looked at; it stays so until the transaction ends."""
    return await connection.fetchval(STILL, row["subscription_id"], row["run"], row["updated_at"]) is not None


async def put_places(connection: Connection, subscription_id: str, places: Mapping[Place, int]) -> None:
    """How far a subscription has read; what was read further stays."""
    ordered = sorted(places)
    await connection.execute(
        PUT_PLACES,
        subscription_id,
        [topic for topic, _ in ordered],
        [partition for _, partition in ordered],
        [places[place] for place in ordered],
    )


def subscription_of(row: asyncpg.Record) -> Subscription:
    """A subscription, compiled."""
    return Subscription(
        row["subscription_id"],
        row["endpoint_id"],
        frozenset(row["types"]),
        checked_filter(row["filter"]),
        row["personal"],
        row["since"],
        row["run"],
    )


def places_of(row: asyncpg.Record) -> dict[Place, int]:
    """How far it has read."""
    found: dict[Place, int] = {}
    for name, offset in row["places"].items():
        topic, _, partition = name.rpartition("/")
        found[topic, int(partition)] = offset
    return found
