"""What happens when money, or the story of a deal, arrives."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from services.attribution.conversions import queries
from services.attribution.conversions.queries import Placed
from services.attribution.credits.crediting import recredit, uncredit
from services.attribution.journeys.queries import lock_leads, mark_converting
from services.attribution.models.catalogue import Catalogue
from shared.db import Connection, Tx
from shared.events import ConversionRecorded, DealChanged, RefundRecorded

E = TypeVar("E", ConversionRecorded, RefundRecorded, DealChanged)


async def on_conversions(events: Sequence[ConversionRecorded], tx: Tx, catalogue: Catalogue) -> None:
    """Store conversions and credit the touches that led to them; take back the credit of those that are withdrawn."""
    newest = _newest(events, lambda event: event.conversion_id, lambda event: (event.position, event.received_at))
    changed = await queries.put_conversions(tx.connection, newest)
    await queries.keep_conversions(tx.connection, events)
    before = {one.lead_id for one in changed}  # who held a conversion that is taken back may be somebody else
    await lock_leads(tx.connection, before | {event.lead_id for event in events})
    await mark_converting(tx.connection, [event.lead_id for event in events])
    await uncredit(tx.connection, [event.conversion_id for event in newest if event.withdrawn])
    await _recredit(tx.connection, catalogue, changed)


async def on_refunds(events: Sequence[RefundRecorded], tx: Tx, catalogue: Catalogue) -> None:
    """Lower the value of conversions; a refund may come first."""
    newest = _newest(
        events,
        lambda event: (event.conversion_id, event.refund_id),
        lambda event: (event.position, event.received_at),
    )
    known = await queries.lock_conversions(tx.connection, [event.conversion_id for event in newest])
    await queries.put_refunds(tx.connection, newest)
    await queries.keep_refunds(tx.connection, events)
    await _recredit(tx.connection, catalogue, known)


async def on_deals(events: Sequence[DealChanged], tx: Tx, catalogue: Catalogue) -> None:
    """Store when deals were created, a milestone on the paths to what they were won with, and whose they are."""
    newest = _newest(events, lambda event: event.deal_id, lambda event: (event.revision,))
    await lock_leads(tx.connection, {event.lead_id for event in events})
    changed = await queries.put_deals(tx.connection, newest)
    if changed:
        await _recredit(tx.connection, catalogue, await queries.conversions_of_deals(tx.connection, changed))


async def _recredit(connection: Connection, catalogue: Catalogue, placed: Sequence[Placed]) -> None:
    """Credit these conversions anew, and no others of the same persons."""
    if placed:
        ids = {one.conversion_id for one in placed}
        facts = [(one.lead_id, one.occurred_at) for one in placed]
        await recredit(connection, catalogue, facts, lambda conversion, _window: conversion.conversion_id in ids)


def _newest(events: Sequence[E], name: Callable[[E], Hashable], place: Callable[[E], tuple[object, ...]]) -> list[E]:
    """Of each name the fact that counts, in order of the names, which is the order of locking."""
    newest: dict[Hashable, E] = {}
    for event in sorted(events, key=lambda event: (name(event), place(event))):
        newest[name(event)] = event
    return list(newest.values())
