"""An export put together from the pieces that the services answered."""

from services.capture.exports import queries
from services.capture.exports.handlers import SERVICES
from services.capture.exports.inputs import ExportOut
from services.capture.exports.queries import ExportRow
from shared.db import Connection
from shared.exports import part_in
from shared.personal import PersonKeys


async def export_out(connection: Connection, keys: PersonKeys, export: ExportRow) -> ExportOut:
    """The export as far as it has come."""
    complete = await queries.complete(connection, export.export_id)
    done = complete >= set(SERVICES)
    return ExportOut(
        export_id=export.export_id,
        lead_id=export.lead_id,
        lead_ids=export.lead_ids,
        state="done" if done else "running",
        services={service: "done" if service in complete else "running" for service in SERVICES},
        requested_at=export.requested_at,
        expires_at=export.expires_at,
        held=await _held(connection, keys, export) if done else None,
    )


async def _held(connection: Connection, keys: PersonKeys, export: ExportRow) -> dict[str, object]:
    rows = await queries.chunks_of(connection, export.export_id)
    blocks = await keys.open_many(connection, [(export.lead_id, row["sealed"]) for row in rows])
    parts: dict[str, list[bytes]] = {}
    for row, block in zip(rows, blocks, strict=True):
        parts.setdefault(row["service"], []).append(block or (row["plain"] or "").encode())
    return {service: part_in(chunks) for service, chunks in parts.items()}
