"""The statements about paths, credits and their sums."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import asyncpg

from services.attribution.credits.domain import Credited, Moves
from services.attribution.domain import NOBODY, Combo, Division, PathRow, PathTouch
from shared.db import Connection
from shared.ids import ConversionId, TouchId

PATH_COLUMNS = (
    "conversion_id",
    "person_id",
    "touch_ids",
    "origins",
    "combos",
    "times",
    "lead_place",
    "deal_place",
    "conversion_type",
    "currency",
    "value_minor",
    "occurred_at",
    "day",
    "country",
    "account",
    "rep",
)
CREDIT_COLUMNS = ("run", "conversion_id", "units", "value_minor")
COMBO_COLUMNS = "combo_id, channel, source, medium, campaign, content, landing_page, touch_type"
PATHS = f"SELECT {', '.join(PATH_COLUMNS)} FROM paths WHERE conversion_id = ANY($1)"
COMBOS = f"SELECT {COMBO_COLUMNS} FROM combos WHERE combo_id = ANY($1)"
DIVISIONS = "SELECT run, conversion_id, units, value_minor FROM credits WHERE conversion_id = ANY($1) AND run = ANY($2)"
OF_NOBODY = """
SELECT conversion_id FROM paths JOIN conversions USING (conversion_id)
WHERE conversion_id = ANY($1) AND conversions.lead_id IS NULL
"""
EARNED = """
SELECT credits.conversion_id, runs.model, runs.version, part.place - 1 AS place, part.touch_id, part.origin,
    combos.channel, combos.source, combos.medium, combos.campaign, combos.content, combos.landing_page,
    combos.touch_type, part.units, part.value_minor
FROM credits JOIN paths USING (conversion_id) JOIN model_runs AS runs USING (run)
CROSS JOIN LATERAL unnest(paths.touch_ids, paths.origins, paths.combos, credits.units, credits.value_minor)
    WITH ORDINALITY AS part (touch_id, origin, combo_id, units, value_minor, place)
JOIN combos USING (combo_id)
WHERE credits.conversion_id = ANY($1) AND runs.state = 'serving' AND ($2::text IS NULL OR runs.model = $2)
    AND (part.units <> 0 OR part.value_minor <> 0)
ORDER BY credits.conversion_id, runs.run, part.place
"""
TAKE_PATHS = "DELETE FROM paths WHERE conversion_id = ANY($1)"
TAKE_ALL_CREDITS = "DELETE FROM credits WHERE conversion_id = ANY($1)"
TAKE_CREDITS = """
DELETE FROM credits USING unnest($1::integer[], $2::text[]) AS gone (run, conversion_id)
WHERE credits.run = gone.run AND credits.conversion_id = gone.conversion_id
"""
AWAKE = "SELECT 1"
# Rows that many share are locked in one order everywhere. Each statement answers the keys that come to nothing: these
# leave no trace, so that the sums are the same however they came about.
ADD_COMBOS = """
WITH moved AS (
    INSERT INTO combos AS known
    SELECT * FROM unnest(
        $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[]
    ) AS more (combo_id) ORDER BY combo_id
    ON CONFLICT (combo_id) DO UPDATE SET uses = known.uses + excluded.uses
    RETURNING combo_id, uses
)
SELECT combo_id FROM moved WHERE uses = 0
"""
SWEEP_COMBOS = "DELETE FROM combos WHERE combo_id = ANY($1::bigint[])"
# What stands in `campaign_sums` for one of its keys: these are as long as somebody wrote them, and an index is not.
KEY_ID = "('x' || md5(jsonb_build_array(channel, source, medium, campaign)::text))::bit(64)::bigint"
CELL = "run, basis, level, day, currency, conversion_type"
MOVED = "SET units = known.units + excluded.units, value_minor = known.value_minor + excluded.value_minor"
ADD_CREDITS = f"""
WITH place AS (
    SELECT *, {KEY_ID} AS key_id
    FROM unnest(
        $1::date[], $2::date[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[]
    ) WITH ORDINALITY
        AS place (day, touch_day, currency, conversion_type, combo_id, channel, source, medium, campaign, number)
), cells AS MATERIALIZED (
    SELECT more.run, cell.basis, cell.level, cell.day, place.currency, place.conversion_type, place.combo_id,
        place.key_id, place.channel, place.source, place.medium, place.campaign,
        sum(more.units)::bigint AS units, sum(more.value_minor)::bigint AS value_minor
    FROM unnest($10::integer[], $11::bigint[], $12::bigint[], $13::bigint[]) AS more (run, number, units, value_minor)
    JOIN place ON place.number = more.number + 1
    CROSS JOIN LATERAL (
        VALUES ('c', 'day', place.day), ('c', 'month', date_trunc('month', place.day)::date),
            ('t', 'day', place.touch_day), ('t', 'month', date_trunc('month', place.touch_day)::date)
    ) AS cell (basis, level, day)
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
), by_combo AS (
    INSERT INTO credit_sums AS known
    SELECT {CELL}, combo_id, units, value_minor FROM cells
    WHERE units <> 0 OR value_minor <> 0 ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ({CELL}, combo_id) DO UPDATE {MOVED}
    RETURNING *
), by_campaign AS (
    INSERT INTO campaign_sums AS known
    SELECT {CELL}, key_id, channel, source, medium, campaign, sum(units)::bigint, sum(value_minor)::bigint
    FROM cells GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 HAVING sum(units) <> 0 OR sum(value_minor) <> 0
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ({CELL}, key_id) DO UPDATE {MOVED}
    RETURNING *
), by_channel AS (
    INSERT INTO channel_sums AS known
    SELECT {CELL}, channel, sum(units)::bigint, sum(value_minor)::bigint
    FROM cells GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(units) <> 0 OR sum(value_minor) <> 0
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT ({CELL}, channel) DO UPDATE {MOVED}
    RETURNING *
)
SELECT {CELL}, combo_id, NULL::bigint AS key_id, NULL::text AS channel FROM by_combo
WHERE units = 0 AND value_minor = 0
UNION ALL
SELECT {CELL}, NULL, key_id, NULL FROM by_campaign WHERE units = 0 AND value_minor = 0
UNION ALL
SELECT {CELL}, NULL, NULL, channel FROM by_channel WHERE units = 0 AND value_minor = 0
"""
GONE_CELL = """known.run = gone.run AND known.basis = gone.basis AND known.level = gone.level AND known.day = gone.day
        AND known.currency = gone.currency AND known.conversion_type = gone.conversion_type"""
SWEEP_CREDITS = f"""
WITH gone AS (
    SELECT * FROM unnest(
        $1::integer[], $2::text[], $3::text[], $4::date[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
        $9::text[]
    ) AS gone ({CELL}, combo_id, key_id, channel)
), by_channel AS (
    DELETE FROM channel_sums AS known USING gone
    WHERE {GONE_CELL} AND known.channel = gone.channel
), by_campaign AS (
    DELETE FROM campaign_sums AS known USING gone
    WHERE {GONE_CELL} AND known.key_id = gone.key_id
)
DELETE FROM credit_sums AS known USING gone
WHERE {GONE_CELL} AND known.combo_id = gone.combo_id
"""
TOLD_CONVERSIONS = """
unnest($1::date[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
    AS more (day, currency, conversion_type, country, account, rep, conversions, value_minor)
CROSS JOIN LATERAL (VALUES ('day', more.day), ('month', date_trunc('month', more.day)::date)) AS cell (level, day)
"""
ADD_OWNERS = f"""
WITH moved AS (
    INSERT INTO owner_sums AS known
    SELECT owner.dimension, cell.level, cell.day, more.currency, more.conversion_type, owner.key,
        sum(more.conversions)::bigint, sum(more.value_minor)::bigint
    FROM {TOLD_CONVERSIONS}
    CROSS JOIN LATERAL (VALUES ('country', more.country), ('rep', more.rep)) AS owner (dimension, key)
    GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(more.conversions) <> 0 OR sum(more.value_minor) <> 0
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (dimension, level, day, currency, conversion_type, key) DO UPDATE SET
        conversions = known.conversions + excluded.conversions, value_minor = known.value_minor + excluded.value_minor
    RETURNING *
)
SELECT dimension, level, day, currency, conversion_type, key FROM moved WHERE conversions = 0 AND value_minor = 0
"""
SWEEP_OWNERS = """
DELETE FROM owner_sums AS known
USING unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::text[], $6::text[])
    AS gone (dimension, level, day, currency, conversion_type, key)
WHERE known.dimension = gone.dimension AND known.level = gone.level AND known.day = gone.day
    AND known.currency = gone.currency AND known.conversion_type = gone.conversion_type AND known.key = gone.key
"""
ADD_CONVERSIONS = f"""
WITH moved AS (
    INSERT INTO conversion_sums AS known
    SELECT cell.level, cell.day, more.currency, more.conversion_type, more.country, more.account, more.rep,
        sum(more.conversions)::bigint, sum(more.value_minor)::bigint
    FROM {TOLD_CONVERSIONS}
    GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(more.conversions) <> 0 OR sum(more.value_minor) <> 0
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (level, day, currency, conversion_type, country, account, rep) DO UPDATE SET
        conversions = known.conversions + excluded.conversions, value_minor = known.value_minor + excluded.value_minor
    RETURNING *
)
SELECT level, day, currency, conversion_type, country, account, rep FROM moved
WHERE conversions = 0 AND value_minor = 0
"""
SWEEP_CONVERSIONS = """
DELETE FROM conversion_sums AS known
USING unnest($1::text[], $2::date[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS gone (level, day, currency, conversion_type, country, account, rep)
WHERE known.level = gone.level AND known.day = gone.day AND known.currency = gone.currency
    AND known.conversion_type = gone.conversion_type AND known.country = gone.country
    AND known.account = gone.account AND known.rep = gone.rep
"""


class CreditRow(NamedTuple):
    """What a touch earned from a conversion by the run of a model that serves; `place` 0 is what nobody earned."""

    conversion_id: ConversionId
    model: str
    version: int
    place: int
    touch_id: str | None
    origin: str | None
    channel: str
    source: str
    medium: str
    campaign: str
    content: str
    landing_page: str
    touch_type: str
    units: int
    value_minor: int


async def stay_awake(connection: Connection) -> None:
    """Use the transaction, which the server would end if it were idle for long."""
    await connection.execute(AWAKE)


async def credits_of(
    connection: Connection, conversion_ids: Iterable[ConversionId], model: str | None = None
) -> list[CreditRow]:
    """The credits of conversions by the runs that serve, or that of one model, in the order of their paths."""
    rows = await connection.fetch(EARNED, sorted(set(conversion_ids)), model)
    return [CreditRow(*row.values()) for row in rows]


async def stored(
    connection: Connection,
    conversion_ids: Iterable[ConversionId],
    runs: Iterable[int],
    known: Mapping[int, Combo],
) -> dict[ConversionId, Credited]:
    """What is stored of conversions under these runs; combos that are not `known` are looked up."""
    ids = sorted(set(conversion_ids))
    paths = await connection.fetch(PATHS, ids)
    if not paths:
        return {}
    named = dict(known)
    missing = {combo for row in paths for combo in row["combos"]} - named.keys()
    if missing:
        rows = await connection.fetch(COMBOS, sorted(missing))
        named.update((row["combo_id"], Combo(*row.values())) for row in rows)
    found = {row["conversion_id"]: Credited(_path_row(row, named), {}) for row in paths}
    for row in await connection.fetch(DIVISIONS, ids, sorted(runs)):
        division = Division(tuple(row["units"]), tuple(row["value_minor"]))
        found[row["conversion_id"]].divisions[row["run"]] = division
    return found


async def stored_of_nobody(
    connection: Connection, conversion_ids: Iterable[ConversionId], runs: Iterable[int]
) -> dict[ConversionId, Credited]:
    """What is stored under these runs of those of these conversions that are nobody's any more."""
    rows = await connection.fetch(OF_NOBODY, sorted(set(conversion_ids)))
    return await stored(connection, [row["conversion_id"] for row in rows], runs, {})


async def take(connection: Connection, before: Mapping[ConversionId, Credited], moved: Moves) -> None:
    """Store nothing in place of what was stored of conversions, under whatever run, and move the sums."""
    await connection.execute(TAKE_PATHS, list(before))
    await connection.execute(TAKE_ALL_CREDITS, list(before))
    await replace(connection, {}, {}, moved)


async def replace(
    connection: Connection,
    before: Mapping[ConversionId, Credited],
    after: Mapping[ConversionId, Credited],
    moved: Moves,
) -> None:
    """Store what conversions come to in place of what was stored, and move the sums by the difference."""
    await _replace_paths(connection, before, after)
    await _replace_divisions(connection, before, after)
    combos = {combo: uses for combo, uses in moved.combos.items() if uses}
    if combos:
        rows = [(*astuple(combo), uses) for combo, uses in combos.items()]
        await _add(connection, ADD_COMBOS, SWEEP_COMBOS, *_columns(rows))
    if moved.credits:
        rows = [(run, number, *sums) for (run, number), sums in moved.credits.items()]
        await _add(connection, ADD_CREDITS, SWEEP_CREDITS, *_columns(moved.places), *_columns(rows))
    if moved.conversions:
        rows = [(*owner, *sums) for owner, sums in moved.conversions.items()]
        await _add(connection, ADD_CONVERSIONS, SWEEP_CONVERSIONS, *_columns(rows))
        await _add(connection, ADD_OWNERS, SWEEP_OWNERS, *_columns(rows))


async def _add(connection: Connection, add: str, sweep: str, *columns: list[Any]) -> None:
    """Add to sums, and remove those that come to nothing."""
    if gone := await connection.fetch(add, *columns):
        await connection.execute(sweep, *_columns([tuple(row.values()) for row in gone]))


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _replace_paths(
    connection: Connection, before: Mapping[ConversionId, Credited], after: Mapping[ConversionId, Credited]
) -> None:
    rows = [new.path for key, new in after.items() if key not in before or before[key].path != new.path]
    if gone := [row.conversion_id for row in rows if row.conversion_id in before]:
        await connection.execute(TAKE_PATHS, gone)
    if rows:
        records = [_path_record(row) for row in rows]
        await connection.copy_records_to_table("paths", records=records, columns=PATH_COLUMNS)


async def _replace_divisions(
    connection: Connection, before: Mapping[ConversionId, Credited], after: Mapping[ConversionId, Credited]
) -> None:
    gone: list[tuple[int, ConversionId]] = []
    records: list[tuple[Any, ...]] = []
    for conversion_id, new in after.items():
        known = before[conversion_id].divisions if conversion_id in before else {}
        for run, division in new.divisions.items():
            if known.get(run) != division:
                records.append((run, conversion_id, division.units, division.value_minor))
                if run in known:
                    gone.append((run, conversion_id))
    if gone:
        await connection.execute(TAKE_CREDITS, [run for run, _ in gone], [key for _, key in gone])
    if records:
        await connection.copy_records_to_table("credits", records=records, columns=CREDIT_COLUMNS)


def _path_record(row: PathRow) -> tuple[Any, ...]:
    return (
        row.conversion_id,
        row.person_id,
        [None, *[touch.touch_id for touch in row.touches]],
        [None, *[touch.origin for touch in row.touches]],
        [NOBODY.combo_id, *[touch.combo.combo_id for touch in row.touches]],
        [row.occurred_at, *[touch.occurred_at for touch in row.touches]],
        None if row.lead_place is None else row.lead_place + 2,
        None if row.deal_place is None else row.deal_place + 2,
        row.conversion_type,
        row.currency,
        row.value_minor,
        row.occurred_at,
        row.day,
        row.country,
        row.account,
        row.rep,
    )


def _path_row(row: asyncpg.Record, named: Mapping[int, Combo]) -> PathRow:
    touches = zip(row["touch_ids"], row["origins"], row["combos"], row["times"], strict=True)
    return PathRow(
        conversion_id=row["conversion_id"],
        person_id=row["person_id"],
        touches=tuple(
            [
                PathTouch(TouchId(touch_id), origin, named[combo_id], at)
                for touch_id, origin, combo_id, at in list(touches)[1:]
            ]
        ),
        lead_place=None if row["lead_place"] is None else row["lead_place"] - 2,
        deal_place=None if row["deal_place"] is None else row["deal_place"] - 2,
        conversion_type=row["conversion_type"],
        currency=row["currency"],
        value_minor=row["value_minor"],
        occurred_at=row["occurred_at"],
        country=row["country"],
        account=row["account"],
        rep=row["rep"],
    )
