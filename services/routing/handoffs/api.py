"""Hand-offs to customer success over HTTP."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from services.routing.deals.handlers import deal_by_id
from services.routing.deals.inputs import Id
from services.routing.errors import NoSuchDeal
from services.routing.handoffs import handlers, queries
from services.routing.handoffs.domain import Handoff
from services.routing.handoffs.packet import HandoffOut, HandoffWithPacket, handoff_out, with_packet
from services.routing.params import PathId, QueryEmail, QueryId, lead_asked_for
from services.routing.parts import Parts
from services.routing.people.handlers import person
from shared.db import Connection, agreed_now
from shared.ids import DealId, RepId
from shared.web import Endpoints, Input, Limit, Page, Principal, make_cursor, read_cursor, requires

NEWEST = (datetime.max.replace(tzinfo=UTC), "\U0010ffff")
Writer = Annotated[Principal, Depends(requires("routing:write"))]


class NewOwner(Input):
    """Who takes over the customer."""

    rep_id: Id


def router(parts: Parts) -> APIRouter:
    """Everything about hand-offs."""
    routes = Endpoints(prefix="/v1", tags=["handoffs"])
    _add_reading(routes, parts)
    _add_writing(routes, parts)
    return routes


def _add_reading(routes: APIRouter, parts: Parts) -> None:
    runtime = parts.runtime
    reading = [Depends(requires("routing:read"))]

    @routes.get("/handoffs", dependencies=reading)
    async def list_handoffs(  # noqa: PLR0913  # the filters of one list
        lead_id: QueryId = None,
        email: QueryEmail = None,
        owner_id: QueryId = None,
        status: Annotated[Literal["open", "done", "withdrawn"] | None, Query()] = None,
        overdue: Annotated[bool, Query(description="Only those with a task that should be done by now")] = False,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[HandoffOut]:
        """Hand-offs with their tasks, the newest first."""
        place = read_cursor(runtime.secrets, "handoffs", cursor)
        before = (datetime.fromisoformat(place[0]), place[1]) if place else NEWEST
        async with runtime.database.reading() as connection:
            now = await agreed_now(connection, runtime.clock)
            asked = await lead_asked_for(connection, runtime, lead_id, email)
            ids = None if asked is None else (await person(connection, asked)).ids
            found = await queries.listed(connection, before, owner_id, ids, status, now if overdue else None, limit + 1)
            tasks = await queries.tasks_of_deals(connection, [one.deal_id for one in found[:limit]])
        last = found[limit - 1] if len(found) > limit else None
        place = last and [last.opened_at.isoformat(), last.deal_id]
        return Page(
            items=[handoff_out(one, tasks[one.deal_id], now) for one in found[:limit]],
            next_cursor=make_cursor(runtime.secrets, "handoffs", place) if place else None,
        )

    @routes.get("/deals/{deal_id}/handoff", dependencies=reading)
    async def get_handoff(deal_id: PathId) -> HandoffWithPacket:
        """The hand-off of a won deal, with what is missing, what is to be done, and all that is known."""
        async with runtime.database.reading() as connection:
            deal = await deal_by_id(connection, runtime.keys, DealId(deal_id))
            if deal is None:
                raise NoSuchDeal(f"there is no deal {deal_id[:100]}")
            handoff = await queries.handoff_of_deal(connection, deal.deal_id)
            if handoff is None:
                raise handlers.not_handed_off(deal.deal_id)
            shown = await _shown(connection, parts, handoff)
            return await with_packet(connection, parts, shown, handoff, deal)


def _add_writing(routes: APIRouter, parts: Parts) -> None:
    database = parts.runtime.database

    @routes.post("/deals/{deal_id}/handoff/tasks/{task_id}:complete")
    async def complete_task(deal_id: PathId, task_id: PathId, principal: Writer) -> HandoffOut:
        """A task is done; a second time changes nothing."""
        async with database.transaction() as tx:
            handoff = await handlers.complete(tx, parts, DealId(deal_id), task_id, principal.subject)
            return await _shown(tx.connection, parts, handoff)

    @routes.post("/deals/{deal_id}/handoff/tasks/{task_id}:reopen")
    async def reopen_task(deal_id: PathId, task_id: PathId, _principal: Writer) -> HandoffOut:
        """A task is to be done after all."""
        async with database.transaction() as tx:
            handoff = await handlers.undo(tx, parts, DealId(deal_id), task_id)
            return await _shown(tx.connection, parts, handoff)

    @routes.post("/deals/{deal_id}/handoff:assign")
    async def assign_owner(deal_id: PathId, told: NewOwner, principal: Writer) -> HandoffOut:
        """Give the customer to another rep."""
        async with database.transaction() as tx:
            handoff = await handlers.assign(tx, parts, DealId(deal_id), RepId(told.rep_id), principal.subject)
            return await _shown(tx.connection, parts, handoff)


async def _shown(connection: Connection, parts: Parts, handoff: Handoff) -> HandoffOut:
    tasks = await queries.tasks_of_deals(connection, [handoff.deal_id])
    now = await agreed_now(connection, parts.runtime.clock)
    return handoff_out(handoff, tasks[handoff.deal_id], now)
