"""Where a consumer goes on: from the position that was committed with its state, if Kafka still agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import asyncpg
from aiokafka import TopicPartition

from shared.db import Connection, Database
from shared.kafka._probe import probe
from shared.kafka._records import Watermark
from shared.settings import Settings
from shared.telemetry import counter, log

if TYPE_CHECKING:
    from shared.kafka._batch import Batch

LOST = counter("throughline_consumer_lost_tail_total", "Partitions whose records before the position were not there")
EXPIRED = counter("throughline_consumer_expired_total", "Partitions whose records Kafka dropped before they were read")

STORED = """
SELECT topic, partition, next_offset, last_event_id, last_timestamp_ms
FROM consumer_positions WHERE consumer = $1
"""
FIRST = """
INSERT INTO consumer_positions (consumer, topic, partition, next_offset) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
SET = """
UPDATE consumer_positions SET next_offset = $5, last_event_id = NULL, updated_at = clock_timestamp()
WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset = $4 RETURNING true
"""
REPAIRS = "SELECT topic, partition, source, repair FROM feed_watermarks"
KEEP_REPAIR = "UPDATE feed_watermarks SET repair = $4 WHERE topic = $1 AND partition = $2 AND source = $3"
# Locked in one order, so that two who want the same wait and do not stop each other.
MOVE = """
WITH held AS MATERIALIZED (
    SELECT topic, partition FROM consumer_positions WHERE consumer = $1 AND (topic, partition) IN
        (SELECT * FROM unnest($2::text[], $3::integer[])) ORDER BY topic, partition FOR UPDATE
)
UPDATE consumer_positions AS known
SET next_offset = moved.next_offset, last_event_id = moved.last_event_id,
    last_timestamp_ms = moved.last_timestamp_ms, updated_at = clock_timestamp()
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[])
    AS moved (topic, partition, expected, next_offset, last_event_id, last_timestamp_ms)
JOIN held USING (topic, partition)
WHERE known.consumer = $1 AND known.topic = moved.topic AND known.partition = moved.partition
  AND known.next_offset = moved.expected
"""
FURTHEST = """
ON CONFLICT (topic, partition, source) DO UPDATE
SET at = greatest(known.at, excluded.at), repair = greatest(known.repair, excluded.repair),
    appended_ms = greatest(known.appended_ms, excluded.appended_ms)
"""
WATERMARK = f"""
INSERT INTO feed_watermarks AS known (topic, partition, source, at, repair, appended_ms)
SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[])
{FURTHEST}
"""


class Fenced(Exception):
    """Another process moved the positions: let go, and read them again."""


async def starting_offsets(
    settings: Settings, database: Database, consumer: str, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset to go on from for each partition, by its stored position; a new one starts at its beginning.

    Where the record before the position is not the one that was processed last, Kafka lost its tail (or the topic is a
    new one). Then reading goes back to what was produced since then; the inbox drops what was processed already.
    """
    async with database.reading() as connection, probe(settings.kafka_bootstrap_servers) as kafka:
        rows = await connection.fetch(STORED, consumer)
        stored = {TopicPartition(settings.topic_prefix + row["topic"], row["partition"]): row for row in rows}
        begins, ends = await kafka.begins(places), await kafka.ends(places)
        marks = {place: _mark(stored[place]) for place in places if place in stored and _mark(stored[place])[1]}
        lost = await kafka.missing(marks)
        offsets: dict[TopicPartition, int] = {}
        for place in places:
            row = stored.get(place)
            topic, partition = place.topic.removeprefix(settings.topic_prefix), place.partition
            if row is None:
                offsets[place] = begins[place]
                await connection.execute(FIRST, consumer, topic, partition, begins[place])
                continue
            offsets[place] = before = row["next_offset"]
            if place in lost or before > ends[place]:
                offsets[place] = await kafka.offset_since(place, row["last_timestamp_ms"])
                LOST.inc()
                log.error(
                    "kafka_lost_records",
                    consumer=consumer,
                    topic=topic,
                    partition=partition,
                    was_at=before,
                    reading_again_from=offsets[place],
                )
            elif before < begins[place]:
                offsets[place] = begins[place]
                EXPIRED.inc()
                log.error(
                    "kafka_records_expired",
                    consumer=consumer,
                    topic=topic,
                    partition=partition,
                    was_at=before,
                    goes_on_at=begins[place],
                )
            if offsets[place] != before:
                await _set(connection, consumer, topic, partition, before, offsets[place])
    return offsets


async def known_repairs(database: Database) -> dict[tuple[str, int, str], int]:
    """The number of the last repair that was followed, by topic, partition and source."""
    async with database.reading() as connection:
        rows = await connection.fetch(REPAIRS)
    return {(row["topic"], row["partition"], row["source"]): row["repair"] for row in rows}


async def go_back(database: Database, consumer: str, mark: Watermark, before: int, *, keep: bool) -> None:
    """Follow a repair: set the position back, and (`keep`) remember that it was done. Raises Fenced."""
    number, offset = mark.repair
    LOST.inc()
    log.error(
        "kafka_lost_records",
        consumer=consumer,
        topic=mark.topic,
        partition=mark.partition,
        was_at=before,
        reading_again_from=offset,
        told_by=mark.source,
    )
    async with database.transaction() as tx:
        await _set(tx.connection, consumer, mark.topic, mark.partition, before, offset)
        if keep:
            await tx.connection.execute(KEEP_REPAIR, mark.topic, mark.partition, mark.source, number)


async def _set(  # noqa: PLR0913  # a position and its new value
    connection: Connection, consumer: str, topic: str, partition: int, before: int, offset: int
) -> None:
    if not await connection.fetchval(SET, consumer, topic, partition, before, offset):
        raise Fenced("another process moved the position")


def _mark(row: asyncpg.Record) -> tuple[int, str]:
    return row["next_offset"] - 1, row["last_event_id"] or ""


async def move_positions(connection: Connection, consumer: str, batch: Batch) -> None:
    """Move the stored positions from where this batch expects them. Raises Fenced when they are elsewhere."""
    moved = await connection.execute(MOVE, consumer, *position_columns(batch))
    if int(moved.split()[-1]) != len(batch.spans):
        raise Fenced("another process moved the positions")


def position_columns(batch: Batch) -> list[list[object]]:
    """Topics, partitions, expected and next offsets, last event ids and times of a batch, in the order of locking."""
    return _columns([(*key, *astuple(batch.spans[key])) for key in sorted(batch.spans)])


async def put_watermarks(connection: Connection, batch: Batch) -> None:
    """Store how far behind its sources this consumer is."""
    if batch.watermarks:
        await connection.execute(WATERMARK, *watermark_columns(batch))


def watermark_columns(batch: Batch) -> list[list[object]]:
    """Topics, partitions, sources, times, numbers of repairs and times of appending of a batch's watermarks."""
    marks = [batch.watermarks[key] for key in sorted(batch.watermarks)]
    return _columns([(*mark.place, mark.at, mark.repair[0], mark.appended_ms) for mark in marks])


def _columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(6)]
