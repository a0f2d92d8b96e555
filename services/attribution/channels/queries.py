"""The statements about touches that are grouped anew, and how far that has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.attribution.channels.domain import Grouping
from services.attribution.channels.groupings import STORE, Traffic
from services.attribution.journeys.queries import Fact
from shared.db import Connection, one
from shared.ids import LeadId, TouchId

INPUTS = (
    "type, given_channel, source, medium, campaign, content, page, referrer_host, click_ids, tagged, channel, "
    "channel_rule"
)
INPUTS_OF_TOUCH = ", ".join(f"touch.{name}" for name in INPUTS.split(", "))
# An estimate will do where counting takes seconds.
TOUCHES = """
SELECT CASE WHEN reltuples > 1000000 THEN reltuples::bigint ELSE (SELECT count(*) FROM touches) END
FROM pg_class WHERE oid = 'touches'::regclass
"""
BEGIN = f"""
INSERT INTO regroupings AS known (version, rules, projection, begun_in, total)
SELECT $1, $2, version, pg_current_xact_id()::text::bigint, ({TOUCHES}) FROM projections
ON CONFLICT (single) DO UPDATE SET
    version = excluded.version, rules = excluded.rules, projection = excluded.projection, begun_in = excluded.begun_in,
    total = excluded.total, after_touch = '', after_origin = '', done = 0, changed = 0,
    started_at = clock_timestamp(), finished_at = NULL
WHERE (known.version, known.rules, known.projection) <> (excluded.version, excluded.rules, excluded.projection)
"""
IS_KNOWN = """
SELECT EXISTS (SELECT 1 FROM regroupings JOIN projections ON projection = projections.version
               WHERE regroupings.version = $1 AND rules = $2)
"""
# Transactions that began before the walk may still add touches by the version before. A number beyond all others is of
# another server.
WALK = """
SELECT version, after_touch, after_origin, done, changed, total, started_at, finished_at,
    begun_in < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        OR begun_in > pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS ready
FROM regroupings
"""
ADVANCE = """
UPDATE regroupings SET after_touch = $4, after_origin = $5, done = done + $6, changed = changed + $7,
    finished_at = CASE WHEN $8 THEN clock_timestamp() END
WHERE version = $1 AND after_touch = $2 AND after_origin = $3 AND finished_at IS NULL
"""
PAGE = f"""
SELECT touch_id, origin, lead_id, position, received_at, {INPUTS} FROM touches
WHERE (touch_id, origin) > ($1, $2) ORDER BY touch_id, origin LIMIT $3
"""
AGAIN = f"""
SELECT touch_id, origin, lead_id, position, received_at, {INPUTS}
FROM unnest($1::text[], $2::text[]) AS wanted (touch_id, origin) JOIN touches USING (touch_id, origin)
"""
OF_LEAD = f"SELECT touch_id, origin, lead_id, position, received_at, {INPUTS} FROM touches WHERE lead_id = $1"
SEVERAL_VERSIONS = "SELECT EXISTS (SELECT 1 FROM rule_documents WHERE kind = $1 AND version > 1)"
# A touch that was corrected meanwhile has been grouped by who corrected it.
PUT = """
UPDATE touches AS known SET channel = told.channel, channel_rule = told.rule, source = told.source, medium = told.medium
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS told (touch_id, origin, position, received_at, channel, rule, source, medium)
WHERE (known.touch_id, known.origin, known.position, known.received_at)
    = (told.touch_id, told.origin, told.position, told.received_at)
RETURNING new.lead_id, new.occurred_at,
    (old.channel, old.source, old.medium) IS DISTINCT FROM (new.channel, new.source, new.medium) AS moved
"""
# Touches that tell the same count as one kind; what the rules do not read does not part them.
MOST_KINDS = 50_000
KINDS = """
SELECT type, given_channel, source, medium, campaign, CASE WHEN $2 THEN content END AS content,
    CASE WHEN $2 THEN page END AS page, referrer_host, click_ids, tagged, channel, count(*) AS touches
FROM touches TABLESAMPLE SYSTEM ($3) WHERE occurred_at >= $1
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 ORDER BY touches DESC LIMIT $4
"""
# What touches of the newest conversions earned by one run.
EARNED = f"""
SELECT path.currency, part.minor, {INPUTS_OF_TOUCH}
FROM (SELECT * FROM paths WHERE occurred_at >= $1 ORDER BY occurred_at DESC, conversion_id LIMIT $2) AS path
JOIN credits ON credits.conversion_id = path.conversion_id AND credits.run = $3
CROSS JOIN LATERAL unnest(path.touch_ids, path.origins, credits.value_minor) AS part (touch_id, origin, minor)
JOIN touches AS touch ON (touch.touch_id, touch.origin) = (part.touch_id, part.origin)
WHERE part.minor <> 0
"""


@dataclass(frozen=True, slots=True)
class Walk:
    """How far the walk through all touches has come; `ready` once nobody groups by another version any more."""

    version: int
    after_touch: str
    after_origin: str
    done: int
    changed: int
    total: int
    started_at: datetime
    finished_at: datetime | None
    ready: bool


@dataclass(frozen=True, slots=True)
class StoredTouch:
    """A touch as it is grouped, and what that followed from."""

    touch_id: TouchId
    origin: str
    lead_id: LeadId
    position: int
    received_at: datetime
    traffic: Traffic
    grouping: Grouping


async def begin_walk(connection: Connection, version: int, rules: str) -> Walk:
    """The walk for this version of the grouping, the default rules and the projection; begun anew where one differs."""
    if not await connection.fetchval(IS_KNOWN, version, rules):
        await connection.execute(BEGIN, version, rules)
    return Walk(**dict(await one(connection, WALK)))


async def walk_as_it_stands(connection: Connection) -> Walk | None:
    """The walk that was begun last."""
    row = await connection.fetchrow(WALK)
    return Walk(**dict(row)) if row else None


async def advance(connection: Connection, walk: Walk, *, last: StoredTouch | None, done: int, changed: int) -> None:
    """Remember how far the walk has come, unless another process has; without a last touch it is at its end."""
    place = (last.touch_id, last.origin) if last else (walk.after_touch, walk.after_origin)
    before = (walk.version, walk.after_touch, walk.after_origin)
    await connection.execute(ADVANCE, *before, *place, done, changed, last is None)


async def touches_after(connection: Connection, touch_id: str, origin: str, limit: int) -> list[StoredTouch]:
    """The touches that come next by their names."""
    return [_stored(row) for row in await connection.fetch(PAGE, touch_id, origin, limit)]


async def only_version(connection: Connection) -> bool:
    """Whether no version of the grouping but the first was ever saved."""
    return not await connection.fetchval(SEVERAL_VERSIONS, STORE.kind)


async def touches_again(connection: Connection, touches: Sequence[StoredTouch]) -> list[StoredTouch]:
    """The same touches as they are now."""
    names = [touch.touch_id for touch in touches], [touch.origin for touch in touches]
    return [_stored(row) for row in await connection.fetch(AGAIN, *names)]


async def touches_of_lead(connection: Connection, lead_id: LeadId) -> list[StoredTouch]:
    """The touches that came with this id."""
    return [_stored(row) for row in await connection.fetch(OF_LEAD, lead_id)]


async def touches_known(connection: Connection) -> int:
    """How many touches there are; an estimate where there are more than a million."""
    known: int = await connection.fetchval(TOUCHES)
    return known


async def kinds(
    connection: Connection, since: datetime, percent: float, *, whole: bool
) -> list[tuple[Traffic, str, int]]:
    """What that part of the touches since then tells, `whole` with page and content; its channel, and how often."""
    rows = await connection.fetch(KINDS, since, whole, percent, MOST_KINDS)
    return [(traffic_in(row), row["channel"], row["touches"]) for row in rows]


async def earned(connection: Connection, run: int, since: datetime, limit: int) -> list[tuple[Traffic, str, str, int]]:
    """What touches of the newest conversions since then tell, their channel, the currency, and what they earned."""
    rows = await connection.fetch(EARNED, since, limit, run)
    return [(traffic_in(row), row["channel"], row["currency"], row["minor"]) for row in rows]


async def put_groupings(connection: Connection, groupings: Sequence[tuple[StoredTouch, Grouping]]) -> list[Fact]:
    """Store how touches are grouped; answers those that may earn under another name now."""
    rows = await connection.fetch(
        PUT,
        [touch.touch_id for touch, _ in groupings],
        [touch.origin for touch, _ in groupings],
        [touch.position for touch, _ in groupings],
        [touch.received_at for touch, _ in groupings],
        [grouping.channel for _, grouping in groupings],
        [grouping.rule for _, grouping in groupings],
        [grouping.source for _, grouping in groupings],
        [grouping.medium for _, grouping in groupings],
    )
    return [(row["lead_id"], row["occurred_at"]) for row in rows if row["moved"]]


def traffic_in(row: Mapping[str, Any] | asyncpg.Record) -> Traffic:
    """What a stored touch tells of where it came from."""
    return Traffic(
        row["type"],
        row["given_channel"],
        row["source"] if row["tagged"] else None,
        row["medium"] if row["tagged"] else None,
        row["campaign"] or None,
        row["content"],
        row["page"],
        row["referrer_host"],
        tuple(row["click_ids"].split(" ")) if row["click_ids"] else (),
    )


def _stored(row: asyncpg.Record) -> StoredTouch:
    return StoredTouch(
        touch_id=row["touch_id"],
        origin=row["origin"],
        lead_id=row["lead_id"],
        position=row["position"],
        received_at=row["received_at"],
        traffic=traffic_in(row),
        grouping=Grouping(row["channel"], row["channel_rule"], row["source"], row["medium"]),
    )
