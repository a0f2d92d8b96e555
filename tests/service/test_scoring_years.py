"""Times at the ends of what a datetime holds, which earlier versions accepted, stop nobody who reckons with them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.scoring_world import NOW, World
from tests.service.test_scoring_simulations import document, simulated
from throughline.services import service_code

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


@pytest.mark.parametrize("at", [FIRST, FIRST + timedelta(days=1), datetime(1900, 1, 1, tzinfo=UTC), LAST], ids=str)
async def test_a_fact_of_any_year_counts_and_stops_neither_a_switch_nor_a_simulation(
    world: World, at: datetime
) -> None:
    await world.tell(
        world.touch("lead-1", "form_submitted", at),
        world.touch("lead-1", "form_submitted", NOW),
        world.touch("lead-2", "demo_requested", at),
    )
    assert await world.scoring.parked() == []
    report = await simulated(world, document=document(24, half_life_days=1))
    assert report["persons"] == (2 if at == LAST else 1)
    await world.put_rules(document(24))
    await world.scoring.run_timers()
    assert (await world.score("lead-1"))["rules_version"] == 2
    assert (await world.score("lead-1"))["engagement"] == 24


async def test_rows_that_an_earlier_version_made_of_the_year_1_are_mended_by_the_migration(world: World) -> None:
    await world.tell(world.touch("lead-1", "form_submitted"), world.touch("lead-2", "form_submitted"))
    async with world.scoring.runtime.database.transaction() as tx:
        await tx.connection.execute("UPDATE touches SET occurred_at = '-infinity' WHERE lead_id = 'lead-1'")
        await tx.connection.execute("UPDATE scores SET newest = '0001-01-01T00:00:00Z' WHERE person_id = 'lead-1'")
        await tx.connection.execute(import_module("services.scoring.migrations.versions.0007_years").WITHIN_YEARS)
    assert (await simulated(world, document=document(24)))["persons"] == 1
    await world.put_rules(document(24))
    await world.scoring.run_timers()
    assert (await world.score("lead-1"))["rules_version"] == 2
    assert (await world.score("lead-1"))["engagement"] == 0
