"""Retargeting lists and who is in them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

import asyncpg

from services.nurture.audiences.domain import Audience, Change, Entry
from shared.db import Connection
from shared.ids import LeadId

COLUMNS = """
audience_id, name, url, secret, segment_id, purpose, identifiers, state, reason, attempts, told_at, created_at
"""
ADD = """
INSERT INTO audiences (audience_id, name, url, secret, segment_id, purpose, identifiers)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
SHOWN = f"""
SELECT {COLUMNS},
    (SELECT count(*) FROM audience_members AS one
        WHERE one.audience_id = each.audience_id AND one.wanted <> '{{}}' AND done) AS people,
    (SELECT count(*) FROM audience_members AS one WHERE one.audience_id = each.audience_id AND NOT done) AS waiting
FROM audiences AS each
"""
ONE = f"{SHOWN} WHERE audience_id = $1"
LISTED = f"{SHOWN} WHERE audience_id > $1 ORDER BY audience_id LIMIT $2"
SET_STATE = """
UPDATE audiences SET state = $2, reason = $3, attempts = 0, due_at = clock_timestamp()
WHERE audience_id = $1 AND state <> 'ending' RETURNING audience_id
"""
CLAIM = f"""
UPDATE audiences SET claim = $1, due_at = clock_timestamp() + $2 WHERE audience_id = (
    SELECT audience_id FROM audiences WHERE state <> 'suspended' AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING {COLUMNS}
"""
NEXT_DUE = "SELECT min(due_at) - clock_timestamp() FROM audiences WHERE state <> 'suspended'"
# Rows that a consumer holds are looked at in the next round: so neither waits for the other.
CANDIDATES = """
SELECT lead_id, looked_at = '-infinity' AS is_new FROM audience_members
WHERE audience_id = $1 AND (looked_at < clock_timestamp() - $2::interval OR NOT done)
ORDER BY looked_at LIMIT $3 FOR UPDATE SKIP LOCKED
"""
FILL = """
INSERT INTO audience_members (audience_id, lead_id)
SELECT each.audience_id, segment.lead_id FROM audiences AS each
JOIN segments AS segment ON segment.segment_id = each.segment_id AND segment.member
WHERE each.state <> 'ending' AND ($1::text IS NULL OR each.audience_id = $1)
ORDER BY each.audience_id, segment.lead_id ON CONFLICT DO NOTHING
"""
ENTERED = """
INSERT INTO audience_members (audience_id, lead_id)
SELECT DISTINCT each.audience_id, one.lead_id FROM audiences AS each
JOIN unnest($1::text[], $2::text[]) AS one (lead_id, segment_id) ON one.segment_id = each.segment_id
WHERE each.state <> 'ending' ORDER BY each.audience_id, one.lead_id ON CONFLICT DO NOTHING
"""
LOOK_AGAIN = """
WITH held AS (SELECT audience_id, lead_id FROM audience_members WHERE lead_id = ANY($1)
    ORDER BY audience_id, lead_id FOR UPDATE)
UPDATE audience_members AS known SET looked_at = least(looked_at, 'epoch') FROM held
WHERE known.audience_id = held.audience_id AND known.lead_id = held.lead_id
"""
END = """
WITH held AS (SELECT lead_id FROM audience_members WHERE audience_id = $1 ORDER BY lead_id FOR UPDATE)
UPDATE audience_members AS known SET looked_at = least(looked_at, 'epoch') FROM held
WHERE known.audience_id = $1 AND known.lead_id = held.lead_id
"""
IN_SEGMENT = "SELECT lead_id FROM segments WHERE segment_id = $1 AND member AND lead_id = ANY($2)"
ENTRIES = """
SELECT lead_id, wanted, may_have, done FROM audience_members WHERE audience_id = $1 AND lead_id = ANY($2)
"""
SAVE = """
INSERT INTO audience_members AS known (audience_id, lead_id, wanted, may_have, done, looked_at)
SELECT $1, one.lead_id, string_to_array(one.wanted, ' '), string_to_array(one.may_have, ' '), one.done,
    clock_timestamp() - one.ago
FROM unnest($2::text[], $3::text[], $4::text[], $5::boolean[], $6::interval[])
    AS one (lead_id, wanted, may_have, done, ago)
ON CONFLICT (audience_id, lead_id) DO UPDATE
SET wanted = excluded.wanted, may_have = excluded.may_have, done = excluded.done, looked_at = excluded.looked_at
"""
# Two ids of one person have the same hash: it stays while one of them wants it.
STILL_WANTED = """
SELECT DISTINCT hash FROM audience_members, unnest(wanted) AS hash
WHERE audience_id = $1 AND hash = ANY($2) AND NOT lead_id = ANY($3)
"""
FINISH = """
WITH held AS (SELECT lead_id FROM audience_members WHERE audience_id = $1 AND lead_id = ANY($2)
    ORDER BY lead_id FOR UPDATE)
UPDATE audience_members AS known SET done = true, may_have = wanted FROM held
WHERE known.audience_id = $1 AND known.lead_id = held.lead_id
"""
FORGET_GONE = """
WITH held AS (SELECT lead_id FROM audience_members AS known
    WHERE audience_id = $1 AND lead_id = ANY($2) AND done AND may_have = '{}' AND ($4 OR NOT EXISTS (
        SELECT FROM segments AS segment
        WHERE segment.lead_id = known.lead_id AND segment.segment_id = $3 AND segment.member))
    ORDER BY lead_id FOR UPDATE SKIP LOCKED)
DELETE FROM audience_members AS known USING held WHERE known.audience_id = $1 AND known.lead_id = held.lead_id
"""
SETTLE = """
UPDATE audiences SET attempts = $3, due_at = clock_timestamp() + $4, claim = NULL,
    told_at = CASE WHEN $5 THEN clock_timestamp() ELSE told_at END,
    state = CASE WHEN $6::text IS NULL OR state = 'ending' THEN state ELSE 'suspended' END,
    reason = CASE WHEN state = 'suspended' THEN reason ELSE $6 END
WHERE audience_id = $1 AND claim = $2
"""
# Who keeps the list takes no word any more: there is nobody to tell.
GIVE_UP_ENDING = """
DELETE FROM audience_members AS one USING audiences AS each
WHERE each.audience_id = $1 AND each.state = 'ending' AND one.audience_id = each.audience_id
"""
DROP_ENDED = """
DELETE FROM audiences AS each WHERE audience_id = $1 AND state = 'ending'
    AND NOT EXISTS (SELECT FROM audience_members AS one WHERE one.audience_id = each.audience_id)
"""


async def add(connection: Connection, audience: Audience) -> None:
    """Keep a new list."""
    place = (audience.audience_id, audience.name, audience.url, audience.secret, audience.segment_id)
    await connection.execute(ADD, *place, audience.purpose, list(audience.identifiers))


async def shown(connection: Connection, audience_id: str) -> asyncpg.Record | None:
    """A list with what came of it; None when there is none."""
    row: asyncpg.Record | None = await connection.fetchrow(ONE, audience_id)
    return row


async def listed(connection: Connection, after: str, limit: int) -> list[asyncpg.Record]:
    """A page of lists."""
    rows: list[asyncpg.Record] = await connection.fetch(LISTED, after, limit)
    return rows


async def set_state(connection: Connection, audience_id: str, state: str, reason: str | None) -> bool:
    """Change the state; False when there is no such list, or it is ending."""
    if await connection.fetchval(SET_STATE, audience_id, state, reason) is None:
        return False
    if state == "ending":
        await connection.execute(END, audience_id)
    return True


async def claim(connection: Connection, by: str, lasting: timedelta) -> Audience | None:
    """Take the list that has been due longest."""
    row = await connection.fetchrow(CLAIM, by, lasting)
    if row is None:
        return None
    return Audience(
        row["audience_id"],
        row["name"],
        row["url"],
        row["secret"],
        row["segment_id"],
        row["purpose"],
        tuple(row["identifiers"]),
        row["state"],
        row["attempts"],
    )


async def next_due(connection: Connection) -> timedelta | None:
    """How long until the next list is due."""
    left: timedelta | None = await connection.fetchval(NEXT_DUE)
    return left


async def fill(connection: Connection, audience_id: str | None = None) -> None:
    """Everybody in the segment of a list, or of all of them, is to be looked at who never was."""
    await connection.execute(FILL, audience_id)


async def entered(connection: Connection, moves: Iterable[tuple[LeadId, str]]) -> None:
    """Those who entered these segments are to be looked at."""
    ordered = sorted(set(moves))
    await connection.execute(ENTERED, [lead_id for lead_id, _ in ordered], [segment for _, segment in ordered])


async def look_again(connection: Connection, ids: Iterable[LeadId]) -> None:
    """Something was heard of these ids."""
    await connection.execute(LOOK_AGAIN, sorted(set(ids)))


async def candidates(
    connection: Connection, audience: Audience, again_after: timedelta, limit: int
) -> dict[LeadId, bool]:
    """Whom to look at now, those first of whom something was heard; locked, so that nothing more is heard meanwhile.

    Of each whether this is the first look.
    """
    rows = await connection.fetch(CANDIDATES, audience.audience_id, again_after, limit)
    return {LeadId(row["lead_id"]): row["is_new"] for row in rows}


async def in_segment(connection: Connection, segment_id: str, ids: Sequence[LeadId]) -> set[str]:
    """Which of these ids are in a segment."""
    return {row["lead_id"] for row in await connection.fetch(IN_SEGMENT, segment_id, ids)}


async def entries(connection: Connection, audience_id: str, ids: Sequence[LeadId]) -> Mapping[str, Entry]:
    """What was decided about these ids before."""
    rows = await connection.fetch(ENTRIES, audience_id, ids)
    return {
        row["lead_id"]: Entry(row["lead_id"], frozenset(row["wanted"]), frozenset(row["may_have"]), row["done"])
        for row in rows
    }


async def save(
    connection: Connection, audience_id: str, changes: Sequence[Change], looked_ago: Sequence[timedelta]
) -> None:
    """Write down what is decided, before anybody is told; it counts as looked at so long ago."""
    kept = [each.entry for each in changes]
    await connection.execute(
        SAVE,
        audience_id,
        [one.lead_id for one in kept],
        [" ".join(sorted(one.wanted)) for one in kept],
        [" ".join(sorted(one.may_have)) for one in kept],
        [not (each.add or each.remove) for each in changes],
        looked_ago,
    )


async def still_wanted(
    connection: Connection, audience_id: str, hashes: Collection[str], apart_from: Sequence[str]
) -> set[str]:
    """Which of these hashes other ids want in the list."""
    rows = await connection.fetch(STILL_WANTED, audience_id, sorted(hashes), apart_from)
    return {row["hash"] for row in rows}


async def finish(connection: Connection, audience: Audience, told: Sequence[str], looked_at: Sequence[str]) -> None:
    """The keeper knows of those told; of those looked at, who is out is forgotten."""
    await connection.execute(FINISH, audience.audience_id, told)
    ending = audience.state == "ending"
    await connection.execute(FORGET_GONE, audience.audience_id, looked_at, audience.segment_id, ending)


async def settle(  # noqa: PLR0913  # a row
    connection: Connection,
    audience: Audience,
    by: str,
    attempts: int,
    pause: timedelta,
    *,
    success: bool = False,
    failed: str | None = None,
) -> None:
    """Let a list go: due again after a pause; with `failed` it is suspended until somebody looks at it."""
    await connection.execute(SETTLE, audience.audience_id, by, attempts, pause, success, failed)
    if failed is not None:
        await connection.execute(GIVE_UP_ENDING, audience.audience_id)
    await connection.execute(DROP_ENDED, audience.audience_id)
