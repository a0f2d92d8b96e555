"""A consumer that makes no progress although it could is ended, so that another can take its place."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import Unavailable
from shared.kafka._probe import probe
from shared.settings import Settings
from shared.telemetry import log

STUCK_EXIT = 70
STARVED = 0.5
"""Who waits for a processor for this share of the time stands still because of that."""
SCHEDULING = Path("/proc/self/schedstat")


class Watchdog:
    """Ends the process when a partition with records stands still although PostgreSQL and Kafka answer.

    The client's own idea of a partition's end is not asked: a client that is stuck does not hear of new records. One
    that builds beside what serves has nobody who would start it again: it is given another client, unless `busy` with
    a batch.
    """

    def __init__(
        self,
        settings: Settings,
        group: str,
        progress: Callable[[], Mapping[TopicPartition, int]],
        *,
        serving: bool,
        busy: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._group = group
        self._progress = progress
        self._serving = serving
        self._busy = busy
        self._limit = settings.consumer_stuck_after.total_seconds()
        self._excused_until = 0.0
        self._unassigned_since: float | None = None

    def excuse(self) -> None:
        """There is a reason to stand still, such as PostgreSQL away: begin to count from now."""
        self._excused_until = asyncio.get_running_loop().time() + self._limit

    def unassigned(self) -> None:
        """The member waits for its group to give it partitions."""
        self._unassigned_since = asyncio.get_running_loop().time()

    def assigned(self) -> None:
        """The group gave partitions, or none."""
        self._unassigned_since = None

    async def run(self) -> None:
        """Watch for ever. Raises Unavailable when the group gives nothing for too long, or the client has to go."""
        loop = asyncio.get_running_loop()
        moved: dict[TopicPartition, tuple[int, float]] = {}
        now, waited = loop.time(), waited_for_processor()
        while True:
            await asyncio.sleep(min(self._limit / 6, 5))
            before, waited_before = now, waited
            now, waited = loop.time(), waited_for_processor()
            if waited - waited_before > STARVED * (now - before):
                self.excuse()
            if self._unassigned_since is not None and now - self._unassigned_since > self._limit:
                raise Unavailable("the group gave no partitions")
            still = []
            stands = self._progress()
            for place, offset in stands.items():
                if moved.get(place, (-1, now))[0] != offset:
                    moved[place] = (offset, now)
                elif now - moved[place][1] > self._limit:
                    still.append(place)
            if still and now > self._excused_until:
                await self._judge(still)
                moved |= {place: (stands[place], now) for place in still}

    async def _judge(self, still: Sequence[TopicPartition]) -> None:
        try:
            async with probe(self._settings.kafka_bootstrap_servers) as kafka:
                ends = await kafka.ends(still)
        except (KafkaError, OSError):
            self.excuse()
            return
        stands = self._progress()
        for place in still:
            if ends[place] > stands.get(place, ends[place]):
                if not self._serving and self._busy():
                    return
                log.critical("partition_stuck", group=self._group, topic=place.topic, partition=place.partition)
                if not self._serving:
                    raise Unavailable(f"{place.topic}/{place.partition} stands still")
                os._exit(STUCK_EXIT)


def waited_for_processor() -> float:
    """Seconds in which this process could have worked and was given no processor; 0 where the system does not say."""
    try:
        return int(SCHEDULING.read_text().split()[1]) / 1e9
    except (OSError, LookupError, ValueError):
        return 0.0
