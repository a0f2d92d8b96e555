"""Housekeeping: a partition a day, old ones dropped once published, and nobody made to wait for it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from shared.service import Runtime, upkeep
from shared.settings import Settings
from shared.testing import FrozenClock
from tests.service.runtime_world import execute, fetch, runtime_of, value

NOW = datetime.now(UTC)
ADD = """
INSERT INTO event_log (log, position, event_id, topic, key, type, subject, occurred_at, value, recorded_at)
VALUES (0, $1, 'x', 'touches', 'ann', 'a', 'ann', '', '', $2)
"""
TABLES = "SELECT tableoid::regclass::text AS name, position FROM event_log ORDER BY position"
THERE = "SELECT to_regclass('capture.event_log_' || to_char($1::date, 'YYYYMMDD')) IS NOT NULL"


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOW)


@pytest.fixture
async def runtime(settings: Settings, clock: FrozenClock) -> AsyncIterator[Runtime]:
    async with runtime_of(settings, clock=clock) as made:
        yield made


async def add(runtime: Runtime, position: int, at: datetime) -> None:
    await execute(runtime.database, ADD, position, at)


async def published_up_to(runtime: Runtime, position: int) -> None:
    await execute(runtime.database, "UPDATE relay_cursors SET position = $1 WHERE log = 0", position)


async def test_rows_of_the_coming_days_find_their_partition(runtime: Runtime, clock: FrozenClock) -> None:
    clock.move(timedelta(days=2))
    await upkeep(runtime).run()
    ahead = [NOW + timedelta(days=days) for days in (0, 2, 5)]
    for position, at in enumerate(ahead):
        await add(runtime, position, at)
    found = [row["name"] for row in await fetch(runtime.database, TABLES)]
    assert found == [f"event_log_{at:%Y%m%d}" for at in ahead]


@pytest.mark.parametrize("days_ago", [0, 400])
async def test_what_is_old_goes_when_it_was_published_and_not_before(
    runtime: Runtime, clock: FrozenClock, days_ago: int
) -> None:
    for position in (1, 2):
        await add(runtime, position, NOW - timedelta(days=days_ago))  # so long ago: into the default partition
    await execute(runtime.database, "INSERT INTO inbox VALUES ($1, 1, 'old')", (NOW - timedelta(days=days_ago)).date())
    await execute(runtime.database, "INSERT INTO inbox VALUES ($1, 1, 'new')", (NOW + timedelta(days=60)).date())
    clock.move(timedelta(days=60))
    await published_up_to(runtime, 1)
    await upkeep(runtime).run()
    assert 2 in [row["position"] for row in await fetch(runtime.database, TABLES)]
    await published_up_to(runtime, 2)
    await upkeep(runtime).run()
    assert await fetch(runtime.database, TABLES) == []
    assert [row["event_id"] for row in await fetch(runtime.database, "SELECT event_id FROM inbox")] == ["new"]


async def test_while_somebody_uses_the_log_partitions_wait_and_nobody_waits_for_them(
    runtime: Runtime, clock: FrozenClock
) -> None:
    clock.move(timedelta(days=30))
    connection = await runtime.database.connect()
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE event_log IN ROW EXCLUSIVE MODE")
            await connection.execute("LOCK TABLE event_log_default IN ROW EXCLUSIVE MODE")
            await upkeep(runtime).run()
            assert not await value(runtime.database, THERE, clock.now().date())
    finally:
        await connection.close()
    await upkeep(runtime).run()
    assert await value(runtime.database, THERE, clock.now().date())
