"""The statements about leads and their touches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg

from services.attribution.accounts.queries import KEPT_ACCOUNT, share_merges
from services.attribution.domain import Profile, Touch
from shared.db import Connection
from shared.events import LeadCaptured, TouchWithdrawn
from shared.identity import Member
from shared.ids import LeadId, TouchId

Fact = tuple[LeadId, datetime]
"""The id that a fact came with, and when it occurred: what decides whose it is."""

TOUCH_COLUMNS = (
    "origin",
    "touch_id",
    "position",
    "lead_id",
    "occurred_at",
    "received_at",
    "type",
    "channel",
    "channel_rule",
    "source",
    "medium",
    "campaign",
    "content",
    "page",
    "automated",
    "given_channel",
    "referrer_host",
    "click_ids",
    "tagged",
    "automated_reason",
    "withdrawn",
)
# `WHERE erased` leaves the other rows as they are, but locks them all the same.
LOCK_LEADS = """
WITH locked AS (
    INSERT INTO leads (lead_id) SELECT unnest($1::text[])
    ON CONFLICT (lead_id) DO UPDATE SET erased = leads.erased WHERE leads.erased
    RETURNING lead_id, erased
)
SELECT lead_id FROM locked WHERE erased
"""
CONVERTING = "SELECT lead_id FROM converting_leads WHERE lead_id = ANY($1)"
PUT_CONVERTING = "INSERT INTO converting_leads (lead_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
TOLD_TOUCHES = f"""
unnest(
    $1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::boolean[],
    $16::text[], $17::text[], $18::text[], $19::boolean[], $20::text[], $21::boolean[])
    AS told ({", ".join(TOUCH_COLUMNS)})
"""
# What is replaced stays as a version, as it was told: what grouping and a withdrawal made of it is left out, since both
# are looked up when it is looked at. A version that is there already was told twice.
AS_TOLD = {
    "channel": "''",
    "channel_rule": "''",
    "source": "CASE WHEN {prefix}tagged THEN {prefix}source END",
    "medium": "CASE WHEN {prefix}tagged THEN {prefix}medium END",
    "automated": "{prefix}automated AND NOT {prefix}withdrawn",
    "automated_reason": "CASE WHEN NOT {prefix}withdrawn THEN {prefix}automated_reason END",
    "withdrawn": "false",
}


def _as_told(prefix: str) -> str:
    return ", ".join(AS_TOLD.get(name, "{prefix}" + name).format(prefix=prefix) for name in TOUCH_COLUMNS)


CORRECT_TOUCHES = f"""
WITH put AS (
    INSERT INTO touches AS known ({", ".join(TOUCH_COLUMNS)}) SELECT * FROM {TOLD_TOUCHES}
    ON CONFLICT (touch_id, origin) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in TOUCH_COLUMNS[2:])}
    WHERE (known.position, known.received_at) < (excluded.position, excluded.received_at)
    RETURNING new.lead_id, new.occurred_at, {", ".join(f"old.{name} AS old_{name}" for name in TOUCH_COLUMNS)}
), replaced AS (
    INSERT INTO touch_versions ({", ".join(TOUCH_COLUMNS)})
    SELECT {_as_told("old_")} FROM put WHERE old_touch_id IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT lead_id, occurred_at, old_lead_id, old_occurred_at FROM put
"""
KEEP_TOUCHES = f"""
INSERT INTO touch_versions ({", ".join(TOUCH_COLUMNS)})
SELECT {_as_told("told.")} FROM {TOLD_TOUCHES} JOIN touches AS known USING (touch_id, origin)
WHERE (known.position, known.received_at) <> (told.position, told.received_at)
ON CONFLICT DO NOTHING
"""
NAMED = """
SELECT lead_id FROM touches JOIN unnest($1::text[], $2::text[]) AS named (touch_id, origin) USING (touch_id, origin)
"""
WITHDRAW = """
UPDATE touches SET automated = true, withdrawn = true, automated_reason = named.reason
FROM unnest($1::text[], $2::text[], $3::text[]) AS named (touch_id, origin, reason)
WHERE (touches.touch_id, touches.origin) = (named.touch_id, named.origin) AND (withdrawn OR NOT automated)
RETURNING lead_id, occurred_at
"""
PUT_CAPTURED = """
INSERT INTO leads AS known (lead_id, revision, captured_at, country, account_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[])
ON CONFLICT (lead_id) DO UPDATE SET
    revision = excluded.revision, captured_at = excluded.captured_at, country = excluded.country,
    account_id = excluded.account_id
WHERE known.revision IS NULL OR known.revision < excluded.revision
RETURNING lead_id, old.captured_at IS DISTINCT FROM new.captured_at OR old.country IS DISTINCT FROM new.country
    OR old.account_id IS DISTINCT FROM new.account_id AS changed, erased
"""
STRIP_LEAD = """
INSERT INTO leads (lead_id, erased) VALUES ($1, true)
ON CONFLICT (lead_id) DO UPDATE SET erased = true WHERE NOT leads.erased
"""
STRIP_TOUCHES = """
UPDATE {table} SET page = NULL, content = NULL
WHERE lead_id = $1 AND (page IS NOT NULL OR content IS NOT NULL) RETURNING occurred_at
"""
PROFILES = f"""
SELECT member.person_id, leads.lead_id, leads.captured_at, leads.country,
    {KEPT_ACCOUNT.format(account="leads.account_id")} AS account_id
FROM unnest($1::text[], $2::text[]) AS member (person_id, lead_id) JOIN leads USING (lead_id)
WHERE leads.captured_at IS NOT NULL ORDER BY leads.lead_id <> member.person_id, leads.lead_id
"""
KNOWN = "SELECT EXISTS (SELECT 1 FROM leads WHERE lead_id = ANY($1))"
BELONGING = """
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    AS member (person_id, lead_id, since, until)
JOIN touches AS touch ON touch.lead_id = member.lead_id
    AND (member.since IS NULL OR touch.occurred_at >= member.since)
    AND (member.until IS NULL OR touch.occurred_at < member.until)
"""
# A bound that is open stands at the end of time, so that the index answers however long the journey is.
NEAR = """
unnest($5::text[], $6::timestamptz[], $7::timestamptz[]) AS wanted (person_id, earliest, latest)
JOIN unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    AS member (person_id, lead_id, since, until) USING (person_id)
CROSS JOIN LATERAL (
    SELECT {columns} FROM touches WHERE touches.lead_id = member.lead_id
        AND touches.occurred_at >= coalesce(greatest(member.since, wanted.earliest), '-infinity')
        AND touches.occurred_at <= wanted.latest AND touches.occurred_at < coalesce(member.until, 'infinity') {which}
) AS touch
"""
JOURNEYS = f"SELECT person_id, touch.* FROM {NEAR.format(columns='*', which='')}"
EARNING = f"SELECT person_id, touch.* FROM {NEAR.format(columns='*', which='AND NOT automated')}"
# What is told is the newest of each id; the index leads to them, however many there are.
_AGAINST = "AND (automated OR touches.occurred_at > $8 OR touches.occurred_at < $9::timestamptz)"
_NEWEST = 'ORDER BY occurred_at DESC, touch_id COLLATE "C" DESC, origin COLLATE "C" DESC LIMIT $10'
AGAINST = f"SELECT touch.* FROM {NEAR.format(columns='*', which=f'{_AGAINST} {_NEWEST}')} {_NEWEST}"
COUNT_AGAINST = f"SELECT count(*) FROM {NEAR.format(columns='', which=_AGAINST)}"
JOURNEY_PAGE = f"""
SELECT touch.* {BELONGING}
WHERE $5::timestamptz IS NULL
    OR (touch.occurred_at >= $5 AND (touch.occurred_at, touch.touch_id, touch.origin) > ($5, $6::text, $7::text))
ORDER BY touch.occurred_at, touch.touch_id, touch.origin LIMIT $8
"""


async def lock_leads(connection: Connection, lead_ids: Iterable[LeadId]) -> set[LeadId]:
    """Take the locks of these ids until the end of the transaction; answers those that are erased."""
    return {row["lead_id"] for row in await connection.fetch(LOCK_LEADS, sorted(set(lead_ids)))}


async def converting_among(connection: Connection, lead_ids: Iterable[LeadId]) -> set[LeadId]:
    """Those ids whose facts may concern a conversion."""
    return {row["lead_id"] for row in await connection.fetch(CONVERTING, list(set(lead_ids)))}


async def mark_converting(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    """Remember that facts of these ids may concern a conversion."""
    await connection.execute(PUT_CONVERTING, sorted(set(lead_ids)))


async def add_touches(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[Fact] | None:
    """Add touches, rows of `TOUCH_COLUMNS`. Of two with one name the one received last stays.

    Copying is fastest, and nearly always right; where a name is taken, nothing was copied and the rows are compared.
    Answers what the comparison changed, before and after; None when each row was new.
    """
    try:
        async with connection.transaction():
            await connection.copy_records_to_table("touches", records=rows, columns=TOUCH_COLUMNS)
        return None
    except asyncpg.UniqueViolationError:
        pass
    newest: dict[tuple[str, str], tuple[Any, ...]] = {}
    for row in sorted(rows, key=lambda row: (row[1], row[0], row[2], row[5])):
        newest[row[1], row[0]] = row
    changed: list[Fact] = []
    for found in await connection.fetch(CORRECT_TOUCHES, *_columns(newest.values())):
        changed.append((found["lead_id"], found["occurred_at"]))
        if found["old_lead_id"] is not None:
            changed.append((found["old_lead_id"], found["old_occurred_at"]))
    await connection.execute(KEEP_TOUCHES, *_columns(rows))
    return changed


async def leads_of_touches(connection: Connection, events: Sequence[TouchWithdrawn]) -> set[LeadId]:
    """The ids that touches of these names came with, as far as they are known."""
    rows = await connection.fetch(NAMED, [event.touch_id for event in events], [event.origin for event in events])
    return {row["lead_id"] for row in rows}


async def withdraw_touches(connection: Connection, events: Sequence[TouchWithdrawn]) -> list[Fact]:
    """Have touches count as a machine's; answers those that are known, unless they were told as one."""
    names = [event.touch_id for event in events], [event.origin for event in events]
    rows = await connection.fetch(WITHDRAW, *names, [event.reason for event in events])
    return [(row["lead_id"], row["occurred_at"]) for row in rows]


async def put_captured(connection: Connection, events: Sequence[LeadCaptured]) -> list[LeadId]:
    """Store when leads were created and where they belong, the highest revision winning; answers those that changed."""
    found = await connection.fetch(
        PUT_CAPTURED,
        [event.lead_id for event in events],
        [event.revision for event in events],
        [event.captured_at for event in events],
        [event.country for event in events],
        [event.account_id for event in events],
    )
    if any(row["erased"] for row in found):
        await share_merges(connection)
    return [row["lead_id"] for row in found if row["changed"]]


async def strip_lead(connection: Connection, lead_id: LeadId) -> list[datetime]:
    """Take from an erased id's touches what might tell who it was; their channels and times stay.

    Answers when those occurred, since a shared browser's belong to several persons.
    """
    await connection.execute(STRIP_LEAD, lead_id)
    await share_merges(connection)
    stripped, _ = [  # in this order: who waits for a touch meanwhile makes a version of it
        await connection.fetch(STRIP_TOUCHES.format(table=table), lead_id) for table in ("touches", "touch_versions")
    ]
    return [row["occurred_at"] for row in stripped]


async def profiles(connection: Connection, people: Mapping[LeadId, Sequence[Member]]) -> dict[LeadId, Profile]:
    """What is known of each person who told who they are.

    The surviving id's profile tells country and account, else that of the smallest id that has one.
    """
    pairs = sorted({(person, member.lead_id) for person, ids in people.items() for member in ids})
    rows = await connection.fetch(PROFILES, [person for person, _ in pairs], [lead_id for _, lead_id in pairs])
    found: dict[LeadId, Profile] = {}
    for row in rows:
        known = found.get(row["person_id"])
        if known is None:
            found[row["person_id"]] = Profile(row["captured_at"], row["country"], row["account_id"])
        elif row["captured_at"] < known.created_at:
            found[row["person_id"]] = replace(known, created_at=row["captured_at"])
    return found


async def is_known(connection: Connection, lead_ids: Iterable[LeadId]) -> bool:
    """Whether any fact came with one of these ids."""
    return bool(await connection.fetchval(KNOWN, list(lead_ids)))


async def journeys(
    connection: Connection,
    people: Mapping[LeadId, Sequence[Member]],
    windows: Mapping[LeadId, tuple[datetime | None, datetime]],
    *,
    earning: bool = False,
) -> dict[LeadId, list[Touch]]:
    """The touches of persons that occurred in their windows, both ends included; in no order.

    `earning` leaves out those that earn nothing whatever the conversion.
    """
    rows = await connection.fetch(EARNING if earning else JOURNEYS, *near_columns(people, windows))
    found: dict[LeadId, list[Touch]] = {person: [] for person in windows}
    for row in rows:
        found[row["person_id"]].append(touch_of(row))
    return found


async def touches_against(
    connection: Connection,
    people: Mapping[LeadId, Sequence[Member]],
    until: datetime,
    eligible: tuple[datetime | None, datetime],
    limit: int,
) -> tuple[list[Touch], int]:
    """The newest touches of persons until then that earn nothing or are not within `eligible`, and how many are so."""
    columns = near_columns(people, dict.fromkeys(people, (None, until)))
    earliest, latest = eligible
    rows = await connection.fetch(AGAINST, *columns, latest, earliest, limit)
    number = len(rows)
    if number == limit:
        number = await connection.fetchval(COUNT_AGAINST, *columns, latest, earliest)
    return [touch_of(row) for row in rows], number


async def journey_page(
    connection: Connection,
    members: Sequence[Member],
    *,
    after: tuple[datetime, str, str] | None,
    limit: int,
) -> list[Touch]:
    """The touches of one person after a place in its journey, in order."""
    at, touch_id, origin = after or (None, None, None)
    columns = member_columns({LeadId(""): members})
    rows = await connection.fetch(JOURNEY_PAGE, *columns, at, touch_id, origin, limit)
    return [touch_of(row) for row in rows]


def member_columns(people: Mapping[LeadId, Sequence[Member]]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The members of persons as the columns that statements join with."""
    pairs = [(person, member) for person, ids in people.items() for member in ids]
    return (
        [person for person, _ in pairs],
        [member.lead_id for _, member in pairs],
        [member.since for _, member in pairs],
        [member.until for _, member in pairs],
    )


def near_columns(
    people: Mapping[LeadId, Sequence[Member]], windows: Mapping[LeadId, tuple[datetime | None, datetime]]
) -> list[list[Any]]:
    """The members of persons, and from when to when their touches are wanted, as the columns of `NEAR`."""
    wanted = list(windows.items())
    return [
        *member_columns({person: people[person] for person in windows}),
        [person for person, _ in wanted],
        [window[0] for _, window in wanted],
        [window[1] for _, window in wanted],
    ]


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def touch_of(row: asyncpg.Record) -> Touch:
    """A row of `touches` as a value."""
    return Touch(
        origin=row["origin"],
        touch_id=TouchId(row["touch_id"]),
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        type=row["type"],
        channel=row["channel"],
        channel_rule=row["channel_rule"],
        source=row["source"],
        medium=row["medium"],
        campaign=row["campaign"],
        content=row["content"],
        page=row["page"],
        automated=row["automated"],
        automated_reason=row["automated_reason"],
    )
