"""What a consumer has read and not carried out yet, and what of it comes next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from shared.events import WATERMARK_TYPE
from shared.kafka._records import Decoded, Watermark, decode, event_id_of, watermark_in

CALM_SHARE = 200


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition that were fetched together, read; they go on from offset `follows`.

    `awaited` says that a handler wants any of them now, `hurried` that somebody waits for what comes of it.
    """

    place: TopicPartition
    topic: str
    facts: list[Decoded]
    watermarks: list[Watermark]
    follows: int
    last: int
    last_event_id: str | None
    last_timestamp_ms: int
    count: int
    awaited: bool
    hurried: bool


def read_chunk(  # noqa: PLR0913  # what came, and what is wanted of it
    place: TopicPartition,
    topic: str,
    records: Sequence[Any],
    follows: int,
    kinds: Collection[str],
    awaits: Callable[[Decoded], bool],
) -> Chunk:
    """Fetched records, read: facts of these `kinds`, of which a handler `awaits` some; others are only counted."""
    last = records[-1]
    read = [decode(topic, record, kinds) for record in records]
    facts = [record for record in read if record.ce_type != WATERMARK_TYPE]
    marks: list[Watermark] = []
    if len(facts) != len(read):
        marks = [mark for record in records if (mark := watermark_in(topic, record)) is not None]
    awaited = [record for record in facts if record.error or awaits(record)]
    return Chunk(
        place,
        topic,
        facts,
        marks,
        follows=follows,
        last=last.offset,
        last_event_id=event_id_of(last.headers),
        last_timestamp_ms=last.timestamp,
        count=len(read),
        awaited=bool(awaited),
        hurried=any(record.event is not None and not record.event.is_calm for record in awaited),
    )


class Pending:
    """Chunks in the order in which they were read; `batch` is the most records that are carried out at once.

    `patient` says that nobody waits for anything: of a reader that may gather, or that builds.
    """

    def __init__(self, batch: int, *, patient: bool) -> None:
        self._batch = batch
        self._patient = patient
        self._chunks: list[Chunk] = []
        self.records = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read for now: one batch is here, besides the one that is under way."""
        return self.records >= self._batch

    @property
    def awaited(self) -> bool:
        """Whether any of it is wanted now, or so much is here that it is not kept any longer."""
        return self.is_full or any(chunk.awaited for chunk in self._chunks)

    def put(self, chunk: Chunk) -> None:
        """What was read last."""
        self._chunks.append(chunk)
        self.records += chunk.count

    def clear(self) -> None:
        """Forget all."""
        self._keep([])

    def drop(self, places: Collection[TopicPartition]) -> None:
        """Forget what is of these partitions."""
        self._keep([chunk for chunk in self._chunks if chunk.place not in places])

    def take(self) -> list[Chunk]:
        """What is carried out next: where somebody waits for a fact, first what may be about the same leads.

        What is only moved past comes along. What nobody waits for is taken in shares, so that what somebody waits for
        comes between. Who is patient takes all at once, as does one with much before it.
        """
        most = self._batch
        hurried: set[int] = set()
        if not self._patient and self.records < most:
            hurried = {chunk.place.partition for chunk in self._chunks if chunk.hurried}
            most = CALM_SHARE
        taken: list[Chunk] = []
        left: list[Chunk] = []
        behind: set[TopicPartition] = set()
        records = 0
        for chunk in self._chunks:
            has_time = bool(hurried) and chunk.awaited and chunk.place.partition not in hurried
            if records >= most or has_time or chunk.place in behind:
                left.append(chunk)
                behind.add(chunk.place)
            else:
                taken.append(chunk)
                records += chunk.count
        self._keep(left)
        return taken

    def _keep(self, chunks: list[Chunk]) -> None:
        self._chunks = chunks
        self.records = sum(chunk.count for chunk in chunks)
