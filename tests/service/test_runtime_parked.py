"""Facts that can never succeed: parked with their lead, tried again, and when a partition stops instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from shared.db import Tx
from shared.errors import Unavailable
from shared.events import ConsentChanged, LeadErased, TouchRecorded
from shared.ids import EventId, LeadId
from shared.kafka import on, on_batch
from shared.kafka._guard import PartitionStopped  # noqa: TID251
from shared.settings import Settings
from shared.testing import eventually
from tests.service.batches_world import (
    AT,
    CONSENT,
    NotThisOne,
    World,
    done_or_waited_for,
    made_world,
    raw,
    record,
    refusing,
    someone_waits,
)
from tests.service.runtime_world import (
    applied,
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
    await eventually(lambda: someone_waits(world.database))
    leave.set()
    assert await retry
    await after
    assert await applied(world.database) == ["touch-bad-1", "touch-bad-2"]
    assert await world.parked() == []


async def test_many_parked_facts_of_a_lead_are_tried_together_and_let_others_between(world: World) -> None:
    mended = False
    calls: list[int] = []
    left: list[int] = []

    async def counting(events: Sequence[TouchRecorded], tx: Tx) -> None:
        if not mended:
            raise NotThisOne("not yet")
        calls.append(len(events))
        left.append(await value(world.database, "SELECT count(*) FROM parked_events"))
        await write_down(events, tx)

    processor = world.processor(on_batch(TouchRecorded, counting))
    await world.take(processor, touch("bad", 1))
    await world.take(processor, *(touch("bad", number) for number in range(2, 452)))
    mended = True
    assert await processor.retry("bad")
    assert await applied(world.database) == [f"touch-bad-{number}" for number in range(1, 452)]
    assert calls == [1, 199, 200, 51]
    assert left == [451, 451, 251, 51]


async def test_a_fact_that_joins_while_the_first_is_discarded_is_not_left_behind_alone(world: World) -> None:
    poison = ["touch-bad-1"]
    joined, leave = asyncio.Event(), asyncio.Event()

    async def slow_for_ann(events: Sequence[TouchRecorded], tx: Tx) -> None:
        await refusing(poison)(events, tx)
        if "touch-ann-1" in {event.event_id for event in events}:
            joined.set()
            await leave.wait()

    processor = world.processor(on_batch(TouchRecorded, slow_for_ann))
    await world.take(processor, touch("bad", 1), touch("bad", 2))
    discarding = await world.database.connect()
    try:
        transaction = discarding.transaction()
        await transaction.start()
        await discarding.execute("DELETE FROM parked_events WHERE event_id = 'touch-bad-1'")
        after = asyncio.create_task(world.take(processor, touch("bad", 3), touch("ann", 1)))
        await eventually(lambda: someone_waits(world.database))
        await transaction.commit()
    finally:
        await discarding.close()
    await joined.wait()
    retry = asyncio.create_task(processor.retry("bad"))
    await eventually(lambda: done_or_waited_for(retry, world.database))
    leave.set()
    await after
    assert await retry
    assert await world.parked() == []
    assert await applied(world.database) == ["touch-ann-1", "touch-bad-2", "touch-bad-3"]


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
