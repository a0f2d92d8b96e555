"""The names of deliveries: the same for every attempt, and there for every body, however odd."""

import hashlib
from collections.abc import Callable

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.request import HookRequest

LONGEST_NAME = 200


def told_apart(name: str) -> str:
    """A name as it may stand in the log, in rows and in Kafka: with a mail address in it, its SHA-256 in its place."""
    return hashlib.sha256(name.encode()).hexdigest() if "@" in name else name


def delivery_name(kind: str, request: HookRequest, own_name: Callable[[], object]) -> str:
    """The source's own name for the delivery, prefixed with the kind; without a usable one, the SHA-256 of the body."""
    try:
        name = own_name()
    except (Unmappable, LookupError, TypeError):
        name = None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    name = name.strip() if isinstance(name, str) else ""
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        name = hashlib.sha256(request.raw_body).hexdigest()
    return f"{kind}:{told_apart(name)}"
