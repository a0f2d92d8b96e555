"""Identifiers, one type each, as text: a TouchId is not accepted where a LeadId is wanted."""

import hashlib
import os
import uuid
from typing import NewType

LeadId = NewType("LeadId", str)
TouchId = NewType("TouchId", str)
ConversionId = NewType("ConversionId", str)
EventId = NewType("EventId", str)
SourceId = NewType("SourceId", str)
RepId = NewType("RepId", str)
AssignmentId = NewType("AssignmentId", str)
DealId = NewType("DealId", str)
SequenceId = NewType("SequenceId", str)
MessageId = NewType("MessageId", str)


def uuid8(digest: bytes) -> str:
    """A UUIDv8 (RFC 9562 section 5.8) out of the first 16 of `digest`'s bytes."""
    value = int.from_bytes(digest[:16], "big")
    value = (value & ~(0xF000 << 64)) | (0x8000 << 64)
    value = (value & ~(0xC000 << 48)) | (0x8000 << 48)
    return str(uuid.UUID(int=value))


def derived_id(*parts: str) -> str:
    """The same id for the same parts, on every replica and at every replay; a UUIDv8 of their SHA-256."""
    return uuid8(hashlib.sha256("\x1f".join(parts).encode()).digest())


def new_id() -> str:
    """A random id for a thing that nothing else identifies; a UUIDv4, written out since `uuid` takes five times as long."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
