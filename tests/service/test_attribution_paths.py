"""Sums of sequences of channels follow from the set of facts, whatever the order they arrive in."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from importlib import import_module

import pytest
import pytest_asyncio

from services.attribution.remainders import queries
from services.attribution.remainders.handlers import count_remainders, settle
from shared.db import TRANSIENT
from shared.errors import Unavailable
from shared.events import Event
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import Teller
from tests.service.paths_world import PathWorld, stored_remainders, stored_sums
from tests.service.test_attribution_histories import histories, in_any_order
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def holds(service: Harness, facts: list[Event]) -> None:
    """What is stored is what the facts come to."""
    await settle(service.consumer_runtime)
    world = PathWorld(facts)
    assert await stored_remainders(service) == world.remainders()
    assert await stored_sums(service) == world.sums()


async def test_any_order_with_repetitions_equals_plain_recomputation(attribution: Harness) -> None:
    facts = histories(range(500, 506))
    for index, batch in enumerate(in_any_order(facts, random.Random(5))):
        await attribution.deliver(*batch)
        if index % 3 == 0:
            await count_remainders(attribution.consumer_runtime.database)
    assert await attribution.parked() == []
    await holds(attribution, facts)
    fills = [
        import_module(f"services.attribution.migrations.versions.{name}").FILL
        for name in ("0015_parts_of_channels", "0016_grams_of_months")
    ]
    filled = "subject = 'part' OR (subject IN ('gram', 'tail') AND level = 'month')"
    async with attribution.runtime.database.transaction() as tx:
        await tx.connection.execute(f"DELETE FROM path_sums WHERE {filled}")
        for fill in fills:
            await tx.connection.execute(fill)
    await holds(attribution, facts)


async def test_workers_and_consumers_at_once_lose_and_double_nothing(attribution: Harness) -> None:
    facts = histories(range(520, 523))
    batches = in_any_order(facts, random.Random(6), largest=10)
    over = asyncio.Event()

    async def consume(batches: Iterator[list[Event]]) -> None:
        for batch in batches:
            while True:
                try:
                    await attribution.deliver(*batch)
                    break
                except TRANSIENT:  # the database ends one of two that wait for each other
                    continue

    async def work() -> None:
        while not over.is_set():
            try:
                await count_remainders(attribution.consumer_runtime.database)
            except Unavailable:
                continue

    workers = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.gather(*(consume(batches) for _ in range(3)))
    over.set()
    await asyncio.gather(*workers)
    await holds(attribution, facts)


async def test_a_worker_that_ends_in_the_middle_leaves_its_turn_to_the_next(attribution: Harness) -> None:
    teller = Teller()
    facts: list[Event] = [teller.touch(who, 3) for who in ("nora", "otto")]
    await attribution.deliver(*facts)
    with pytest.raises(RuntimeError, match="killed"):
        async with attribution.consumer_runtime.database.transaction() as tx:
            assert len(await queries.take_turns(tx.connection)) == 2
            raise RuntimeError("killed")
    await holds(attribution, facts)
