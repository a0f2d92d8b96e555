"""What nurture tells of a person: what it erases of them and keeps, and what it holds about them."""

from services.nurture.privacy import queries
from shared.db import Tx
from shared.events import ErasureReported, ExportAnswered, ExportRequested, LeadErased
from shared.exports import answer_of, chunks_of, rows_of
from shared.ids import EventId, derived_id
from shared.service import Runtime
from shared.web import forget_answers

ERASED = ("profiles", "consents", "waiting_facts", "optins", "message_texts")
WHY_KEPT = {
    "messages": "what was sent is never sent again, and is counted; what it said is gone",
    "enrolments": "how many were in which sequence is counted",
    "suppressions": "so that nobody writes to the address again: it stands as a keyed hash",
}


async def on_erased(event: LeadErased, tx: Tx, *, runtime: Runtime) -> None:
    """Tell what is erased and kept of one id, before it is stripped; forget stored answers about it, and its key.

    The key goes by its tombstone too, but Kafka does not keep that for ever, and an older database may come back.
    """
    row = await queries.counts(tx.connection, event.lead_id)
    answers = await forget_answers(tx.connection, [event.lead_id])
    await runtime.keys.fold_keys(tx.connection, [(event.lead_id, None)])
    if event.receipt_id is None:
        return
    tx.emit(
        ErasureReported(
            event_id=EventId(derived_id("erasure-reported", event.receipt_id, event.lead_id, "nurture")),
            lead_id=event.lead_id,
            occurred_at=event.occurred_at,
            received_at=event.received_at,
            receipt_id=event.receipt_id,
            service="nurture",
            erased={name: row[name] for name in ERASED} | {"stored_answers": answers},
            kept={name: row[name] for name in WHY_KEPT},
            why_kept=WHY_KEPT,
        )
    )


async def on_export_requested(event: ExportRequested, tx: Tx, *, runtime: Runtime) -> None:
    """Tell all that is held about a person who asks, sealed with their key; nothing of an erased one."""
    held = {
        name: await rows_of(tx.connection, statement, event, runtime.keys) for name, statement in queries.HELD.items()
    }
    for index, chunk in enumerate(chunks := chunks_of(held)):
        answer = ExportAnswered(
            **answer_of(event, "nurture", index, len(chunks)),
        )
        await runtime.keys.tell_known(tx, answer, chunk)
