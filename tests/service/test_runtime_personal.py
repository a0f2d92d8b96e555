"""Personal data: readable with the person's key, by nobody without it, and never again once it is destroyed."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from shared.db import API_LOG, Database, Tx
from shared.errors import Unavailable
from shared.events import LeadCaptured, PersonKeyCreated, TouchRecorded
from shared.ids import EventId, LeadId
from shared.kafka import Fenced, KeysProcessor, on_batch
from shared.kafka._batch import Batch, Span  # noqa: TID251  # a batch is made by hand here
from shared.kafka._records import decode  # noqa: TID251
from shared.personal import Draft, PersonErased, PersonKeys, SealBroken, newest_fact_ms
from shared.service import Runtime, build_runtime
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.runtime_world import code, execute, fetch, runtime_of, scratch, touch, value

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
ANN, BEN = LeadId("ann"), LeadId("ben")
TEXT = b'{"url":"https://a.example/?name=Canary"}'


@pytest_asyncio.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with runtime_of(settings, log=API_LOG, clock=FrozenClock(AT)) as made:
        yield made


def another(runtime: Runtime, clock: FrozenClock | None = None) -> PersonKeys:
    """The keys as another process of the service holds them."""
    return build_runtime(runtime.service, runtime.settings, clock=clock or FrozenClock(AT)).keys


async def seal(runtime: Runtime, lead_id: LeadId, keys: PersonKeys | None = None) -> str:
    async with runtime.database.transaction() as tx:
        (event,) = await (keys or runtime.keys).seal_drafts(tx, [Draft(touch(lead_id), TEXT)])
        tx.emit(event)
    assert isinstance(event, TouchRecorded)
    assert event.personal is not None
    return event.personal


async def opened(runtime: Runtime, keys: PersonKeys, *blocks: tuple[LeadId, str | None]) -> list[bytes | None]:
    async with runtime.database.reading() as connection:
        return await keys.open_many(connection, blocks)


async def test_what_is_sealed_opens_in_every_process_and_looks_different_each_time(runtime: Runtime) -> None:
    first, second = await seal(runtime, ANN), await seal(runtime, ANN)
    assert first != second
    assert b"Canary" not in b64decode(first)
    for keys in (runtime.keys, another(runtime)):
        assert await opened(runtime, keys, (ANN, first), (ANN, None), (ANN, second)) == [TEXT, None, TEXT]


async def test_a_block_that_was_moved_to_another_person_or_damaged_is_refused(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    await seal(runtime, BEN)
    raw = bytearray(b64decode(block))
    raw[-1] ^= 1
    for lead_id, broken in ((BEN, block), (ANN, b64encode(raw).decode()), (ANN, "?"), (ANN, "AAAA")):
        with pytest.raises(SealBroken):
            await opened(runtime, runtime.keys, (lead_id, broken))


async def test_keys_at_rest_are_wrapped_and_another_secret_does_not_open_them(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    other = build_runtime(runtime.service, runtime.settings.model_copy(update={"secret": _secret("ab" * 32, runtime)}))
    with pytest.raises(SealBroken):
        await opened(runtime, other.keys, (ANN, block))


def _secret(text: str, runtime: Runtime) -> Any:
    return type(runtime.settings.secret)(text)


async def test_one_key_a_person_however_many_replicas_begin_at_once(runtime: Runtime) -> None:
    replicas = [another(runtime) for _ in range(4)]
    blocks = await asyncio.gather(*(seal(runtime, ANN, keys) for keys in replicas))
    assert await opened(runtime, another(runtime), *((ANN, block) for block in blocks)) == [TEXT] * 4
    told = "SELECT count(*) FROM event_log WHERE type = $1"
    assert await value(runtime.database, told, PersonKeyCreated.ce_type) == 1


async def test_a_key_that_was_made_in_a_transaction_that_failed_is_not_used(runtime: Runtime) -> None:
    with pytest.raises(ZeroDivisionError):
        async with runtime.database.transaction() as tx:
            await runtime.keys.emit_drafts(tx, [Draft(touch(ANN), TEXT)])
            raise ZeroDivisionError
    block = await seal(runtime, ANN)
    assert await opened(runtime, another(runtime), (ANN, block)) == [TEXT]


async def test_a_key_that_has_come_is_used_before_it_is_kept_and_kept_by_who_uses_it(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    wrapped = await value(runtime.database, "SELECT wrapped_key FROM person_keys")
    await execute(runtime.database, "DELETE FROM person_keys")
    replica = another(runtime)
    replica.tell({ANN: wrapped})
    with pytest.raises(ZeroDivisionError):
        async with runtime.database.transaction() as tx:
            assert await replica.open_many(tx.connection, [(ANN, block)]) == [TEXT]
            raise ZeroDivisionError
    assert await fetch(runtime.database, "SELECT * FROM person_keys") == []
    assert await opened(runtime, replica, (ANN, block)) == [TEXT]
    assert await opened(runtime, another(runtime), (ANN, block)) == [TEXT]
    async with runtime.database.transaction() as tx:
        await runtime.keys.destroy(tx, ANN, AT)
    assert await opened(runtime, replica, (ANN, block)) == [None]


async def test_a_destroyed_key_opens_nothing_in_any_process_whatever_it_had_cached(runtime: Runtime) -> None:
    block, others = await seal(runtime, ANN), await seal(runtime, BEN)
    replica = another(runtime)
    assert await opened(runtime, replica, (ANN, block), (BEN, others)) == [TEXT, TEXT]
    async with runtime.database.transaction() as tx:
        await runtime.keys.destroy(tx, ANN, AT)
    for keys in (runtime.keys, replica, another(runtime)):
        assert await opened(runtime, keys, (ANN, block), (BEN, others)) == [None, TEXT]
    for keys in (runtime.keys, replica):
        with pytest.raises(PersonErased):
            await seal(runtime, ANN, keys)
    async with runtime.database.reading() as connection:
        assert await runtime.keys.destroyed(connection) == {ANN}
    assert await value(runtime.database, "SELECT wrapped_key FROM person_keys WHERE lead_id = 'ann'") is None


async def test_a_replica_that_had_the_key_cached_does_not_seal_with_it_any_more(runtime: Runtime) -> None:
    replica = another(runtime)
    await seal(runtime, ANN, replica)
    await opened(runtime, replica, (ANN, await seal(runtime, ANN)))
    async with runtime.database.transaction() as tx:
        await runtime.keys.destroy(tx, ANN, AT)
    with pytest.raises(PersonErased):
        await seal(runtime, ANN, replica)


async def test_more_persons_than_the_cache_holds_are_all_opened(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.personal._keys.CACHED", 3)
    leads = [LeadId(f"lead-{number}") for number in range(8)]
    blocks = [(lead_id, await seal(runtime, lead_id)) for lead_id in leads]
    assert await opened(runtime, runtime.keys, *blocks[:3]) == [TEXT] * 3
    assert await opened(runtime, runtime.keys, *blocks) == [TEXT] * 8


async def mark_keys(runtime: Runtime, at: datetime, appended_ms: int = 0) -> None:
    """The feed of keys has been read up to here."""
    for partition in range(runtime.settings.topic_partitions):
        await execute(
            runtime.database,
            "INSERT INTO feed_watermarks (topic, partition, source, at, appended_ms)"
            " VALUES ('keys', $1, 'capture', $2, $3) ON CONFLICT (topic, partition, source)"
            " DO UPDATE SET at = excluded.at, appended_ms = excluded.appended_ms",
            partition,
            at,
            appended_ms,
        )


async def test_a_key_on_its_way_is_waited_for_until_the_feed_was_read_past_the_moment(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    await execute(runtime.database, "DELETE FROM person_keys")
    keys = another(runtime)
    with pytest.raises(Unavailable):
        await opened(runtime, keys, (ANN, block))
    await mark_keys(runtime, AT - timedelta(seconds=1))
    with pytest.raises(Unavailable):
        await opened(runtime, keys, (ANN, block))
    await mark_keys(runtime, AT)
    assert await opened(runtime, keys, (ANN, block)) == [None]


async def test_for_facts_out_of_kafka_its_own_clock_counts_whatever_ours_says(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    await execute(runtime.database, "DELETE FROM person_keys")
    slow = another(runtime, FrozenClock(AT - timedelta(days=2)))
    newest_fact_ms.set(lambda: 5_000)
    await mark_keys(runtime, AT, appended_ms=5_000)
    with pytest.raises(Unavailable):
        await opened(runtime, slow, (ANN, block))
    await mark_keys(runtime, AT, appended_ms=5_001)
    assert await opened(runtime, slow, (ANN, block)) == [None]


async def test_the_feed_of_keys_is_folded_and_a_tombstone_destroys_for_good(runtime: Runtime) -> None:
    block = await seal(runtime, ANN)
    told = await fetch(runtime.database, "SELECT value FROM event_log WHERE type = $1", PersonKeyCreated.ce_type)
    await execute(runtime.database, "DELETE FROM person_keys")
    await execute(
        runtime.database,
        "INSERT INTO consumer_positions (consumer, topic, partition, next_offset)"
        " VALUES ('capture-keys', 'keys', 0, 0)",
    )
    keys = another(runtime)
    headers = (("ce_type", PersonKeyCreated.ce_type.encode()),)

    async def feed(offset: int, *values: bytes | None) -> None:
        records = [
            decode(
                "keys",
                SimpleNamespace(partition=0, offset=offset + n, key=b"ann", value=v, headers=headers, timestamp=0),
            )
            for n, v in enumerate(values)
        ]
        batch = Batch(records, {("keys", 0): Span(offset, offset + len(values), None, 0)})
        connection = await runtime.database.connect()
        try:
            await KeysProcessor(runtime.database, keys, "capture-keys").process(connection, batch)
        finally:
            await connection.close()

    created = told[0]["value"]
    with pytest.raises(Fenced):
        await feed(7, created)
    assert not await fetch(runtime.database, "SELECT FROM person_keys")
    await feed(0, created)
    assert await opened(runtime, keys, (ANN, block)) == [TEXT]
    await feed(1, None)
    assert await opened(runtime, keys, (ANN, block)) == [None]
    await feed(2, created, created)  # published again after a loss
    assert await opened(runtime, keys, (ANN, block)) == [None]


def test_a_fact_of_a_kind_that_nobody_handles_is_passed_over_unread() -> None:
    headers = (("ce_type", LeadCaptured.ce_type.encode()),)
    record = SimpleNamespace(partition=0, offset=0, key=b"ann", value=b"{", headers=headers, timestamp=0)
    unread = decode("leads", record, KeysProcessor.kinds)
    assert (unread.event, unread.error) == (None, None)
    assert decode("leads", record, {LeadCaptured.ce_type}).error


async def test_a_lead_whose_fact_overtakes_its_key_is_read_in_the_end(kafka_settings: Settings) -> None:
    """The whole way: sealed by one process, published, and opened by another that learns the key from Kafka."""
    read: list[bytes | None] = []

    async def read_personal(events: Sequence[LeadCaptured], tx: Tx) -> None:
        async with runtime_of(kafka_settings) as reader:
            read.extend(
                await reader.keys.open_many(tx.connection, [(event.lead_id, event.personal) for event in events])
            )

    async with harness(code(on_batch(LeadCaptured, read_personal)), kafka_settings, kafka=True) as service:
        await scratch(service.runtime.database)
        draft = LeadCaptured(
            event_id=EventId("captured-1"), lead_id=ANN, occurred_at=AT, received_at=AT, revision=1, captured_at=AT
        )
        async with service.runtime.database.transaction() as tx:
            await service.runtime.keys.emit_drafts(tx, [Draft(draft, b'{"email":"ann@example.com"}')])
            await tx.connection.execute("DELETE FROM person_keys")  # as in another service's database
        await eventually(lambda: read == [b'{"email":"ann@example.com"}'])
        assert await _one_key(service.runtime.database)


async def _one_key(database: Database) -> bool:
    return bool(await value(database, "SELECT count(*) = 1 FROM person_keys WHERE wrapped_key IS NOT NULL"))
