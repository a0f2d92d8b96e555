"""Looks at single records of Kafka: is what we remember still there?"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.kafka._clients import started
from shared.kafka._records import event_id_of

PROBE_TIMEOUT_S = 15
MARGIN_MS = 60_000


class Probe:
    """A consumer without a group, for looking things up."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def begins(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            begins: dict[TopicPartition, int] = await self._consumer.beginning_offsets(list(places))
            return begins

    async def ends(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition."""
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            ends: dict[TopicPartition, int] = await self._consumer.end_offsets(list(places))
            return ends

    async def missing(self, marks: Mapping[TopicPartition, tuple[int, str]]) -> set[TopicPartition]:
        """Those partitions that do not hold the record with the event id remembered for an offset any more.

        What retention or compaction took away from the front is not missing.
        """
        if not marks:
            return set()
        ends, begins = await self.ends(marks), await self.begins(marks)
        missing = {place for place, (offset, _) in marks.items() if offset >= ends[place]}
        unread = {place for place, (offset, _) in marks.items() if begins[place] <= offset < ends[place]}
        self._consumer.assign(sorted(unread))
        for place in unread:
            self._consumer.seek(place, marks[place][0])
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            while unread:
                for place, records in (await self._consumer.getmany(timeout_ms=200)).items():
                    if place in unread and records:
                        unread.discard(place)
                        self._consumer.pause(place)  # else what follows, of a long log, comes in front of the others
                        if not _is(records[0], *marks[place]):
                            missing.add(place)
        return missing

    async def offset_since(self, place: TopicPartition, timestamp_ms: int | None) -> int:
        """An offset before everything that was appended after this time (by Kafka's clock), or else the end."""
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            asked = max((timestamp_ms or 0) - MARGIN_MS, 0)
            found = (await self._consumer.offsets_for_times({place: asked}))[place]
        return (await self.ends([place]))[place] if found is None else int(found.offset)


@asynccontextmanager
async def probe(bootstrap_servers: str) -> AsyncIterator[Probe]:
    """A probe for the length of a block. Raises KafkaError or TimeoutError when the broker is away."""
    async with without_group(bootstrap_servers, 65_536) as consumer:
        yield Probe(consumer)


@asynccontextmanager
async def without_group(bootstrap_servers: str, most_bytes: int) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group for the length of a block, which fetches so much of a partition at once, about.

    Raises KafkaError or TimeoutError when the broker is away.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=10_000,
        max_partition_fetch_bytes=most_bytes,
    )
    async with started(consumer, PROBE_TIMEOUT_S, 3):
        yield consumer


def _is(record: Any, offset: int, event_id: str) -> bool:
    compacted_away = record.offset > offset
    return compacted_away or event_id_of(record.headers) == event_id
