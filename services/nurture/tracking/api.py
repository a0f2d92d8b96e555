"""The addresses in messages. No token is needed: the address itself is signed."""

from base64 import b64decode
from html import escape
from urllib.parse import parse_qs

from crawleruseragents import is_crawler
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from services.nurture.errors import NoSuchLink, NotOneClick
from services.nurture.parts import Parts
from services.nurture.tracking import handlers
from services.nurture.tracking.domain import Asked, Habits
from services.nurture.tracking.links import LinkKind, Place
from services.nurture.tracking.scanners import Scanners
from shared.errors import Unavailable
from shared.web import Endpoints, address_of

PIXEL = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
ONE_CLICK = "List-Unsubscribe"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:15vh auto;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1.2rem}}</style></head>
<body><main><h1>{title}</h1>{body}</main></body></html>
"""
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'"
}
_BUTTON = (
    f'<p>You will get no more of these messages.</p><form method="post">'
    f'<input type="hidden" name="{ONE_CLICK}" value="One-Click"><button>Unsubscribe</button></form>'
)


def tracking_router(parts: Parts) -> APIRouter:
    """Open, click and unsubscribe."""
    router = Endpoints(tags=["tracking"])
    links = parts.links
    settings = parts.settings
    habits = Habits(
        settings.scanner_window, settings.scan_span, settings.trap_reach, Scanners(settings.scanner_networks)
    )
    is_crawler("")  # compiles its patterns now, not while the first person waits

    def place_of(kind: LinkKind, token: str) -> Place:
        place = links.read(kind, token)
        if place is None:
            raise NoSuchLink("this address was not made here, or not for this")
        return place

    def asked_by(request: Request) -> Asked:
        return Asked(request.method, request.headers.get("user-agent"), address_of(request, settings.proxies))

    async def follow(place: Place, asked: Asked) -> Response:
        async with parts.runtime.database.transaction() as tx:
            target = await handlers.record_click(tx, parts, place, asked, habits)
        if target is None:
            raise NoSuchLink("there is no such link any more")
        return RedirectResponse(target, status_code=302)

    @router.get(
        "/o/{token}",
        response_class=Response,
        responses={200: {"content": {"image/gif": {}}}},
        summary="The open pixel",
    )
    @router.head("/o/{token}", include_in_schema=False)
    async def opened(request: Request, token: str) -> Response:
        place = links.read("o", token)
        if place is not None:
            try:
                async with parts.runtime.database.transaction() as tx:
                    await handlers.record_open(tx, parts, place, asked_by(request), habits)
            except Unavailable:
                pass  # a picture that does not load is worse than an open that is not counted
        return Response(PIXEL, media_type="image/gif")

    @router.get("/c/{token}", status_code=302, response_class=RedirectResponse)
    @router.head("/c/{token}", include_in_schema=False)
    async def clicked(request: Request, token: str) -> Response:
        """To where the link of the message leads; the click is told as a touch."""
        return await follow(place_of("c", token), asked_by(request))

    @router.get("/s/{token}", status_code=302, response_class=RedirectResponse)
    @router.head("/s/{token}", include_in_schema=False)
    async def clicked_in_a_text(request: Request, token: str) -> Response:
        """The same for a link in an SMS or a WhatsApp message."""
        async with parts.runtime.database.reading() as connection:
            place = await handlers.short_place(connection, links, token)
        if place is None:
            raise NoSuchLink("this address was not made here")
        return await follow(place, asked_by(request))

    @router.get("/h/{token}", status_code=204, response_class=Response, summary="The link that nobody sees")
    @router.head("/h/{token}", include_in_schema=False)
    async def trapped(request: Request, token: str) -> Response:
        """Who follows it goes through every address of the message: earlier opens and clicks are a machine's."""
        place = place_of("h", token)
        async with parts.runtime.database.transaction() as tx:
            if not await handlers.record_trap(tx, parts, place, asked_by(request), habits):
                raise NoSuchLink("there is no such message")
        return Response(status_code=204)

    @router.get("/u/{token}", response_class=HTMLResponse)
    async def ask(token: str) -> Response:
        """A page with a button, and nothing more: mail scanners open every address."""
        place_of("u", token)
        return _page("Unsubscribe", _BUTTON)

    @router.post("/u/{token}", response_class=HTMLResponse)
    async def unsubscribe(request: Request, token: str) -> Response:
        """Unsubscribe (RFC 8058): by the button, or by the mail program. As often as wanted."""
        place = place_of("u", token)
        if await _one_click(request) != "One-Click":
            raise NotOneClick(f"send the form field {ONE_CLICK}=One-Click")
        async with parts.runtime.database.transaction() as tx:
            if not await handlers.unsubscribe(tx, parts, place):
                raise NoSuchLink("there is no such message")
        return _page("You are unsubscribed", "<p>You will get no more of these messages.</p>")

    return router


async def _one_click(request: Request) -> str | None:
    """The one field of the form, urlencoded or multipart."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=10) as form:
            value = form.get(ONE_CLICK)
            return value if isinstance(value, str) else None
    try:
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    except ValueError:  # more fields than anybody needs to say one thing
        return None
    return next(iter(fields.get(ONE_CLICK, ())), None)


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), headers=_POLICY)
