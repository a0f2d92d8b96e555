"""JSON Schemas of facts and of their personal blocks, and what may not change in one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from shared.events import (
    EVENT_OF,
    AccountPersonal,
    ConsentEvidence,
    DealPersonal,
    LeadPersonal,
    NoticePersonal,
    OptinPersonal,
    PausePersonal,
    TouchPersonal,
    UpdatePersonal,
    WebhookPersonal,
    schema_of,
)

PERSONAL: Mapping[str, type[BaseModel]] = {
    "personal.account": AccountPersonal,
    "personal.consent": ConsentEvidence,
    "personal.deal": DealPersonal,
    "personal.lead": LeadPersonal,
    "personal.touch": TouchPersonal,
    "personal.optin": OptinPersonal,
    "personal.notice": NoticePersonal,
    "personal.pause": PausePersonal,
    "personal.update": UpdatePersonal,
    "personal.webhook": WebhookPersonal,
}
"""What the `personal` text of a fact opens to, by the name of its schema."""

_ABOUT = {"title", "description", "$comment", "examples"}


class Broken(Exception):
    """A schema would change in a way that old facts or old readers do not survive."""


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its name: a fact's is its type."""
    made = {name: schema_of(kind) for name, kind in EVENT_OF.items()}
    for name, model in PERSONAL.items():
        made[name] = {**model.model_json_schema(), "$id": f"urn:throughline:{name}"}
    return made


def breaks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a new schema does to an old one beside adding optional fields; empty is good."""
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    old_needed, new_needed = set(old.get("required", ())), set(new.get("required", ()))
    found = [f"{name} is gone" for name in sorted(old_fields.keys() - new_fields.keys())]
    for name in sorted(old_fields.keys() & new_fields.keys()):
        if _shape(old_fields[name], old) != _shape(new_fields[name], new):
            found.append(f"{name} has another type or default")
    found += [f"{name} became required" for name in sorted((new_needed - old_needed) & old_fields.keys())]
    found += [f"{name} became optional" for name in sorted((old_needed - new_needed) & new_fields.keys())]
    found += [f"{name} is new and required" for name in sorted((new_fields.keys() - old_fields.keys()) & new_needed)]
    return found


def refuse_breaks(folder: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise Broken where a schema that is in the folder would be broken, or has lost its fact."""
    kept = {path.stem: orjson.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
    faults = [f"{name}: nothing has this schema any more" for name in sorted(kept.keys() - made.keys())]
    for name in sorted(kept.keys() & made.keys()):
        faults += [f"{name}: {fault}" for fault in breaks(kept[name], made[name])]
    if faults:
        remedy = "A version of a fact only gains optional fields: make a new version instead."
        raise Broken("\n".join([*faults, remedy]))


def _shape(part: Any, root: Mapping[str, Any]) -> Any:
    """A schema without what only explains it, references followed."""
    if isinstance(part, Mapping):
        if "$ref" in part:
            return _shape(root["$defs"][part["$ref"].removeprefix("#/$defs/")], root)
        return {key: _shape(value, root) for key, value in sorted(part.items()) if key not in _ABOUT}
    if isinstance(part, list):
        return sorted((_shape(value, root) for value in part), key=repr)
    return part
