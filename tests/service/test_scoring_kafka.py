"""Scoring on real Kafka: what it tells arrives, and a rebuild folds the log into the very same rows."""

import random

from shared.events import LeadScored
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.scoring_world import NOW, PEOPLE, World, random_history, with_named_score
from throughline.services import service_code


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

        async def all_read() -> bool:
            async with service.runtime.database.reading() as connection:
                read = await connection.fetchval(
                    "SELECT count(*) FROM inbox WHERE event_id = ANY($1)", [fact.event_id for fact in facts]
                )
            return bool(read == len(facts))

        await eventually(all_read)
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
