"""What every service does when a person is erased or asks what is held: it tells what it holds, in the same way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.db import Tx, one
from shared.events import ExportRequested, LeadErased
from shared.exports import chunks_of, rows_of
from shared.ids import EventId, derived_id
from shared.personal import PersonKeys
from shared.web import forget_answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a service holds of people: what of it is `erased`, what is kept and why, and the statements that say so.

    `counts` is a statement that counts all of these for one lead id; `held` are those that read it for several.
    """

    service: str
    erased: Sequence[str]
    why_kept: Mapping[str, str]
    counts: str
    held: Mapping[str, str]


async def report_of(holdings: Holdings, event: LeadErased, tx: Tx) -> dict[str, Any] | None:
    """The fields of a service's report on one id, before it is stripped; None if no receipt asks for it.

    Stored answers about the id are forgotten, and counted with the rest.
    """
    row = await one(tx.connection, holdings.counts, event.lead_id)
    answers = await forget_answers(tx.connection, [event.lead_id])
    if event.receipt_id is None:
        return None
    return {
        "event_id": EventId(derived_id("erasure-reported", event.receipt_id, event.lead_id, holdings.service)),
        "lead_id": event.lead_id,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "receipt_id": event.receipt_id,
        "service": holdings.service,
        "erased": {name: row[name] for name in holdings.erased} | {"stored_answers": answers},
        "kept": {name: row[name] for name in holdings.why_kept},
        "why_kept": dict(holdings.why_kept),
    }


async def held_chunks(holdings: Holdings, event: ExportRequested, tx: Tx, keys: PersonKeys) -> list[bytes]:
    """All that is held about a person who asks, in pieces."""
    return chunks_of(
        {name: await rows_of(tx.connection, statement, event, keys) for name, statement in holdings.held.items()}
    )
