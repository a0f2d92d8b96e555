"""The statements about the ids that wait to be looked at, and about what is left of journeys."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.attribution.debts.queries import PAID_UNTIL, TOPICS
from services.attribution.journeys.queries import member_columns
from services.attribution.paths.domain import Journey, Keys, remainder
from services.attribution.paths.queries import array_literals
from shared.db import Connection
from shared.identity import Member
from shared.ids import LeadId

IDS_OF_A_TURN = 250
TURNS_AT_ONCE = 8

# `as_of`: until when everything that was told is in what was stored before these facts.
PUT_TURN = """
INSERT INTO path_turns (projection, lead_ids, as_of)
SELECT current_schema(), array_agg(lead_id), (SELECT min(at) FROM feed_watermarks WHERE topic = ANY($3))
FROM unnest($1::text[]) WITH ORDINALITY AS told (lead_id, place) GROUP BY (place - 1) / $2::bigint
"""
# Of two that look at the same person at once the second must see what the first wrote. Nobody but them waits for what
# is locked here, so that a slow machine may take its time between the statements.
TAKE_TURN = """
SELECT set_config('idle_in_transaction_session_timeout', '60s', true), set_config('statement_timeout', '60s', true),
    pg_advisory_xact_lock(hashtextextended(current_schema() || '/paths', 0))
"""
TAKE_TURNS = """
DELETE FROM path_turns WHERE turn IN (
    SELECT turn FROM path_turns WHERE projection = current_schema() ORDER BY turn LIMIT $1)
RETURNING lead_ids
"""
COUNT_MOVE = """
INSERT INTO path_moves AS known (projection, moves) VALUES (current_schema(), 1)
ON CONFLICT (projection) DO UPDATE SET moves = known.moves + 1
"""
# What was folded before there was a list.
BEGIN = "INSERT INTO path_moves (projection, moves) VALUES (current_schema(), 0) ON CONFLICT DO NOTHING RETURNING moves"
PUT_ALL = """
INSERT INTO path_turns (projection, lead_ids)
SELECT current_schema(), array_agg(lead_id)
FROM (SELECT lead_id, row_number() OVER (ORDER BY lead_id) / $1::bigint AS part FROM leads) AS known GROUP BY part
"""
LINKED = "SELECT DISTINCT lead_id FROM identity_links WHERE anonymous_lead_id = ANY($1)"
REMAINING = """
WITH member AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
        AS member (person_id, lead_id, since, until)
), converted AS (
    SELECT member.person_id, max(conversion.occurred_at) AS at
    FROM member JOIN conversions AS conversion ON conversion.lead_id = member.lead_id
        AND (member.since IS NULL OR conversion.occurred_at >= member.since)
        AND (member.until IS NULL OR conversion.occurred_at < member.until)
    GROUP BY member.person_id
)
SELECT member.person_id, max(touch.occurred_at) AS last_at, array_agg(
    touch.channel ORDER BY touch.occurred_at, touch.touch_id COLLATE "C", touch.origin COLLATE "C") AS channels
FROM member JOIN touches AS touch ON touch.lead_id = member.lead_id
    AND (member.since IS NULL OR touch.occurred_at >= member.since)
    AND (member.until IS NULL OR touch.occurred_at < member.until)
LEFT JOIN converted ON converted.person_id = member.person_id
WHERE NOT touch.automated AND (converted.at IS NULL OR touch.occurred_at > converted.at)
GROUP BY member.person_id
"""
REMAINDERS = "SELECT person_id, last_at, channels FROM remainders WHERE person_id = ANY($1)"
PUT_REMAINDERS = """
INSERT INTO remainders SELECT person_id, last_at, channels::text[]
FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS found (person_id, last_at, channels)
ON CONFLICT (person_id) DO UPDATE SET last_at = excluded.last_at, channels = excluded.channels
"""
DROP_REMAINDERS = "DELETE FROM remainders WHERE person_id = ANY($1)"
# What was told but waits to be looked at is not in yet.
AS_OF = f"""
SELECT nullif(least(min(at), {PAID_UNTIL}, (
    SELECT coalesce(as_of, '-infinity') FROM path_turns WHERE projection = current_schema() ORDER BY turn LIMIT 1
)), '-infinity')
FROM feed_watermarks WHERE topic = ANY($1)
"""


@dataclass(frozen=True, slots=True)
class Remainder:
    """The channels of a person's touches after their last conversion, runs as one visit."""

    last_at: datetime
    channels: Keys

    @property
    def journey(self) -> Journey:
        """As a journey that led to nothing."""
        return remainder(self.channels, self.last_at)


async def put_turns(connection: Connection, lead_ids: Iterable[LeadId]) -> None:
    """Remember that what is left of the journeys of these ids may be another now; a worker looks at them."""
    if ids := list(set(lead_ids)):
        await connection.execute(PUT_TURN, ids, IDS_OF_A_TURN, TOPICS)


async def put_all_once(connection: Connection) -> None:
    """Put every id on the list, the first time that this is asked."""
    if await connection.fetchval(BEGIN) is not None:
        await connection.execute(PUT_ALL, IDS_OF_A_TURN)


async def take_turns(connection: Connection) -> set[LeadId]:
    """The ids that have waited longest, taken off the list. Until the transaction ends nobody else takes any."""
    await connection.execute(TAKE_TURN)
    rows = await connection.fetch(TAKE_TURNS, TURNS_AT_ONCE)
    if rows:
        await connection.execute(COUNT_MOVE)
    return {LeadId(lead_id) for row in rows for lead_id in row["lead_ids"]}


async def as_of(connection: Connection) -> datetime | None:
    """Until when everything that was told is counted; None while no feed has said so."""
    at: datetime | None = await connection.fetchval(AS_OF, TOPICS)
    return at


async def linked_to(connection: Connection, lead_ids: Collection[LeadId]) -> set[LeadId]:
    """Those whom any of these ids was ever linked to."""
    return {LeadId(row["lead_id"]) for row in await connection.fetch(LINKED, list(lead_ids))}


async def remaining(connection: Connection, people: Mapping[LeadId, Sequence[Member]]) -> dict[LeadId, Remainder]:
    """What is left of the journeys of persons, from their touches; persons of whom nothing is left are left out."""
    rows = await connection.fetch(REMAINING, *member_columns(people))
    return {
        row["person_id"]: Remainder(row["last_at"], remainder(row["channels"], row["last_at"]).channels) for row in rows
    }


async def stored_remainders(connection: Connection, person_ids: Collection[LeadId]) -> dict[LeadId, Remainder]:
    """What is counted as left of the journeys of persons."""
    rows = await connection.fetch(REMAINDERS, list(person_ids))
    return {row["person_id"]: Remainder(row["last_at"], tuple(row["channels"])) for row in rows}


async def store_remainders(
    connection: Connection, changed: Mapping[LeadId, Remainder], gone: Collection[LeadId]
) -> None:
    """Remember what is counted as left of the journeys of persons."""
    if changed:
        found = list(changed.values())
        keys = array_literals(one.channels for one in found)
        await connection.execute(PUT_REMAINDERS, list(changed), [one.last_at for one in found], keys)
    if gone:
        await connection.execute(DROP_REMAINDERS, list(gone))
