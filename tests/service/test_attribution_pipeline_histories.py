"""What reports of the pipeline count follows from the set of facts, whatever their order, batches and repetitions."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest_asyncio

from services.attribution.pipeline.counting import Total
from services.attribution.pipeline.sums import Counted, counted_of
from shared.db import TRANSIENT
from shared.events import Event
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.pipeline_facts import PipelineWorld, random_pipeline, sums_of
from tests.service.test_attribution_histories import in_any_order
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def counted(service: Harness) -> dict[LeadId, Counted]:
    async with service.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT person_id FROM circumstances UNION SELECT person_id FROM marks")
        return await counted_of(connection, [row["person_id"] for row in rows])


async def sums(service: Harness) -> dict[Any, Total]:
    async with service.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT * FROM mark_sums")
    return {tuple(row.values())[:8]: Total(*(int(value) for value in list(row.values())[8:])) for row in rows}


async def assert_right(service: Harness, histories: Sequence[Sequence[Event]]) -> None:
    """Each history is about people of its own."""
    marks: dict[LeadId, Counted] = {}
    for facts in histories:
        marks |= PipelineWorld(facts).marks()
    assert await service.parked() == []
    assert await counted(service) == marks
    assert await sums(service) == sums_of(marks)


async def test_any_order_with_repetitions_equals_plain_recomputation(attribution: Harness) -> None:
    histories = [random_pipeline(seed) for seed in range(7)]
    for batch in in_any_order([fact for facts in histories for fact in facts], random.Random(1)):
        await attribution.deliver(*batch)
    await assert_right(attribution, histories)


async def test_a_rebuild_counts_each_person_once_at_its_end(attribution: Harness) -> None:
    histories = [random_pipeline(seed) for seed in range(60, 64)]
    attribution.consumer_runtime.database.muted = True  # as a rebuild's is
    for batch in in_any_order([fact for facts in histories for fact in facts], random.Random(2)):
        await attribution.deliver(*batch)
    assert await counted(attribution) == {}
    assert attribution.code.settle is not None
    await attribution.code.settle(attribution.consumer_runtime)
    await assert_right(attribution, histories)
    async with attribution.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM people_owed") == 0


async def test_fact_by_fact_the_sums_are_right_at_every_moment(attribution: Harness) -> None:
    facts = random_pipeline(50, 40)
    random.Random(3).shuffle(facts)
    for place, fact in enumerate(facts, 1):
        await attribution.deliver(fact)
        await assert_right(attribution, [facts[:place]])


async def test_consumers_at_once_miss_nothing_of_each_other(attribution: Harness) -> None:
    async def consume(batches: Iterator[list[Event]]) -> None:
        for batch in batches:
            while True:
                try:
                    await attribution.deliver(*batch)
                    break
                except TRANSIENT:  # of two that wait for each other the database ends one, and the consumer tries again
                    continue

    histories = [random_pipeline(seed) for seed in range(100, 103)]
    batches = in_any_order([fact for facts in histories for fact in facts], random.Random(2), largest=12)
    await asyncio.gather(*(consume(batches) for _ in range(4)))
    await assert_right(attribution, histories)
