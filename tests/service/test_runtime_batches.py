"""One batch is one transaction: duplicates, zombies, poison, and what is undone with what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio

from shared.db import TRANSIENT, Database, Tx
from shared.errors import Unavailable
from shared.events import TOPIC_OF, ConsentChanged, CostRecorded, TouchRecorded
from shared.ids import EventId, LeadId
from shared.kafka import Fenced, Processor, Superseded, on, on_batch
from shared.kafka._records import Watermark, decode  # noqa: TID251
from shared.settings import Settings
from shared.telemetry import new_trace
from shared.testing import eventually
from tests.service.batches_world import (
    AT,
    CONSENT,
    NotThisOne,
    World,
    made_world,
    raw,
    record,
    refusing,
    someone_waits,
)
from tests.service.runtime_world import (
    applied,
    beside,
    execute,
    fetch,
    logged,
    touch,
    value,
    write_down,
)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with made_world(settings) as made:
        yield made


async def test_state_derived_facts_inbox_and_position_are_one_commit(world: World) -> None:
    processor = world.processor(on_batch(TouchRecorded, refusing()))
    await world.take(processor, touch(number=1), touch(number=2))
    assert await applied(world.database) == ["touch-ann-1", "touch-ann-2"]
    assert await logged(world.database, 1) == ["from-touch-ann-1", "from-touch-ann-2"]
    assert await world.position() == 2


async def test_what_handlers_put_off_is_done_once_for_a_batch_and_where_that_fails_the_fact_at_fault_is_parked(
    world: World,
) -> None:
    done: list[list[LeadId]] = []

    async def work(lead_ids: set[LeadId]) -> None:
        done.append(sorted(lead_ids))
        if "poison" in lead_ids:
            raise NotThisOne("no")

    async def handle(events: Sequence[TouchRecorded | ConsentChanged], tx: Tx) -> None:
        await write_down(events, tx)
        tx.put_off("work", work, {event.lead_id for event in events})

    processor = world.processor(on_batch(TouchRecorded, handle), on_batch(ConsentChanged, handle))
    await world.take(processor, touch("ann", 1), CONSENT, touch("ben", 1))
    assert done == [["ann", "bad", "ben"]]
    await world.take(processor, touch("cat", 1), touch("poison", 1))
    assert await world.parked() == [("touch-poison-1", NotThisOne.slug)]
    assert "touch-cat-1" in await applied(world.database)


async def test_nothing_of_a_batch_that_fails_to_commit_remains(world: World) -> None:
    async def cut(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await refusing()(events, tx)
        pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
        await execute(world.database, "SELECT pg_terminate_backend($1)", pid)
        await tx.connection.fetchval("SELECT 1")

    with pytest.raises(TRANSIENT):
        await world.take(world.processor(on_batch(TouchRecorded, cut)), touch(number=1))
    assert await applied(world.database) == []
    assert await logged(world.database, 1) == []
    assert await value(world.database, "SELECT count(*) FROM inbox") == 0
    assert await world.position() == 0
    assert await world.parked() == []


async def test_a_fact_that_comes_twice_is_applied_once(world: World) -> None:
    """In one batch, in the next, and after a client's repetition at another offset."""
    processor = world.processor()
    await world.take(processor, touch(number=1), touch(number=1), touch(number=2))
    await world.take(processor, touch(number=2), touch(number=3), touch(number=1))
    assert await applied(world.database) == ["touch-ann-1", "touch-ann-2", "touch-ann-3"]
    assert await world.position() == 6


async def test_another_version_of_the_projection_has_an_inbox_of_its_own(world: World) -> None:
    await world.take(world.processor(), touch(number=1))
    await world.take(world.processor(version=2, serving=False), touch(number=1))
    assert await applied(world.database) == ["touch-ann-1"] * 2


async def test_two_consumers_at_once_apply_a_fact_once(world: World) -> None:
    """The second waits for the first one's position, and finds that it has moved."""
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await write_down(events, tx)
        entered.set()
        await leave.wait()

    batch = world.batch(*world.records(touch(number=1)))
    first = asyncio.create_task(world.process(world.processor(on_batch(TouchRecorded, slow)), batch))
    await entered.wait()
    second = asyncio.create_task(world.process(world.processor(), world.batch(*world.records(touch(number=1)))))
    await eventually(lambda: someone_waits(world.database))
    leave.set()
    await first
    with pytest.raises(Fenced):
        await second
    assert await applied(world.database) == ["touch-ann-1"]


async def test_a_zombie_with_an_old_position_is_fenced(world: World) -> None:
    await world.take(world.processor(), touch(number=1))
    with pytest.raises(Fenced):
        await world.process(world.processor(), world.batch(record(touch(number=2), 0), expected=0))
    assert await applied(world.database) == ["touch-ann-1"]
    assert await world.position() == 1


async def test_a_batch_that_waited_while_a_rebuild_was_swapped_in_does_not_write_into_it(world: World) -> None:
    swap = await world.database.connect()
    try:
        async with swap.transaction():
            await swap.execute("SELECT 1 FROM consumer_positions FOR UPDATE")
            task = asyncio.create_task(world.take(world.processor(), touch(number=1)))
            await eventually(lambda: someone_waits(world.database))
            await swap.execute("UPDATE projections SET version = 2")
        with pytest.raises(Superseded):
            await task
    finally:
        await swap.close()
    assert await applied(world.database) == []


async def test_a_tombstone_is_no_fact_and_no_dead_letter(world: World) -> None:
    tombstone = raw(0, b"ann", None, [("ce_type", b"throughline.key.created.v1")])
    await world.process(world.processor(), world.batch(tombstone, record(touch(number=1), 1)))
    assert await applied(world.database) == ["touch-ann-1"]
    assert await fetch(world.database, "SELECT * FROM dead_letters") == []


async def test_unavailable_and_transient_faults_park_nothing(world: World) -> None:
    async def not_now(events: Sequence[TouchRecorded], tx: Tx) -> None:
        raise Unavailable("a key has not arrived")

    async def deadlocked(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await tx.connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")

    for handler, error in ((not_now, Unavailable), (deadlocked, asyncpg.DeadlockDetectedError)):
        with pytest.raises(error):
            await world.take(world.processor(on_batch(TouchRecorded, handler)), touch(number=1))
    assert await world.parked() == []
    assert await world.position() == 0


async def test_facts_told_for_a_cause_belong_to_its_trace(world: World) -> None:
    traces = [new_trace(), new_trace(), None]

    async def one_by_one(event: TouchRecorded, tx: Tx) -> None:
        tx.emit(touch("person-of-all", event_id=f"one-{event.event_id}"))

    async def at_once(events: Sequence[TouchRecorded], tx: Tx) -> None:
        tx.emit(*(touch(event.lead_id, event_id=f"many-{event.event_id}") for event in events))

    processor = world.processor(on(TouchRecorded, one_by_one), on_batch(TouchRecorded, at_once))
    records = [record(touch(f"lead-{number}", number), number, trace=trace) for number, trace in enumerate(traces)]
    await world.process(processor, world.batch(*records))
    rows = await fetch(world.database, "SELECT event_id, traceparent FROM event_log ORDER BY position")
    found = {row["event_id"]: row["traceparent"] for row in rows}
    for number, trace in enumerate(traces):
        assert found[f"one-touch-lead-{number}-{number}"] == trace
        assert found[f"many-touch-lead-{number}-{number}"] == trace


async def test_topics_of_a_batch_are_carried_out_in_the_tables_order(world: World) -> None:
    processor = world.processor(on_batch(TouchRecorded, write_down), on_batch(ConsentChanged, write_down))
    batch = world.batch(*world.records(touch(number=1), touch(number=2)))
    batch.records.append(decode(TOPIC_OF[ConsentChanged], record(CONSENT, 0)))
    await world.process(processor, batch)
    assert await applied(world.database) == ["consent-1", "touch-ann-1", "touch-ann-2"]


async def test_facts_that_nobody_handles_are_passed_over(world: World) -> None:
    cost = CostRecorded(
        event_id=EventId("x"),
        occurred_at=AT,
        received_at=AT,
        date=AT.date(),
        channel="c",
        amount_minor=1,
        currency="EUR",
    )
    await world.take(world.processor(), cost, touch(number=1))
    assert await applied(world.database) == ["touch-ann-1"]
    assert await value(world.database, "SELECT count(*) FROM inbox") == 1


async def test_watermarks_only_grow_and_a_build_leaves_them_alone(world: World) -> None:
    async def mark(at: datetime, processor: Processor) -> None:
        batch = world.batch(*world.records(touch()))
        one = Watermark("touches", 0, "capture", at, (1, 5))
        batch.watermarks[one.place] = one
        await world.process(processor, batch)

    await mark(AT, world.processor())
    await mark(AT - timedelta(hours=1), world.processor())
    await mark(AT + timedelta(hours=1), world.processor(serving=False))
    (row,) = await fetch(world.database, "SELECT source, at, repair FROM feed_watermarks")
    assert tuple(row) == ("capture", AT, 1)


@asynccontextmanager
async def frozen_copy(database: Database) -> AsyncIterator[int]:
    """A process that stands still in the middle of a COPY, holding the consumer's position."""
    connection = await database.connect()
    never = asyncio.Event()
    pid = await connection.fetchval("SELECT pg_backend_pid()")

    async def nothing() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    async def stand_still() -> None:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM consumer_positions FOR UPDATE")
            await connection.copy_to_table("applied", source=nothing())

    try:
        async with beside(_ended(stand_still())):
            await eventually(lambda: _copies(database, pid))
            yield pid
    finally:
        connection.terminate()


async def _ended(duty: Awaitable[None]) -> None:
    with suppress(*TRANSIENT):
        await duty


async def _copies(database: Database, pid: int) -> bool:
    statement = "SELECT wait_event = 'ClientRead' AND state = 'active' FROM pg_stat_activity WHERE pid = $1"
    return bool(await value(database, statement, pid))


async def test_a_process_frozen_in_the_middle_of_a_copy_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db._database.FROZEN_S", 0.0)
    async with frozen_copy(world.database) as pid:
        await world.database.end_frozen()
        await eventually(lambda: _is_gone(world.database, pid))
    await world.take(world.processor(), touch(number=1))
    assert await applied(world.database) == ["touch-ann-1"]


async def _is_gone(database: Database, pid: int) -> bool:
    return not await value(database, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)
