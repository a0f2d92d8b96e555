"""What the rules saw of a person, as it is kept: what is personal of it sealed with the person's key."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from services.routing.assignments.domain import Assignment
from shared.db import Connection
from shared.events import LeadPersonal
from shared.ids import LeadId
from shared.personal import PersonKeys

PERSONAL = {"lead": frozenset(LeadPersonal.model_fields), "deal": frozenset({"name"})}


def parted(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs without what is personal, and that."""
    clear, personal = dict(inputs), {}
    for part, names in PERSONAL.items():
        values = inputs.get(part) or {}
        if told := {name: values[name] for name in names if name in values}:
            personal[part] = told
            clear[part] = {name: value for name, value in values.items() if name not in names}
    return clear, personal


def joined(clear: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the rules saw them."""
    return {**clear} | {part: {**clear.get(part, {}), **told} for part, told in personal.items()}


async def sealed(
    connection: Connection, keys: PersonKeys, made: Sequence[tuple[Assignment, Sequence[LeadId]]]
) -> list[Assignment]:
    """Assignments as they are stored, each by the first of the person's ids that has a key."""
    stored = []
    for assignment, ids in made:
        clear, personal = parted(assignment.inputs or {})
        block = await keys.seal_by_any(connection, ids, orjson.dumps(personal)) if personal else None
        sealed_for, text = block or (None, None)
        stored.append(replace(assignment, inputs=clear, sealed=text, sealed_for=sealed_for))
    return stored


async def opened(connection: Connection, keys: PersonKeys, stored: Sequence[Assignment]) -> list[Assignment]:
    """Assignments with all that the rules saw; of somebody whose key is gone without what is personal."""
    blocks = [(one.sealed_for or one.lead_id, one.sealed) for one in stored]
    texts = await keys.open_many(connection, blocks)
    return [
        replace(one, inputs=joined(one.inputs or {}, orjson.loads(text))) if text is not None else one
        for one, text in zip(stored, texts, strict=True)
    ]
