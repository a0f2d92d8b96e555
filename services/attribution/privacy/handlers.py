"""What attribution tells of a person: what it erases of them and keeps, and what it holds about them."""

from services.attribution.privacy import queries
from shared.db import Tx
from shared.events import ErasureReported, ExportAnswered, ExportRequested, LeadErased
from shared.exports import answer_of
from shared.rights import Holdings, held_chunks, report_of
from shared.service import Runtime

HOLDINGS = Holdings(
    service="attribution",
    erased=("touch_details",),
    why_kept={
        "touches": "channels and times earn credit, under an id that leads to nobody",
        "conversions": "the money was earned",
        "credits": "what earned the money goes on being known",
        "stages": "how many came how far, under an id that leads to nobody",
        "assignments": "how fast reps answered",
    },
    counts=queries.COUNTS,
    held=queries.HELD,
)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """Tell what is erased and kept of one id, before it is stripped."""
    report = await report_of(HOLDINGS, event, tx)
    if report is not None:
        tx.emit(ErasureReported(**report))


async def on_export_requested(event: ExportRequested, tx: Tx, *, runtime: Runtime) -> None:
    """Tell all that is held about a person who asks; nothing of it is personal in itself."""
    chunks = await held_chunks(HOLDINGS, event, tx, runtime.keys)
    for index, chunk in enumerate(chunks):
        tx.emit(ExportAnswered(**answer_of(event, HOLDINGS.service, index, len(chunks)), plain=chunk.decode()))
