"""What a message says of its person, sealed with their key: its subject, and where its links lead."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonKeys


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
