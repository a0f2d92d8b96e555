"""Subscriptions over HTTP. What was delivered is listed at their endpoints: `/v1/webhooks/{endpoint_id}/deliveries`."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.routing.errors import NoSuchEndpoint, NoSuchSubscription, TooManySubscriptions
from services.routing.params import PathId
from services.routing.subscriptions import queries
from services.routing.subscriptions.domain import TYPES, checked_filter
from services.routing.subscriptions.inputs import (
    MOST,
    NewSubscriptionOut,
    ReplayInput,
    SubscriptionChange,
    SubscriptionInput,
    SubscriptionOut,
    TypeOut,
)
from services.routing.webhooks import queries as webhooks
from services.routing.webhooks.api import check_address
from services.routing.webhooks.handlers import add_endpoint
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import new_id
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires

FUTURE = timedelta(minutes=5)


def router(runtime: Runtime) -> APIRouter:
    """Everything about subscriptions. To change them needs `routing:admin`, since they carry facts out."""
    routes = Endpoints(prefix="/v1/subscriptions", tags=["subscriptions"])
    reading = [Depends(requires("routing:read"))]
    may_change = requires("routing:admin")

    @routes.post("", status_code=201, response_model=NewSubscriptionOut)
    async def create_subscription(
        told: SubscriptionInput, request: Request, principal: Annotated[Principal, Depends(may_change)]
    ) -> Response:
        """Have facts told to another system, each once, one lead's in order."""
        checked_filter(told.filter, told.types)
        if told.url is not None:
            check_address(runtime, told.url)

        async def make(tx: Tx) -> Response:
            at = await agreed_now(tx.connection, runtime.clock)
            if told.since is not None and told.since > at + FUTURE:
                raise Invalid("look at /from", [FieldError("/from", "lies in the future")])
            if await queries.number(tx.connection) >= MOST:
                raise TooManySubscriptions(f"there are {MOST} subscriptions; delete one, or give one more types")
            endpoint_id, secret = await _endpoint(runtime, tx, told, at)
            subscription_id = new_id()
            await queries.add(
                tx.connection, subscription_id, endpoint_id, told.model_dump(), told.since or at, principal.subject, at
            )
            out = await _found(tx.connection, subscription_id)
            made = NewSubscriptionOut(**out.model_dump(), secret=secret)
            return Response(made.model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("", dependencies=reading)
    async def list_subscriptions(limit: Limit = 50, cursor: str | None = None) -> Page[SubscriptionOut]:
        """All subscriptions, in the order in which they were made."""
        place = read_cursor(runtime.secrets, "subscriptions", cursor)
        after = (datetime.fromisoformat(place[0]), place[1]) if place else queries.FIRST
        async with runtime.database.reading() as connection:
            rows = await queries.listed(connection, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = last and [last["created_at"].isoformat(), last["subscription_id"]]
        return Page(
            items=[_shown(row) for row in rows[:limit]],
            next_cursor=make_cursor(runtime.secrets, "subscriptions", more) if more else None,
        )

    @routes.get("/types", dependencies=reading)
    async def list_types() -> list[TypeOut]:
        """The kinds of facts there are; docs/events.md tells their fields."""
        return [TypeOut(type=name) for name in TYPES]

    @routes.get("/{subscription_id}", dependencies=reading)
    async def get_subscription(subscription_id: PathId) -> SubscriptionOut:
        """A subscription."""
        async with runtime.database.reading() as connection:
            return await _found(connection, subscription_id)

    @routes.patch("/{subscription_id}", dependencies=[Depends(may_change)])
    async def change_subscription(subscription_id: PathId, told: SubscriptionChange) -> SubscriptionOut:
        """Change what is told, or pause it: what comes meanwhile is told afterwards."""
        changes = told.model_dump(exclude_unset=True)
        async with runtime.database.transaction() as tx:
            known = await _found(tx.connection, subscription_id, locked=True)
            checked_filter(changes.get("filter", known.filter), told.types or known.types)
            at = await agreed_now(tx.connection, runtime.clock)
            kept = {name: value for name, value in changes.items() if value is not None or name == "filter"}
            await queries.change(tx.connection, subscription_id, {**known.model_dump(), **kept}, at)
            return await _found(tx.connection, subscription_id)

    @routes.post("/{subscription_id}:replay", dependencies=[Depends(may_change)])
    async def replay_subscription(subscription_id: PathId, told: ReplayInput) -> SubscriptionOut:
        """Tell everything from a time on; it comes after what waits already."""
        async with runtime.database.transaction() as tx:
            await _found(tx.connection, subscription_id, locked=True)
            at = await agreed_now(tx.connection, runtime.clock)
            if told.since > at:
                raise Invalid("look at /from", [FieldError("/from", "lies in the future")])
            await queries.begin_anew(tx.connection, subscription_id, told.since, at, again=told.again)
            return await _found(tx.connection, subscription_id)

    @routes.delete("/{subscription_id}", status_code=204, dependencies=[Depends(may_change)])
    async def delete_subscription(subscription_id: PathId) -> Response:
        """End a subscription; its endpoint stays, and gets what is on its way."""
        async with runtime.database.transaction() as tx:
            await _found(tx.connection, subscription_id, locked=True)
            await queries.drop(tx.connection, subscription_id)
        return Response(status_code=204)

    return routes


async def _endpoint(runtime: Runtime, tx: Tx, told: SubscriptionInput, at: datetime) -> tuple[str, str | None]:
    """The endpoint that is to be told, and its secret if it is new."""
    if told.endpoint_id is not None:
        if await webhooks.endpoint(tx.connection, told.endpoint_id, locked=True) is None:
            raise NoSuchEndpoint(f"there is no webhook endpoint {told.endpoint_id[:100]}")
        return told.endpoint_id, None
    return await add_endpoint(tx.connection, runtime.keys, told.url or "", told.name, told.secret, at)


async def _found(connection: Connection, subscription_id: str, *, locked: bool = False) -> SubscriptionOut:
    row = await queries.one(connection, subscription_id, locked=locked)
    if row is None:
        raise NoSuchSubscription(f"there is no subscription {subscription_id[:100]}")
    return _shown(row)


def _shown(row: asyncpg.Record) -> SubscriptionOut:
    told: dict[str, Any] = dict(row)
    return SubscriptionOut(**{name: told[name] for name in SubscriptionOut.model_fields})
