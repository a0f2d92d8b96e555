"""The statements about contacts and cohorts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from services.attribution.cohorts.domain import Bought, Contact, Level, Part, Sizes, Sums, age_of
from services.attribution.journeys.queries import member_columns
from services.attribution.reports.domain import Period, nth_bucket
from shared.db import Connection
from shared.identity import Member
from shared.ids import ConversionId, LeadId

EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
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

SIZES = """
SELECT cohort, channel, people FROM cohort_sizes
WHERE level = $1 AND ($2::date IS NULL OR cohort >= $2) AND ($3::date IS NULL OR cohort < $3)
"""
SUMS = """
SELECT cohort, channel, currency, age, NULL::date, people, conversions, first_minor, value_minor FROM cohort_sums
WHERE level = $1 AND ($2::date IS NULL OR cohort >= $2) AND ($3::date IS NULL OR cohort < $3)
    AND ($4::text IS NULL OR currency = $4)
"""
# The same from the contacts themselves, by the days of another time zone and by the days of the conversions in UTC. The
# last two parameters lie around the period, for the index.
COUNTED_SIZES = """
SELECT date_trunc($1, first_at AT TIME ZONE $4)::date AS cohort, channel, count(*) FROM contacts
WHERE ($2::date IS NULL OR date_trunc($1, first_at AT TIME ZONE $4)::date >= $2)
    AND ($3::date IS NULL OR date_trunc($1, first_at AT TIME ZONE $4)::date < $3)
    AND first_at >= $5 AND first_at < $6
GROUP BY 1, 2
"""
COUNTED_SUMS = """
SELECT date_trunc($1, first_at AT TIME ZONE $5)::date AS cohort, channel, bought.currency,
    date_trunc($1, bought.at AT TIME ZONE $5)::date AS bucket, bought.at::date AS day,
    count(*) FILTER (WHERE bought.place = 1), count(*),
    coalesce(sum(bought.minor) FILTER (WHERE bought.place = 1), 0)::bigint, sum(bought.minor)::bigint
FROM contacts CROSS JOIN LATERAL unnest(times, currencies, values_minor) WITH ORDINALITY
    AS bought (at, currency, minor, place)
WHERE conversion_ids <> '{}' AND ($4::text IS NULL OR bought.currency = $4)
    AND ($2::date IS NULL OR date_trunc($1, first_at AT TIME ZONE $5)::date >= $2)
    AND ($3::date IS NULL OR date_trunc($1, first_at AT TIME ZONE $5)::date < $3)
    AND first_at >= $6 AND first_at < $7
GROUP BY 1, 2, 3, 4, 5
"""
BOUGHT = """
SELECT bought.conversion_id, person_id AS lead_id, channel, first_at, bought.at AS occurred_at, bought.currency,
    bought.minor AS value_minor, bought.place = 1 AS first
FROM contacts CROSS JOIN LATERAL unnest(conversion_ids, times, currencies, values_minor) WITH ORDINALITY
    AS bought (conversion_id, at, currency, minor, place)
WHERE conversion_ids <> '{}'
    AND ($1::timestamptz IS NULL OR first_at >= $1) AND ($2::timestamptz IS NULL OR first_at < $2)
    AND ($3::timestamptz IS NULL OR bought.at >= $3) AND ($4::timestamptz IS NULL OR bought.at < $4)
    AND ($5::text IS NULL OR channel = $5) AND ($6::text IS NULL OR bought.currency = $6)
    AND ($7::boolean IS NULL OR (bought.place = 1) = $7)
    AND ($8::timestamptz IS NULL OR bought.at < $8 OR (bought.at = $8 AND bought.conversion_id > $9::text))
ORDER BY bought.at DESC, bought.conversion_id LIMIT $10
"""


class Chosen(NamedTuple):
    """Which conversions of cohorts are listed: when the person was first heard of, and when they bought."""

    known_from: datetime | None
    known_until: datetime | None
    bought_from: datetime | None
    bought_until: datetime | None
    channel: str | None
    currency: str | None
    first: bool | None


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


async def cohorts(
    connection: Connection, level: Level, period: Period, currency: str | None, *, by_days: bool
) -> tuple[dict[tuple[date, str], int], list[Part]]:
    """How many persons each cohort has, by its first day and channel, and what they bought.

    Whole weeks or months that begin in the period. With `by_days`, what they bought is told apart by day as well.
    """
    days = (level, period.first, period.end)
    zone = period.zone.key
    last = nth_bucket(period.end - timedelta(days=1), 1, level) if period.end else None
    since, until = Period(period.first, last, period.zone).moments
    day = timedelta(days=1)  # more than clocks are ever set back
    around = (since - day if since else EARLIEST, until + day if until else LATEST)
    if period.in_utc:
        sizes = await connection.fetch(SIZES, *days)
        if not by_days:
            return _sizes(sizes), [Part(*row.values()) for row in await connection.fetch(SUMS, *days, currency)]
    else:
        sizes = await connection.fetch(COUNTED_SIZES, *days, zone, *around)
    rows = await connection.fetch(COUNTED_SUMS, *days, currency, zone, *around)
    parts = []
    for cohort, channel, told_in, bucket, day, *sums in rows:
        parts.append(Part(cohort, channel, told_in, age_of(cohort, bucket, level), day, *sums))
    return _sizes(sizes), parts


async def bought(
    connection: Connection, chosen: Chosen, *, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """The conversions of cohorts, the newest first."""
    return await connection.fetch(BOUGHT, *chosen, *(after or (None, None)), limit)


def _sizes(rows: Iterable[asyncpg.Record]) -> dict[tuple[date, str], int]:
    return {(cohort, channel): people for cohort, channel, people in rows}


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
