"""Identifiers, one type each, as text: a TouchId is not accepted where a LeadId is wanted."""

import hashlib
import os
from typing import NewType

LeadId = NewType("LeadId", str)
AccountId = NewType("AccountId", str)
TouchId = NewType("TouchId", str)
ConversionId = NewType("ConversionId", str)
EventId = NewType("EventId", str)
SourceId = NewType("SourceId", str)
RepId = NewType("RepId", str)
AssignmentId = NewType("AssignmentId", str)
DealId = NewType("DealId", str)
SequenceId = NewType("SequenceId", str)
SegmentId = NewType("SegmentId", str)
MessageId = NewType("MessageId", str)


def uuid8(digest: bytes) -> str:
    """A UUIDv8 (RFC 9562 section 5.8) out of the first 16 of `digest`'s bytes."""
    return _written(digest[:16], "8")


def derived_id(*parts: str) -> str:
    """The same id for the same parts, on every replica and at every replay; a UUIDv8 of their SHA-256."""
    return uuid8(hashlib.sha256("\x1f".join(parts).encode()).digest())


def new_id() -> str:
    """A random id for a thing that nothing else identifies; a UUIDv4."""
    return _written(os.urandom(16), "4")


def _written(octets: bytes, version: str) -> str:
    """A UUID as text; `uuid` would take five times as long."""
    digits = octets.hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
