"""What reps are told over HTTP: their wishes, the ledger, and the buttons in Slack."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.routing.errors import NoSlack, NoSuchRep
from services.routing.notifications import queries
from services.routing.notifications.addresses import seal_url
from services.routing.notifications.clicks import on_click
from services.routing.notifications.domain import KINDS, USUAL, Channel, State
from services.routing.notifications.inputs import NotificationOut, WishesInput, WishesOut
from services.routing.notifications.slack import click_in, verify
from services.routing.params import PathId, QueryEmail, QueryId, lead_asked_for
from services.routing.parts import Parts
from services.routing.people.handlers import person
from services.routing.reps.queries import rep_row
from services.routing.settings import RoutingSettings
from shared.db import Connection, agreed_now
from shared.errors import FieldError, Invalid
from shared.ids import RepId
from shared.outbound import AddressRefused, PrivateHosts, check_url, trusted_hosts
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

LAST = 2**62


def router(parts: Parts) -> APIRouter:
    """Everything about telling reps."""
    routes = Endpoints(tags=["notifications"])
    _add_wishes(routes, parts.runtime)
    _add_ledger(routes, parts.runtime)
    _add_slack(routes, parts)
    return routes


def _add_wishes(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v1/reps/{rep_id}/notifications", dependencies=[Depends(requires("routing:read"))])
    async def get_wishes(rep_id: PathId) -> WishesOut:
        """How a rep is told of what."""
        async with runtime.database.reading() as connection:
            return await _wishes(connection, RepId(rep_id))

    @routes.put("/v1/reps/{rep_id}/notifications", dependencies=[Depends(requires("routing:write"))])
    async def put_wishes(rep_id: PathId, told: WishesInput) -> WishesOut:
        """Say how a rep is told of what from now on."""
        if told.slack_webhook_url is not None:
            _check(runtime, told.slack_webhook_url)
        async with runtime.database.transaction() as tx:
            await _wishes(tx.connection, RepId(rep_id))
            endpoint_id = told.webhook_endpoint_id
            if endpoint_id is not None and not await queries.is_endpoint(tx.connection, endpoint_id):
                fault = FieldError(
                    "/webhook_endpoint_id", "is no webhook endpoint; POST /routing/v1/webhooks makes one"
                )
                raise Invalid("look at /webhook_endpoint_id", [fault])
            url = told.slack_webhook_url and seal_url(runtime.keys, rep_id, told.slack_webhook_url)
            values: list[Any] = [dict(told.channels), told.slack_user_id, url, endpoint_id]
            at = await agreed_now(tx.connection, runtime.clock)
            await queries.put_wishes(tx.connection, RepId(rep_id), values, at)
            return await _wishes(tx.connection, RepId(rep_id))


def _add_ledger(routes: APIRouter, runtime: Runtime) -> None:
    @routes.get("/v1/notifications", dependencies=[Depends(requires("routing:read"))])
    async def list_notifications(  # noqa: PLR0913  # the filters of one list
        rep_id: QueryId = None,
        lead_id: QueryId = None,
        email: QueryEmail = None,
        state: State | None = None,
        channel: Channel | None = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[NotificationOut]:
        """What reps were told and by what, the newest first."""
        place = read_cursor(runtime.secrets, "notifications", cursor)
        async with runtime.database.reading() as connection:
            asked = await lead_asked_for(connection, runtime, lead_id, email)
            ids = None if asked is None else (await person(connection, asked)).ids
            before = int(place) if place is not None else LAST
            rows = await queries.listed(connection, before, rep_id, ids, state, channel, limit + 1)
        last = rows[limit - 1]["place"] if len(rows) > limit else None
        return Page(
            items=[NotificationOut(**row) for row in rows[:limit]],
            next_cursor=make_cursor(runtime.secrets, "notifications", last) if last is not None else None,
        )


def _add_slack(routes: APIRouter, parts: Parts) -> None:
    secret = RoutingSettings().slack_signing_secret

    @routes.post("/hooks/slack")
    async def on_slack(request: Request) -> Response:
        """Slack tells that a button was pressed: the interactivity address of the app. Proved by its signature."""
        if secret is None:
            raise NoSlack("THROUGHLINE_ROUTING_SLACK_SIGNING_SECRET is not set, so nothing can be proved")
        body = await request.body()
        async with parts.runtime.database.reading() as connection:
            now = await agreed_now(connection, parts.runtime.clock)
        stamp = request.headers.get("x-slack-request-timestamp", "")
        verify(stamp, request.headers.get("x-slack-signature", ""), body, secret.get_secret_value(), now)
        click = click_in(body)
        if click is not None:
            await on_click(parts, click)
        return Response(status_code=200)


async def _wishes(connection: Connection, rep_id: RepId) -> WishesOut:
    if await rep_row(connection, rep_id) is None:
        raise NoSuchRep(f"there is no rep {rep_id[:100]}")
    row = (await queries.wishes(connection, [rep_id])).get(rep_id)
    said = row["channels"] if row else {}
    return WishesOut(
        rep_id=rep_id,
        channels={kind: said.get(kind, list(USUAL)) for kind in KINDS},
        slack_user_id=row["slack_user_id"] if row else None,
        has_slack_webhook=bool(row and row["slack_url"]),
        webhook_endpoint_id=row["endpoint_id"] if row else None,
    )


def _check(runtime: Runtime, url: str) -> None:
    try:
        check_url(url, PrivateHosts(trusted_hosts(runtime.settings)))
    except AddressRefused as exc:
        raise Invalid("look at /slack_webhook_url", [FieldError("/slack_webhook_url", exc.detail)]) from exc
