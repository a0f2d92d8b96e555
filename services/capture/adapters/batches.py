"""Sources that put several records into one delivery: a fact each, and each mapped by itself."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from services.capture.adapters.adapter import PLAIN, Adapter, Fact, HookRequest, MappingSettings, Reading
from services.capture.adapters.fields import ignored
from services.capture.adapters.records import RecordGone
from services.capture.mapping import overlay

R = TypeVar("R")


class BatchAdapter(Adapter, Protocol):
    """An adapter that reads record by record: what is mapped from one must not end up in another."""

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        """At least one reading, a record each; Unmappable if the body is not of the source's shape."""
        ...

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        readings = self.readings(request, settings)
        facts = tuple(fact for reading in readings for fact in reading.facts)
        return Reading(facts, readings[0].answers, readings[0].body)

    def facts(self, request: HookRequest, settings: MappingSettings = PLAIN) -> list[Fact]:
        """The facts, the same record told twice in one delivery being one."""
        readings = self.readings(request, settings)
        found = [fact for reading in readings for fact in overlay(reading, request, settings)]
        return list({fact.idempotency_key: fact for fact in found}.values())


def readings_of(
    records: Iterable[R], read: Callable[[R], Reading], name: Callable[[R], str], request: HookRequest
) -> list[Reading]:
    """A reading for each record; one that the provider has no more is left alone, and the others go on."""
    readings = []
    for record in records:
        try:
            readings.append(read(record))
        except RecordGone:
            readings.append(Reading((ignored(name(record), request, "gone"),), {}, {}))
    return readings


def batch_name(names: Sequence[str]) -> str | None:
    """The name of a delivery by the names of its records; a lone record gives its own, none gives none.

    Two batches can begin alike, and so the first record does not name them.
    """
    if len(names) < 2:
        return names[0] if names else None
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
