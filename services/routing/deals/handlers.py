"""What happens to deals, and what is told about it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from services.routing.deals import queries
from services.routing.deals.domain import (
    Deal,
    change_deal,
    conversion_of,
    deal_changed,
    deal_id_of,
    earns_anew,
    open_deal,
)
from services.routing.deals.inputs import DealChange, DealInput
from services.routing.deals.sealing import mark_of, opened, sealed
from services.routing.errors import DealExists, NoSuchDeal
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.people.queries import is_known
from services.routing.reps.queries import teams_of
from shared.db import Connection, Tx
from shared.errors import FieldError, Invalid, Unavailable
from shared.events import DealChanged
from shared.ids import DealId, LeadId
from shared.personal import PersonKeys
from shared.telemetry import counter, log

CLOSED = counter("throughline_routing_deals_closed_total", "Deals that ended: does revenue come in", ["status"])
WAIT_FOR_LEAD = timedelta(seconds=3)
LOOK_EVERY = timedelta(milliseconds=50)


async def await_lead(parts: Parts, lead_id: LeadId) -> None:
    """Until the lead is known here: a caller who just made it may be ahead of Kafka.

    Raises Invalid when there is no such lead, Unavailable when that cannot be said since the feed of leads is behind.
    """
    database = parts.runtime.database
    for _ in range(WAIT_FOR_LEAD // LOOK_EVERY):
        async with database.reading() as connection:
            if await is_known(connection, (await person(connection, lead_id)).ids):
                return
        await asyncio.sleep(LOOK_EVERY.total_seconds())
    async with database.reading() as connection:
        if not await parts.runtime.feeds.fresh(connection, "leads", parts.runtime.settings.fresh_within):
            raise Unavailable("the feed of leads is behind, so that it is not known whether this lead exists", 5)
    raise Invalid("look at /lead_id", [FieldError("/lead_id", "is not the id of a lead")])


async def open_new_deal(tx: Tx, parts: Parts, told: DealInput) -> tuple[Deal, bool]:
    """Open a deal. Answers it and whether it is new; with an external id, the same told again is the same deal.

    Raises DealExists when the external id was told with other values.
    """
    now = parts.runtime.clock.now()
    pipeline = await parts.pipeline.current(tx.connection)
    who = await person(tx.connection, told.lead)
    rep_id = await queries.owner_of(tx.connection, who.ids)
    deal = open_deal(deal_id_of(told), told, pipeline, rep_id, now)
    mark, keys = mark_of(told, parts.runtime.secrets), parts.runtime.keys
    stored = await sealed(tx.connection, keys, deal)
    if await queries.insert_deal(tx.connection, stored, mark):
        tx.emit(deal_changed(stored, pipeline, await teams_of(tx.connection, rep_id), now))
        return deal, True
    known = await deal_by_id(tx.connection, keys, deal.deal_id)
    before = await queries.opened_with(tx.connection, deal.deal_id)
    if known is None or (before is not None and before not in (mark, told.as_json())):
        detail = f"deal {deal.deal_id} has this external id and was opened with other values; change that one"
        raise DealExists(detail, [FieldError("/external_id", "is another deal's")])
    return known, False


async def change(tx: Tx, parts: Parts, deal_id: DealId, told: DealChange) -> Deal:
    """Change a deal; the same change again changes nothing. What a won deal made is told as one conversion."""
    now = parts.runtime.clock.now()
    pipeline = await parts.pipeline.current(tx.connection)
    before = await deal_by_id(tx.connection, parts.runtime.keys, deal_id, locked=True)
    if before is None:
        raise NoSuchDeal(f"there is no deal {deal_id[:100]}")
    after = change_deal(before, told, pipeline, now)
    if after is before:
        return before
    stored = await sealed(tx.connection, parts.runtime.keys, after)
    await queries.update_deal(tx.connection, stored)
    tx.emit(deal_changed(stored, pipeline, await teams_of(tx.connection, after.rep_id), now))
    conversion = conversion_of(after, now)
    if conversion is not None and earns_anew(before, after):
        tx.emit(conversion)
    if before.status != after.status:
        CLOSED.labels(after.status).inc()
    return after


async def deal_by_id(connection: Connection, keys: PersonKeys, deal_id: DealId, *, locked: bool = False) -> Deal | None:
    """A deal, opened."""
    stored = await queries.deal_by_id(connection, deal_id, locked=locked)
    return None if stored is None else (await opened(connection, keys, [stored]))[0]


async def on_deals_changed(events: Sequence[DealChanged], tx: Tx) -> None:
    """Deals that were published, folded back: how a database restored to an earlier copy learns of them."""
    known = await queries.known_revisions(tx.connection, [event.deal_id for event in events])
    for event in sorted(events, key=lambda event: event.revision):
        if known.get(event.deal_id, 0) < event.revision:
            log.warning("deal_recovered", deal_id=event.deal_id)
            await queries.put_deal(tx.connection, _deal(event))


def _deal(event: DealChanged) -> Deal:
    return Deal(
        deal_id=event.deal_id,
        lead_id=event.lead_id,
        revision=event.revision,
        external_id=event.external_id,
        name=event.name,
        status=event.status,
        stage=event.stage,
        probability=event.probability,
        value_minor=event.value_minor,
        currency=event.currency,
        recurring_minor=event.recurring_minor,
        rep_id=event.rep_id,
        pipeline_version=0,
        opened_at=event.opened_at,
        changed_at=event.occurred_at,
        closed_at=event.closed_at,
        reason=event.reason,
        conversion_id=event.conversion_id,
        sealed=event.personal,
    )
