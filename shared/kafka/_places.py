"""The partitions that are a consumer's: how far each has been read, and how far it has been carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.kafka._batch import Batch, Span
from shared.kafka._pending import Chunk


class Places:
    """Where each partition stands. What was stopped stays so for as long as the process lives."""

    def __init__(self, topic_prefix: str) -> None:
        self._prefix = topic_prefix
        self._read: dict[TopicPartition, int] = {}
        self._stopped: set[TopicPartition] = set()
        self.carried: dict[TopicPartition, int] = {}

    @property
    def stopped(self) -> list[str]:
        """Partitions that were stopped."""
        return sorted(f"{place.topic}/{place.partition}" for place in self._stopped)

    def set(self, place: TopicPartition, offset: int) -> None:
        """A partition goes on from an offset."""
        self.carried[place] = self._read[place] = offset

    def let_go(self, places: Sequence[TopicPartition]) -> None:
        """Partitions that are not ours any more."""
        for place in places:
            self.carried.pop(place, None)
            self._read.pop(place, None)

    def clear(self) -> None:
        """None is ours."""
        self.carried.clear()
        self._read.clear()

    def stop(self, topic: str, partition: int) -> None:
        """Go no further in a partition."""
        self._stopped.add(TopicPartition(self._prefix + topic, partition))

    def topic(self, place: TopicPartition) -> str:
        """The name of a partition's topic, as the code knows it."""
        return str(place.topic).removeprefix(self._prefix)

    def read_on(self, place: TopicPartition, records: Sequence[Any]) -> tuple[int, Sequence[Any]]:
        """Those of fetched records that go on from where a partition has been read to, and where that was."""
        reading = self._read.get(place)
        if reading is None or place in self._stopped:
            return 0, ()
        if records[0].offset < reading:
            records = [record for record in records if record.offset >= reading]
        if records:
            self._read[place] = records[-1].offset + 1
        return reading, records

    def is_stale(self, error: KafkaError) -> bool:
        """Whether it is about an offset from before our own seek: the positions are PostgreSQL's, not Kafka's."""
        asked = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        return not any(self._read.get(place) == offset for place, offset in asked.items())

    def going_on(self, taken: Sequence[Chunk]) -> list[Chunk]:
        """Those chunks that go on from where their partition stands; it may have been given away or set back since."""
        going_on: list[Chunk] = []
        stands = dict(self.carried)
        for chunk in taken:
            if chunk.place not in self._stopped and stands.get(chunk.place) == chunk.follows:
                stands[chunk.place] = chunk.last + 1
                going_on.append(chunk)
        return going_on

    def batch(self, chunks: Sequence[Chunk]) -> Batch:
        """What is carried out at once of chunks that go on."""
        batch = Batch()
        for chunk in chunks:
            key = (chunk.topic, chunk.place.partition)
            expected = batch.spans[key].expected if key in batch.spans else self.carried[chunk.place]
            batch.spans[key] = Span(expected, chunk.last + 1, chunk.last_event_id, chunk.last_timestamp_ms)
            batch.records.extend(chunk.facts)
            for mark in chunk.watermarks:
                batch.watermarks[mark.place] = mark
        return batch

    def moved(self, batch: Batch) -> None:
        """A batch was carried out."""
        for (topic, partition), span in batch.spans.items():
            place = TopicPartition(self._prefix + topic, partition)
            if self.carried.get(place) == span.expected:
                self.carried[place] = span.next_offset

    def progress(self) -> Mapping[TopicPartition, int]:
        """Where each partition stands that is to go on."""
        return {place: offset for place, offset in self.carried.items() if place not in self._stopped}
