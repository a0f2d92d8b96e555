"""The statements that keep marks and their sums: what is written is only the difference."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, get_args

import asyncpg

from services.attribution.pipeline.counting import Cell, cells_of, total_of
from services.attribution.pipeline.domain import TIMED, Circumstances, Kind, Mark, Owner
from shared.db import Connection
from shared.ids import LeadId

LONG_S = 24 * 3600.0
Counted = tuple[Circumstances, frozenset[Mark]]
"""What is counted of a person, and under what."""

MARK_COLUMNS = (
    "person_id",
    "kind",
    "step",
    "ref",
    "at",
    "rep",
    "teams",
    "currency",
    "number",
    "value_minor",
    "weighted_minor",
    "lapse",
    "bucket",
)
MARKS = f"SELECT {', '.join(MARK_COLUMNS)} FROM marks WHERE person_id = ANY($1)"
CIRCUMSTANCES = """
SELECT person_id, channel, source, campaign, country, account FROM circumstances WHERE person_id = ANY($1)
"""
REMOVE_MARKS = """
DELETE FROM marks USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    AS gone (person_id, kind, ref, step, at)
WHERE marks.person_id = gone.person_id AND marks.kind = gone.kind AND marks.ref = gone.ref
    AND marks.step = gone.step AND marks.at = gone.at
"""
PUT_CIRCUMSTANCES = """
INSERT INTO circumstances (person_id, channel, source, campaign, country, account)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (person_id) DO UPDATE SET
    channel = excluded.channel, source = excluded.source, campaign = excluded.campaign, country = excluded.country,
    account = excluded.account
"""
REMOVE_CIRCUMSTANCES = "DELETE FROM circumstances WHERE person_id = ANY($1)"
# Answers what nothing counts under any more: it leaves no trace, so that the sums are the same however they came about.
ADD = """
WITH added AS (
INSERT INTO mark_sums AS known
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::date[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::bigint[],
    $10::numeric[], $11::numeric[], $12::numeric[])
ON CONFLICT (kind, dimension, level, day, key, step, bucket, currency) DO UPDATE SET
    number = known.number + excluded.number, value_minor = known.value_minor + excluded.value_minor,
    weighted_minor = known.weighted_minor + excluded.weighted_minor,
    microseconds = known.microseconds + excluded.microseconds
RETURNING kind, dimension, level, day, key, step, bucket, currency, number, value_minor, weighted_minor, microseconds
)
SELECT kind, dimension, level, day, key, step, bucket, currency FROM added
WHERE number = 0 AND value_minor = 0 AND weighted_minor = 0 AND microseconds = 0
"""
ANY_SUMS = "SELECT EXISTS (SELECT 1 FROM mark_sums)"
WITHOUT_HASTE = "SET LOCAL statement_timeout = 0"
# What `cells_of` says of one mark, of all marks of a kind.
SUM_UP = """
INSERT INTO mark_sums
SELECT $1, keys.dimension, days.level, days.day, keys.key, mark.step, mark.bucket, mark.currency,
    sum(mark.number), sum(mark.value_minor), sum(mark.weighted_minor), sum(coalesce(mark.lapse, 0))
FROM marks AS mark JOIN circumstances AS person USING (person_id)
CROSS JOIN LATERAL (
    VALUES ('day', (mark.at AT TIME ZONE 'UTC')::date), ('month', date_trunc('month', mark.at AT TIME ZONE 'UTC')::date)
) AS days (level, day)
CROSS JOIN LATERAL (
    VALUES ('all', ''), ('rep', mark.rep), ('channel', person.channel), ('source', person.source),
        ('campaign', person.campaign), ('country', person.country), ('account', person.account)
    UNION ALL
    SELECT 'team', unnest(CASE WHEN mark.teams = '{}' THEN ARRAY['(not set)'] ELSE mark.teams END)
) AS keys (dimension, key)
WHERE mark.kind = $1 AND (days.level = 'month' OR keys.dimension = 'all' OR NOT $2)
GROUP BY keys.dimension, days.level, days.day, keys.key, mark.step, mark.bucket, mark.currency
HAVING sum(mark.number) <> 0 OR sum(mark.value_minor) <> 0 OR sum(mark.weighted_minor) <> 0
    OR sum(coalesce(mark.lapse, 0)) <> 0
"""
SWEEP = """
DELETE FROM mark_sums AS known USING unnest(
    $1::text[], $2::text[], $3::text[], $4::date[], $5::text[], $6::text[], $7::smallint[], $8::text[])
    AS moved (kind, dimension, level, day, key, step, bucket, currency)
WHERE known.kind = moved.kind AND known.dimension = moved.dimension AND known.level = moved.level
    AND known.day = moved.day AND known.key = moved.key AND known.step = moved.step AND known.bucket = moved.bucket
    AND known.currency = moved.currency
    AND known.number = 0 AND known.value_minor = 0 AND known.weighted_minor = 0 AND known.microseconds = 0
"""


async def counted_of(connection: Connection, ids: Iterable[LeadId]) -> dict[LeadId, Counted]:
    """What is counted under these ids so far."""
    wanted = sorted(set(ids))
    marks: dict[LeadId, set[Mark]] = defaultdict(set)
    for row in await connection.fetch(MARKS, wanted):
        marks[row["person_id"]].add(_mark(row))
    found = await connection.fetch(CIRCUMSTANCES, wanted)
    return {
        row["person_id"]: (Circumstances(*list(row.values())[1:]), frozenset(marks[row["person_id"]])) for row in found
    }


async def any_sums(connection: Connection) -> bool:
    """Whether anything has been summed."""
    return bool(await connection.fetchval(ANY_SUMS))


async def sum_up(connection: Connection) -> None:
    """Make the sums of all marks, where there are none yet. Nobody else counts meanwhile."""
    await connection.execute(WITHOUT_HASTE)
    for kind in get_args(Kind):
        await connection.execute(SUM_UP, kind, kind in TIMED, timeout=LONG_S)


async def replace_counted(
    connection: Connection, before: Mapping[LeadId, Counted], after: Mapping[LeadId, Counted], *, summed: bool = True
) -> None:
    """Count this in place of that: by the difference. What is not `summed` the caller sums up later."""
    gone: list[tuple[LeadId, Mark]] = []
    new: list[tuple[LeadId, Mark]] = []
    moved: dict[Cell, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for person in sorted({*before, *after}):
        was, now = before.get(person), after.get(person)
        kept = was[1] & now[1] if was and now else frozenset()
        gone += ((person, mark) for mark in (was[1] if was else ()) if mark not in kept)
        new += ((person, mark) for mark in (now[1] if now else ()) if mark not in kept)
        # under other circumstances, what stays counts elsewhere
        for sign, side in ((-1, was), (1, now)) if summed else ():
            if side is not None:
                _move(moved, side[1] - kept if was and now and was[0] == now[0] else side[1], side[0], sign)
    if gone:
        keys = [(person, mark.kind, mark.ref, mark.step, mark.at) for person, mark in gone]
        await connection.execute(REMOVE_MARKS, *_columns(keys))
    if new:
        await connection.copy_records_to_table("marks", records=[_row(*one) for one in new], columns=MARK_COLUMNS)
    await _put_circumstances(connection, before, after)
    cells = sorted(cell for cell, total in moved.items() if any(total))  # locked in one order everywhere
    if cells:
        empty = await connection.fetch(ADD, *_columns(cells), *_columns(moved[cell] for cell in cells))
        if empty:
            await connection.execute(SWEEP, *_columns(map(tuple, empty)))


async def _put_circumstances(
    connection: Connection, before: Mapping[LeadId, Counted], after: Mapping[LeadId, Counted]
) -> None:
    changed = [
        (person, *astuple(now[0]))
        for person, now in sorted(after.items())
        if person not in before or before[person][0] != now[0]
    ]
    if changed:
        await connection.execute(PUT_CIRCUMSTANCES, *_columns(changed))
    if left := sorted(before.keys() - after.keys()):
        await connection.execute(REMOVE_CIRCUMSTANCES, left)


def _move(moved: dict[Cell, list[int]], marks: Iterable[Mark], circumstances: Circumstances, sign: int) -> None:
    for mark in marks:
        number, value, weighted, lapse = (sign * amount for amount in total_of(mark))
        for cell in cells_of(mark, circumstances):
            sums = moved[cell]
            sums[0] += number
            sums[1] += value
            sums[2] += weighted
            sums[3] += lapse


def _row(person: LeadId, mark: Mark) -> tuple[Any, ...]:
    rep, teams = mark.owner
    return (
        person,
        mark.kind,
        mark.step,
        mark.ref,
        mark.at,
        rep,
        teams,
        mark.currency,
        mark.number,
        mark.value_minor,
        mark.weighted_minor,
        mark.lapse,
        mark.bucket,
    )


def _mark(row: asyncpg.Record) -> Mark:
    return Mark(
        kind=row["kind"],
        step=row["step"],
        ref=row["ref"],
        at=row["at"],
        owner=Owner(row["rep"], tuple(row["teams"])),
        currency=row["currency"],
        number=row["number"],
        value_minor=row["value_minor"],
        weighted_minor=row["weighted_minor"],
        lapse=row["lapse"],
    )


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
