"""Tells Kafka how far a group is, for the tools that ask Kafka. Nothing rests on it."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.telemetry import gauge

LAG_RECORDS = gauge("throughline_consumer_lag_records", "Records behind Kafka", ["group", "topic", "partition"])
EVERY_S = 1.0
PATIENCE_S = 10.0


class Committer:
    """Commits what a client's group has carried out, by partition; `carried` is kept up to date by who carries out."""

    def __init__(self, client: AIOKafkaConsumer, group: str, carried: Mapping[TopicPartition, int]) -> None:
        self._client = client
        self._group = group
        self._carried = carried
        self._committed: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Commit again and again, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.commit_within(PATIENCE_S)
            ours = self._client.assignment()
            for place, carried in self._carried.items():
                end = self._client.highwater(place) if place in ours else None
                if end is not None:
                    labels = (self._group, place.topic, str(place.partition))
                    LAG_RECORDS.labels(*labels).set(max(end - carried, 0))

    async def commit_within(self, seconds: float) -> None:
        """Commit, but wait no longer. What is under way is let end: broken off, it ends behind us and unheard."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._committing is not None:
                    await asyncio.wait([self._committing])
                self._committing = asyncio.create_task(self._commit(), name=f"{self._group}-commit")
                await asyncio.wait([self._committing])
                self._committing.result()

    def give_up(self) -> None:
        """Break off what is under way."""
        if self._committing is not None:
            self._committing.cancel()

    async def _commit(self) -> None:
        ours = self._client.assignment()
        stands = {place: offset for place, offset in self._carried.items() if place in ours}
        moved = {place: offset for place, offset in stands.items() if self._committed.get(place) != offset}
        self._committed = {place: offset for place, offset in self._committed.items() if place in ours}
        if moved:
            with suppress(KafkaError):
                await self._client.commit(moved)
                self._committed |= moved
