"""What a message says of its person, sealed with their key: its subject, and where its links lead."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime

AT_ONCE = 200
IN_CLEAR = """
SELECT message_id, lead_id, subject, links FROM messages JOIN person_keys USING (lead_id)
WHERE (subject IS NOT NULL OR links <> '{}') AND wrapped_key IS NOT NULL
ORDER BY message_id LIMIT $1 FOR UPDATE OF messages SKIP LOCKED
"""
SEAL = "UPDATE messages SET subject = NULL, links = '{}', sealed = $2 WHERE message_id = $1"


@dataclass(frozen=True, slots=True)
class Said:
    """What a message says of its person. As it is stored, all of it is in the block `sealed`."""

    subject: str | None
    links: tuple[str, ...] = ()
    sealed: str | None = None


async def sealed(connection: Connection, keys: PersonKeys, lead_id: LeadId, said: Said) -> Said:
    """What a message says, as it is stored. Under an id that has no key nobody is known: it stays."""
    text = orjson.dumps({"subject": said.subject, "links": said.links})
    blocks = await keys.seal_known(connection, {lead_id: text})
    return Said(None, (), blocks[lead_id]) if blocks else said


async def opened(connection: Connection, keys: PersonKeys, rows: Sequence[Any]) -> list[Said]:
    """What messages say, by their rows; nothing of somebody whose key is gone."""
    texts = await keys.open_many(connection, [(LeadId(row["lead_id"]), row["sealed"]) for row in rows])
    return [
        replace(Said(row["subject"], tuple(row["links"])), **_told(text)) for row, text in zip(rows, texts, strict=True)
    ]


def _told(text: bytes | None) -> dict[str, Any]:
    told = {} if text is None else orjson.loads(text)
    return {**told, "links": tuple(told["links"])} if told else {}


async def seal_clear(runtime: Runtime) -> None:
    """Seal what an earlier version kept in clear, and what was written before the key had arrived here."""
    while True:
        async with runtime.database.transaction() as tx:
            rows = await tx.connection.fetch(IN_CLEAR, AT_ONCE)
            done = 0
            for row in rows:
                said = Said(row["subject"], tuple(row["links"]))
                stored = await sealed(tx.connection, runtime.keys, LeadId(row["lead_id"]), said)
                if stored.sealed is not None:
                    await tx.connection.execute(SEAL, row["message_id"], stored.sealed)
                    done += 1
        if done < AT_ONCE:
            return
