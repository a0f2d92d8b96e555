"""Bodies of requests, read once: into a strict model, or a problem that names each field at fault."""

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from services.capture.errors import NoSuchLead
from shared.errors import FieldError, Invalid, Malformed
from shared.ids import LeadId
from shared.web import invalid

M = TypeVar("M", bound=BaseModel)
MAX_DEPTH = 32
LARGEST_OBJECT = 65_536
_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ESCAPES_AT_RISK = (b"\\u0000", b"\\ud", b"\\uD")


class Strict(BaseModel):
    """Base of request bodies: unknown fields and values of another type are refused, whatever they could become."""

    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=10_000)


def read_body(model: type[M], body: bytes) -> M:
    """The body as a model. Raises Malformed for what is not JSON, Invalid with the faults for anything else."""
    if may_hold_bad_text(body):
        refuse_bad_text(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise invalid(exc) from exc


def may_hold_bad_text(body: bytes) -> bool:
    """Whether the body has an escape that PostgreSQL text might not hold. Cheap; a raw NUL is no JSON anyway."""
    return b"\\u" in body and any(escape in body for escape in _ESCAPES_AT_RISK)


def refuse_bad_text(body: bytes) -> None:
    """Raise Invalid with the place of every text that holds a NUL or half of a surrogate pair."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
    if faults := list(text_faults(value, "")):
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults[:100])


def text_faults(value: Any, pointer: str) -> Iterator[FieldError]:
    """What in a value cannot be stored, and where."""
    match value:
        case str():
            if "\x00" in value:
                yield FieldError(pointer, "contains a NUL character")
            elif any("\ud800" <= char <= "\udfff" for char in value):
                yield FieldError(pointer, "contains half of a surrogate pair")
        case dict():
            for name, inner in value.items():
                place = f"{pointer}/{_part(name)}"
                yield from text_faults(inner, place)
                yield from (FieldError(place, f"its name {fault.detail}") for fault in text_faults(name, place))
        case list():
            for index, inner in enumerate(value):
                yield from text_faults(inner, f"{pointer}/{index}")


def _fits(value: dict[str, Any]) -> dict[str, Any]:
    try:
        written = orjson.dumps(value)
    except TypeError:  # orjson's own, also for numbers over 64 bits and nesting without end
        raise ValueError("holds a number over 64 bits, or is nested too deep") from None
    if len(written) > LARGEST_OBJECT:
        raise ValueError(f"is over {LARGEST_OBJECT} bytes")
    if b"null" in written and not _is_finite(value):
        raise ValueError("holds a number that is not finite")
    if written.count(b"{") + written.count(b"[") > MAX_DEPTH and too_deep(value):
        raise ValueError(f"is nested deeper than {MAX_DEPTH}")
    return value


FreeObject = Annotated[dict[str, Any], AfterValidator(_fits)]
"""An object of the caller's own making, small enough to travel in a fact."""


def _is_finite(value: Any) -> bool:
    """Whether every number in a value is one; orjson writes null for NaN and the infinities, and that says nothing."""
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def too_deep(value: Any, depth: int = 0) -> bool:
    """Whether a value is nested deeper than is stored."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth >= MAX_DEPTH or any(too_deep(item, depth + 1) for item in inner)


def _part(name: str) -> str:
    clean = "".join(char if char.isprintable() else "\ufffd" for char in name[:200])
    return clean.replace("~", "~0").replace("/", "~1")


def looks_like_id(text: str) -> bool:
    """Whether a text can be one of our ids at all; PostgreSQL is not asked about others."""
    return _ID.fullmatch(text) is not None


def lead_id_of(text: str) -> LeadId:
    """The lead id in an address. Raises NoSuchLead for what can be none."""
    if not looks_like_id(text):
        raise NoSuchLead(f"there is no lead {text[:40]!r}")
    return LeadId(text.lower())
