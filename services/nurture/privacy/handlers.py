"""What nurture tells of a person: what it erases of them and keeps, and what it holds about them."""

from services.nurture.privacy import queries
from shared.db import Tx
from shared.events import ErasureReported, ExportAnswered, ExportRequested, LeadErased
from shared.exports import answer_of
from shared.rights import Holdings, held_chunks, report_of
from shared.service import Runtime

HOLDINGS = Holdings(
    service="nurture",
    erased=(
        "profiles",
        "consents",
        "waiting_facts",
        "optins",
        "preferences",
        "broadcast_lists",
        "message_texts",
        "facts_about",
        "pause_reasons",
    ),
    why_kept={
        "messages": "what was sent is never sent again, and is counted; what it said is gone",
        "enrolments": "how many were in which sequence is counted",
        "acts": "what a step did is never done again; it names no one",
        "suppressions": "so that nobody writes to the address again: it stands as a keyed hash",
    },
    counts=queries.COUNTS,
    held=queries.HELD,
)


async def on_erased(event: LeadErased, tx: Tx, *, runtime: Runtime) -> None:
    """Tell what is erased and kept of one id, before it is stripped, and forget its key.

    The key goes by its tombstone too, but Kafka does not keep that for ever, and an older database may come back.
    """
    report = await report_of(HOLDINGS, event, tx)
    if report is not None:
        tx.emit(ErasureReported(**report))
    await runtime.keys.fold_keys(tx.connection, [(event.lead_id, None)])


async def on_export_requested(event: ExportRequested, tx: Tx, *, runtime: Runtime) -> None:
    """Tell all that is held about a person who asks, sealed with their key; nothing of an erased one."""
    chunks = await held_chunks(HOLDINGS, event, tx, runtime.keys)
    for index, chunk in enumerate(chunks):
        answer = ExportAnswered(**answer_of(event, HOLDINGS.service, index, len(chunks)))
        await runtime.keys.tell_known(tx, answer, chunk)
