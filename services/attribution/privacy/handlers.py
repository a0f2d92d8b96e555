"""What attribution tells of a person: what it erases of them and keeps, and what it holds about them."""

from services.attribution.privacy import queries
from shared.db import Tx
from shared.events import ErasureReported, ExportAnswered, ExportRequested, LeadErased
from shared.exports import answer_of, chunks_of, rows_of
from shared.ids import EventId, derived_id
from shared.service import Runtime
from shared.web import forget_answers

ERASED = ("touch_details",)
WHY_KEPT = {
    "touches": "channels and times earn credit, under an id that leads to nobody",
    "conversions": "the money was earned",
    "credits": "what earned the money goes on being known",
}


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Tell what is erased and kept of one id, before it is stripped; forget stored answers about it."""
    row = await queries.counts(tx.connection, event.lead_id)
    answers = await forget_answers(tx.connection, [event.lead_id])
    if event.receipt_id is None:
        return
    tx.emit(
        ErasureReported(
            event_id=EventId(derived_id("erasure-reported", event.receipt_id, event.lead_id, "attribution")),
            lead_id=event.lead_id,
            occurred_at=event.occurred_at,
            received_at=event.received_at,
            receipt_id=event.receipt_id,
            service="attribution",
            erased={name: row[name] for name in ERASED} | {"stored_answers": answers},
            kept={name: row[name] for name in WHY_KEPT},
            why_kept=WHY_KEPT,
        )
    )


async def on_export_requested(event: ExportRequested, tx: Tx, *, runtime: Runtime) -> None:
    """Tell all that is held about a person who asks; nothing of it is personal in itself."""
    held = {
        name: await rows_of(tx.connection, statement, event, runtime.keys) for name, statement in queries.HELD.items()
    }
    for index, chunk in enumerate(chunks := chunks_of(held)):
        answer = ExportAnswered(
            **answer_of(event, "attribution", index, len(chunks)),
            plain=chunk.decode(),
        )
        tx.emit(answer)
