"""The projection built anew beside the one that serves: the same to the last row, or left alone."""

import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from shared.events import Event
from shared.service import Runtime, rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.attribution_late import draw_move, told
from tests.service.attribution_random import random_history
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
    ids = {fact.event_id for fact in facts}

    async def all_read() -> bool:
        async with service.runtime.database.reading() as connection:
            read = await connection.fetchval("SELECT count(*) FROM inbox WHERE event_id = ANY($1)", list(ids))
        return bool(read == len(ids))

    await eventually(all_read, within=120)
    assert CODE.settle is not None
    await CODE.settle(service.consumer_runtime)


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


async def test_a_rebuild_says_so_when_tables_are_different_because_of_what_came_meanwhile(
    kafka_settings: Settings,
) -> None:
    teller = Teller()
    came: list[Event] = []
    lines: list[str] = []
    async with harness(CODE, kafka_settings, kafka=True) as service:
        await tell(service, [teller.touch("nora", 3), teller.conversion("nora", 1, 1_000)])

        async def settle(runtime: Runtime) -> None:
            if not came:
                came.append(teller.touch("nora", 2))
                await tell(service, came)
            assert CODE.settle is not None
            await CODE.settle(runtime)

        equal = await rebuild(replace(CODE, settle=settle), kafka_settings, lines.append)
        assert (equal["touches"], equal["conversions"]) == (False, True)
        assert [line for line in lines if "records came meanwhile; what is different may be so by these alone" in line]
        again = await rebuild(CODE, kafka_settings, lines.append)
        assert all(again.values()), again


async def test_reports_and_explanations_answer_the_same_before_during_and_after_a_rebuild(
    kafka_settings: Settings,
) -> None:
    dice = random.Random(600)
    histories = [told(f"r{number}", [draw_move(dice) for _ in range(dice.randrange(3, 12))]) for number in range(40)]
    facts = [fact for history in histories for fact in history]
    late = [*facts, *dice.sample(facts, len(facts) // 4)]
    dice.shuffle(late)
    async with harness(CODE, kafka_settings, kafka=True) as service:
        all_time = {"title": "All", "base": "linear", "lookback_days": None}
        assert (await service.client.put("/v1/models/all_time", json=all_time)).status_code == 200
        await tell(service, late)
        async with service.runtime.database.reading() as connection:
            ids = [row[0] for row in await connection.fetch("SELECT conversion_id FROM paths ORDER BY 1 LIMIT 20")]
        paths = [f"/v1/conversions/{one}/explain?model=last_touch" for one in ids]
        paths += [
            f"/v1/reports/attribution?model={model}&from=2026-01-01&to=2027-01-01&currency={currency}"
            for model in ("linear", "w_shaped")
            for currency in ("EUR", "JPY")
        ]

        async def answers() -> list[Any]:
            found = [await service.client.get(path) for path in paths]
            assert {answer.status_code for answer in found} == {200}, [answer.text for answer in found]
            return [_without({"as_of", "later"}, answer.json()) for answer in found]

        before = await answers()
        assert any(answer["history"]["items"] for answer in before[:20])
        rebuilding = asyncio.create_task(rebuild(CODE, kafka_settings, lambda _line: None))
        read = 0
        while not rebuilding.done():
            assert await answers() == before
            read += 1
            if read == 1:  # a model that the projection which is built knows nothing of yet
                later = {"title": "Later", "base": "last_touch"}
                assert (await service.client.put("/v1/models/later", json=later)).status_code == 200
        equal = await rebuilding
        assert set(equal.values()) == {True}, equal
        assert read
        assert await answers() == before
        await eventually(lambda: _serves(service, "later"), within=60)
        assert await answers() == before
        for path in paths[:20]:
            explained = (await service.client.get(path)).json()
            assert "later" in explained["models"]
            for earned in (*(touch["earned"] for touch in explained["touches"]), explained["unattributed"]):
                given = [earned.get(model, {}).get("value_minor") for model in ("later", "last_touch")]
                assert given[0] == given[1]


def _without(names: set[str], answer: Any) -> Any:
    """An answer without what goes by these names, however deep."""
    match answer:
        case dict():
            return {key: _without(names, part) for key, part in answer.items() if key not in names}
        case list():
            return [_without(names, part) for part in answer]
    return answer


async def _serves(service: Harness, model: str) -> bool:
    return (await service.client.get("/v1/reports/compare", params={"models": f"{model},linear"})).status_code != 503


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
