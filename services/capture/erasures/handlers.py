"""A receipt is opened with its erasure, and filled in by what the services report."""

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import unquote_plus

import asyncpg

from services.capture.erasures import queries
from services.capture.erasures.domain import Wish, gives_away
from services.capture.errors import NamesSomebody
from services.capture.hooks.sealing import request_in
from shared.db import Connection, Tx
from shared.emails import parse_email
from shared.errors import FieldError
from shared.events import ErasureReported
from shared.identity import LeadIds
from shared.ids import EventId, LeadId, derived_id
from shared.personal import SealBroken
from shared.phones import parse_phone
from shared.service import Runtime

PAGE = 500
AT_ONCE = timedelta(0)
GENERATIONS = 4
EMAIL = re.compile(r"[^\s\"'<>(),;:=&]+@[^\s\"'<>(),;:=&/]+")
PHONE = re.compile(r"\+[0-9][0-9 ()./-]{5,20}[0-9]")
ERASED = (
    *("profiles", "identifiers", "browser_links", "consent_evidence", "form_answers", "optin_texts", "likeness_keys"),
    *("provider_answers", "keys"),
)
WHY_KEPT = {
    "consent_entries": "that something was allowed or refused, and when, can be counted; it leads to nobody",
    "deliveries": "what became of each delivery of a source is accounted for; what it held is gone",
}


def receipt_id_of(lead_id: LeadId) -> str:
    """The receipt of the erasure of whom this lead stands for: an id is erased once."""
    return derived_id("erasure", lead_id)


async def open_receipt(  # noqa: PLR0913  # who is erased, when and why, and what they could be found by
    lead_id: LeadId, at: datetime, wish: Wish, traces: tuple[str, ...], tx: Tx, runtime: Runtime
) -> str | None:
    """Open the receipt of an erasure, once; None if somebody else did. Raises NamesSomebody."""
    texts = {"reason": wish.reason, "requested_by": wish.requested_by, "reference": wish.reference}
    if faults := [
        FieldError(f"/{name}", "names the person") for name, text in texts.items() if text and gives_away(text, traces)
    ]:
        raise NamesSomebody("a receipt is kept after the erasure: leave out the person's name and addresses", faults)
    receipt_id = receipt_id_of(lead_id)
    sealed = _sealed(traces, receipt_id, runtime)
    opened = await queries.open_receipt(tx.connection, receipt_id, lead_id, at, wish, sealed, due=sealed is not None)
    return receipt_id if opened else None


async def reopen_receipt(  # noqa: PLR0913  # whose receipt, of which of their ids, and what they could be found by
    receipt_id: str,
    person_id: LeadId,
    lead_id: LeadId,
    at: datetime,
    traces: tuple[str, ...],
    tx: Tx,
    runtime: Runtime,
) -> None:
    """Have the receipt of an erasure that this database, an older copy, does not know of; nothing if it does.

    Where the copy came back without keys there are no traces: then requests are looked through for the erased ids.
    """
    sealed = _sealed(traces, receipt_id, runtime)
    wish = Wish(actor="kafka")
    await queries.open_receipt(tx.connection, receipt_id, person_id, at, wish, sealed, due=sealed is not None)
    if await queries.cover(tx.connection, [lead_id], receipt_id):
        await queries.make_due(tx.connection, receipt_id)


def _sealed(traces: tuple[str, ...], receipt_id: str, runtime: Runtime) -> str | None:
    return runtime.keys.seal_request({"traces": list(traces)}, receipt_id) if traces else None


async def report(lead_id: LeadId, receipt_id: str, at: datetime, tx: Tx) -> None:
    """Say that an id is part of an erasure, and what capture erases of it, before it does."""
    await queries.cover(tx.connection, [lead_id], receipt_id)
    row = await queries.counts(tx.connection, lead_id)
    event = ErasureReported(
        event_id=EventId(derived_id("erasure-reported", receipt_id, lead_id, "capture")),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        receipt_id=receipt_id,
        service="capture",
        erased={name: row[name] for name in ERASED},
        kept={name: row[name] for name in WHY_KEPT},
        why_kept=WHY_KEPT,
    )
    await queries.save_report(tx.connection, event)
    tx.emit(event)


async def on_reported(event: ErasureReported, tx: Tx) -> None:
    """Keep what a service reported."""
    await queries.save_report(tx.connection, event)


async def look_through_requests(runtime: Runtime) -> timedelta | None:
    """Drop what is kept of deliveries that name somebody erased and could not be mapped, an erasure at a time."""
    async with runtime.database.transaction() as tx:
        erasure = await queries.take_due(tx.connection)
        if erasure is None:
            return None
        kept = runtime.keys.open_request(erasure["traces"], erasure["receipt_id"]) if erasure["traces"] else {}
        traces = [str(trace) for trace in kept.get("traces", [])]  # type: ignore[attr-defined]  # a list, as it was sealed
        erased = (await queries.ids_of(tx.connection, [erasure["receipt_id"]]))[erasure["receipt_id"]]
        dropped = await _drop_requests(tx.connection, traces, frozenset() if traces else frozenset(erased), runtime)
        await queries.done(tx.connection, erasure["receipt_id"], dropped)
    return AT_ONCE


async def _drop_requests(
    connection: Connection, traces: Sequence[str], erased: frozenset[LeadId], runtime: Runtime
) -> int:
    def names(text: str) -> bool:
        return gives_away(text, traces) or bool(erased and not erased.isdisjoint(_ids_in(text, runtime.ids)))

    dropped, after = 0, ("", "")
    while page := await queries.kept_requests(connection, after, PAGE):
        found = [(row["source_id"], row["delivery_id"]) for row in page if names(_text_of(row, runtime))]
        if found:
            await queries.forget_requests(connection, found)
        dropped += len(found)
        after = (page[-1]["source_id"], page[-1]["delivery_id"])
        await asyncio.sleep(0)  # opening a page is work for the processor: others are let through
    return dropped


def _ids_in(text: str, ids: LeadIds) -> set[LeadId]:
    """The ids, of the first generations, that are made from the emails and phones in a text."""
    emails = {parsed for word in EMAIL.findall(text) if (parsed := parse_email(word)) is not None}
    phones = {parsed for word in PHONE.findall(text) if (parsed := parse_phone(word)) is not None}
    return {
        *(ids.of_email(email, generation) for email in emails for generation in range(GENERATIONS)),
        *(ids.of_phone(phone, generation) for phone in phones for generation in range(GENERATIONS)),
    }


def _text_of(row: asyncpg.Record, runtime: Runtime) -> str:
    try:
        request = request_in(row["sealed"], row["source_id"], row["delivery_id"], runtime.keys)
    except SealBroken:
        return ""  # nobody can read it, so it names nobody
    return unquote_plus(f"{request.url} {request.raw_body.decode(errors='replace')}")
