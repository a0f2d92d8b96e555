"""The statements about credits and their daily sums."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from services.attribution.domain import DIMENSIONS, Dimension
from shared.db import Connection
from shared.ids import ConversionId

Cell = tuple[str, Dimension, str, date, str]
"""A daily sum: model, dimension, currency, day, key."""


class CreditRow(NamedTuple):
    """A credit as it is stored."""

    conversion_id: ConversionId
    model: str
    ordinal: int
    version: int
    origin: str | None
    touch_id: str | None
    channel: str
    source: str
    medium: str
    campaign: str
    units: int
    value_minor: int
    currency: str
    day: date

    def cells(self) -> Iterable[Cell]:
        """The daily sums that this credit is part of."""
        for dimension in DIMENSIONS:
            yield self.model, dimension, self.currency, self.day, getattr(self, dimension)


COLUMNS = ", ".join(CreditRow._fields)
CREDITS = f"SELECT {COLUMNS} FROM credits WHERE conversion_id = ANY($1) ORDER BY 1, 2, 3"
CREDITS_BY_MODEL = f"SELECT {COLUMNS} FROM credits WHERE conversion_id = ANY($1) AND model = $2 ORDER BY 1, 3"
REMOVE = """
DELETE FROM credits USING unnest($1::text[], $2::text[]) AS gone (conversion_id, model)
WHERE credits.conversion_id = gone.conversion_id AND credits.model = gone.model
"""
ADD_TO_DAYS = """
INSERT INTO credit_days AS known
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::date[], $5::text[], $6::bigint[], $7::bigint[])
ON CONFLICT (model, dimension, currency, day, key) DO UPDATE
SET units = known.units + excluded.units, value_minor = known.value_minor + excluded.value_minor
"""
# What nothing is credited to any more leaves no trace, so that the sums are the same however they came about.
SWEEP_DAYS = """
DELETE FROM credit_days AS known
USING unnest($1::text[], $2::text[], $3::text[], $4::date[], $5::text[]) AS moved (model, dimension, currency, day, key)
WHERE known.model = moved.model AND known.dimension = moved.dimension AND known.currency = moved.currency
    AND known.day = moved.day AND known.key = moved.key AND known.units = 0 AND known.value_minor = 0
"""


async def credits_of(connection: Connection, conversion_ids: Iterable[ConversionId]) -> list[CreditRow]:
    """All credits of conversions, in the order of their paths."""
    return [CreditRow(*row.values()) for row in await connection.fetch(CREDITS, sorted(set(conversion_ids)))]


async def credits_by_model(
    connection: Connection, conversion_ids: Iterable[ConversionId], model: str
) -> list[CreditRow]:
    """One model's credits of conversions, in the order of their paths."""
    rows = await connection.fetch(CREDITS_BY_MODEL, sorted(set(conversion_ids)), model)
    return [CreditRow(*row.values()) for row in rows]


async def replace_credits(
    connection: Connection,
    before: Mapping[tuple[ConversionId, str], Sequence[CreditRow]],
    after: Mapping[tuple[ConversionId, str], Sequence[CreditRow]],
) -> None:
    """Store credits in place of others, by conversion and model, and move the daily sums by the difference."""
    moved: dict[Cell, list[int]] = defaultdict(lambda: [0, 0])
    for sign, rows in ((-1, before), (1, after)):
        for row in (row for of_one in rows.values() for row in of_one):
            for cell in row.cells():
                moved[cell][0] += sign * row.units
                moved[cell][1] += sign * row.value_minor
    if gone := sorted(before):
        await connection.execute(REMOVE, [key[0] for key in gone], [key[1] for key in gone])
    records = [row for of_one in after.values() for row in of_one]
    await connection.copy_records_to_table("credits", records=records, columns=CreditRow._fields)
    cells = sorted(cell for cell, sums in moved.items() if any(sums))  # locked in one order everywhere
    if cells:
        columns = [list(column) for column in zip(*cells, strict=True)]
        sums = [[moved[cell][0] for cell in cells], [moved[cell][1] for cell in cells]]
        await connection.execute(ADD_TO_DAYS, *columns, *sums)
        if gone:
            await connection.execute(SWEEP_DAYS, *columns)
