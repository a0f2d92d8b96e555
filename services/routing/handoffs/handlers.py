"""What happens when a deal is won: the customer is handed over; and when it is reopened, that is taken back."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.routing.deals.domain import Deal
from services.routing.deals.handlers import deal_by_id, lead_values
from services.routing.deals.queries import deal_by_id as stored_deal
from services.routing.errors import NoSuchHandoff
from services.routing.fairness.queries import lock_dispatcher
from services.routing.handoffs import queries
from services.routing.handoffs.domain import Handoff, Owner, Task, handed_off, handoff_of, owned, task_changed, tasks_of
from services.routing.handoffs.owners import owner_for
from services.routing.parts import Parts
from services.routing.reps.queries import unknown_reps
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.events import HandoffTaskChanged, LeadHandedOff
from shared.ids import DealId, RepId
from shared.telemetry import log

AT_ONCE = 50


async def prepare(tx: Tx, parts: Parts, deal_id: DealId) -> None:
    """Before a deal is won: where a queue decides who takes over, its turn is waited for before the deal is locked.

    Whoever erases a person holds the turn first, the deal after it; the other way round they would wait for each other.
    """
    deal = await stored_deal(tx.connection, deal_id)
    if deal is None or deal.status != "open":
        return
    shape = (await parts.pipelines.of_deal(tx.connection, deal.pipeline_id)).handoff
    if shape is not None and shape.owner is not None and shape.owner.queue is not None:
        await lock_dispatcher(tx.connection)


async def follow(tx: Tx, parts: Parts, before: Deal, after: Deal) -> None:
    """What a change of a deal means for customer success."""
    if before.status != "won" and after.status == "won":
        await _hand_off(tx, parts, after)
    elif before.status == "won" and after.status != "won":
        await _withdraw(tx, parts, after)
    elif after.status == "won" and before.closed_at != after.closed_at:
        await _move(tx, parts, after)


async def complete(tx: Tx, parts: Parts, deal_id: DealId, task_id: str, by: str) -> Handoff:
    """A task is done; one that was done stays as it was. Raises NoSuchHandoff."""
    at = await agreed_now(tx.connection, parts.runtime.clock)
    return await _change_task(tx, parts, deal_id, task_id, at, by)


async def undo(tx: Tx, parts: Parts, deal_id: DealId, task_id: str) -> Handoff:
    """A task is to be done after all. Raises NoSuchHandoff."""
    return await _change_task(tx, parts, deal_id, task_id, None, None)


async def _change_task(  # noqa: PLR0913  # what is told of a task
    tx: Tx, parts: Parts, deal_id: DealId, task_id: str, at: datetime | None, by: str | None
) -> Handoff:
    handoff = await locked_handoff(tx.connection, deal_id)
    revision = await queries.change_task(tx.connection, deal_id, task_id, at, by)
    if revision is None:
        raise _no_such_task(task_id)
    if revision:
        tx.emit(task_changed(handoff, task_id, revision, at, await agreed_now(tx.connection, parts.runtime.clock)))
    return handoff


async def assign(tx: Tx, parts: Parts, deal_id: DealId, rep_id: RepId, by: str) -> Handoff:
    """Somebody else has the customer. Raises NoSuchHandoff, Invalid."""
    handoff = await locked_handoff(tx.connection, deal_id)
    if await unknown_reps(tx.connection, [rep_id]):
        raise Invalid("look at /rep_id", [FieldError("/rep_id", "is not the id of a rep")])
    if handoff.owner_id == rep_id:
        return handoff
    return await _save(tx, parts, owned(handoff, Owner(rep_id, f"given by {by}")))


async def find_owners(parts: Parts) -> datetime | None:
    """Try again to find somebody for hand-offs without an owner; answers when the next is due."""
    async with parts.runtime.database.reading() as connection:
        now = await agreed_now(connection, parts.runtime.clock)
        due = await queries.next_retry(connection)
    if due is None or due > now:
        return due
    async with parts.runtime.database.transaction() as tx:
        await lock_dispatcher(tx.connection)
        for handoff in await queries.without_owner(tx.connection, now, AT_ONCE):
            await _find_owner(tx, parts, handoff)
    return now


async def locked_handoff(connection: Connection, deal_id: DealId) -> Handoff:
    """A hand-off, locked. Raises NoSuchHandoff."""
    handoff = await queries.handoff_of_deal(connection, deal_id, locked=True)
    if handoff is None:
        raise not_handed_off(deal_id)
    return handoff


def not_handed_off(deal_id: DealId) -> NoSuchHandoff:
    """The deal was not won, or its pipeline hands nobody over."""
    return NoSuchHandoff(f"deal {deal_id[:100]} was not handed to customer success")


async def on_handed_off(events: Sequence[LeadHandedOff], tx: Tx, *, parts: Parts) -> None:
    """What was published, folded back: a database restored to an earlier copy learns whom it had handed over."""
    for event in events:
        deal = await stored_deal(tx.connection, event.deal_id)
        pipeline = await parts.pipelines.of_deal(tx.connection, deal.pipeline_id if deal is not None else "default")
        handoff = Handoff(
            deal_id=event.deal_id,
            lead_id=event.lead_id,
            revision=event.revision,
            pipeline_id=pipeline.pipeline_id,
            required=tuple(pipeline.handoff.required) if pipeline.handoff is not None else (),
            owner_id=event.owner_id,
            owner_why="as it was told",
            queue=event.queue,
            strategy=None,
            won_at=event.won_at,
            opened_at=event.occurred_at,
            withdrawn_at=event.occurred_at if event.withdrawn else None,
            first_won_at=event.first_won_at,
        )
        if await queries.put_handoff(tx.connection, handoff):
            log.warning("handoff_recovered", deal_id=event.deal_id)
            if pipeline.handoff is not None:
                await queries.put_tasks(tx.connection, event.deal_id, tasks_of(pipeline.handoff, event.won_at))


async def on_tasks_changed(events: Sequence[HandoffTaskChanged], tx: Tx) -> None:
    """The same of tasks."""
    await queries.tasks_told(tx.connection, events)


async def _hand_off(tx: Tx, parts: Parts, deal: Deal) -> None:
    shape = (await parts.pipelines.of_deal(tx.connection, deal.pipeline_id)).handoff
    if shape is None:
        return
    now = await agreed_now(tx.connection, parts.runtime.clock)
    known = await queries.handoff_of_deal(tx.connection, deal.deal_id, locked=True)
    owner = await owner_for(tx, parts, deal, shape.owner)
    handoff = handoff_of(deal, shape, owner, known.revision + 1 if known is not None else 1, now)
    await queries.put_tasks(tx.connection, deal.deal_id, tasks_of(shape, handoff.won_at))
    await _save(tx, parts, handoff, deal)


async def _withdraw(tx: Tx, parts: Parts, deal: Deal) -> None:
    known = await queries.handoff_of_deal(tx.connection, deal.deal_id, locked=True)
    if known is not None and known.withdrawn_at is None:
        now = await agreed_now(tx.connection, parts.runtime.clock)
        await _save(tx, parts, replace(known, revision=known.revision + 1, withdrawn_at=now, retry_at=None), deal)


async def _move(tx: Tx, parts: Parts, deal: Deal) -> None:
    """The deal was won at another time than was told: what is to be done is due as long after that."""
    known = await queries.handoff_of_deal(tx.connection, deal.deal_id, locked=True)
    if known is not None and known.withdrawn_at is None and deal.closed_at is not None:
        await queries.move_tasks(tx.connection, deal.deal_id, deal.closed_at - known.won_at)
        first = known.first_won_at or known.won_at
        moved = replace(known, revision=known.revision + 1, won_at=deal.closed_at, first_won_at=first)
        await _save(tx, parts, moved, deal)


async def _find_owner(tx: Tx, parts: Parts, handoff: Handoff) -> None:
    deal = await deal_by_id(tx.connection, parts.runtime.keys, handoff.deal_id)
    assert deal is not None  # deals are never deleted
    shape = (await parts.pipelines.of_deal(tx.connection, deal.pipeline_id)).handoff
    owner = await owner_for(tx, parts, deal, shape.owner if shape is not None else None)
    if owner.rep_id is None:
        at = await agreed_now(tx.connection, parts.runtime.clock)
        again = at + _longer(handoff, at)
        waiting = replace(owned(handoff, replace(owner, retry_at=again)), revision=handoff.revision)
        await queries.keep_waiting(tx.connection, waiting)
        return
    await _save(tx, parts, owned(handoff, owner), deal)


def _longer(handoff: Handoff, now: datetime) -> timedelta:
    """The longer it waits, the longer until the next try, up to an hour."""
    return min(max((now - handoff.opened_at) / 4, timedelta(minutes=1)), timedelta(hours=1))


async def _save(tx: Tx, parts: Parts, handoff: Handoff, deal: Deal | None = None) -> Handoff:
    deal = deal or await deal_by_id(tx.connection, parts.runtime.keys, handoff.deal_id)
    assert deal is not None
    await queries.put_handoff(tx.connection, handoff)
    tasks: Sequence[Task] = (await queries.tasks_of_deals(tx.connection, [handoff.deal_id]))[handoff.deal_id]
    gaps = handoff.gaps(deal, await lead_values(tx.connection, parts, deal))
    tx.emit(handed_off(handoff, gaps, tasks, await agreed_now(tx.connection, parts.runtime.clock)))
    return handoff


def _no_such_task(task_id: str) -> NoSuchHandoff:
    return NoSuchHandoff(f"the hand-off has no task {task_id[:100]}")
