"""W3C trace context, carried from the request through the event log and Kafka."""

import os
import re
from contextvars import ContextVar

_TRACEPARENT = re.compile(r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_trace() -> str | None:
    """The `traceparent` that the present work belongs to."""
    return _current.get()


def set_trace(traceparent: str | None) -> None:
    """Say which trace the work from here on belongs to."""
    _current.set(traceparent)


def parse_trace(text: str | None) -> str | None:
    """The header's value if it is well-formed, else None."""
    return text if text and _TRACEPARENT.match(text) else None


def new_trace() -> str:
    """A new trace, not sampled."""
    digits = os.urandom(24).hex()
    return f"00-{digits[:32]}-{digits[32:]}-00"
