"""Where a consumer goes on: from the position that was committed with its state, if Kafka still agrees with it."""

from collections.abc import Mapping, Sequence

import asyncpg
from aiokafka import TopicPartition

from shared.db import Connection, Database
from shared.kafka._probe import probe
from shared.settings import Settings
from shared.telemetry import counter, log

LOST = counter("throughline_consumer_lost_tail_total", "Partitions whose records before the position were not there")

STORED = """
SELECT topic, partition, next_offset, last_event_id, last_timestamp_ms
FROM consumer_positions WHERE consumer = $1
"""
FIRST = """
INSERT INTO consumer_positions (consumer, topic, partition, next_offset) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
BACK = """
UPDATE consumer_positions SET next_offset = $4, last_event_id = NULL, updated_at = clock_timestamp()
WHERE consumer = $1 AND topic = $2 AND partition = $3
"""
MARGIN_MS = 60_000


async def starting_offsets(
    settings: Settings, database: Database, consumer: str, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset to go on from for each partition, by its stored position; a new one starts at its beginning.

    Where the record before the position is not the one that was processed last, Kafka lost its tail (or the topic is a
    new one). Then reading goes back to what was produced since then; the inbox drops what was processed already.
    """
    async with database.reading() as connection:
        stored = await _stored(connection, settings, consumer)
        offsets = {place: stored[place]["next_offset"] for place in places if place in stored}
        new = [place for place in places if place not in stored]
        async with probe(settings.kafka_bootstrap_servers) as kafka:
            for place, begin in (await kafka.begins(new)).items() if new else ():
                await connection.execute(FIRST, consumer, _bare(settings, place), place.partition, begin)
                offsets[place] = begin
            for place in await kafka.missing(_marks(stored, places)):
                since = await kafka.offset_at(place, (stored[place]["last_timestamp_ms"] or 0) - MARGIN_MS)
                end = (await kafka.ends([place]))[place]
                offsets[place] = end if since is None else since
                await _go_back(connection, consumer, _bare(settings, place), place.partition, offsets[place])
    return offsets


async def lost_partitions(
    settings: Settings, database: Database, consumer: str, places: Sequence[TopicPartition]
) -> set[TopicPartition]:
    """Those partitions in which Kafka does not hold the record that was processed last any more."""
    async with database.reading() as connection:
        stored = await _stored(connection, settings, consumer)
    async with probe(settings.kafka_bootstrap_servers) as kafka:
        return await kafka.missing(_marks(stored, places))


async def _stored(connection: Connection, settings: Settings, consumer: str) -> dict[TopicPartition, asyncpg.Record]:
    return {
        TopicPartition(settings.topic_prefix + row["topic"], row["partition"]): row
        for row in await connection.fetch(STORED, consumer)
    }


def _marks(
    stored: Mapping[TopicPartition, asyncpg.Record], places: Sequence[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    return {
        place: (stored[place]["next_offset"] - 1, stored[place]["last_event_id"])
        for place in places
        if place in stored and stored[place]["last_event_id"] and stored[place]["next_offset"] > 0
    }


async def _go_back(connection: Connection, consumer: str, topic: str, partition: int, offset: int) -> None:
    LOST.inc()
    log.error("kafka_lost_records", consumer=consumer, topic=topic, partition=partition, reading_again_from=offset)
    await connection.execute(BACK, consumer, topic, partition, offset)


def _bare(settings: Settings, place: TopicPartition) -> str:
    return place.topic.removeprefix(settings.topic_prefix)
