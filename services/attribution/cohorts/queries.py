"""The statements about contacts and cohorts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from services.attribution.cohorts.domain import Bought, Contact, Sizes, Sums
from services.attribution.journeys.queries import member_columns
from shared.db import Connection
from shared.identity import Member
from shared.ids import ConversionId, LeadId

FIRST_TOUCHES = """
SELECT DISTINCT ON (member.person_id) member.person_id, touch.occurred_at, touch.channel
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
    AS member (person_id, lead_id, since, until)
CROSS JOIN LATERAL (
    SELECT occurred_at, touch_id, origin, channel FROM touches
    WHERE touches.lead_id = member.lead_id AND NOT automated
        AND (member.since IS NULL OR occurred_at >= member.since)
        AND (member.until IS NULL OR occurred_at < member.until)
    ORDER BY occurred_at, touch_id COLLATE "C", origin COLLATE "C" LIMIT 1
) AS touch
ORDER BY member.person_id, touch.occurred_at, touch.touch_id COLLATE "C", touch.origin COLLATE "C"
"""
STORED = "SELECT * FROM contacts WHERE person_id = ANY($1)"
TAKE = "DELETE FROM contacts WHERE person_id = ANY($1)"
COLUMNS = ("person_id", "first_at", "channel", "conversion_ids", "times", "currencies", "values_minor")
ADD_SIZES = """
INSERT INTO cohort_sizes AS known SELECT * FROM unnest($1::text[], $2::date[], $3::text[], $4::bigint[])
ON CONFLICT (level, cohort, channel) DO UPDATE SET people = known.people + excluded.people
"""
ADD_SUMS = """
INSERT INTO cohort_sums AS known
SELECT * FROM unnest(
    $1::text[], $2::date[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[])
ON CONFLICT (level, cohort, channel, currency, age) DO UPDATE SET
    people = known.people + excluded.people, conversions = known.conversions + excluded.conversions,
    first_minor = known.first_minor + excluded.first_minor, value_minor = known.value_minor + excluded.value_minor
"""
# What nobody is counted in any more leaves no trace, so that the sums are the same however they came about.
SWEEP_SIZES = """
DELETE FROM cohort_sizes AS known USING unnest($1::text[], $2::date[], $3::text[]) AS moved (level, cohort, channel)
WHERE known.level = moved.level AND known.cohort = moved.cohort AND known.channel = moved.channel AND known.people = 0
"""
SWEEP_SUMS = """
DELETE FROM cohort_sums AS known
USING unnest($1::text[], $2::date[], $3::text[], $4::text[], $5::integer[])
    AS moved (level, cohort, channel, currency, age)
WHERE known.level = moved.level AND known.cohort = moved.cohort AND known.channel = moved.channel
    AND known.currency = moved.currency AND known.age = moved.age AND known.conversions = 0
"""


async def first_touches(
    connection: Connection, people: Mapping[LeadId, Sequence[Member]]
) -> dict[LeadId, tuple[datetime, str]]:
    """When each person's first touch was that no machine made, and its channel."""
    rows = await connection.fetch(FIRST_TOUCHES, *member_columns(people))
    return {row["person_id"]: (row["occurred_at"], row["channel"]) for row in rows}


async def stored_contacts(connection: Connection, person_ids: Collection[LeadId]) -> dict[LeadId, Contact]:
    """The contacts of persons as they are counted."""
    return {row["person_id"]: _contact(row) for row in await connection.fetch(STORED, list(person_ids))}


async def replace_contacts(connection: Connection, changed: Mapping[LeadId, Contact], gone: Collection[LeadId]) -> None:
    """Store contacts in place of what is counted; those of `gone` are forgotten."""
    await connection.execute(TAKE, [*changed, *gone])
    await connection.copy_records_to_table(
        "contacts", records=[_record(person, one) for person, one in changed.items()], columns=COLUMNS
    )


async def move_sums(connection: Connection, sizes: Sizes, sums: Sums) -> None:
    """Add to the sums of cohorts, and remove those that come to nothing."""
    if sizes:
        keys = _columns(sizes)
        await connection.execute(ADD_SIZES, *keys, *_columns(sizes.values()))
        await connection.execute(SWEEP_SIZES, *keys)
    if sums:
        keys = _columns(sums)
        await connection.execute(ADD_SUMS, *keys, *_columns(sums.values()))
        await connection.execute(SWEEP_SUMS, *keys)


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _contact(row: asyncpg.Record) -> Contact:
    bought = zip(row["conversion_ids"], row["times"], row["currencies"], row["values_minor"], strict=True)
    return Contact(
        row["first_at"],
        row["channel"],
        tuple(Bought(ConversionId(key), at, currency, minor) for key, at, currency, minor in bought),
    )


def _record(person: LeadId, one: Contact) -> tuple[Any, ...]:
    return (
        person,
        one.first_at,
        one.channel,
        [bought.conversion_id for bought in one.bought],
        [bought.occurred_at for bought in one.bought],
        [bought.currency for bought in one.bought],
        [bought.value_minor for bought in one.bought],
    )
