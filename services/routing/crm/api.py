"""Connections with CRMs over HTTP. What was delivered is listed at `/v1/webhooks/{connection_id}/deliveries`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.routing.crm import queries
from services.routing.crm.domain import CrmName, RecordKind
from services.routing.crm.handlers import CRMS, label_of
from services.routing.crm.inputs import ConnectionChange, ConnectionInput, ConnectionOut, RecordOut, WaysInput
from services.routing.errors import NoSuchConnection, TooManySubscriptions
from services.routing.params import PathId
from services.routing.subscriptions import queries as subscriptions
from services.routing.subscriptions.domain import checked_filter
from services.routing.subscriptions.inputs import MOST
from services.routing.webhooks import queries as webhooks
from services.routing.webhooks.api import check_address
from shared.db import Connection, Tx, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import new_id
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, Principal, idempotent, make_cursor, read_cursor, requires


def router(runtime: Runtime) -> APIRouter:
    """Everything about CRMs that are told. To change it needs `routing:admin`, since facts about people go out."""
    routes = Endpoints(prefix="/v1/crm-connections", tags=["crm"])
    reading = [Depends(requires("routing:read"))]
    may_change = requires("routing:admin")

    @routes.post("", status_code=201, response_model=ConnectionOut)
    async def create_crm_connection(
        told: ConnectionInput, request: Request, principal: Annotated[Principal, Depends(may_change)]
    ) -> Response:
        """Have assignments, stages and deals written to a CRM, from now on."""
        checked_filter(told.filter)
        base_url = _base_url(runtime, told)

        async def make(tx: Tx) -> Response:
            at = await agreed_now(tx.connection, runtime.clock)
            if await subscriptions.number(tx.connection) >= MOST:
                raise TooManySubscriptions(f"there are {MOST} subscriptions and connections; delete one")
            endpoint_id, subscription_id = new_id(), new_id()
            await webhooks.add_endpoint(tx.connection, endpoint_id, base_url, told.name, at, "crm")
            wanted = {**told.model_dump(), "personal": True}
            await subscriptions.add(tx.connection, subscription_id, endpoint_id, wanted, at, principal.subject, at)
            sealed = runtime.keys.seal_request(told.credentials.plain(), label_of(endpoint_id))
            row = {**told.model_dump(), "base_url": base_url, "ways": _ways(told.crm, told.ways)}
            await queries.add(tx.connection, endpoint_id, subscription_id, row, sealed, principal.subject, at)
            out = await _found(tx.connection, endpoint_id)
            return Response(out.model_dump_json(), 201, media_type="application/json")

        return await idempotent(runtime.database, request, await request.body(), make)

    @routes.get("", dependencies=reading)
    async def list_crm_connections(limit: Limit = 50, cursor: str | None = None) -> Page[ConnectionOut]:
        """All connections with their health, in the order in which they were made."""
        place = read_cursor(runtime.secrets, "crm-connections", cursor)
        after = (datetime.fromisoformat(place[0]), str(place[1])) if place else subscriptions.FIRST
        async with runtime.database.reading() as connection:
            rows = await queries.listed(connection, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = last and [last["created_at"].isoformat(), last["connection_id"]]
        return Page(
            items=[ConnectionOut(**row) for row in rows[:limit]],
            next_cursor=make_cursor(runtime.secrets, "crm-connections", more) if more else None,
        )

    @routes.get("/{connection_id}", dependencies=reading)
    async def get_crm_connection(connection_id: PathId) -> ConnectionOut:
        """A connection and its health; its credentials are never shown."""
        async with runtime.database.reading() as connection:
            return await _found(connection, connection_id)

    @routes.patch("/{connection_id}", dependencies=[Depends(may_change)])
    async def change_crm_connection(connection_id: PathId, told: ConnectionChange) -> ConnectionOut:
        """Change a connection; what was not delivered yet is tried again at once."""
        for name in ("base_url", "auth_url"):
            if (url := getattr(told, name)) is not None:
                check_address(runtime, url, f"/{name}")
        async with runtime.database.transaction() as tx:
            known = await _found(tx.connection, connection_id, locked=True)
            changes = told.model_dump(exclude_unset=True, exclude={"ways", "credentials"})
            row = {**known.model_dump(), **{name: value for name, value in changes.items() if value is not None}}
            if told.ways is not None:
                row["ways"] = _ways(known.crm, told.ways)
            sealed = None
            if told.credentials is not None:
                sealed = runtime.keys.seal_request(told.credentials.plain(), label_of(connection_id))
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.change(tx.connection, connection_id, row, sealed, at)
            await webhooks.change_endpoint(tx.connection, connection_id, row["base_url"], row["name"], at)
            await webhooks.try_now(tx.connection, connection_id, at)
            return await _found(tx.connection, connection_id)

    @routes.delete("/{connection_id}", status_code=204, dependencies=[Depends(may_change)])
    async def delete_crm_connection(connection_id: PathId) -> Response:
        """End a connection, and forget what waits for it; what was written stays in the CRM."""
        async with runtime.database.transaction() as tx:
            known = await _found(tx.connection, connection_id, locked=True)
            await subscriptions.drop(tx.connection, known.subscription_id)
            await queries.drop(tx.connection, connection_id)
            await webhooks.drop_endpoint(tx.connection, connection_id)
        return Response(status_code=204)

    @routes.get("/{connection_id}/records/{kind}/{our_id}", dependencies=reading)
    async def get_crm_record(connection_id: PathId, kind: RecordKind, our_id: PathId) -> RecordOut:
        """Which record of the CRM a lead or a deal is."""
        async with runtime.database.reading() as connection:
            await _found(connection, connection_id)
            row = await queries.record(connection, connection_id, kind, our_id)
        if row is None:
            raise NoSuchConnection(f"no {kind} {our_id[:100]} was written by this connection")
        return RecordOut(**row)

    return routes


def _base_url(runtime: Runtime, told: ConnectionInput) -> str:
    base_url = told.base_url or CRMS[told.crm].base_url
    if base_url is None:
        detail = "is needed: the address of your organization, such as https://acme.my.salesforce.com"
        raise Invalid("look at /base_url", [FieldError("/base_url", detail)])
    check_address(runtime, base_url, "/base_url")
    if told.auth_url is not None:
        check_address(runtime, told.auth_url, "/auth_url")
    return base_url


def _ways(crm: CrmName, told: WaysInput) -> dict[str, Any]:
    """How records are written: what the CRM comes with, changed by what is told."""
    own = CRMS[crm]

    def fields(kind: RecordKind, changes: Mapping[str, str]) -> dict[str, str]:
        return {name: source for name, source in {**own.fields[kind], **changes}.items() if source}

    return {
        "fields": {"lead": fields("lead", told.lead_fields), "deal": fields("deal", told.deal_fields)},
        "ids": {"lead": told.lead_id_field or own.ids["lead"], "deal": told.deal_id_field or own.ids["deal"]},
        "stages": told.stages,
        "deal_stages": told.deal_stages,
        "users": told.users,
        "pipelines": told.pipelines,
        "merged": told.lead_merged_field,
    }


async def _found(connection: Connection, connection_id: str, *, locked: bool = False) -> ConnectionOut:
    row = await queries.one(connection, connection_id, locked=locked)
    if row is None:
        raise NoSuchConnection(f"there is no connection {connection_id[:100]}")
    return ConnectionOut(**row)
