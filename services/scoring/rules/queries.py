"""Which rules serve, which are wanted, what still follows from a switch, and simulations."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from shared.db import Connection
from shared.events import Stage
from shared.identity import members_of_many
from shared.ids import LeadId
from shared.rules import Activation, activations

STRAYS = """
SELECT EXISTS (SELECT 1 FROM scores WHERE rules_version < $1) OR EXISTS (SELECT 1 FROM scores WHERE rules_version > $1)
"""
NEXT_PLANNED = """
SELECT version, effective_at - clock_timestamp() AS left FROM rule_activations
WHERE kind = $1 AND name = 'default' AND effective_at > clock_timestamp()
    AND effective_at <= clock_timestamp() + $2::interval
ORDER BY effective_at, sequence DESC LIMIT 1
"""
PROGRESS = "SELECT count(*) AS persons, count(*) FILTER (WHERE person_id > $1) AS remaining FROM scores"
BEGIN_SWITCH = """
WITH over AS (UPDATE switches SET finished_at = clock_timestamp() WHERE finished_at IS NULL)
INSERT INTO switches (version, previous, announce, allowance) VALUES ($1, $2, $3, $4)
"""
# Nobody else tells of this switch before the transaction ends. The allowance grows with time, up to what is let out at
# once.
OPEN_SWITCH = """
SELECT sequence, version, previous, announce, at, reached, judged, changed, advanced, finished_at,
    least($1, allowance + extract(epoch FROM clock_timestamp() - allowed_at) * $2) AS allowance
FROM switches WHERE finished_at IS NULL ORDER BY sequence DESC LIMIT 1 FOR UPDATE
"""
TOLD = """
UPDATE switches SET reached = $2, judged = judged + $3, changed = changed + $4, advanced = advanced + $5,
    allowance = $6, allowed_at = clock_timestamp(), finished_at = CASE WHEN $7 THEN clock_timestamp() END
WHERE sequence = $1
"""
LAST_SWITCH = """
SELECT sequence, version, previous, announce, at, reached, judged, changed, advanced, finished_at, allowance
FROM switches ORDER BY sequence DESC LIMIT 1
"""
# What served between the last time that these rules did and now.
SERVED_SINCE = """
SELECT min(at) AS since, array_agg(DISTINCT version) AS versions FROM switches
WHERE sequence < $2 AND version <> $1
    AND sequence >= (SELECT max(sequence) FROM switches WHERE previous = $1 AND sequence < $2)
"""
ENTERED_UNDER = """
SELECT person_id, array_agg(DISTINCT stage) AS stages FROM stage_changes
WHERE person_id = ANY($1) AND rules_version = ANY($2) GROUP BY person_id
"""
ASK = """
WITH old AS (DELETE FROM simulations WHERE asked_at < clock_timestamp() - interval '7 days')
INSERT INTO simulations (simulation_id, state, version, document, days, sample, author)
VALUES ($1, 'running', $2, $3, $4, $5, $6)
"""
LOAD = """
SELECT simulation_id, version, days, sample, author, asked_at, finished_at, persons, done, report, problem,
    CASE WHEN state = 'running' AND alive_at < clock_timestamp() - interval '30 seconds' THEN 'failed' ELSE state END
    AS state
FROM simulations WHERE simulation_id = $1
"""
SHOW_LIFE = """
UPDATE simulations SET alive_at = clock_timestamp(), done = $2, persons = $3
WHERE simulation_id = $1 AND state = 'running' RETURNING true
"""
FINISH = """
UPDATE simulations SET state = $2, report = $3, problem = $4, finished_at = clock_timestamp()
WHERE simulation_id = $1 AND state = 'running'
"""
ACTIVE_PERSONS = "SELECT count(*) FROM scores WHERE greatest(newest, fit_at) >= $1"
ACTIVE_SINCE = """
SELECT person_id FROM scores
WHERE person_id > $1 AND greatest(newest, fit_at) >= $2 AND (hashtextextended(person_id, 7) & 2147483647) < $3::bigint
ORDER BY person_id LIMIT $4
"""
# Only what is asked for of touches is read: they are many.
PASTS = """
SELECT member.person, touch.occurred_at, touch.type, touch.automated{columns}
FROM unnest($1::integer[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS member (person, lead_id, since, until)
JOIN touches AS touch ON touch.lead_id = member.lead_id
    AND (member.since IS NULL OR touch.occurred_at >= member.since)
    AND (member.until IS NULL OR touch.occurred_at < member.until)
ORDER BY member.person, touch.occurred_at, touch.event_id
"""
TOUCH_FIELDS = ("origin", "channel", "source", "medium", "campaign", "content", "page", "referrer_host")
NEWEST = 2**62
PAGE = 2_000


@dataclass(frozen=True, slots=True)
class Switch:
    """The rules that serve were switched. Stages that follow are decided up to the person `reached`.

    `allowance` is how many leads may still advance at once; below 0, so many were let out before their time.
    """

    sequence: int
    version: int
    previous: int
    announce: bool
    at: datetime
    reached: str
    judged: int
    changed: int
    advanced: int
    finished_at: datetime | None
    allowance: float


async def strays(connection: Connection, serving: int) -> bool:
    """Whether some rows that serve were made under another version."""
    found: bool = await connection.fetchval(STRAYS, serving)
    return found


async def next_planned(connection: Connection, kind: str, within: timedelta) -> tuple[int, timedelta] | None:
    """The version that becomes active next, and in how long."""
    row = await connection.fetchrow(NEXT_PLANNED, kind, within)
    return (row["version"], row["left"]) if row else None


async def active_activation(connection: Connection, kind: str) -> Activation | None:
    """What made the active version active."""
    found = await activations(connection, kind, "default", before=NEWEST, limit=1, state="active")
    return found[0] if found else None


async def progress(connection: Connection, reached: str) -> tuple[int, int]:
    """How many persons are scored, and how many of them come after one."""
    row = await connection.fetchrow(PROGRESS, reached)
    return (row["persons"], row["remaining"]) if row else (0, 0)


async def begin_switch(
    connection: Connection, version: int, previous: int, *, announce: bool, allowance: float
) -> None:
    """Remember a switch, and that its stages are to be decided; what followed from one before need not be any more."""
    await connection.execute(BEGIN_SWITCH, version, previous, announce, allowance)


async def open_switch(connection: Connection, at_once: float, a_second: float) -> Switch | None:
    """The switch whose stages are being decided, locked."""
    row = await connection.fetchrow(OPEN_SWITCH, at_once, a_second)
    return Switch(**dict(row)) if row else None


async def served_since(connection: Connection, switch: Switch) -> tuple[datetime, list[int]] | None:
    """Since when other rules served before a switch back to those that served until then, and which."""
    row = await connection.fetchrow(SERVED_SINCE, switch.version, switch.sequence)
    return (row["since"], row["versions"]) if row and row["versions"] else None


async def entered_under(
    connection: Connection, person_ids: Sequence[LeadId], versions: Sequence[int]
) -> dict[LeadId, frozenset[Stage]]:
    """The stages that persons entered under some versions of the rules."""
    rows = await connection.fetch(ENTERED_UNDER, person_ids, versions)
    return {LeadId(row["person_id"]): frozenset(row["stages"]) for row in rows}


async def last_switch(connection: Connection) -> Switch | None:
    """The switch that came last."""
    row = await connection.fetchrow(LAST_SWITCH)
    return Switch(**dict(row)) if row else None


async def told(  # noqa: PLR0913  # what a page came to
    connection: Connection, switch: Switch, reached: str, judged: int, changed: int, advanced: int, *, finished: bool
) -> None:
    """So many more persons were judged, up to one; so many changed, and of those so many advanced."""
    allowance = switch.allowance - advanced
    await connection.execute(TOLD, switch.sequence, reached, judged, changed, advanced, allowance, finished)


async def active_persons(connection: Connection, since: datetime) -> int:
    """Of how many persons something was told since a time."""
    count: int = await connection.fetchval(ACTIVE_PERSONS, since)
    return count


async def active_since(connection: Connection, after: LeadId, since: datetime, share: int, limit: int) -> list[LeadId]:
    """Those persons in the order of their ids; of all possible hashes `share` ones count, always the same."""
    rows = await connection.fetch(ACTIVE_SINCE, after, since, share, limit)
    return [LeadId(row["person_id"]) for row in rows]


async def pasts(
    connection: Connection, person_ids: Sequence[LeadId], fields: Sequence[str]
) -> AsyncIterator[list[asyncpg.Record]]:
    """All touches of persons in pages, person by person, the earliest first. Needs a transaction.

    A row is the person's place in `person_ids`, the moment, the type, whether a machine did it, and the `fields`, of
    `TOUCH_FIELDS`.
    """
    assert set(fields) <= set(TOUCH_FIELDS)
    found = await members_of_many(connection, person_ids)
    spans = [
        (place, member.lead_id, member.since, member.until)
        for place, person_id in enumerate(person_ids)
        for member in found[person_id]
    ]
    if not spans:
        return
    columns = "".join(f", touch.{name}" for name in fields)
    cursor = await connection.cursor(PASTS.format(columns=columns), *zip(*spans, strict=True))
    while page := await cursor.fetch(PAGE):
        yield page
