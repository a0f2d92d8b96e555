"""What the pipeline is made of, through a real relay, Kafka and consumer; and built anew beside what serves."""

from typing import Any

from shared.events import Event
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.pipeline_facts import PipelineWorld, random_pipeline
from tests.service.test_attribution_pipeline_histories import assert_right, counted
from throughline.services import service_code

TABLES = ("stage_changes", "assignments", "deal_steps", "circumstances", "marks", "mark_sums")


async def test_facts_from_kafka_are_counted_and_a_rebuild_comes_to_the_same(kafka_settings: Settings) -> None:
    histories: list[list[Event]] = [random_pipeline(seed) for seed in range(500, 503)]
    code = service_code("attribution")
    async with harness(code, kafka_settings, kafka=True) as service:
        async with service.runtime.database.transaction() as tx:
            for facts in histories:
                tx.emit(*facts)
        expected: dict[Any, Any] = {}
        for facts in histories:
            expected |= PipelineWorld(facts).marks()

        async def all_is_counted() -> None:
            assert await counted(service) == expected

        await eventually(all_is_counted, within=120)
        equal = await rebuild(code, kafka_settings, lambda _line: None)
        assert {table: equal[table] for table in TABLES} == dict.fromkeys(TABLES, True)
        await assert_right(service, histories)
