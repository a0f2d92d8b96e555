"""A document that is sent as a part of a body: its faults are told from the root of the body."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pydantic import ValidationError

from shared.errors import Rejected
from shared.web import invalid

PLACE = "/document"
LOOK = "look at "


@contextmanager
def sent_within(*, sent: bool = True) -> Iterator[None]:
    """Where a document is looked at that was sent as `document`; one that is stored (not `sent`) has no place there."""
    root = PLACE if sent else ""
    try:
        yield
    except ValidationError as exc:
        raise invalid(exc, root) from exc
    except Rejected as exc:
        exc.errors = tuple(
            replace(fault, pointer=root + fault.pointer) if fault.pointer[:1] in ("", "/") else fault
            for fault in exc.errors
        )
        if exc.detail.startswith(LOOK):
            exc.detail = LOOK + ", ".join(fault.pointer for fault in exc.errors[:5])
        raise
