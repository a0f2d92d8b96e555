"""The statements about sums of sequences of channels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import asyncpg

from services.attribution.domain import LOOKBACK
from services.attribution.paths.domain import (
    SHORT,
    Amount,
    Arrival,
    Cell,
    Counted,
    Journey,
    Keys,
    Reach,
    Sequenced,
    Span,
    Subject,
    Wanted,
    key_id,
    moved,
    remainder,
)
from services.attribution.reports.domain import midnight
from shared.db import Connection

RANKED_FOR_EACH = 6
"""How many sequences over all time are looked at for each one that is to be found in a period."""

LATEST = datetime.max.replace(tzinfo=UTC)
SUM_KEY = ("subject", "level", "day", "currency", "conversion_type", "key_id")
RANK_KEY = ("subject", "currency", "key_id")

ADD_SUMS = """
INSERT INTO path_sums AS known
SELECT subject, level, day, currency, conversion_type, key_id, keys::text[], journeys, value_minor
FROM unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
    $9::bigint[]) AS moved (subject, level, day, currency, conversion_type, key_id, keys, journeys, value_minor)
ON CONFLICT (subject, level, day, currency, conversion_type, key_id) DO UPDATE
SET journeys = known.journeys + excluded.journeys, value_minor = known.value_minor + excluded.value_minor
"""
SWEEP_SUMS = """
DELETE FROM path_sums AS known
USING unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::text[], $6::bigint[])
    AS moved (subject, level, day, currency, conversion_type, key_id)
WHERE known.subject = moved.subject AND known.level = moved.level AND known.day = moved.day
    AND known.currency = moved.currency AND known.conversion_type = moved.conversion_type
    AND known.key_id = moved.key_id AND known.journeys = 0
"""
ADD_RANKS = """
INSERT INTO path_ranks AS known
SELECT subject, currency, key_id, keys::text[], journeys, value_minor
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[])
    AS moved (subject, currency, key_id, keys, journeys, value_minor)
ON CONFLICT (subject, currency, key_id) DO UPDATE
SET journeys = known.journeys + excluded.journeys, value_minor = known.value_minor + excluded.value_minor
"""
SWEEP_RANKS = """
DELETE FROM path_ranks AS known
USING unnest($1::text[], $2::text[], $3::bigint[]) AS moved (subject, currency, key_id)
WHERE known.subject = moved.subject AND known.currency = moved.currency AND known.key_id = moved.key_id
    AND known.journeys = 0
"""
SUMS = """
SELECT subject, currency, key_id, any_value(keys) AS keys, sum(journeys)::bigint AS journeys,
    sum(value_minor)::bigint AS value_minor
FROM (
    SELECT sums.subject, sums.currency, sums.key_id, sums.keys, sign * sums.journeys, sign * sums.value_minor
    FROM unnest($1::text[], $2::date[], $3::date[], $4::integer[]) AS span (level, first, until, sign)
    JOIN path_sums AS sums ON sums.subject = ANY($5) AND sums.level = span.level
        AND sums.day >= span.first AND sums.day < span.until
    WHERE ($6::text IS NULL OR sums.currency IN ($6, ''))
        AND ($7::text[] IS NULL OR sums.currency = '' OR sums.conversion_type = ANY($7))
    UNION ALL
    SELECT subject, currency, key_id, keys::text[], journeys, value_minor
    FROM unnest($8::text[], $9::text[], $10::bigint[], $11::text[], $12::bigint[], $13::bigint[])
        AS part_of_day (subject, currency, key_id, keys, journeys, value_minor)
) AS part (subject, currency, key_id, keys, journeys, value_minor)
GROUP BY subject, currency, key_id HAVING sum(journeys) <> 0 OR sum(value_minor) <> 0
"""
_AFTER = """
({journeys}::bigint IS NULL OR (journeys <= {journeys} AND (
    journeys < {journeys} OR value_minor < {value} OR (value_minor = {value} AND key_id > {key}))))
ORDER BY journeys DESC, value_minor DESC, key_id LIMIT {limit}
"""
MOST = f"""
SELECT * FROM ({SUMS}) AS summed
WHERE {{among}} {_AFTER.format(journeys="$14", value="$15::bigint", key="$16::bigint", limit="$17")}
"""
MOST_OF_ALL, MOST_AMONG = MOST.format(among=""), MOST.format(among="key_id = ANY($18::bigint[]) AND")
RANKED = f"""
SELECT subject, currency, key_id, keys, journeys, value_minor FROM path_ranks WHERE subject = $1 AND currency = $2
AND {_AFTER.format(journeys="$3", value="$4::bigint", key="$5::bigint", limit="$6")}
"""
# The first element of a path's arrays stands for nobody.
ARRIVALS = """
SELECT paths.currency, paths.conversion_type, paths.value_minor, paths.occurred_at, paths.times[2:] AS times,
    (SELECT array_agg(combos.channel ORDER BY place) FROM unnest(paths.combos[2:]) WITH ORDINALITY
        AS stop (combo_id, place) JOIN combos USING (combo_id)) AS channels
FROM unnest($1::timestamptz[], $2::timestamptz[]) AS part (since, until)
JOIN paths ON paths.occurred_at >= part.since AND paths.occurred_at < part.until
WHERE ($3::text IS NULL OR paths.currency = $3) AND ($4::text[] IS NULL OR paths.conversion_type = ANY($4))
"""
LOST = """
SELECT remainders.last_at, remainders.channels
FROM unnest($1::timestamptz[], $2::timestamptz[]) AS part (since, until)
JOIN remainders ON remainders.last_at >= part.since AND remainders.last_at < part.until
"""
LOST_ROUTES = """
SELECT channels, sum(sign)::bigint AS journeys
FROM unnest($1::timestamptz[], $2::timestamptz[], $3::integer[]) AS part (since, until, sign)
CROSS JOIN LATERAL (
    SELECT * FROM remainders WHERE last_at >= part.since AND last_at < part.until OFFSET 0
) AS remainder GROUP BY channels
"""
# As far back as an order looks.
GRAMS = """
SELECT sums.subject, sums.currency, 0::bigint AS key_id,
    sums.keys[greatest(1, cardinality(sums.keys) - $5 + CASE sums.subject WHEN 'tail' THEN 1 ELSE 0 END):] AS keys,
    sum(sign * sums.journeys)::bigint AS journeys, sum(sign * sums.value_minor)::bigint AS value_minor
FROM unnest($1::text[], $2::date[], $3::date[], $4::integer[]) AS span (level, first, until, sign)
JOIN path_sums AS sums ON sums.subject IN ('gram', 'tail') AND sums.level = span.level
    AND sums.day >= span.first AND sums.day < span.until
WHERE sums.currency IN ($6, '') AND ($7::text[] IS NULL OR sums.currency = '' OR sums.conversion_type = ANY($7))
GROUP BY 1, 2, 4
"""

# The newest days that hold as many conversions of a cell as a page does; not all of the newest one may be on it.
DAYS = """
SELECT day FROM (
    SELECT day, sum(journeys) OVER (ORDER BY day DESC) - journeys AS newer FROM (
        SELECT day, sum(CASE WHEN day < $16 THEN journeys ELSE 0 END) AS journeys FROM path_sums
        WHERE subject = $14 AND level = 'day' AND key_id = $15 AND day <= $16
            AND ($2::timestamptz IS NULL OR day >= ($2 AT TIME ZONE 'UTC')::date)
            AND currency <> '' AND ($4::text IS NULL OR currency = $4)
            AND ($5::text[] IS NULL OR conversion_type = ANY($5))
        GROUP BY day
    ) AS daily
) AS counted WHERE newer < $13::bigint
"""
OF_ALL_DAYS = "paths AS path"
# OFFSET has one day after the other looked up: the planner takes each for a ninth of everything, and would read it all.
OF_DAYS = f"""
({DAYS}) AS wanted CROSS JOIN LATERAL (
    SELECT * FROM paths WHERE occurred_at >= wanted.day::timestamp AT TIME ZONE 'UTC'
        AND occurred_at < (wanted.day + 1)::timestamp AT TIME ZONE 'UTC' OFFSET 0
) AS path
"""
# Every conversion with the path to it by the default look-back, which is given in seconds: exact across time zones.
BEHIND = """
SELECT path.conversion_id, path.person_id AS lead_id, path.conversion_type AS type, path.occurred_at, path.currency,
    path.value_minor, path.value_minor AS credited_minor, path.country, path.account, path.rep, way.touches,
    floor(extract(epoch FROM path.occurred_at - way.first_at) / 86400)::integer AS days
FROM {paths} CROSS JOIN LATERAL (
    SELECT count(*)::integer AS touches, min(at) AS first_at,
        coalesce(array_agg(channel ORDER BY place), '{{}}') AS path,
        coalesce(array_agg(channel ORDER BY place) FILTER (WHERE channel IS DISTINCT FROM former), '{{}}') AS route
    FROM (
        SELECT stop.place, stop.at, combo.channel, lag(combo.channel) OVER (ORDER BY stop.place) AS former
        FROM unnest(path.combos[2:], path.times[2:]) WITH ORDINALITY AS stop (combo_id, at, place)
        JOIN combos AS combo USING (combo_id) WHERE stop.at >= path.occurred_at - make_interval(secs => $1)
    ) AS on_it
) AS way
WHERE ($2::timestamptz IS NULL OR path.occurred_at >= $2) AND ($3::timestamptz IS NULL OR path.occurred_at < $3)
    AND ($4::text IS NULL OR path.currency = $4) AND ($5::text[] IS NULL OR path.conversion_type = ANY($5))
    AND ($6::bigint IS NULL OR CASE $7::text WHEN 'route' THEN way.route ELSE way.path END IN (
        SELECT keys FROM path_ranks WHERE subject = $7 AND currency = path.currency AND key_id = $6))
    AND ($8::integer IS NULL OR way.touches = $8)
    AND ($9::integer IS NULL OR floor(extract(epoch FROM path.occurred_at - way.first_at) / 86400) = $9)
    AND ($10::text IS NULL OR $10 = ANY(way.path[:way.touches - 1]))
    AND ($11::timestamptz IS NULL OR (path.occurred_at <= $11
        AND (path.occurred_at < $11 OR path.conversion_id > $12::text)))
ORDER BY path.occurred_at DESC, path.conversion_id LIMIT $13::bigint
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How conversions came about, as a cell of a report about paths says it; None leaves it open."""

    subject: Sequenced
    key_id: int | None
    touches: int | None
    days: int | None
    assisted_by: str | None

    @property
    def cell(self) -> tuple[Subject, int] | None:
        """The sum that counts just these conversions, where there is one."""
        cells: list[tuple[Subject, int | None]] = [
            (self.subject, self.key_id),
            ("length", self.touches),
            ("lag", self.days),
            ("assist", None if self.assisted_by is None else key_id((self.assisted_by,))),
        ]
        named = [(subject, number) for subject, number in cells if number is not None]
        return named[0] if len(named) == 1 else None


async def conversions_by(
    connection: Connection, wanted: Wanted, way: Way, *, after: tuple[datetime, str] | None, limit: int
) -> list[asyncpg.Record]:
    """The conversions that came about in a way, the newest first, after a place in their list."""
    since, until = wanted.period.moments
    cell = way.cell
    newest = min(at.astimezone(UTC).date() for at in (until or LATEST, after[0] if after else LATEST))
    return await connection.fetch(
        BEHIND.format(paths=OF_DAYS if cell else OF_ALL_DAYS),
        LOOKBACK.total_seconds(),
        since,
        until,
        wanted.currency,
        list(wanted.types) or None,
        way.key_id,
        way.subject,
        way.touches,
        way.days,
        way.assisted_by,
        *(after or (None, None)),
        limit,
        *((*cell, newest) if cell else ()),
    )


async def counted(
    connection: Connection,
    wanted: Wanted,
    subjects: Sequence[Subject],
    *,
    with_lost: bool = False,
    reach: Reach | None = None,
) -> list[Counted]:
    """All sums of some subjects; of a part of the period, if it is told which. Only `with_lost` those of journeys that
    led to nothing are whole.
    """
    parameters = await _parameters(connection, wanted, subjects, reach or wanted.reach, with_lost=with_lost)
    return list(map(Counted._make, await connection.fetch(SUMS, *parameters)))


async def grams(connection: Connection, wanted: Wanted, spans: Sequence[Span], order: int) -> list[Counted]:
    """The steps and ends of all journeys, by months or over all time, with the channels before that an order needs."""
    types = list(wanted.types) or None
    return list(map(Counted._make, await connection.fetch(GRAMS, *_span_columns(spans), order, wanted.currency, types)))


async def most_counted(
    connection: Connection, wanted: Wanted, subject: Sequenced, limit: int, after: Counted | None
) -> list[Counted]:
    """The sums of the sequences that were gone most often, from the place after one on."""
    place = (after.journeys, after.value_minor, after.key_id) if after else (None, None, None)
    if wanted.reach.is_everything:
        rows = await connection.fetch(RANKED, subject, wanted.currency, *place, limit)
    else:
        rows = await _most_in_period(connection, wanted, subject, limit, place)
    return list(map(Counted._make, rows))


async def _most_in_period(
    connection: Connection, wanted: Wanted, subject: Sequenced, limit: int, place: Sequence[int | None]
) -> list[asyncpg.Record]:
    """The sums of a period, looked for among the sequences that are the most frequent over all time.

    In a period none is gone more often than over all time: so what is found among the first of these is the most if all
    of it is gone more often than the next one. Else all that there are in the period are looked at.
    """
    asked = [*await _parameters(connection, wanted, [subject], wanted.reach), *place, limit]
    most = RANKED_FOR_EACH * limit
    ranked = await connection.fetch(RANKED, subject, wanted.currency, None, None, None, most + 1)
    rows = await connection.fetch(MOST_AMONG, *asked, [row["key_id"] for row in ranked[:most]])
    if len(ranked) <= most or (len(rows) == limit and rows[-1]["journeys"] > ranked[most]["journeys"]):
        return rows
    return await connection.fetch(MOST_OF_ALL, *asked)


async def lost_routes(connection: Connection, reach: Reach) -> dict[Keys, int]:
    """How many journeys through each sequence led to nothing, runs as one visit; less than 0 if they are taken away."""
    days = [(midnight(span.first), midnight(span.end), span.sign) for span in reach.spans]
    parts = [(*part, 1) for part in reach.parts_of_days]
    rows = await connection.fetch(LOST_ROUTES, *map(list, zip(*days, *parts, strict=True)))
    return {tuple(row["channels"]): row["journeys"] for row in rows}


async def _parameters(
    connection: Connection, wanted: Wanted, subjects: Sequence[Subject], reach: Reach, *, with_lost: bool = False
) -> list[Any]:
    """Those of `SUMS`: the spans of days, the filters, and what parts of days come to."""
    cells: Mapping[Cell, Amount] = {}
    if reach.parts_of_days:
        journeys = await _journeys_between(connection, reach.parts_of_days, wanted, with_lost=with_lost)
        cells = moved([], journeys)
    chosen = [cell for cell in cells if cell.level == "all" and cell.subject in subjects]
    journeys_and_value = _rest(chosen, cells) if chosen else ([], [], [])
    return [
        *_span_columns(reach.spans),
        list(subjects),
        wanted.currency,
        list(wanted.types) or None,
        *_columns(chosen, RANK_KEY),
        *journeys_and_value,
    ]


def _span_columns(spans: Sequence[Span]) -> list[list[Any]]:
    return [[getattr(span, name) for span in spans] for name in Span._fields]


async def _journeys_between(
    connection: Connection, parts: Sequence[tuple[datetime, datetime]], wanted: Wanted, *, with_lost: bool
) -> list[Journey]:
    since, until = [part[0] for part in parts], [part[1] for part in parts]
    arrivals = await connection.fetch(ARRIVALS, since, until, wanted.currency, list(wanted.types) or None)
    lost = await connection.fetch(LOST, since, until) if with_lost else []  # most journeys by far
    return [
        *(
            Arrival(
                row["currency"],
                row["conversion_type"],
                row["value_minor"],
                row["occurred_at"],
                list(zip(row["times"] or (), row["channels"] or (), strict=True)),
            ).journey
            for row in arrivals
        ),
        *(remainder(row["channels"], row["last_at"]) for row in lost),
    ]


async def move_sums(connection: Connection, by: Mapping[Cell, Amount]) -> None:
    """Add amounts to sums, and remove those that come to nothing. Rows are locked in one order everywhere."""
    ranked = sorted(cell for cell in by if cell.level == "all" and cell.subject in ("path", "route"))
    sums = sorted(by.keys() - set(ranked))
    if sums:
        await connection.execute(ADD_SUMS, *_columns(sums, SUM_KEY), *_rest(sums, by))
        if fallen := [cell for cell in sums if by[cell].journeys < 0]:
            await connection.execute(SWEEP_SUMS, *_columns(fallen, SUM_KEY))
    if ranked:
        await connection.execute(ADD_RANKS, *_columns(ranked, RANK_KEY), *_rest(ranked, by))
        if fallen := [cell for cell in ranked if by[cell].journeys < 0]:
            await connection.execute(SWEEP_RANKS, *_columns(fallen, RANK_KEY))


def _columns(cells: Sequence[Cell], names: Iterable[str]) -> list[list[Any]]:
    return [list(map(attrgetter(name), cells)) for name in names]


def _rest(cells: Sequence[Cell], by: Mapping[Cell, Amount]) -> tuple[list[str], list[int], list[int]]:
    """Keys, journeys and value."""
    journeys, values = zip(*map(by.__getitem__, cells), strict=True)
    return array_literals(cell.keys for cell in cells), list(journeys), list(values)


def array_literals(arrays: Iterable[Keys]) -> list[str]:
    """Arrays as the server writes them: an array of arrays of unlike lengths cannot be sent."""
    return [(_literal if len(each) <= SHORT else _literal.__wrapped__)(each) for each in arrays]


@lru_cache(maxsize=4_096)
def _literal(keys: Keys) -> str:
    return "{" + ",".join(['"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys]) + "}"
