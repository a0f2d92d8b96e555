"""Records of Kafka as facts, or as bytes that are none; whatever they hold, reading them never raises."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from shared.events import EVENT_OF, WATERMARK_TYPE, Event, decoder
from shared.telemetry import parse_trace


class Decoded(NamedTuple):
    """A record that was read: a fact, bytes that are none (`error` says why), or nothing that matters here."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    ce_type: str
    headers: Sequence[tuple[str, bytes | None]]
    event: Event | None = None
    error: str | None = None
    timestamp_ms: int = 0

    @property
    def trace(self) -> str | None:
        """The trace the fact belongs to."""
        found = next((value for name, value in self.headers if name == "traceparent" and value), None)
        return None if found is None else parse_trace(found.decode("ascii", "replace"))


_WATERMARK = WATERMARK_TYPE.encode()
_DECODERS = {name.encode(): (name, decoder(kind)) for name, kind in EVENT_OF.items()}


@dataclass(frozen=True, slots=True)
class Watermark:
    """All facts that a source recorded before `at` are in this partition up to here.

    `repair` is the number of the last time the source noticed that Kafka had lost records of this partition, and the
    offset that whoever had read further must go back to. `appended_ms` is when Kafka took the watermark.
    """

    topic: str
    partition: int
    source: str
    at: datetime
    repair: tuple[int, int] = (0, 0)
    appended_ms: int = 0

    @property
    def place(self) -> tuple[str, int, str]:
        """Where it stands, and whose it is."""
        return self.topic, self.partition, self.source


class Letter:
    """A dead letter as the record it was; `row` has the columns of the table."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.partition, self.offset = row["partition"], row["offset"]
        self.key, self.value = row["key"], row["value"]
        self.headers = [(name, value and bytes.fromhex(value)) for name, value in row["headers"]]
        self.timestamp = int(row["received_at"].timestamp() * 1000)


def decode(topic: str, record: Any, kinds: Collection[str] = EVENT_OF.keys()) -> Decoded:
    """A consumer record as a fact, or with the reason why it is none. Never raises.

    What is of none of these kinds, and a tombstone, is passed over: neither a fact nor a fault.
    """
    headers = record.headers
    wire_type = next((value for name, value in headers if name == "ce_type"), None) or b""
    place = (topic, record.partition, record.offset, record.key, record.value)
    known = _DECODERS.get(wire_type)
    if known is None:
        ce_type = wire_type.decode("utf-8", "replace")
        return Decoded(*place, ce_type, headers, None, f"unknown type {ce_type[:100]!r}" if ce_type else "no ce_type")
    ce_type, read = known
    if record.value is None or ce_type not in kinds:
        return Decoded(*place, ce_type, headers)
    try:
        event = read(record.value)
        if "\x00" in event.event_id or "\x00" in event.key:
            return Decoded(*place, ce_type, headers, None, "its id or key cannot be stored")
        return Decoded(*place, ce_type, headers, event, None, record.timestamp)
    except ValueError as exc:
        return Decoded(*place, ce_type, headers, None, f"not a {ce_type}: {type(exc).__name__}")


def watermark_in(topic: str, record: Any) -> Watermark | None:
    """The watermark that a record is, if it is a sound one."""
    if not any(name == "ce_type" and value == _WATERMARK for name, value in record.headers):
        return None
    try:
        value = orjson.loads(record.value)
        source, at = str(value["source"]), datetime.fromisoformat(value["at"])
        number, offset = value.get("repair") or (0, 0)
        repair = (int(number), int(offset))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if at.tzinfo is None or "\x00" in source:
        return None
    return Watermark(topic, record.partition, source, at, repair, record.timestamp)


def event_id_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The record's event id in a spelling that can be stored, whatever bytes it is made of."""
    found = next((value for name, value in headers if name == "ce_id"), None)
    return None if found is None else found.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
