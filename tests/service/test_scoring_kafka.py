"""Scoring on real Kafka: what it tells arrives, and a rebuild folds the log into the very same rows."""

import asyncio
import random

from shared.events import LeadScored
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.runtime_world import all_read, killed_rebuild
from tests.service.scoring_world import NOW, PEOPLE, World, random_history, with_named_score
from throughline.services import service_code


async def test_f32_a_rebuild_that_is_killed_twice_while_facts_come_leaves_what_serves_and_the_next_one_is_equal(
    kafka_settings: Settings,
) -> None:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), kafka_settings, clock=clock, kafka=True) as service:
        world = World(service, clock)
        facts = await random_history(world, random.Random(12), 60)
        rest = list(facts)

        async def come(number: int) -> None:
            async with service.runtime.database.transaction() as tx:
                tx.emit(*rest[:number])
            del rest[:number]

        await come(20)
        for point in ("after_tx_before_kafka_commit", "before_swap_commit"):
            await killed_rebuild(service, kafka_settings, point, come(10))
        building = asyncio.create_task(rebuild(service_code("scoring"), kafka_settings, lambda _: None))
        while rest:
            await come(10)
        assert all((await building).values()), building.result()
        await all_read(service, facts)
        assert await service.parked() == []
        before = [await world.score(world.lead_id(email)) for email in PEOPLE]
        told = [fact.event_id for fact in await service.told(LeadScored)]
        equal = await rebuild(service_code("scoring"), kafka_settings, lambda _: None)
        assert all(equal.values()), equal
        assert [await world.score(world.lead_id(email)) for email in PEOPLE] == before
        assert [fact.event_id for fact in await service.told(LeadScored)] == told
        assert len(told) == len(set(told))


async def test_a_rebuild_makes_the_same_rows_and_tells_nothing(
    kafka_settings: Settings,
) -> None:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), kafka_settings, clock=clock, kafka=True) as service:
        world = World(service, clock)
        await world.put_rules(await with_named_score(world))
        facts = await random_history(world, random.Random(11), 60)
        for start in range(0, len(facts), 25):
            async with service.runtime.database.transaction() as tx:
                tx.emit(*facts[start : start + 25])  # through scoring's own log and relay to the topics they belong to

        await all_read(service, facts)
        assert await service.parked() == []
        before, told = await world.score(world.lead_id(PEOPLE[0])), len(await service.told(LeadScored))
        assert before["contributions"]
        assert before["scores"]["product"]["contributions"]
        equal = await rebuild(service_code("scoring"), kafka_settings, lambda _: None)
        assert {"scores", "limited_days", "touches"} <= equal.keys()
        assert all(equal.values()), equal
        assert await world.score(world.lead_id(PEOPLE[0])) == before
        assert len(await service.told(LeadScored)) == told

        async with service.runtime.database.transaction() as tx:
            tx.emit(world.touch(world.lead_id(PEOPLE[0]), "form_submitted", NOW))

        async def the_new_one_counts() -> bool:
            score = await world.score(world.lead_id(PEOPLE[0]))
            return len(score["contributions"]) == len(before["contributions"]) + 1

        await eventually(the_new_one_counts)
