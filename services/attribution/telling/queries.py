"""The statements about credits that are told."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import asyncpg

from services.attribution.credits.domain import Credited
from services.attribution.telling.domain import Division
from shared.db import Connection
from shared.events import TouchCredit
from shared.ids import ConversionId

IDS_OF_A_CHANGE = 500
CHANGES_AT_ONCE = 2
# A projection that is built beside the serving one tells nothing.
MARK = """
INSERT INTO credit_changes (conversion_ids, runs) SELECT $1, $2 WHERE current_schema() = 'attribution_projection'
"""
# One at a time tells, so that what is told last is what was read last.
TAKE_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('attribution/credits-told', 0))"
TAKE = """
DELETE FROM credit_changes WHERE change IN (SELECT change FROM credit_changes ORDER BY change LIMIT $1)
RETURNING conversion_ids, runs
"""
SERVING = "SELECT model, run FROM model_runs WHERE state = 'serving' AND model = ANY($1)"
FORGET = "DELETE FROM credits_told WHERE model <> ALL($1)"
BEGIN = """
INSERT INTO credits_told AS known (model, run) SELECT * FROM unnest($1::text[], $2::integer[])
ON CONFLICT (model) DO UPDATE SET run = excluded.run, after = '', finished = false WHERE known.run <> excluded.run
"""
UNTOLD = "SELECT model, run, after FROM credits_told WHERE NOT finished ORDER BY model LIMIT 1"
NEXT = "SELECT conversion_id FROM paths WHERE conversion_id > $1 ORDER BY conversion_id LIMIT $2"
ADVANCE = "UPDATE credits_told SET after = $2, finished = $3 WHERE model = $1"
REVISION = "SELECT nextval('credits_revision')"
DIVISIONS = """
SELECT path.person_id, path.conversion_id, path.conversion_type, path.occurred_at, runs.model, runs.version,
    path.currency, path.value_minor, part.touch_id, part.origin, combos.channel, combos.source, combos.medium,
    combos.campaign, part.units, part.minor
FROM paths AS path JOIN credits USING (conversion_id) JOIN model_runs AS runs USING (run)
CROSS JOIN LATERAL unnest(path.touch_ids, path.origins, path.combos, credits.units, credits.value_minor)
    WITH ORDINALITY AS part (touch_id, origin, combo_id, units, minor, place)
JOIN combos USING (combo_id)
WHERE path.conversion_id = ANY($1) AND credits.run = ANY($2) AND (part.units <> 0 OR part.minor <> 0)
ORDER BY path.conversion_id, runs.model, part.place
"""


# Of a conversion that was taken back nothing is left but what it was; whose it was the deal tells, or, where nothing of
# the deal has been heard yet, the conversion as it was before.
WITHDRAWN = """
SELECT coalesce(deals.lead_id, before.lead_id) AS person_id, conversion.conversion_id,
    conversion.type AS conversion_type, conversion.occurred_at AS converted_at, runs.model, runs.version,
    conversion.currency
FROM conversions AS conversion LEFT JOIN deals USING (deal_id) LEFT JOIN LATERAL (
    SELECT lead_id FROM conversion_versions AS version WHERE version.conversion_id = conversion.conversion_id
    ORDER BY position DESC, received_at DESC LIMIT 1
) AS before ON true CROSS JOIN model_runs AS runs
WHERE conversion.conversion_id = ANY($1) AND conversion.lead_id IS NULL AND runs.run = ANY($2)
    AND coalesce(deals.lead_id, before.lead_id) IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Untold:
    """A model by whose serving run not all conversions are told; `after` is the last one that is."""

    model: str
    run: int
    after: str


async def mark_changed(
    connection: Connection, before: Mapping[ConversionId, Credited], after: Mapping[ConversionId, Credited]
) -> None:
    """Remember that the credits of these conversions are others than before, so that they are told."""
    runs: set[int] = set()
    for key, new in after.items():
        old = before.get(key)
        moved = old is None or old.path != new.path
        runs |= {run for run, one in new.divisions.items() if moved or old is None or old.divisions.get(run) != one}
    ids = iter(after)
    while runs and (some := list(islice(ids, IDS_OF_A_CHANGE))):
        await connection.execute(MARK, some, sorted(runs))


async def take_turn(connection: Connection) -> bool:
    """Whether this transaction may tell; until it ends no other may."""
    return bool(await connection.fetchval(TAKE_TURN))


async def take_changes(connection: Connection) -> list[tuple[list[ConversionId], list[int]]]:
    """The changes that waited longest, taken off the list: conversions, and the runs they changed by."""
    return [(row["conversion_ids"], row["runs"]) for row in await connection.fetch(TAKE, CHANGES_AT_ONCE)]


async def serving_runs(connection: Connection, models: Collection[str]) -> dict[str, int]:
    """The runs of these models that serve."""
    return {row["model"]: row["run"] for row in await connection.fetch(SERVING, sorted(models))}


async def next_untold(connection: Connection, serving: Mapping[str, int]) -> Untold | None:
    """A model by whose serving run not all conversions are told yet. Others than these models are told no more."""
    await connection.execute(FORGET, sorted(serving))
    await connection.execute(BEGIN, sorted(serving), [serving[model] for model in sorted(serving)])
    row = await connection.fetchrow(UNTOLD)
    return Untold(*row.values()) if row else None


async def conversions_after(connection: Connection, conversion_id: str, limit: int) -> list[ConversionId]:
    """The conversions that come next."""
    return [row["conversion_id"] for row in await connection.fetch(NEXT, conversion_id, limit)]


async def advance(connection: Connection, untold: Untold, after: str, *, finished: bool) -> None:
    """Remember how far conversions are told."""
    await connection.execute(ADVANCE, untold.model, after, finished)


async def divisions(connection: Connection, ids: Sequence[ConversionId], runs: Iterable[int]) -> list[Division]:
    """How these runs divide conversions, as it stands; one that was taken back comes to nothing."""
    asked = (list(ids), sorted(runs))
    rows = await connection.fetch(DIVISIONS, *asked)
    gone = await connection.fetch(WITHDRAWN, *asked)
    return [
        *(_division(list(of_one)) for _, of_one in groupby(rows, key=lambda row: (row["conversion_id"], row["model"]))),
        *(Division(**row, value_minor=0, credits=()) for row in gone),
    ]


async def next_revision(connection: Connection) -> int:
    """A number above those of all that was told."""
    revision: int = await connection.fetchval(REVISION)
    return revision


def _division(rows: Sequence[asyncpg.Record]) -> Division:
    row = rows[0]
    return Division(
        person_id=row["person_id"],
        conversion_id=row["conversion_id"],
        conversion_type=row["conversion_type"],
        converted_at=row["occurred_at"],
        model=row["model"],
        version=row["version"],
        currency=row["currency"],
        value_minor=row["value_minor"],
        credits=tuple(
            TouchCredit(
                touch_id=one["touch_id"],
                origin=one["origin"],
                channel=one["channel"],
                source=one["source"],
                medium=one["medium"],
                campaign=one["campaign"],
                units=one["units"],
                value_minor=one["minor"],
            )
            for one in rows
        ),
    )
