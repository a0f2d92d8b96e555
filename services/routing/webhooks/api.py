"""Endpoints and their deliveries over HTTP."""

from datetime import UTC, datetime
from secrets import token_bytes
from typing import Annotated

import asyncpg
import orjson
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from services.routing.errors import EndpointInUse, LastSecret, NoSuchDelivery, NoSuchEndpoint, TwoSecretsLive
from services.routing.params import PathId
from services.routing.subscriptions import queries as subscriptions
from services.routing.webhooks import queries
from services.routing.webhooks.domain import EndpointState, Outgoing
from services.routing.webhooks.handlers import add_endpoint, enqueue, seal_secret
from services.routing.webhooks.inputs import (
    DeliveryOut,
    EndpointChange,
    EndpointInput,
    EndpointOut,
    NewEndpointOut,
    NewSecretOut,
    SecretInput,
    SecretOut,
    ShownDelivery,
    SuspendInput,
    TryOut,
)
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import new_id
from shared.outbound import AddressRefused, PrivateHosts, check_url, trusted_hosts
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, idempotent, make_cursor, read_cursor, requires
from shared.webhooks import DeliveryState, envelope, secret_of

FIRST = (datetime.min.replace(tzinfo=UTC), "")
LAST = 2**62
MOST_LIVE = 2
TEST_KIND = "throughline.webhook.tested"
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


def router(runtime: Runtime) -> APIRouter:
    """Everything about webhooks to other systems. To see and change them needs `routing:admin`, but for reading."""
    routes = Endpoints(prefix="/v1/webhooks", tags=["webhooks"])
    _add_endpoints(routes, runtime)
    _add_states(routes, runtime)
    _add_secrets(routes, runtime)
    _add_deliveries(routes, runtime)
    return routes


def _add_endpoints(routes: APIRouter, runtime: Runtime) -> None:
    reading, writing = [Depends(requires("routing:read"))], [Depends(requires("routing:admin"))]

    @routes.post("", status_code=201, response_model=NewEndpointOut, dependencies=writing)
    async def create_webhook(told: EndpointInput, request: Request) -> Response:
        """A new endpoint. Its secret is shown this once."""
        check_address(runtime, told.url)

        async def make(tx: Tx) -> Response:
            at = await agreed_now(tx.connection, runtime.clock)
            endpoint_id, secret = await add_endpoint(
                tx.connection, runtime.keys, told.url, told.description, told.secret, at
            )
            out = await _endpoint(tx.connection, endpoint_id)
            return _answer(NewEndpointOut(**out.model_dump(), secret=secret), 201)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("", dependencies=reading)
    async def list_webhooks(limit: Limit = 50, cursor: str | None = None) -> Page[EndpointOut]:
        """All endpoints with their health, the oldest first."""
        place = read_cursor(runtime.secrets, "webhooks", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else FIRST
        async with runtime.database.reading() as connection:
            rows = await queries.endpoints(connection, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        place = last and [last["created_at"].isoformat(), last["endpoint_id"]]
        return Page(
            items=[EndpointOut(**row) for row in rows[:limit]],
            next_cursor=make_cursor(runtime.secrets, "webhooks", place) if place else None,
        )

    @routes.get("/{endpoint_id}", dependencies=reading)
    async def get_webhook(endpoint_id: PathId) -> EndpointOut:
        """An endpoint and its health."""
        async with runtime.database.reading() as connection:
            return await _endpoint(connection, endpoint_id)

    @routes.patch("/{endpoint_id}", dependencies=writing)
    async def change_webhook(endpoint_id: PathId, told: EndpointChange) -> EndpointOut:
        """Change the address or the description; what waits goes to the new address."""
        if told.url is not None:
            check_address(runtime, told.url)
        async with runtime.database.transaction() as tx:
            endpoint = await _endpoint(tx.connection, endpoint_id, locked=True)
            if endpoint.kind != "webhook":
                raise EndpointInUse(f"it belongs to a connection: PATCH /routing/v1/crm-connections/{endpoint_id}")
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.change_endpoint(tx.connection, endpoint_id, told.url, told.description, at)
            return await _endpoint(tx.connection, endpoint_id)

    @routes.delete("/{endpoint_id}", status_code=204, dependencies=writing)
    async def delete_webhook(endpoint_id: PathId) -> Response:
        """Forget an endpoint, and what waits for it."""
        async with runtime.database.transaction() as tx:
            await _endpoint(tx.connection, endpoint_id, locked=True)
            if used := await subscriptions.of_endpoint(tx.connection, endpoint_id):
                raise EndpointInUse(f"delete its subscriptions first: {', '.join(used)}")
            await queries.drop_endpoint(tx.connection, endpoint_id)
        return Response(status_code=204)


def _add_states(routes: APIRouter, runtime: Runtime) -> None:
    writing = [Depends(requires("routing:admin"))]

    async def changed(endpoint_id: str, state: EndpointState, reason: str | None) -> EndpointOut:
        async with runtime.database.transaction() as tx:
            await _endpoint(tx.connection, endpoint_id, locked=True)
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.set_state(tx.connection, endpoint_id, state, reason, at)
            return await _endpoint(tx.connection, endpoint_id)

    @routes.post("/{endpoint_id}:suspend", dependencies=writing)
    async def suspend_webhook(endpoint_id: PathId, told: SuspendInput) -> EndpointOut:
        """Send nothing for now; what comes is kept for seven days."""
        return await changed(endpoint_id, "suspended", f"by hand: {told.reason}")

    @routes.post("/{endpoint_id}:resume", dependencies=writing)
    async def resume_webhook(endpoint_id: PathId) -> EndpointOut:
        """Send again, what was kept first."""
        return await changed(endpoint_id, "active", None)

    @routes.post("/{endpoint_id}:test", status_code=202, response_model=DeliveryOut, dependencies=writing)
    async def send_test(endpoint_id: PathId, request: Request) -> Response:
        """Send something harmless, to see whether it arrives and its signature is right."""

        async def make(tx: Tx) -> Response:
            await _endpoint(tx.connection, endpoint_id)
            at, delivery_id = await agreed_now(tx.connection, runtime.clock), new_id()
            body = envelope(TEST_KIND, at, {"endpoint_id": endpoint_id})
            await enqueue(tx.connection, runtime.keys, [Outgoing(delivery_id, endpoint_id, TEST_KIND, body)], at)
            return _answer(DeliveryOut(**await _delivery(tx.connection, endpoint_id, delivery_id)), 202)

        return await idempotent(runtime.database, request, await request.body(), make)


def _add_secrets(routes: APIRouter, runtime: Runtime) -> None:
    writing = [Depends(requires("routing:admin"))]

    @routes.post("/{endpoint_id}/secrets", status_code=201, response_model=NewSecretOut, dependencies=writing)
    async def add_webhook_secret(endpoint_id: PathId, request: Request, told: SecretInput | None = None) -> Response:
        """A secret beside the one in use: from now on both sign. Retire the old one when the receiver has the new."""

        async def make(tx: Tx) -> Response:
            endpoint = await _endpoint(tx.connection, endpoint_id, locked=True)
            if len(endpoint.secrets) >= MOST_LIVE:
                raise TwoSecretsLive("retire one of the two live secrets first")
            secret = told.secret if told and told.secret else secret_of(token_bytes(32))
            sealed = seal_secret(runtime.keys, endpoint_id, secret)
            at = await agreed_now(tx.connection, runtime.clock)
            added = await queries.add_secret(tx.connection, endpoint_id, sealed, at)
            return _answer(NewSecretOut(**SecretOut(**added).model_dump(), secret=secret), 201)

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.delete("/{endpoint_id}/secrets/{n}", status_code=204, dependencies=writing)
    async def retire_webhook_secret(endpoint_id: PathId, n: Number) -> Response:
        """Retire a secret: it signs nothing any more. The last one cannot be retired."""
        async with runtime.database.transaction() as tx:
            endpoint = await _endpoint(tx.connection, endpoint_id, locked=True)
            if [secret.n for secret in endpoint.secrets] == [n]:
                raise LastSecret("add the next secret before retiring the last one")
            if not await queries.drop_secret(tx.connection, endpoint_id, n):
                raise NoSuchEndpoint(f"the endpoint has no live secret {n}")
        return Response(status_code=204)


def _add_deliveries(routes: APIRouter, runtime: Runtime) -> None:
    reading = [Depends(requires("routing:read"))]

    @routes.get("/{endpoint_id}/deliveries", dependencies=reading)
    async def list_webhook_deliveries(
        endpoint_id: PathId,
        state: DeliveryState | None = None,
        ordering_key: Annotated[str | None, Query(max_length=200, description="For instance a lead's id")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[DeliveryOut]:
        """What was and is to be delivered, the newest first; what was settled stays for seven days."""
        place = read_cursor(runtime.secrets, "webhook-deliveries", cursor)
        async with runtime.database.reading() as connection:
            await _endpoint(connection, endpoint_id)
            before = int(place) if place is not None else LAST
            rows = await queries.deliveries(connection, endpoint_id, before, state, ordering_key, limit + 1)
        last = rows[limit - 1]["place"] if len(rows) > limit else None
        return Page(
            items=[DeliveryOut(**row) for row in rows[:limit]],
            next_cursor=make_cursor(runtime.secrets, "webhook-deliveries", last) if last is not None else None,
        )

    @routes.get("/{endpoint_id}/deliveries/{delivery_id}", dependencies=[Depends(requires("routing:admin"))])
    async def get_webhook_delivery(endpoint_id: PathId, delivery_id: PathId) -> ShownDelivery:
        """A delivery with its body and each try."""
        async with runtime.database.reading() as connection:
            row = await _delivery(connection, endpoint_id, delivery_id)
            body = row["body"]
            if row["sealed_for"] is not None:
                (body,) = await runtime.keys.open_many(connection, [(row["sealed_for"], row["sealed"])])
            tries = await queries.tries(connection, endpoint_id, delivery_id)
        shown = orjson.loads(body) if body is not None else None
        return ShownDelivery(**DeliveryOut(**row).model_dump(), body=shown, tries=[TryOut(**one) for one in tries])

    @routes.post("/{endpoint_id}/deliveries/{delivery_id}:retry", dependencies=[Depends(requires("routing:admin"))])
    async def retry_webhook_delivery(endpoint_id: PathId, delivery_id: PathId) -> DeliveryOut:
        """Deliver anew from the first try, also what was delivered already; under the same id."""
        async with runtime.database.transaction() as tx:
            await _delivery(tx.connection, endpoint_id, delivery_id)
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.again(tx.connection, endpoint_id, delivery_id, at)
            return DeliveryOut(**await _delivery(tx.connection, endpoint_id, delivery_id))


def check_address(runtime: Runtime, url: str, pointer: str = "/url") -> None:
    """Refuse an address that would not be called. Raises Invalid."""
    private = PrivateHosts(trusted_hosts(runtime.settings))
    try:
        parsed = check_url(url, private)
    except AddressRefused as exc:
        raise Invalid(f"look at {pointer}", [FieldError(pointer, exc.detail)]) from exc
    if parsed.scheme != "https" and not private.named(parsed.host):
        raise Invalid(
            f"look at {pointer}", [FieldError(pointer, "begins with https://, but for hosts of your own network")]
        )


async def _endpoint(connection: Connection, endpoint_id: str, *, locked: bool = False) -> EndpointOut:
    row = await queries.endpoint(connection, endpoint_id, locked=locked)
    if row is None:
        raise NoSuchEndpoint(f"there is no webhook endpoint {endpoint_id[:100]}")
    return EndpointOut(**row)


async def _delivery(connection: Connection, endpoint_id: str, delivery_id: str) -> asyncpg.Record:
    row = await queries.delivery(connection, endpoint_id, delivery_id)
    if row is None:
        raise NoSuchDelivery(f"the endpoint has no delivery {delivery_id[:100]}; they are kept for seven days")
    return row


def _answer(out: BaseModel, status: int) -> Response:
    return Response(out.model_dump_json(), status, media_type="application/json")
