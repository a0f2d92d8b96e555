"""The names of deliveries: the same for every attempt, and there for every body, however odd."""

import hashlib
import re
from collections.abc import Callable

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.request import HookRequest

_NAME = re.compile(r"[\x21-\x7e]{1,200}")


def delivery_name(kind: str, request: HookRequest, own_name: Callable[[], object]) -> str:
    """The source's own name for the delivery, prefixed with the kind; without a usable one, the SHA-256 of the body."""
    try:
        name = own_name()
    except (Unmappable, LookupError, TypeError):
        name = None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        name = hashlib.sha256(request.raw_body).hexdigest()
    return f"{kind}:{name}"
