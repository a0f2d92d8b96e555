"""The measures: each answers a rate of the product and the rate of its bare limit, from one round."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import httpx
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.facts import form_bodies, touch_bodies, touch_events
from bench.load import Load, Target, drive
from bench.stack import Servers, process, role, settings_of, token
from deploy.embedded.ports import free_port
from shared.db import Connection, append_rows, log_row
from shared.events import TouchRecorded, with_position
from shared.kafka import apply_topics
from shared.outbox import partition_of
from shared.service import build_runtime

TAKEN = (200, 201, 202)
ROUND_S = 4.0
BARE_TABLE = """
CREATE TABLE bare (touch_id text PRIMARY KEY, lead_id text, occurred_at timestamptz, type text, source text,
                   medium text, campaign text, page text, value bytea);
CREATE INDEX bare_journey ON bare (lead_id, occurred_at);
"""
BARE_COLUMNS = ("touch_id", "lead_id", "occurred_at", "type", "source", "medium", "campaign", "page", "value")


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: the product's rate and the bare limit's, both per second."""

    product: float
    bare: float


def rate_of(loads: Sequence[Load]) -> float:
    """Answers a second over all processes of a load. Raises RuntimeError if any was refused."""
    refused = {code: number for load in loads for code, number in load.answers.items() if code not in TAKEN}
    if refused:
        raise RuntimeError(f"the load was not taken: {refused}")
    return sum(number for load in loads for number in load.answers.values()) / max(load.seconds for load in loads)


def single_touches(servers: Servers, rounds: int) -> list[Pair]:
    """Single touches through HTTP, durable, consumers stopped, against a route that reads and answers."""
    noop_port = free_port()
    environment = servers.environment(servers.fresh_database(), "single.")
    pairs = []
    with (
        role("capture", ["api"], environment) as port,
        process(["-m", "bench.noop", str(noop_port)], environment, f"http://127.0.0.1:{noop_port}/openapi.json"),
    ):
        for _ in range(rounds):
            bodies = touch_bodies(60_000)
            rates = [
                rate_of(
                    drive(
                        Target("127.0.0.1", each, "/capture/v1/touches", token()),
                        bodies,
                        connections=64,
                        seconds=ROUND_S,
                    )
                )
                for each in (port, noop_port)
            ]
            pairs.append(Pair(*rates))
    return pairs


def webhooks(servers: Servers, rounds: int) -> list[Pair]:
    """Deliveries of forms to one source, kept encrypted, consumers stopped, against a route that reads and answers."""
    noop_port = free_port()
    environment = servers.environment(servers.fresh_database(), "hooks.")
    pairs = []
    with (
        role("capture", ["api"], environment) as port,
        process(["-m", "bench.noop", str(noop_port)], environment, f"http://127.0.0.1:{noop_port}/openapi.json"),
    ):
        source = httpx.post(
            f"http://127.0.0.1:{port}/capture/v1/sources",
            json={"kind": "generic", "name": "bench"},
            headers={"authorization": f"Bearer {token()}"},
        ).json()
        hook = Target("127.0.0.1", port, f"/capture/hooks/{source['source_id']}", source["secret"])
        noop = Target("127.0.0.1", noop_port, "/capture/v1/touches", token())
        for _ in range(rounds):
            bodies = form_bodies(40_000)
            rates = [rate_of(drive(each, bodies, connections=64, seconds=ROUND_S)) for each in (hook, noop)]
            pairs.append(Pair(*rates))
    return pairs


def touch_batches(servers: Servers, rounds: int) -> list[Pair]:
    """Batches of 100 touches through HTTP, a process a core, consumers stopped, against COPY of 100 rows at a time."""
    database_url = servers.fresh_database()
    environment = servers.environment(database_url, "batch.")
    pairs = []
    with role("capture", ["api"], environment) as one, role("capture", ["api"], environment) as other:
        targets = [Target("127.0.0.1", port, "/capture/v1/touches", token()) for port in (one, other)]
        for _ in range(rounds):
            bodies = touch_bodies(1_800, 100)
            loads = drive(targets, bodies, connections=8, seconds=ROUND_S)
            pairs.append(Pair(rate_of(loads) * 100, uvloop.run(_copy(database_url, touch_events(60_000), 100, 8))))
    return pairs


async def _copy(database_url: str, events: Sequence[TouchRecorded], per_transaction: int, at_once: int) -> float:
    """COPY rows into an indexed table, so many a transaction; rows a second."""
    connections = [await asyncpg.connect(database_url) for _ in range(at_once)]
    await connections[0].execute("DROP TABLE IF EXISTS bare;" + BARE_TABLE)
    rows = [_bare_row(event, event.encode()) for event in events]

    async def copy(connection: Connection, index: int) -> int:
        done = 0
        for start in range(index * per_transaction, len(rows), at_once * per_transaction):
            if time.perf_counter() > stop_at:
                break
            chunk = rows[start : start + per_transaction]
            await connection.copy_records_to_table("bare", records=chunk, columns=BARE_COLUMNS)
            done += len(chunk)
        return done

    began = time.perf_counter()
    stop_at = began + ROUND_S
    done = await asyncio.gather(*(copy(connection, index) for index, connection in enumerate(connections)))
    seconds = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    return sum(done) / seconds


def _bare_row(event: TouchRecorded, value: bytes) -> tuple[object, ...]:
    return (
        event.touch_id,
        event.lead_id,
        event.occurred_at,
        event.type,
        event.source,
        event.medium,
        event.campaign,
        event.page,
        value,
    )


def journeys(servers: Servers, rounds: int, count: int = 100_000) -> list[Pair]:
    """Touches from Kafka into journeys, against `getmany`, decoding and COPY of the same records."""
    pairs = []
    for number in range(rounds):
        environment = servers.environment(servers.fresh_database(), f"journeys{number}.")
        uvloop.run(_fill_topic(environment, count))
        bare = uvloop.run(_getmany_and_copy(environment, count))
        with role("attribution", ["consumer"], environment):
            product = uvloop.run(_consumed(environment, "attribution.v1", count))
        pairs.append(Pair(product, bare))
    return pairs


async def _fill_topic(environment: dict[str, str], count: int) -> None:
    """Touches in Kafka, as the relay writes them."""
    settings = settings_of(environment)
    await apply_topics(settings)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, max_batch_size=262_144, linger_ms=5)
    await producer.start()
    for position, event in enumerate(touch_events(count), 1):
        await producer.send(
            f"{settings.topic_prefix}touches",
            key=event.key.encode(),
            value=with_position(event.encode(), position),
            partition=partition_of(event.key, settings.topic_partitions),
            headers=_headers(event),
        )
    await producer.stop()


def _headers(event: TouchRecorded) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.event_id.encode()),
        ("ce_type", event.ce_type.encode()),
        ("ce_source", b"/throughline/capture"),
        ("ce_time", event.occurred_at.isoformat().encode()),
        ("ce_subject", event.lead_id.encode()),
        ("ce_dataschema", f"urn:throughline:{event.ce_type}".encode()),
        ("content-type", b"application/json"),
    ]


async def _getmany_and_copy(environment: dict[str, str], count: int) -> float:
    settings = settings_of(environment)
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    await connection.execute(BARE_TABLE)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1_048_576,
        fetch_max_bytes=16_777_216,
    )
    await consumer.start()
    topic = f"{settings.topic_prefix}touches"
    places = [TopicPartition(topic, partition) for partition in range(settings.topic_partitions)]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    done = 0
    began = time.perf_counter()
    while done < count:
        fetched = await consumer.getmany(timeout_ms=1000, max_records=5_000)
        records = [record for part in fetched.values() for record in part]
        rows = [_bare_row(TouchRecorded.decode(record.value), record.value) for record in records]
        if rows:
            await connection.copy_records_to_table("bare", records=rows, columns=BARE_COLUMNS)
            done += len(rows)
    seconds = time.perf_counter() - began
    await consumer.stop()
    await connection.close()
    return done / seconds


async def _consumed(environment: dict[str, str], consumer: str, count: int) -> float:
    """How fast a consumer moves its positions over so many records, from its first commit on."""
    connection = await asyncpg.connect(settings_of(environment).database_url.get_secret_value())
    schema = consumer.split(".", maxsplit=1)[0]
    statement = (
        f"SELECT sum(next_offset), clock_timestamp() FROM {schema}.consumer_positions "  # our own name
        "WHERE consumer = $1 AND topic = 'touches'"
    )
    first: tuple[int, float] | None = None
    while True:
        row = await connection.fetchrow(statement, consumer)
        assert row is not None
        moved, at = int(row[0] or 0), row[1].timestamp()
        if moved and first is None:
            first = (moved, at)
        if first is not None and moved >= count:
            await connection.close()
            return float((moved - first[0]) / (at - first[1]))
        await asyncio.sleep(0.02)


def relay(servers: Servers, rounds: int, count: int = 60_000) -> list[Pair]:
    """The relay catching up, against the same bytes through the same producer's `send()` from memory."""
    pairs = []
    for number in range(rounds):
        environment = servers.environment(servers.fresh_database(), f"relay{number}.")
        rows = uvloop.run(_fill_log(environment, count))
        bare = uvloop.run(_send_from_memory(environment, rows))
        with role("capture", ["worker"], environment):
            product = uvloop.run(_published(environment, count))
        pairs.append(Pair(product, bare))
    return pairs


async def _fill_log(environment: dict[str, str], count: int) -> list[TouchRecorded]:
    settings = settings_of(environment)
    await apply_topics(settings)
    runtime = build_runtime("capture", settings, log=0)
    events = touch_events(count)
    connection = await runtime.database.connect()
    for start in range(0, count, 2_000):
        rows = [log_row(event, None) for event in events[start : start + 2_000]]
        await append_rows(connection, runtime.database.namespace, 0, rows)
    await connection.close()
    return events


async def _send_from_memory(environment: dict[str, str], events: Sequence[TouchRecorded]) -> float:
    settings = settings_of(environment)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers, enable_idempotence=True, max_batch_size=262_144, linger_ms=5
    )
    await producer.start()
    topic = f"{settings.topic_prefix}touches"
    records = [
        (event.key.encode(), with_position(event.encode(), position), _headers(event))
        for position, event in enumerate(events, 1)
    ]
    began = time.perf_counter()
    futures = [await producer.send(topic, key=key, value=value, headers=headers) for key, value, headers in records]
    await asyncio.gather(*futures)
    seconds = time.perf_counter() - began
    await producer.stop()
    return len(records) / seconds


async def _published(environment: dict[str, str], count: int) -> float:
    """How fast the relay's cursor moves over so many rows, from its first move on."""
    connection = await asyncpg.connect(settings_of(environment).database_url.get_secret_value())
    first: tuple[int, float] | None = None
    while True:
        row = await connection.fetchrow("SELECT position, clock_timestamp() FROM capture.relay_cursors WHERE log = 0")
        assert row is not None
        moved, at = int(row[0]), row[1].timestamp()
        if moved and first is None:
            first = (moved, at)
        if first is not None and moved >= count:
            with suppress(OSError):
                await connection.close()
            return float((moved - first[0]) / (at - first[1]))
        await asyncio.sleep(0.01)
