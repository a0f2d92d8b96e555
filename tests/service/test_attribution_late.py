"""Everything late: whatever the order, the batches and the repetitions, the tables are what follows from the facts."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import astuple
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.attribution.domain import NOBODY
from shared.ids import ConversionId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import World
from tests.service.attribution_late import COLUMNS, HISTORIES, Move, tables_of, told
from tests.service.test_attribution_histories import (
    crediting_runs,
    in_any_order,
    stored_credits,
    stored_sums,
    sums_of,
)
from throughline.services import service_code

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'attribution_projection' ORDER BY 1"
AT_ONCE = 100
"""Histories in one delivery: they cannot meet, so each of them is a history tried."""


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    anew = {
        "title": "Anew after each conversion",
        "base": "linear",
        "lookback_days": 60,
        "reset_after_conversion": True,
    }
    async with harness(service_code("attribution"), settings) as service:
        assert (await service.client.put("/v1/models/anew", json=anew)).status_code == 200
        await settle(service)
        yield service


async def begin_anew(service: Harness) -> None:
    """Forget all facts."""
    async with service.runtime.database.transaction() as tx:
        tables = [row["tablename"] for row in await tx.connection.fetch(TABLES)]
        await tx.connection.execute(f"TRUNCATE {', '.join(tables)}, inbox, converting_leads")
        await tx.connection.execute("INSERT INTO combos VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)", *astuple(NOBODY))


async def settle(service: Harness) -> None:
    """What timers still owe is done."""
    assert service.code.settle is not None
    await service.code.settle(service.consumer_runtime)


async def contents(service: Harness) -> dict[str, list[str]]:
    """The rows of each table of the projection."""
    async with service.runtime.database.reading() as connection:
        tables = [row["tablename"] for row in await connection.fetch(TABLES)]
        return {
            table: [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY 1")]
            for table in tables
        }


async def fact_tables(service: Harness) -> dict[str, set[tuple[Any, ...]]]:
    """The rows of the tables that hold facts."""
    async with service.runtime.database.reading() as connection:
        return {
            table: {tuple(row.values()) for row in await connection.fetch(f"SELECT {columns} FROM {table}")}
            for table, columns in COLUMNS.items()
        }


async def assert_follows(service: Harness, stories: Sequence[Sequence[Move]]) -> None:
    """The tables hold what follows from these histories, computed plainly; says which history went wrong."""
    runs = await crediting_runs(service)
    found, credited = await fact_tables(service), await stored_credits(service)
    expected: dict[ConversionId, Any] = {}
    for number, moves in enumerate(stories):
        facts = told(f"h{number}", moves)
        for table, rows in tables_of(facts).items():
            assert set(rows) <= found[table], (table, number, moves)
            found[table] -= set(rows)
        theirs = World(facts).credited(runs)
        assert {key: credited.get(key) for key in theirs} == theirs, (number, moves)
        expected |= theirs
    assert not any(found.values()), {table: rows for table, rows in found.items() if rows}
    assert credited == expected
    assert await stored_sums(service) == sums_of(expected)
    assert await service.parked() == []


@pytest.mark.timeout(1_800)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # an example is long; what failed is short
@settings(
    max_examples=settings().max_examples // 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # the history that went wrong is told, and is short
)
@given(stories=st.lists(HISTORIES, min_size=AT_ONCE, max_size=AT_ONCE), seed=st.integers(0, 2**32))
async def test_any_order_any_repetition_any_batches(attribution: Harness, stories: list[list[Move]], seed: int) -> None:
    facts = [fact for number, moves in enumerate(stories) for fact in told(f"h{number}", moves)]
    await begin_anew(attribution)
    for batch in in_any_order(facts, random.Random(seed), largest=400):
        await attribution.deliver(*batch)
    await settle(attribution)
    await assert_follows(attribution, stories)
    if seed % 5 == 0:  # now and then also what is not computed plainly here
        in_disorder = await contents(attribution)
        await begin_anew(attribution)
        await attribution.deliver(*facts)
        await settle(attribution)
        assert await contents(attribution) == in_disorder
