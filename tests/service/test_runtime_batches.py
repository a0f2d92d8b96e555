"""One batch is one transaction: duplicates, zombies, poison, and what is undone with what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from shared.db import TRANSIENT, Database, Tx
from shared.errors import Rejected, Unavailable
from shared.events import TOPIC_OF, ConsentChanged, CostRecorded, Event, LeadErased, TouchRecorded, with_position
from shared.ids import EventId, LeadId
from shared.kafka import Fenced, Guard, Processor, Route, Superseded, on, on_batch
from shared.kafka._batch import Batch, Span  # noqa: TID251  # a batch is made by hand here
from shared.kafka._guard import PartitionStopped  # noqa: TID251
from shared.kafka._records import Watermark, decode  # noqa: TID251
from shared.service import Runtime
from shared.settings import Settings
from shared.telemetry import new_trace
from shared.testing import eventually
from tests.service.runtime_world import (
    applied,
    beside,
    execute,
    fetch,
    logged,
    runtime_of,
    scratch,
    touch,
    value,
    write_down,
)

CONSUMER = "capture.v1"
AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


CONSENT = ConsentChanged(
    event_id=EventId("consent-1"),
    lead_id=LeadId("bad"),
    occurred_at=AT,
    received_at=AT,
    channel="email",
    state="denied",
)


class NotThisOne(Rejected):
    """A fact that its handler refuses."""

    slug = "test/not-this-one"


def record(event: Event, offset: int, partition: int = 0, trace: str | None = None) -> Any:
    """A record as Kafka's client gives it."""
    headers: list[tuple[str, bytes | None]] = [
        ("ce_id", event.event_id.encode()),
        ("ce_type", event.ce_type.encode()),
    ]
    if trace:
        headers.append(("traceparent", trace.encode()))
    content = with_position(event.encode(), offset)
    return raw(offset, event.key.encode(), content, headers, partition)


def raw(offset: int, key: bytes | None, content: bytes | None, headers: Any = (), partition: int = 0) -> Any:
    return SimpleNamespace(
        partition=partition, offset=offset, key=key, value=content, headers=tuple(headers), timestamp=offset + 1
    )


@dataclass
class World:
    """A consumer of one partition, fed by hand."""

    runtime: Runtime
    guard: Guard
    next_offset: int = 0

    @property
    def database(self) -> Database:
        return self.runtime.database

    def processor(self, *routes: Route, version: int = 1, serving: bool = True) -> Processor:
        chosen = routes or (on_batch(TouchRecorded, write_down),)
        order = ["leads", "touches"]
        return Processor(
            self.database, CONSUMER, chosen, version=version, topic_order=order, guard=self.guard, serving=serving
        )

    def batch(self, *records: Any, topic: str = "touches", expected: int | None = None) -> Batch:
        start = self.next_offset if expected is None else expected
        end = records[-1].offset + 1 if records else start
        read = [decode(topic, each) for each in records]
        return Batch(read, {(topic, 0): Span(start, end, "last", 0)})

    def records(self, *events: Event) -> list[Any]:
        return [record(event, self.next_offset + number) for number, event in enumerate(events)]

    async def process(self, processor: Processor, batch: Batch) -> None:
        connection = await self.database.connect()
        try:
            await processor.process(connection, batch)
        finally:
            await connection.close()
        for span in batch.spans.values():
            self.next_offset = span.next_offset

    async def take(self, processor: Processor, *events: Event) -> None:
        """Carry out facts as the next batch."""
        await self.process(processor, self.batch(*self.records(*events)))

    async def position(self) -> int:
        return int(await value(self.database, "SELECT next_offset FROM consumer_positions"))

    async def parked(self) -> list[tuple[str, str]]:
        rows = await fetch(self.database, "SELECT event_id, slug FROM parked_events ORDER BY id")
        return [(row["event_id"], row["slug"]) for row in rows]


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with runtime_of(settings) as runtime:
        await scratch(runtime.database)
        await execute(
            runtime.database,
            "INSERT INTO consumer_positions (consumer, topic, partition, next_offset) VALUES ($1, 'touches', 0, 0)",
            CONSUMER,
        )
        yield World(runtime, Guard(0.01, 50))


def refusing(poison: Collection[str] = ()) -> Callable[[Sequence[TouchRecorded], Tx], Awaitable[None]]:
    """A handler that does its work, tells a fact, and then refuses some."""

    async def handle(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await write_down(events, tx)
        tx.emit(*(touch("derived", event_id=f"from-{event.event_id}") for event in events))
        if any(event.event_id in poison for event in events):
            raise NotThisOne("no")

    return handle


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
    await eventually(lambda: _someone_waits(world.database))
    leave.set()
    await first
    with pytest.raises(Fenced):
        await second
    assert await applied(world.database) == ["touch-ann-1"]


async def _someone_waits(database: Database) -> bool:
    statement = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
    return bool(await value(database, statement))


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
            await eventually(lambda: _someone_waits(world.database))
            await swap.execute("UPDATE projections SET version = 2")
        with pytest.raises(Superseded):
            await task
    finally:
        await swap.close()
    assert await applied(world.database) == []


async def test_poison_is_parked_with_its_lead_and_everyone_else_goes_on(world: World) -> None:
    processor = world.processor(on_batch(TouchRecorded, refusing({"touch-bad-1"})))
    await world.take(
        processor, touch("ann", 1), touch("bad", 1), touch("ben", 1), touch("bad", 2), touch("ann", 2), touch("eve", 1)
    )
    await world.take(processor, touch("bad", 3), touch("ann", 3))
    assert await applied(world.database) == [
        "touch-ann-1", "touch-ben-1", "touch-ann-2", "touch-eve-1", "touch-ann-3"
    ]  # fmt: skip
    waits = "parked/waits-behind-parked"
    assert await world.parked() == [("touch-bad-1", NotThisOne.slug), ("touch-bad-2", waits), ("touch-bad-3", waits)]
    told = await logged(world.database, 1)
    assert sorted(told) == sorted(f"from-{event_id}" for event_id in await applied(world.database))


async def test_facts_that_must_not_wait_pass_a_parked_one_of_their_lead(world: World) -> None:
    erased = LeadErased(event_id=EventId("erased-1"), lead_id=LeadId("bad"), occurred_at=AT, received_at=AT)
    processor = world.processor(
        on_batch(TouchRecorded, refusing({"touch-bad-1"})),
        on_batch(ConsentChanged, write_down),
        on_batch(LeadErased, write_down),
    )
    await world.take(processor, touch("bad", 1))
    await world.take(processor, touch("bad", 2), CONSENT, erased)
    assert await applied(world.database) == ["consent-1", "erased-1"]


async def test_a_bug_is_parked_with_where_it_happened(world: World) -> None:
    async def buggy(event: TouchRecorded, tx: Tx) -> None:
        raise KeyError(event.lead_id)

    await world.take(world.processor(on(TouchRecorded, buggy)), touch("ann", 1))
    assert await world.parked() == [("touch-ann-1", "bug/KeyError")]


async def test_a_refusal_may_quote_what_cannot_be_stored(world: World) -> None:
    async def quoting(event: TouchRecorded, tx: Tx) -> None:
        raise NotThisOne("unknown type \x00")

    await world.take(world.processor(on(TouchRecorded, quoting)), touch("ann", 1))
    assert await world.parked() == [("touch-ann-1", NotThisOne.slug)]


async def test_what_postgresql_refuses_of_one_fact_is_parked_alone(world: World) -> None:
    async def keep_type(events: Sequence[TouchRecorded], tx: Tx) -> None:
        rows = [(event.event_id, event.type) for event in events]
        await tx.connection.executemany("INSERT INTO applied (event_id, of) VALUES ($1, $2)", rows)

    await world.take(
        world.processor(on_batch(TouchRecorded, keep_type)),
        *(touch(f"lead-{number}", number, type="odd\x00" if number == 7 else "fine") for number in range(20)),
    )
    assert len(await applied(world.database)) == 19
    assert await world.parked() == [("touch-lead-7-7", "bug/CharacterNotInRepertoireError")]


async def test_a_retry_carries_out_the_parked_facts_of_a_lead_in_order(world: World) -> None:
    poison = ["touch-bad-1"]
    processor = world.processor(
        on_batch(TouchRecorded, refusing(poison)),
    )
    await world.take(processor, touch("bad", 1), touch("bad", 2), touch("bad", 3))
    assert not await processor.retry("bad")
    assert await applied(world.database) == []
    assert await logged(world.database, 1) == []
    assert await value(world.database, "SELECT attempts FROM parked_events WHERE event_id = 'touch-bad-1'") == 2
    poison.clear()
    assert await processor.retry("bad")
    assert await applied(world.database) == ["touch-bad-1", "touch-bad-2", "touch-bad-3"]
    assert len(await logged(world.database, 1)) == 3
    assert await world.parked() == []
    await world.take(processor, touch("bad", 4))
    assert (await applied(world.database))[-1] == "touch-bad-4"


async def test_a_retry_stops_at_the_next_one_that_is_refused_and_keeps_what_went_well(world: World) -> None:
    poison = ["touch-bad-1", "touch-bad-3"]
    processor = world.processor(
        on_batch(TouchRecorded, refusing(poison)),
    )
    await world.take(processor, *(touch("bad", number) for number in range(1, 5)))
    poison.remove("touch-bad-1")
    assert not await processor.retry("bad")
    assert await applied(world.database) == ["touch-bad-1", "touch-bad-2"]
    assert await logged(world.database, 1) == ["from-touch-bad-1", "from-touch-bad-2"]
    assert [event_id for event_id, _ in await world.parked()] == ["touch-bad-3", "touch-bad-4"]


async def test_a_fact_that_comes_while_its_lead_is_tried_again_waits_for_the_outcome(world: World) -> None:
    """It neither overtakes the parked one nor stays behind alone."""
    entered, leave = asyncio.Event(), asyncio.Event()
    mended = False

    async def slow_when_mended(events: Sequence[TouchRecorded], tx: Tx) -> None:
        if not mended:
            raise NotThisOne("not yet")
        if events[0].event_id == "touch-bad-1":
            entered.set()
            await leave.wait()
        await write_down(events, tx)

    processor = world.processor(on_batch(TouchRecorded, slow_when_mended))
    await world.take(processor, touch("bad", 1))
    mended = True
    retry = asyncio.create_task(processor.retry("bad"))
    await entered.wait()
    after = asyncio.create_task(world.take(processor, touch("bad", 2)))
    await eventually(lambda: _someone_waits(world.database))
    leave.set()
    assert await retry
    await after
    assert await applied(world.database) == ["touch-bad-1", "touch-bad-2"]
    assert await world.parked() == []


async def test_a_fact_that_was_folded_by_a_rebuild_owes_only_its_decisions(world: World) -> None:
    decided: list[str] = []
    mended = False

    async def decide(event: TouchRecorded, tx: Tx) -> None:
        if not mended:
            raise NotThisOne("not yet")
        decided.append(event.event_id)

    processor = world.processor(on_batch(TouchRecorded, write_down), on(TouchRecorded, decide, decides=True))
    await world.take(processor, touch("bad", 1))
    await execute(world.database, "UPDATE parked_events SET folded = true")
    mended = True
    assert await processor.retry("bad")
    assert decided == ["touch-bad-1"]
    assert await applied(world.database) == []


UNREADABLE = [
    ("not JSON", raw(0, b"ann", b"\xff\xfe garbage", [("ce_type", b"throughline.touch.recorded.v1")])),
    ("not that fact", raw(0, b"ann", b'{"a": 1}', [("ce_type", b"throughline.touch.recorded.v1")])),
    ("unknown type", raw(0, b"ann", b"{}", [("ce_type", b"throughline.weather.changed.v1")])),
    ("no headers", raw(0, b"ann", b"{}")),
    ("no key, no value", raw(0, None, None)),
    ("headers without values", raw(0, b"ann", b"{}", [("ce_type", None), ("ce_id", None), ("traceparent", None)])),
    ("headers not UTF-8", raw(0, b"\xff", b"{}", [("ce_type", b"\xff\xfe"), ("ce_id", b"\xff\x00"), ("a\x00", b"")])),
    ("ten thousand headers", raw(0, b"ann", b"{}", [("x", b"y")] * 10_000)),
    ("an id that cannot be stored", record(touch(event_id="a\x00b"), 0)),
    ("a key that cannot be stored", record(touch("a\x00b", 1), 0)),
]


@pytest.mark.parametrize("broken", [each for _, each in UNREADABLE], ids=[name for name, _ in UNREADABLE])
async def test_bytes_that_are_no_fact_are_dead_letters_and_the_rest_goes_on(world: World, broken: Any) -> None:
    await world.process(world.processor(), world.batch(broken, record(touch(number=1), 1)))
    assert await applied(world.database) == ["touch-ann-1"]
    (letter,) = await fetch(world.database, "SELECT * FROM dead_letters")
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("touches", 0, 0)
    assert (letter["key"], letter["value"]) == (broken.key, broken.value)
    assert letter["error"]
    assert await world.position() == 2


async def test_a_tombstone_is_no_fact_and_no_dead_letter(world: World) -> None:
    tombstone = raw(0, b"ann", None, [("ce_type", b"throughline.key.created.v1")])
    await world.process(world.processor(), world.batch(tombstone, record(touch(number=1), 1)))
    assert await applied(world.database) == ["touch-ann-1"]
    assert await fetch(world.database, "SELECT * FROM dead_letters") == []


async def test_fifty_in_a_row_stop_the_partition_and_park_nothing(world: World) -> None:
    async def broken_deploy(events: Sequence[TouchRecorded], tx: Tx) -> None:
        raise AttributeError("oops")

    processor = world.processor(on_batch(TouchRecorded, broken_deploy))
    with pytest.raises(PartitionStopped):
        await world.take(processor, *(touch(f"lead-{number}", number) for number in range(200)))
    assert await world.parked() == []
    assert await world.position() == 0


async def test_fifty_unreadable_in_a_row_stop_the_partition_and_bury_nothing(world: World) -> None:
    with pytest.raises(PartitionStopped):
        await world.process(world.processor(), world.batch(*(raw(offset, b"x", b"?") for offset in range(50))))
    assert await fetch(world.database, "SELECT * FROM dead_letters") == []


async def test_refusals_among_good_facts_do_not_count_as_a_row(world: World) -> None:
    bad = [f"touch-lead-{number}-{number}" for number in range(0, 180, 3)]
    processor = world.processor(on_batch(TouchRecorded, refusing(bad)))
    await world.take(processor, *(touch(f"lead-{number}", number) for number in range(180)))
    assert len(await world.parked()) == 60
    scattered = [record(touch(f"good-{number}", number), 180 + number) for number in range(200)]
    for index in range(0, 200, 4):
        scattered[index] = raw(180 + index, b"x", b"?")
    with pytest.raises(PartitionStopped):  # 60 and 41 of them are more than 1 % of 10,000
        await world.process(processor, world.batch(*scattered))


async def test_a_batch_that_is_tried_again_is_counted_once(world: World) -> None:
    """A dependency away for long: the same refusals come again and again, and stop nothing."""
    away = True

    async def needs_it(events: Sequence[ConsentChanged], tx: Tx) -> None:
        if away:
            raise Unavailable("not now")

    bad = [f"touch-bad-{number}" for number in range(20)]
    processor = world.processor(
        on_batch(TouchRecorded, refusing(bad)),
        on_batch(ConsentChanged, needs_it),
    )
    batch = world.batch(
        *world.records(*(touch("bad" + str(number), number, event_id=bad[number]) for number in range(20)), CONSENT)
    )
    for _ in range(15):
        with pytest.raises(Unavailable):
            await world.process(processor, batch)
    away = False
    await world.process(processor, batch)
    assert len(await world.parked()) == 20


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
