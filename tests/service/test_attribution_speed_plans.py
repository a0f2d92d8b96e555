"""How fast speed to lead is told does not depend on how many offers were never answered."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.attribution.pipeline import reading
from services.attribution.pipeline.domain import Dimension
from shared.settings import Settings
from shared.testing import harness
from tests.service.attribution_facts import NOW
from throughline.services import service_code

ANSWERED, NEVER_ANSWERED, WAITING = 20_000, 5_000, 10
SEED = """
INSERT INTO marks (person_id, kind, step, ref, at, rep, teams, currency, number, value_minor, weighted_minor, lapse,
    bucket)
SELECT 'p' || n, 'sla', CASE WHEN n <= $3::bigint THEN 'pending' ELSE 'kept' END, 'a' || n, $1::timestamptz - age,
    'r' || n % 3, '{}', '', 1, 0, 0, 3600000000, 9
FROM generate_series(1, $2::bigint) AS n
CROSS JOIN LATERAL (SELECT CASE WHEN n <= $4::bigint THEN '59 min' ELSE n * interval '20 min' + '1 h' END) AS made (age)
"""
PEOPLE = """
INSERT INTO circumstances (person_id, channel, source, campaign, country)
SELECT 'p' || n, 'c' || n % 2, '', '', '' FROM generate_series(1, $1::bigint) AS n
"""


def read_by(plan: dict[str, Any]) -> Iterator[float]:
    """How many rows each scan of a table looked at."""
    for part in plan.get("Plans", []):
        yield from read_by(part)
    if "Relation Name" in plan:
        yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]


@pytest.mark.parametrize("dimension", [None, "channel", "rep", "team"])
async def test_only_offers_whose_time_is_not_over_are_looked_at(
    settings: Settings, dimension: Dimension | None
) -> None:
    async with harness(service_code("attribution"), settings) as service:
        async with service.runtime.database.transaction() as tx:
            await tx.connection.execute(SEED, NOW, ANSWERED + NEVER_ANSWERED, NEVER_ANSWERED, WAITING)
            await tx.connection.execute(PEOPLE, ANSWERED + NEVER_ANSWERED)
            await tx.connection.execute("ANALYZE marks, circumstances")
        question = reading.Question(dimension=dimension)
        async with service.runtime.database.reading() as connection:
            found = await reading.in_time(connection, question, [(None, None)], NOW)
            statement = question.statement(reading.IN_TIME, 5)
            told = await connection.fetchval(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}",
                [0],
                [NOW - timedelta(days=1_000)],
                [NOW + timedelta(days=1)],
                NOW,
            )
        assert sum(found.values()) == WAITING
        assert max(read_by(told[0]["Plan"])) == WAITING
