"""What the rules saw of a person, as it is kept: what is personal of it sealed with the person's key."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from services.routing.assignments.domain import Assignment, PastLead
from shared.db import Connection
from shared.events import LeadPersonal
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime

AT_ONCE = 200
# Those of an earlier version, which the index on what stands in clear names too.
NAMES = ", ".join(f"'{name}'" for name in sorted(LeadPersonal.model_fields.keys() - {"account_reason"}))
IN_CLEAR = f"""
SELECT assignment_id, lead_id, inputs FROM assignments JOIN person_keys USING (lead_id)
WHERE inputs->'lead' ?| ARRAY[{NAMES}] AND wrapped_key IS NOT NULL
ORDER BY assignment_id LIMIT $1 FOR UPDATE OF assignments SKIP LOCKED
"""
SEAL = "UPDATE assignments SET inputs = $2, sealed = $3, sealed_for = $4 WHERE assignment_id = $1"
PERSONAL = {
    "lead": frozenset(LeadPersonal.model_fields),
    "deal": frozenset({"name"}),
    "account_match": frozenset({"reason"}),
}


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
    parts = [parted(assignment.inputs or {}) for assignment, _ in made]
    wanted = [
        (ids if personal else (), orjson.dumps(personal)) for (_, ids), (_, personal) in zip(made, parts, strict=True)
    ]
    blocks = [block or (None, None) for block in await keys.seal_by_any(connection, wanted)]
    return [
        replace(assignment, inputs=clear, sealed=text, sealed_for=sealed_for)
        for (assignment, _), (clear, _), (sealed_for, text) in zip(made, parts, blocks, strict=True)
    ]


Seen = TypeVar("Seen", Assignment, PastLead)


async def opened(connection: Connection, keys: PersonKeys, stored: Sequence[Seen]) -> list[Seen]:
    """Assignments with all that the rules saw; of somebody whose key is gone without what is personal."""
    blocks = [(one.sealed_for or one.lead_id, one.sealed) for one in stored]
    texts = await keys.open_many(connection, blocks)
    return [
        replace(one, inputs=joined(one.inputs or {}, orjson.loads(text))) if text is not None else one
        for one, text in zip(stored, texts, strict=True)
    ]


async def seal_clear(runtime: Runtime) -> None:
    """Seal what an earlier version kept in clear."""
    while True:
        async with runtime.database.transaction() as tx:
            rows = await tx.connection.fetch(IN_CLEAR, AT_ONCE)
            parts = [parted(row["inputs"]) for row in rows]
            wanted = [
                ([LeadId(row["lead_id"])], orjson.dumps(personal))
                for row, (_, personal) in zip(rows, parts, strict=True)
            ]
            blocks = await runtime.keys.seal_by_any(tx.connection, wanted)
            done = [
                (row["assignment_id"], clear, block[1], block[0])
                for row, (clear, _), block in zip(rows, parts, blocks, strict=True)
                if block is not None
            ]
            await tx.connection.executemany(SEAL, done)
        if len(done) < AT_ONCE:
            return
