"""A broadcast is written, started, stopped, continued, cancelled: load, decide, save."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from services.nurture.broadcasts import queries
from services.nurture.broadcasts.document import BroadcastDocument, check, in_broadcast
from services.nurture.broadcasts.domain import CANCELLED, STOPPED, Action, new_broadcast_id, next_state
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.errors import NoSuchBroadcast
from services.nurture.parts import Parts
from services.nurture.sequences.catalogue import BROADCASTS
from services.nurture.sequences.named import segments_in
from services.nurture.sequences.written import faults_outside, missing_segments
from shared.db import Connection, Tx
from shared.errors import FieldError
from shared.events import LeadErased
from shared.ids import LeadId
from shared.rules import InvalidDocument


async def create(tx: Tx, document: BroadcastDocument, author: str) -> Broadcast:
    """Keep a draft of what was tried."""
    return await queries.add(tx.connection, new_broadcast_id(), document, author)


async def found(connection: Connection, broadcast_id: str) -> Broadcast:
    """A broadcast. Raises NoSuchBroadcast."""
    broadcast = await queries.broadcast_of(connection, broadcast_id)
    if broadcast is None:
        raise NoSuchBroadcast(f"there is no broadcast {broadcast_id[:100]}")
    return broadcast


async def _locked(tx: Tx, broadcast_id: str, action: Action) -> Broadcast:
    """The broadcast, ours alone, if the action suits its state. Raises NoSuchBroadcast, WrongBroadcastState."""
    broadcast = await queries.broadcast_of(tx.connection, broadcast_id, lock=True)
    if broadcast is None:
        raise NoSuchBroadcast(f"there is no broadcast {broadcast_id[:100]}")
    next_state(broadcast.state, action)
    return broadcast


async def change(tx: Tx, broadcast_id: str, document: BroadcastDocument) -> Broadcast:
    """Replace what a draft says by what was tried."""
    broadcast = await _locked(tx, broadcast_id, "change")
    return await queries.change(tx.connection, broadcast.broadcast_id, document)


async def start(tx: Tx, broadcast_id: str, author: str, send_at: datetime | None) -> Broadcast:
    """From now on, or from then, carry it out: what it says is fixed, as the only version of its sequence."""
    broadcast = await _locked(tx, broadcast_id, "start")
    check(broadcast.document)
    sequence = broadcast.document.as_sequence().as_json()
    saved = await BROADCASTS.save(tx.connection, sequence, author, broadcast.broadcast_id)
    return await queries.start(tx.connection, broadcast.broadcast_id, saved.version, send_at)


async def stop(tx: Tx, broadcast_id: str) -> Broadcast:
    """Let nothing leave from now on that is not leaving already."""
    broadcast = await _locked(tx, broadcast_id, "stop")
    if broadcast.state == "stopped":
        return broadcast
    return await queries.set_state(tx.connection, broadcast.broadcast_id, "stopped", STOPPED)


async def go_on(tx: Tx, broadcast_id: str) -> Broadcast:
    """Go on where it stopped."""
    broadcast = await _locked(tx, broadcast_id, "continue")
    return broadcast if broadcast.state == "running" else await queries.go_on(tx.connection, broadcast.broadcast_id)


async def cancel(tx: Tx, broadcast_id: str) -> Broadcast:
    """End it for good: whoever has not got it does not."""
    broadcast = await _locked(tx, broadcast_id, "cancel")
    if broadcast.state == "cancelled":
        return broadcast
    cancelled = await queries.set_state(tx.connection, broadcast.broadcast_id, "cancelled", CANCELLED)
    await queries.hurry(tx.connection, broadcast.broadcast_id)
    return cancelled


async def warnings_about(connection: Connection, document: BroadcastDocument) -> list[FieldError]:
    """What may be a mistake in a broadcast that is kept all the same."""
    where, segment = document.audience.where, document.audience.segment
    named = [("/audience/where", one) for one in (segments_in(where) if where is not None else [])]
    named += [("/audience/segment", segment)] if segment is not None else []
    return await missing_segments(connection, named)


async def tried(parts: Parts, document: BroadcastDocument) -> None:
    """Refuse what makes no sense, by itself or with the templates there are. Raises InvalidDocument.

    In no transaction: reading a template may take longer than one may stand still.
    """
    check(document)
    async with parts.runtime.database.reading() as connection:
        faults = await faults_outside(connection, parts, document.as_sequence())
    if faults:
        told = [replace(fault, pointer=in_broadcast(fault.pointer)) for fault in faults]
        raise InvalidDocument(f"the broadcast has {len(told)} faults", errors=told)


async def on_erased(event: LeadErased, tx: Tx) -> None:
    """An erased person is on no list."""
    lead_ids: Sequence[LeadId] = [event.lead_id]
    await queries.forget(tx.connection, lead_ids)
