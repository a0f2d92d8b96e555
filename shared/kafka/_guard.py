"""When so much is refused that the deploy must be at fault, a partition stops."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from shared.kafka._records import Decoded

Place = tuple[str, int]


class PartitionStopped(Exception):
    """So much was refused that the deploy must be at fault; nothing of it was parked."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic}/{partition}")
        self.topic = topic
        self.partition = partition


@dataclass(slots=True)
class _Count:
    """Of one partition: records seen and refused in the present window, and refused one after another."""

    seen: int = 0
    refused: int = 0
    row: int = 0


class Guard:
    """Counts what a partition refuses: too much of it means that the deploy is at fault, not the facts.

    Counts are of what is committed: those of a batch that is rolled back and tried again are forgotten.
    """

    WINDOW = 10_000

    def __init__(self, share: float, in_a_row: int) -> None:
        self._share = share
        self._in_a_row = in_a_row
        self._counts: dict[Place, _Count] = {}
        self._trial: dict[Place, _Count] = {}

    def begin(self) -> None:
        """A batch begins; what was counted since the last `settle` is forgotten."""
        self._trial = {}

    def settle(self) -> None:
        """The batch is committed."""
        self._counts |= self._trial
        self._trial = {}

    def applied(self, places: Iterable[Place]) -> None:
        """Facts of these partitions went well."""
        for place, number in Counter(places).items():
            count = self._of(place)
            count.seen += number
            count.row = 0
            if count.seen >= self.WINDOW:
                count.seen = count.refused = 0

    def refused(self, place: Place) -> None:
        """A record of this partition was refused. Raises PartitionStopped when that is too much."""
        count = self._of(place)
        count.seen += 1
        count.refused += 1
        count.row += 1
        if count.row >= self._in_a_row or count.refused > self._share * self.WINDOW:
            raise PartitionStopped(*place)

    def unreadable(self, records: Iterable[Decoded]) -> None:
        """Count those of a batch's records, in their order, that cannot be read. Raises PartitionStopped."""
        for record in records:
            place = (record.topic, record.partition)
            if record.error:
                self.refused(place)
            else:
                self._of(place).row = 0

    def _of(self, place: Place) -> _Count:
        if place not in self._trial:
            self._trial[place] = replace(self._counts.get(place, _Count()))
        return self._trial[place]
