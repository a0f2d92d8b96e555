"""What a service holds about a person, written out for them: rows as JSON, small enough pieces for Kafka."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from shared.db import Connection
from shared.events import ExportRequested
from shared.identity import Member, members
from shared.ids import EventId, derived_id
from shared.personal import PersonKeys

LARGEST_CHUNK = 450_000  # sealed and told as text it still fits into a Kafka record
SEALED = ("personal", "sealed", "evidence")

Rows = list[dict[str, Any]]


async def rows_of(connection: Connection, statement: str, event: ExportRequested, keys: PersonKeys) -> Rows:
    """The rows that a statement finds about the person's ids, what is sealed in them opened.

    Of a browser that others used too only what happened while it was theirs.
    """
    family = await members(connection, event.lead_id)
    known = {member.lead_id for member in family}
    family += [Member(lead_id) for lead_id in event.lead_ids if lead_id not in known]
    rows = [dict(row) for row in await connection.fetch(statement, sorted({member.lead_id for member in family}))]
    return await opened(connection, [row for row in rows if _is_theirs(row, family)], keys)


async def opened(connection: Connection, rows: Rows, keys: PersonKeys) -> Rows:
    """The rows with what is sealed in them opened."""
    places = [(row, name) for row in rows for name in SEALED if row.get(name)]
    blocks = await keys.open_many(
        connection, [(row.get("sealed_for") or row["lead_id"], row[name]) for row, name in places]
    )
    for (row, name), block in zip(places, blocks, strict=True):
        row[name] = orjson.loads(block) if block else None
    return rows


def _is_theirs(row: Mapping[str, Any], family: Sequence[Member]) -> bool:
    lead_id, at = row.get("lead_id"), row.get("occurred_at")
    if lead_id is None or at is None:
        return True
    own = [member for member in family if member.lead_id == lead_id]
    return not own or any(member.covers(at) for member in own)


def chunks_of(held: Mapping[str, Any]) -> list[bytes]:
    """A part as base64 text, in pieces."""
    text = b64encode(zlib.compress(orjson.dumps(held, default=str), 6))
    return [text[start : start + LARGEST_CHUNK] for start in range(0, len(text), LARGEST_CHUNK)]


def part_in(chunks: Sequence[bytes]) -> dict[str, Any]:
    """The part that `chunks_of` made pieces of."""
    part: dict[str, Any] = orjson.loads(zlib.decompress(b64decode(b"".join(chunks))))
    return part


def answer_of(event: ExportRequested, service: str, chunk: int, chunks: int) -> dict[str, Any]:
    """The fields of one piece of a service's answer, the same whenever it is told."""
    return {
        "event_id": EventId(derived_id("export-answered", event.export_id, service, str(chunk))),
        "lead_id": event.lead_id,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "export_id": event.export_id,
        "service": service,
        "chunk": chunk,
        "chunks": chunks,
    }
