"""The statements about what reps are told: notices, wishes, and the ledger of what left."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.routing.notifications.domain import Channel, Result, State
from services.routing.rules.document import Audience
from shared.db import Connection
from shared.ids import LeadId, RepId

NOTICE = """
INSERT INTO notices (about, kind, step, audience, lead_id, created_at)
SELECT *, $6 FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[])
ON CONFLICT (about, kind, step, audience) DO NOTHING
"""
NEW_NOTICES = """
SELECT about, kind, step, audience, lead_id FROM notices WHERE expanded_at IS NULL
ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
"""
EXPANDED = """
UPDATE notices AS n SET expanded_at = $5
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[]) AS done (about, kind, step, audience)
WHERE n.about = done.about AND n.kind = done.kind AND n.step = done.step AND n.audience = done.audience
"""
# Who is responsible for each assignment, their manager, and whose the account is and those above it.
AROUND = """
SELECT a.assignment_id, a.rep_id, r.manager_id, a.queue,
    (SELECT coalesce(array_agg(o.rep_id ORDER BY place), '{}')
        FROM jsonb_array_elements(a.inputs->'account_owners') WITH ORDINALITY AS told (owner, place)
        JOIN reps AS o ON o.active AND (o.rep_id = owner->>'owner_id' OR o.email = lower(btrim(owner->>'owner_id')))
    ) AS owners
FROM assignments AS a LEFT JOIN reps AS r USING (rep_id) WHERE a.assignment_id = ANY($1)
"""
WISHES = """
SELECT rep_id, channels, slack_user_id, slack_url, endpoint_id FROM rep_notifications WHERE rep_id = ANY($1)
"""
PUT_WISHES = """
INSERT INTO rep_notifications AS known (rep_id, channels, slack_user_id, slack_url, endpoint_id, updated_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (rep_id) DO UPDATE
SET channels = excluded.channels, slack_user_id = excluded.slack_user_id, slack_url = excluded.slack_url,
    endpoint_id = excluded.endpoint_id, updated_at = excluded.updated_at
"""
PLAN = """
INSERT INTO notifications
    (notification_id, about, kind, step, rep_id, channel, lead_id, endpoint_id, state, reason, due_at, created_at,
    settled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, CASE WHEN $9 = 'planned' THEN NULL ELSE $11::timestamptz END)
ON CONFLICT DO NOTHING RETURNING notification_id
"""
COLUMNS = """
notification_id, about, kind, step, rep_id, channel, lead_id, endpoint_id, state, reason, attempts, due_at, created_at,
settled_at
"""
CLAIM = f"""
UPDATE notifications SET claim = $1, claim_until = $2 + $3::interval, attempts = attempts + 1
WHERE notification_id IN (
    SELECT notification_id FROM notifications
    WHERE state = 'planned' AND claim_until IS NULL AND channel = $4 AND due_at <= $2
    ORDER BY due_at LIMIT $5 FOR UPDATE SKIP LOCKED
)
RETURNING {COLUMNS}
"""
RECORD = """
UPDATE notifications SET state = $3, reason = $4, due_at = $5, claim_until = NULL,
    settled_at = CASE WHEN $3 = 'planned' THEN NULL ELSE $6::timestamptz END,
    slack_channel = coalesce($7, slack_channel), slack_ts = coalesce($8, slack_ts)
WHERE notification_id = $1 AND claim = $2 AND state IN ('planned', 'unknown')
"""
GIVE_UP = """
UPDATE notifications SET state = 'unknown', settled_at = $1, claim_until = NULL,
    reason = 'the sender fell silent between the claim and the outcome'
WHERE state = 'planned' AND claim_until <= $1
"""
# A webhook keeps its own log for some days; what became of it is taken over before that is forgotten.
FOLLOW_WEBHOOKS = """
UPDATE notifications AS n SET settled_at = d.settled_at, reason = d.said, attempts = d.attempts,
    state = CASE d.state WHEN 'delivered' THEN 'sent' ELSE 'failed' END
FROM webhook_deliveries AS d
WHERE n.channel = 'webhook' AND n.state = 'planned' AND d.endpoint_id = n.endpoint_id
    AND d.delivery_id = n.notification_id AND d.state <> 'waiting'
"""
NEXT_DUE = """
SELECT min(due_at) FROM notifications WHERE state = 'planned' AND claim_until IS NULL AND channel <> 'webhook'
"""
LIST = f"""
SELECT {COLUMNS}, place FROM notifications
WHERE place < $1 AND ($2::text IS NULL OR rep_id = $2) AND ($3::text[] IS NULL OR lead_id = ANY($3))
    AND ($4::text IS NULL OR state = $4) AND ($5::text IS NULL OR channel = $5)
ORDER BY place DESC LIMIT $6
"""
ONE = f"SELECT {COLUMNS} FROM notifications WHERE notification_id = $1"
SLACK_USER = "SELECT slack_user_id FROM rep_notifications WHERE rep_id = $1"
ADD_REPLY = "INSERT INTO slack_replies (url, content, due_at) VALUES ($1, $2, $3)"
CLAIM_REPLIES = """
UPDATE slack_replies SET attempts = attempts + 1, due_at = $1 + $2::interval
WHERE place IN (
    SELECT place FROM slack_replies WHERE due_at <= $1 ORDER BY due_at, place LIMIT 20 FOR UPDATE SKIP LOCKED
)
RETURNING place, url, content, attempts
"""
DROP_REPLY = "DELETE FROM slack_replies WHERE place = $1"
IS_ENDPOINT = "SELECT 1 FROM webhook_endpoints WHERE endpoint_id = $1"


@dataclass(frozen=True, slots=True)
class Notice:
    """Somebody is to be told of something about an assignment, once: of its kind, and `step` of it.

    `audience` is the rep, the owner of the account, or the rep's manager; or the id of a rep.
    """

    about: str
    kind: str
    step: int
    audience: Audience | str
    lead_id: LeadId


@dataclass(frozen=True, slots=True)
class Notification:
    """A line of the ledger: a rep is told something by one channel."""

    notification_id: str
    about: str
    kind: str
    step: int
    rep_id: RepId
    channel: Channel
    lead_id: LeadId
    endpoint_id: str | None
    state: State
    reason: str | None
    attempts: int
    due_at: datetime
    created_at: datetime
    settled_at: datetime | None


async def notice(connection: Connection, notices: Sequence[Notice], at: datetime) -> None:
    """Have somebody told; what was said already is not said again."""
    if notices:
        await connection.execute(
            NOTICE,
            [one.about for one in notices],
            [one.kind for one in notices],
            [one.step for one in notices],
            [one.audience for one in notices],
            [one.lead_id for one in notices],
            at,
        )


async def new_notices(connection: Connection, limit: int) -> list[Notice]:
    """Notices that nobody has made notifications of, locked."""
    return [Notice(**row) for row in await connection.fetch(NEW_NOTICES, limit)]


async def expanded(connection: Connection, notices: Sequence[Notice], at: datetime) -> None:
    """Of these, notifications are made."""
    await connection.execute(
        EXPANDED,
        [one.about for one in notices],
        [one.kind for one in notices],
        [one.step for one in notices],
        [one.audience for one in notices],
        at,
    )


async def around(connection: Connection, ids: Sequence[str]) -> dict[str, asyncpg.Record]:
    """Rep, manager and owners of each assignment."""
    return {row["assignment_id"]: row for row in await connection.fetch(AROUND, ids)}


async def wishes(connection: Connection, rep_ids: Sequence[RepId]) -> dict[RepId, asyncpg.Record]:
    """How reps want to be told, of those who have said so."""
    return {row["rep_id"]: row for row in await connection.fetch(WISHES, rep_ids)}


async def put_wishes(connection: Connection, rep_id: RepId, values: Sequence[Any], at: datetime) -> None:
    """How a rep wants to be told from now on: channels, Slack user and address, endpoint."""
    await connection.execute(PUT_WISHES, rep_id, *values, at)


async def plan(connection: Connection, values: Sequence[Any]) -> bool:
    """A line of the ledger; False when it stands there already."""
    return await connection.fetchval(PLAN, *values) is not None


async def claim(  # noqa: PLR0913  # what a claim is made of
    connection: Connection, token: str, at: datetime, lasting: timedelta, channel: Channel, limit: int
) -> list[Notification]:
    """Notifications that are ours to send now."""
    return [Notification(**row) for row in await connection.fetch(CLAIM, token, at, lasting, channel, limit)]


async def record(  # noqa: PLR0913  # what an outcome is made of
    connection: Connection, notification_id: str, token: str, result: Result, due_at: datetime, at: datetime
) -> None:
    """What became of a try."""
    place = result.place or (None, None)
    await connection.execute(RECORD, notification_id, token, result.state, result.reason, due_at, at, *place)


async def settle_others(connection: Connection, at: datetime) -> None:
    """Give up on claims that fell silent, and note what became of webhooks."""
    await connection.execute(GIVE_UP, at)
    await connection.execute(FOLLOW_WEBHOOKS)


async def next_due(connection: Connection) -> datetime | None:
    """When the next try is due."""
    due: datetime | None = await connection.fetchval(NEXT_DUE)
    return due


async def listed(  # noqa: PLR0913  # the filters of one list
    connection: Connection,
    before: int,
    rep_id: str | None,
    lead_ids: Sequence[LeadId] | None,
    state: State | None,
    channel: Channel | None,
    limit: int,
) -> list[asyncpg.Record]:
    """The ledger before a place, the newest first."""
    return await connection.fetch(LIST, before, rep_id, lead_ids, state, channel, limit)


async def one(connection: Connection, notification_id: str) -> Notification | None:
    """A line of the ledger."""
    row = await connection.fetchrow(ONE, notification_id)
    return None if row is None else Notification(**row)


async def slack_user(connection: Connection, rep_id: RepId) -> str | None:
    """Who a rep is in Slack."""
    user: str | None = await connection.fetchval(SLACK_USER, rep_id)
    return user


async def add_reply(connection: Connection, url: str, content: dict[str, Any], at: datetime) -> None:
    """Something to be answered in Slack at once."""
    await connection.execute(ADD_REPLY, url, content, at)


async def claim_replies(connection: Connection, at: datetime, lasting: timedelta) -> list[asyncpg.Record]:
    """Answers that are ours to send now."""
    return sorted(await connection.fetch(CLAIM_REPLIES, at, lasting), key=lambda row: row["place"])


async def drop_reply(connection: Connection, place: int) -> None:
    """An answer that was given, or will not be."""
    await connection.execute(DROP_REPLY, place)


async def is_endpoint(connection: Connection, endpoint_id: str) -> bool:
    """Whether there is such a webhook endpoint."""
    return await connection.fetchval(IS_ENDPOINT, endpoint_id) is not None
