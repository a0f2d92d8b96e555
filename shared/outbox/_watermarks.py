"""The watermarks of what a service writes: to which partitions they go next, and what they say."""

from collections.abc import Iterator
from datetime import datetime
from itertools import chain, cycle

import orjson

from shared.events import TOPICS, WATERMARK_TYPE
from shared.outbox._tails import Place, Tails
from shared.settings import Settings

TURNS = 5


class Watermarks:
    """All topics at first, then a part of them at a time, each once in `watermark_every`.

    Told all at once they would keep Kafka and every reader from what somebody waits for.
    """

    def __init__(self, settings: Settings, service: str) -> None:
        writes = [topic.name for topic in TOPICS if service in topic.writers]
        parts = [writes[turn::TURNS] for turn in range(min(TURNS, len(writes)))]
        self._partitions = settings.topic_partitions
        self._service = service
        self._topics = chain([writes], cycle(parts))
        self.turn_s = settings.watermark_every.total_seconds() / len(parts)

    def event_id(self, read_at: datetime) -> str:
        """The id of all that say the same."""
        return f"watermark:{self._service}:{read_at.isoformat()}"

    def next(self, read_at: datetime, tails: Tails) -> Iterator[tuple[Place, dict[str, object]]]:
        """Records that tell the partitions whose turn it is that all facts recorded before `read_at` are in them."""
        headers = [
            ("ce_specversion", b"1.0"),
            ("content-type", b"application/json"),
            ("ce_type", WATERMARK_TYPE.encode()),
            ("ce_source", f"/throughline/{self._service}".encode()),
            ("ce_id", self.event_id(read_at).encode()),
        ]
        key = b"watermark:" + self._service.encode()
        said = {"source": self._service, "at": read_at.isoformat()}
        for topic in next(self._topics):
            for partition in range(self._partitions):
                value = orjson.dumps(said | {"repair": tails.repair(topic, partition)})
                yield (topic, partition), {"key": key, "value": value, "headers": headers}
