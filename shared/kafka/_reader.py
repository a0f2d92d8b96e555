"""Reads facts from places of one's own, without a group: what was read is remembered by whoever reads."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.events import Event
from shared.kafka._probe import MARGIN_MS, PROBE_TIMEOUT_S, without_group
from shared.kafka._records import decode
from shared.settings import Settings

MOST_BYTES = 1_048_576
POLL_MS = 500

Place = tuple[str, int]


class Reader:
    """Reads some topics from given places to where they ended when it began."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: Settings) -> None:
        self._consumer = consumer
        self._prefix = settings.topic_prefix
        self._partitions = settings.topic_partitions
        self._ends: dict[TopicPartition, int] = {}

    async def begin(self, topics: Iterable[str], places: Mapping[Place, int], since: datetime) -> bool:
        """Read on at these places; a partition without one from what was appended at a time on (by Kafka's clock).

        Answers whether there is anything to read.
        """
        wanted = [TopicPartition(self._prefix + topic, n) for topic in topics for n in range(self._partitions)]
        self._consumer.assign(wanted)
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            self._ends = await self._consumer.end_offsets(wanted)
            firsts = await self._consumer.beginning_offsets(wanted)
            asked = max(int(since.timestamp() * 1000) - MARGIN_MS, 0)
            new = [place for place in wanted if self._named(place) not in places]
            found = await self._consumer.offsets_for_times(dict.fromkeys(new, asked)) if new else {}
        for place in wanted:
            known = places.get(self._named(place))
            if known is None:
                first = found.get(place)
                known = self._ends[place] if first is None else first.offset
            self._consumer.seek(place, min(max(known, firsts[place]), self._ends[place]))
        return await self._check()

    async def read(self, limit: int) -> tuple[list[Event], dict[Place, int]]:
        """The next facts, each partition's in order, and where to read on after them."""
        events: list[Event] = []
        found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=limit)
        for place, records in found.items():
            topic = place.topic.removeprefix(self._prefix)
            decoded = (decode(topic, record) for record in records)
            events += [one.event for one in decoded if one.event is not None]
        at = {self._named(place): await self._consumer.position(place) for place in found}
        await self._check()
        return events, at

    async def _check(self) -> bool:
        left = [place for place, end in self._ends.items() if await self._consumer.position(place) < end]
        self.is_behind = bool(left)
        return self.is_behind

    def _named(self, place: TopicPartition) -> Place:
        return place.topic.removeprefix(self._prefix), place.partition


@asynccontextmanager
async def reading_from(settings: Settings) -> AsyncIterator[Reader]:
    """A reader for the length of a block. Raises KafkaError or TimeoutError when the broker is away."""
    async with without_group(settings.kafka_bootstrap_servers, MOST_BYTES) as consumer:
        yield Reader(consumer, settings)
