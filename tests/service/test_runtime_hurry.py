"""What somebody waits for goes before what nobody waits for: out of the event log, and through a consumer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition

from shared.db import API_LOG, Database, Tx
from shared.events import LeadErased, TouchRecorded
from shared.kafka import Guard, Processor, Route, on_batch
from shared.kafka._pending import Chunk, Pending  # noqa: TID251  # made by hand here
from shared.kafka._records import Decoded  # noqa: TID251
from shared.outbox._relay import partition_of  # noqa: TID251  # to aim at a partition
from shared.service import Runtime
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import SERVICE, beside, code, lead_names, runtime_of, touch, write_down
from tests.service.test_runtime_consumer import all_applied, consuming, world
from tests.service.test_runtime_relay import caught_up, relay_of, scored, tell


@asynccontextmanager
async def patient(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[list[str]]]:
    """A relay that sends what nobody waits for only along with what somebody waits for; the pages it sends."""
    relay = relay_of(runtime)
    pages: list[list[str]] = []
    send = relay._send

    async def noting(producer: Any, rows: Any) -> Any:
        pages.append([row["event_id"] for row in rows])
        return await send(producer, rows)

    monkeypatch.setattr(relay, "_send", noting)
    async with beside(relay.run()):
        await tell(runtime, touch())
        await caught_up(runtime)
        monkeypatch.setattr("shared.outbox._relay.GATHER_S", 3_600)
        monkeypatch.setattr("shared.outbox._relay.FALLBACK_S", 3_600)
        runtime.database.bell.ring(API_LOG, calm=False)
        await eventually(lambda: not runtime.database.bell.hurries(API_LOG))  # from here on it waits as long as that
        yield pages


async def test_what_nobody_waits_for_leaves_with_what_somebody_waits_for(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, hurried = [scored("ann"), scored("ben")], touch()
    async with runtime_of(kafka_settings) as runtime, patient(runtime, monkeypatch) as pages:
        for event in (*calm, hurried):
            await tell(runtime, event)
        await caught_up(runtime)
        assert pages[-1] == [event.event_id for event in (*calm, hurried)]


async def test_what_the_api_told_stays_where_somebody_waits_for_what_consumers_told(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, first, second = scored("ann"), touch("ben"), touch("cem")
    rarely = kafka_settings.model_copy(update={"watermark_every": timedelta(hours=1)})  # they follow all of both logs
    async with (
        runtime_of(rarely, log=API_LOG) as api,
        runtime_of(rarely) as runtime,
        patient(runtime, monkeypatch) as pages,
    ):
        await tell(api, calm)
        await tell(runtime, first)
        await eventually(lambda: pages[-1] == [first.event_id])
        await tell(api, second)
        await caught_up(runtime)
        assert pages[-1] == [calm.event_id, second.event_id]


@pytest.mark.parametrize(
    ("kind", "share", "apart"), [("form_submitted", 200, True), ("page_view", 200, False), ("page_view", 1, True)]
)
async def test_what_somebody_waits_for_goes_first_and_the_rest_in_shares(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str, share: int, apart: bool
) -> None:
    monkeypatch.setattr("shared.kafka._pending.CALM_SHARE", share)
    leave = asyncio.Event()
    batches: list[set[str]] = []

    async def slow(events: Sequence[Any], tx: Tx) -> None:
        batches.append({event.event_id for event in events})
        await write_down(events, tx)
        await leave.wait()

    there, here = ([lead for lead in lead_names(60) if partition_of(lead, 2) == number][:9] for number in (0, 1))
    calm = [touch(lead) for lead in there]
    others = [*(touch(lead) for lead in here), touch(here[0], type=kind)]
    reading = code(on_batch(TouchRecorded, slow))
    async with world(kafka_settings) as runtime, consuming(kafka_settings, reading) as member:
        first = touch(there[0])
        await tell(runtime, first)
        await eventually(lambda: len(batches) == 1)
        await tell(runtime, *calm, *others)
        await eventually(lambda: member.consumer is not None and member.consumer._pending.records >= 19)
        leave.set()
        await all_applied(runtime, [event.event_id for event in (first, *calm, *others)])
    parts = [{event.event_id for event in part} for part in (others, calm)]
    if kind == "form_submitted":
        assert batches[1:] == parts
    else:
        assert sorted(map(sorted, batches[1:])) == sorted(map(sorted, parts if apart else [parts[0] | parts[1]]))


def test_a_kind_is_awaited_as_soon_as_one_of_its_handlers_waits_for_it() -> None:
    calm, awaited = on_batch(TouchRecorded, write_down, awaited=False), on_batch(TouchRecorded, write_down)
    record = Decoded("touches", 0, 0, b"ann", b"", TouchRecorded.ce_type, (), touch())

    def awaits(*routes: Route) -> bool:
        database = Database("", SERVICE)
        return Processor(database, SERVICE, routes, version=1, topic_order=[], guard=Guard(0.1, 9)).awaits(record)

    assert [awaits(calm), awaits(calm, awaited), awaits(on_batch(LeadErased, write_down))] == [False, True, False]


def test_what_is_only_moved_past_comes_along_but_overtakes_nothing_of_its_partition() -> None:
    pending = Pending(5_000, patient=False)
    chunks = [
        Chunk(TopicPartition("t", place), "t", [], [], start, start, None, 0, 1, awaited=awaited, hurried=place == 1)
        for place, start, awaited in ((0, 0, True), (0, 1, False), (1, 0, True), (2, 0, False))
    ]
    for chunk in chunks:
        pending.put(chunk)
    assert [pending.take(), pending.take()] == [chunks[2:], chunks[:2]]
    assert not pending
