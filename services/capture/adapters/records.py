"""Records that a delivery only names: their ids, and what the provider answered about them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from services.capture.adapters.adapter import HookRequest, Unmappable
from services.capture.adapters.bodies import read_object

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)


def record_id(value: Any) -> str | None:
    """The id as text, whether it came as a number or a text; None for what cannot stand in a path as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 2**64 else ""
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def required_id(value: Any, name: str) -> str:
    """The id as text. Unmappable, naming it, for anything else."""
    known = record_id(value)
    if known is None:
        raise Unmappable(f"{name} is not an id")
    return known


GONE = object()
"""What is found of a record that the provider says it has no more, where it has others of the same delivery."""


class RecordGone(Unmappable):
    """The provider has this record no more."""

    slug = "capture/record-gone"


def looked_up(request: HookRequest, path: str) -> Mapping[str, Any]:
    """The object that was answered for this path, read as strictly as a body; Unmappable without one."""
    if request.found.get(path) is GONE:
        raise RecordGone(f"the provider has no {path.partition('?')[0]} any more")
    if path not in request.found:
        raise Unmappable(f"needs the answer to {path}")
    try:
        return read_object(json.dumps(request.found[path], default=str).encode())
    except (RecursionError, TypeError, ValueError) as exc:
        raise Unmappable(f"the answer to {path} is not JSON") from exc
