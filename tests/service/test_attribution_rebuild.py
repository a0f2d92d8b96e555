"""The projection built anew beside the one that serves: the same to the last row, or left alone."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shared.events import Event
from shared.service import Runtime, rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller, random_history
from tests.service.runtime_world import environment_of
from throughline.services import service_code

CODE = service_code("attribution")
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'attribution_projection' ORDER BY 1"


async def contents(service: Harness) -> dict[str, list[str]]:
    """The rows of each table of the serving projection."""
    async with service.runtime.database.reading() as connection:
        tables = [row["tablename"] for row in await connection.fetch(TABLES)]
        return {
            table: [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY 1")]
            for table in tables
        }


async def tell(service: Harness, facts: Sequence[Event]) -> None:
    """Facts through the log, the relay and Kafka, until all are carried out."""
    async with service.runtime.database.transaction() as tx:
        tx.emit(*facts)
    ids = [fact.event_id for fact in facts]

    async def all_read() -> bool:
        async with service.runtime.database.reading() as connection:
            read = await connection.fetchval("SELECT count(*) FROM inbox WHERE event_id = ANY($1)", ids)
        return bool(read == len(ids))

    await eventually(all_read, within=120)


@pytest.mark.parametrize("point", ["after_tx_before_kafka_commit", "before_swap_commit"])
async def test_a_rebuild_that_is_killed_leaves_what_serves_as_it_was(kafka_settings: Settings, point: str) -> None:
    teller = Teller()
    async with harness(CODE, kafka_settings, kafka=True) as service:
        await tell(service, [fact for seed in range(500, 502) for fact in random_history(seed)])
        before = await contents(service)
        environment = environment_of(kafka_settings, failpoints=point)
        words = (sys.executable, "-m", "throughline", "rebuild", "attribution")
        rebuilding = await asyncio.create_subprocess_exec(*words, env=environment)
        assert await rebuilding.wait() == -signal.SIGKILL
        assert await contents(service) == before
        await tell(service, [teller.touch("nora", 3), teller.conversion("nora", 1, 1_000, external_id="order")])
        found = await service.client.get(f"/v1/conversions/{teller.conversion_id('order')}/credits")
        assert found.status_code == 200
        equal = await rebuild(CODE, kafka_settings, lambda _line: None)
        assert set(equal.values()) == {True}, equal


async def test_what_timers_still_owe_is_settled_in_both_before_they_are_compared(kafka_settings: Settings) -> None:
    settled: list[str] = []

    async def settle(runtime: Runtime) -> None:
        async with runtime.database.reading() as connection:
            settled.append(await connection.fetchval("SELECT current_schema()"))
            await connection.execute("UPDATE costs SET amount_minor = 7")

    teller = Teller()
    async with harness(CODE, kafka_settings, kafka=True) as service:
        cost = teller.cost(teller.touch("nora", 1).occurred_at.date(), "Email", 100)
        await tell(service, [cost])
        equal = await rebuild(replace(CODE, settle=settle), kafka_settings, lambda _line: None)
        assert set(equal.values()) == {True}, equal
        assert set(settled) == {"attribution_build", "attribution_projection"}
        async with service.runtime.database.reading() as connection:
            assert await connection.fetchval("SELECT amount_minor FROM costs") == 7
