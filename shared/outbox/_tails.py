"""Whether Kafka still holds what it acknowledged, and what is done when it does not.

A broker that comes back without the end of its log (restored from a copy, or made anew) takes new records as if nothing
had been. So the last record that each partition acknowledged is remembered; an offset that does not grow, or another
record in its place, tells that the tail was lost. Then everything that is still in the event log is published again,
and the watermarks say from which offset on: consumers that had read further go back there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from shared.db import Database
from shared.kafka import Probe, probe
from shared.settings import Settings
from shared.telemetry import counter, log

REPUBLISHED = counter("throughline_outbox_republished_total", "Rows published again because Kafka lost them")

MARKS = 'SELECT topic, partition, "offset", event_id, timestamp_ms FROM relay_marks'
CLEAR_MARKS = "DELETE FROM relay_marks WHERE topic = $1 AND partition = $2"
REPAIRS = 'SELECT topic, partition, number, "offset" FROM relay_repairs'
PUT_REPAIR = """
INSERT INTO relay_repairs AS known (topic, partition, number, "offset") VALUES ($1, $2, 1, $3)
ON CONFLICT (topic, partition) DO UPDATE SET number = known.number + 1, "offset" = excluded."offset"
"""
REWIND = """
UPDATE relay_cursors AS cursor SET position = start.position
FROM (SELECT log, position AS before,
             coalesce((SELECT min(position) - 1 FROM event_log WHERE event_log.log = known.log), position) AS position
      FROM relay_cursors AS known) AS start
WHERE cursor.log = start.log AND start.position < start.before
RETURNING start.before - start.position AS rows
"""

Place = tuple[str, int]


class LostTail(Exception):
    """Kafka lost records that it had acknowledged."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A record that Kafka acknowledged, and when it appended it by its own clock."""

    offset: int
    event_id: str
    timestamp_ms: int


class Tails:
    """What the partitions that a service writes to acknowledged last."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._last: dict[Place, Mark] = {}
        self._repairs: dict[Place, tuple[int, int]] = {}

    def note(self, marks: Iterable[tuple[Place, Mark]]) -> dict[Place, Mark]:
        """Remember acknowledgements, in order; answers the last of each partition. Raises LostTail."""
        noted: dict[Place, Mark] = {}
        for place, mark in marks:
            if mark.offset < 0:  # a repetition: the broker does not say any more where the first one is
                continue
            if place in self._last and mark.offset <= self._last[place].offset:
                raise LostTail(f"{place[0]}/{place[1]} went back to offset {mark.offset}")
            self._last[place] = noted[place] = mark
        return noted

    def repair(self, topic: str, partition: int) -> tuple[int, int]:
        """The number of the last repair of a partition, and the offset to go back to."""
        return self._repairs.get((topic, partition), (0, 0))

    async def recall(self) -> None:
        """Begin with what is kept, where this process knows nothing newer, and check it. Raises LostTail."""
        async with self._database.reading() as connection:
            marks, repairs = await connection.fetch(MARKS), await connection.fetch(REPAIRS)
        for row in marks:
            place = (row["topic"], row["partition"])
            if place not in self._last or self._last[place].offset < row["offset"]:
                self._last[place] = Mark(row["offset"], row["event_id"], row["timestamp_ms"])
        self._repairs = {(row["topic"], row["partition"]): (row["number"], row["offset"]) for row in repairs}
        await self.check({})

    async def check(self, fresh: Mapping[Place, Mark]) -> None:
        """Compare the last record of each partition, and `fresh` ones, with what Kafka holds there now.

        Where it is gone, arranges that all is published again. Raises LostTail then.
        """
        missing: set[TopicPartition] = set()
        async with probe(self._settings.kafka_bootstrap_servers) as kafka:
            for marks in (self._last, fresh):
                missing |= await kafka.missing({self._at(place): (m.offset, m.event_id) for place, m in marks.items()})
            if missing:
                await self._publish_again(kafka, sorted(missing))
                raise LostTail(f"{len(missing)} partitions")

    async def _publish_again(self, kafka: Probe, lost: Sequence[TopicPartition]) -> None:
        log.error("kafka_lost_records", partitions=[f"{at.topic}/{at.partition}" for at in lost])
        places = {at: (at.topic.removeprefix(self._settings.topic_prefix), at.partition) for at in lost}
        back_to: dict[Place, int] = {}
        for at, place in places.items():
            appended_at = self._last[place].timestamp_ms if place in self._last else None
            back_to[place] = await kafka.offset_since(at, appended_at)
        async with self._database.transaction() as tx:
            for place, offset in back_to.items():
                await tx.connection.execute(CLEAR_MARKS, *place)
                await tx.connection.execute(PUT_REPAIR, *place, offset)
            rows = await tx.connection.fetch(REWIND)
        for place in back_to:
            self._last.pop(place, None)
        REPUBLISHED.inc(sum(row["rows"] for row in rows))

    def _at(self, place: Place) -> TopicPartition:
        return TopicPartition(self._settings.topic_prefix + place[0], place[1])


def columns(marks: Mapping[Place, Mark]) -> tuple[list[str], list[int], list[int], list[str], list[int]]:
    """Acknowledgements as columns of `relay_marks`: topic, partition, offset, event id, time."""
    places = sorted(marks)
    return (
        [topic for topic, _ in places],
        [partition for _, partition in places],
        [marks[place].offset for place in places],
        [marks[place].event_id for place in places],
        [marks[place].timestamp_ms for place in places],
    )
