"""Kafka or PostgreSQL went back in time: everything is applied, and nothing twice."""

import asyncio
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from deploy.embedded.processes import running
from shared.kafka import apply_topics
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.runtime_world import applied, code, execute, own_broker, runtime_of, scratch, touch, value
from tests.service.test_runtime_relay import make_topics_anew, published


async def tell(service: Harness, numbers: Iterable[int]) -> None:
    async with service.runtime.database.transaction() as tx:
        tx.emit(*(touch("ann", number) for number in numbers))


async def all_applied(service: Harness, number: int) -> None:
    """Wait until so many facts are applied; each of them once."""
    expected = [f"touch-ann-{each}" for each in range(number)]

    async def are() -> bool:
        assert sorted(await applied(service.runtime.database)) == sorted(expected)
        return True

    await eventually(are)


async def all_published(settings: Settings, number: int) -> None:
    """Wait until Kafka has so many facts again: what was lost is published anew while what follows is applied."""

    async def are() -> bool:
        return set(await published(settings)) == {f"touch-ann-{each}" for each in range(number)}

    await eventually(are)


async def test_topics_made_anew_while_everything_runs(kafka_settings: Settings) -> None:
    async with harness(code(), kafka_settings, kafka=True) as service:
        await scratch(service.runtime.database)
        await tell(service, range(30))
        await all_applied(service, 30)
        await make_topics_anew(kafka_settings)
        await tell(service, range(30, 35))
        await all_applied(service, 35)
        await all_published(kafka_settings, 35)


async def test_an_earlier_copy_of_kafka_and_then_an_empty_one_at_the_same_address(
    settings: Settings, tmp_path: Path
) -> None:
    node, own = own_broker(settings, tmp_path / "kafka", "lost.")
    with ExitStack() as life:

        async def restart(copy: Path | None = None, keep: Path | None = None) -> None:
            await asyncio.to_thread(life.close)
            if keep is not None:
                shutil.copytree(node.folder, keep)
            elif copy is not None:
                shutil.rmtree(node.folder)
                shutil.copytree(copy, node.folder)
            else:
                shutil.rmtree(node.folder, ignore_errors=True)
            await asyncio.to_thread(life.enter_context, running(node, tmp_path / "log"))

        await restart()
        await apply_topics(own)
        async with harness(code(), own, kafka=True) as service:
            await scratch(service.runtime.database)
            await tell(service, range(20))
            await all_applied(service, 20)
            await restart(keep=tmp_path / "copy")
            await tell(service, range(20, 40))
            await all_applied(service, 40)
            await restart(copy=tmp_path / "copy")
            await tell(service, range(40, 45))
            await all_applied(service, 45)
            await all_published(own, 45)
            await restart()
            await apply_topics(own)
            await tell(service, range(45, 50))
            await all_applied(service, 50)
            await all_published(own, 50)


async def test_a_consumer_that_was_carried_past_a_lost_tail_goes_back_when_the_source_says_so(
    kafka_settings: Settings,
) -> None:
    """As if Kafka had lost its tail and grown past the position before the consumer looked again."""
    async with harness(code(), kafka_settings, kafka=True) as service:
        await scratch(service.runtime.database)
        await tell(service, range(10))
        await all_applied(service, 10)
        await eventually(lambda: _is(service, HEARD, 2))  # who has never heard a source takes its word from then on
    async with runtime_of(kafka_settings) as runtime:
        await execute(runtime.database, "DELETE FROM applied")
        await execute(runtime.database, "DELETE FROM inbox")
        await execute(
            runtime.database,
            'INSERT INTO relay_repairs (topic, partition, number, "offset")'
            " SELECT 'touches', partition, 1, 0 FROM consumer_positions WHERE topic = 'touches'",
        )
    async with harness(code(), kafka_settings, kafka=True) as service:
        await all_applied(service, 10)
        await eventually(lambda: _is(service, "SELECT min(repair) FROM feed_watermarks WHERE topic = 'touches'", 1))
        await tell(service, range(10, 12))
        await all_applied(service, 12)


HEARD = "SELECT count(*) FROM feed_watermarks WHERE topic = 'touches'"


async def _is(service: Harness, statement: str, expected: object) -> bool:
    return bool(await value(service.runtime.database, statement) == expected)


async def test_positions_and_cursors_of_an_earlier_copy_of_the_database(kafka_settings: Settings) -> None:
    async with harness(code(), kafka_settings, kafka=True) as service:
        await scratch(service.runtime.database)
        await tell(service, range(20))
        await all_applied(service, 20)
    async with runtime_of(kafka_settings) as runtime:
        await execute(runtime.database, "UPDATE relay_cursors SET position = 5 WHERE log = 0")
        await execute(runtime.database, "UPDATE consumer_positions SET next_offset = 0, last_event_id = NULL")
    async with harness(code(), kafka_settings, kafka=True) as service:
        await tell(service, range(20, 25))
        await all_applied(service, 25)
        counts = [(await published(kafka_settings)).count(f"touch-ann-{number}") for number in (0, 10, 24)]
        assert counts == [1, 2, 1]
