"""What a message says of its person, sealed with their key: its subject, and where its links lead."""

from collections.abc import Mapping, Sequence
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


async def sealed(connection: Connection, keys: PersonKeys, said: Mapping[LeadId, Said]) -> dict[LeadId, Said]:
    """What messages say, as it is stored, by whom they are for. Where there is no key nobody is known: it stays."""
    texts = {lead_id: orjson.dumps({"subject": each.subject, "links": each.links}) for lead_id, each in said.items()}
    blocks = await keys.seal_known(connection, texts)
    return {lead_id: Said(None, (), blocks[lead_id]) if lead_id in blocks else each for lead_id, each in said.items()}


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
                lead_id = LeadId(row["lead_id"])
                said = Said(row["subject"], tuple(row["links"]))
                stored = (await sealed(tx.connection, runtime.keys, {lead_id: said}))[lead_id]
                if stored.sealed is not None:
                    await tx.connection.execute(SEAL, row["message_id"], stored.sealed)
                    done += 1
        if done < AT_ONCE:
            return
