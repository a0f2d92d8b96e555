"""The statements about the turns of messages, the word that a broadcast runs, and shared addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.nurture.broadcasts.domain import State
from shared.db import Connection, one
from shared.ids import LeadId, SequenceId

# Whoever claims a message of a broadcast holds its word that it runs until the claim is committed.
HOLD_WORD = "SELECT pg_advisory_xact_lock_shared(1853191, hashtext($1))"
STANDING = """
SELECT state, document #>> '{audience,segment}' AS segment, document #>> '{audience,where}' AS condition,
    document #> '{rate,domains}' AS domains
FROM broadcasts WHERE broadcast_id = $1
"""
TURNS = """
SELECT member.lead_id, member.turn_at, clock_timestamp() AS now,
    coalesce(
        interval '1 minute' / (document #>> '{rate,per_minute}')::integer,
        interval '1 hour' / (document #>> '{rate,per_hour}')::integer
    ) AS interval
FROM broadcasts JOIN broadcast_members AS member USING (broadcast_id)
WHERE broadcast_id = $1 AND member.lead_id = ANY($2)
  AND coalesce(document #>> '{rate,per_minute}', document #>> '{rate,per_hour}') IS NOT NULL
"""
NEXT_TURN = """
WITH given AS (
    UPDATE broadcasts SET free_from = greatest(free_from, clock_timestamp()) + $3::interval WHERE broadcast_id = $1
    RETURNING free_from - $3::interval AS turn_at
)
UPDATE broadcast_members AS member SET turn_at = given.turn_at FROM given
WHERE broadcast_id = $1 AND lead_id = $2 RETURNING given.turn_at, clock_timestamp() AS now
"""
# In the order of addresses: two that reserve the same ones at once must not wait for each other.
RESERVE = """
INSERT INTO broadcast_addresses (broadcast_id, address_hash, lead_id)
SELECT $1, address_hash, lead_id FROM unnest($2::text[], $3::text[]) WITH ORDINALITY
    AS given (address_hash, lead_id, place)
ORDER BY address_hash, place ON CONFLICT DO NOTHING RETURNING lead_id
"""
RESERVED_FOR = "SELECT lead_id FROM broadcast_addresses WHERE broadcast_id = $1 AND address_hash = $2 FOR UPDATE"
# Whoever has no row in the ledger yet is about to get one, in this transaction perhaps.
GETS_IT = """
SELECT coalesce(
    (SELECT state NOT IN ('suppressed', 'failed') FROM messages WHERE lead_id = $1 AND sequence_id = $2 LIMIT 1),
    EXISTS (SELECT FROM enrolments WHERE lead_id = $1 AND sequence_id = $2 AND active)
)
"""
TAKE_OVER = "UPDATE broadcast_addresses SET lead_id = $3 WHERE broadcast_id = $1 AND address_hash = $2"


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a broadcast runs, and whom it still means: a segment, an expression, or those who were listed.

    `domains` is how many emails of it each may get a minute.
    """

    state: State
    segment: str | None
    condition: str | None
    domains: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GivenTurn:
    """When a message may leave by the rate, and how far apart turns are."""

    turn_at: datetime | None
    now: datetime
    interval: timedelta


async def hold_word(connection: Connection, broadcast_id: SequenceId) -> None:
    """Keep the broadcast from being stopped until this transaction ends; from here on its state is read anew."""
    await connection.execute(HOLD_WORD, broadcast_id)


async def standing(connection: Connection, broadcast_id: SequenceId) -> Standing | None:
    """Whether a broadcast runs and whom it means."""
    row = await connection.fetchrow(STANDING, broadcast_id)
    return None if row is None else Standing(row["state"], row["segment"], row["condition"], row["domains"] or {})


async def turns_of(
    connection: Connection, broadcast_id: SequenceId, lead_ids: Sequence[LeadId]
) -> dict[LeadId, GivenTurn]:
    """When messages may leave by the rate; nothing where there is none."""
    rows = await connection.fetch(TURNS, broadcast_id, lead_ids)
    return {LeadId(row["lead_id"]): GivenTurn(row["turn_at"], row["now"], row["interval"]) for row in rows}


async def next_turn(
    connection: Connection, broadcast_id: SequenceId, lead_id: LeadId, interval: timedelta
) -> GivenTurn:
    """Give a message the first turn that is left."""
    row = await one(connection, NEXT_TURN, broadcast_id, lead_id, interval)
    return GivenTurn(row["turn_at"], row["now"], interval)


async def reserve(
    connection: Connection, broadcast_id: SequenceId, wanted: Mapping[LeadId, str]
) -> dict[LeadId, LeadId]:
    """Let leads be the ones who get it at their addresses; answers those for whose address another one is already."""
    rows = await connection.fetch(RESERVE, broadcast_id, list(wanted.values()), list(wanted))
    fresh = {row["lead_id"] for row in rows}
    owners: dict[LeadId, LeadId] = {}
    for lead_id, address in sorted(wanted.items(), key=lambda one: one[1]):
        if lead_id not in fresh:
            owner: str = await connection.fetchval(RESERVED_FOR, broadcast_id, address)
            if owner != lead_id and await connection.fetchval(GETS_IT, owner, broadcast_id):
                owners[lead_id] = LeadId(owner)
            elif owner != lead_id:
                await connection.execute(TAKE_OVER, broadcast_id, address, lead_id)
    return owners
