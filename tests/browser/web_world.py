"""What the tests in a browser tell stories with: Throughline at one origin, a company's site at another."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page

from deploy.embedded.ports import free_port
from services.capture.facts.domain import host_of
from shared.events import TouchPersonal, TouchRecorded, VisitorIdentified
from shared.settings import Settings
from shared.testing import eventually, harness
from shared.web import create_app, edged
from tests.service.capture_world import Capture
from throughline.services import service_code

STORED = "JSON.stringify(Object.assign({}, localStorage))"


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """The tests' process has its own."""


@asynccontextmanager
async def served(app: Any, port: int) -> AsyncIterator[None]:
    """An app at a port, for the length of a block."""
    server = _Server(
        uvicorn.Config(app, "127.0.0.1", port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


@dataclass
class Pages:
    """A company's site: pages as they are set, by path; everything else is an empty page with the same head."""

    head: str = ""
    bodies: dict[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = self.bodies.get(scope["path"], "<h1>Acme</h1>")
        content = f"<!doctype html><title>Acme {scope['path']}</title>{self.head}<body>{body}</body>".encode()
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@dataclass
class Web:
    """Both origins, and a browser."""

    capture: Capture
    browser: Browser
    base: str
    site: str
    pages: Pages
    app: "Switch"

    @asynccontextmanager
    async def visitor(self, **options: Any) -> AsyncIterator[BrowserContext]:
        """Somebody with a browser of their own; a script that fails in it fails the test."""
        context = await self.browser.new_context(**options)
        faults: list[str] = []
        context.on("weberror", lambda error: faults.append(str(error.error)))
        try:
            yield context
        finally:
            await context.close()
        assert faults == []

    async def with_snippet(self, consent: str = "implied", extra: str = "") -> str:
        """Every page carries the snippet from now on; answers the site's id."""
        answer = await self.capture.post("sites", {"name": "Acme", "origins": [self.site], "consent": consent})
        assert answer.status_code == 201, answer.text
        self.pages.head = answer.json()["snippet"].replace("<script async", f"<script async {extra}")
        return str(answer.json()["site_id"])

    async def touches(self, least: int = 1, kind: str | None = None) -> list[TouchRecorded]:
        """The touches that were told, each once, as soon as there are this many."""
        found: list[TouchRecorded] = []

        async def enough() -> bool:
            told = await self.capture.harness.told(TouchRecorded)
            once = {touch.event_id: touch for touch in told}
            found[:] = [touch for touch in once.values() if kind is None or touch.type == kind]
            return len(found) >= least

        await eventually(enough)
        return sorted(found, key=lambda touch: touch.occurred_at)

    async def kinds(self, least: int) -> list[str]:
        """What happened, in order."""
        return [touch.type for touch in await self.touches(least)]

    async def identified(self) -> list[VisitorIdentified]:
        """Who pages said that their visitors are."""
        return await self.capture.harness.told(VisitorIdentified)

    async def opened(self, touch: TouchRecorded) -> TouchPersonal:
        """What is personal in a touch."""
        async with self.capture.harness.runtime.database.reading() as connection:
            (text,) = await self.capture.harness.runtime.keys.open_many(connection, [(touch.lead_id, touch.personal)])
        assert text is not None
        return TouchPersonal.model_validate_json(text)


@dataclass
class Switch:
    """The API, which can be away: then connections are answered with 503."""

    app: Any
    away: bool = False
    posts: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.posts += scope["method"] == "POST"
        if not self.away:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def stored(page: Page) -> dict[str, str]:
    """What the site's origin has in the browser's storage."""
    kept: dict[str, str] = orjson.loads(await page.evaluate(STORED))
    return kept


@asynccontextmanager
async def open_web(settings: Settings, browser: Browser) -> AsyncIterator[Web]:
    """Both origins for the length of a block: different sites to a browser, for they have different hosts."""
    port = free_port()
    other = free_port([port])
    settings = settings.model_copy(update={"public_url": f"http://127.0.0.1:{port}"})
    code = service_code("capture")
    async with harness(code, settings) as made:
        app = Switch(edged(create_app(code.name, settings, made.runtime.secrets, code.routers(made.runtime)), settings))
        pages = Pages()
        async with served(app, port), served(pages, other):
            assert host_of(settings.public_url) != "localhost"
            yield Web(Capture(made), browser, settings.public_url, f"http://localhost:{other}", pages, app)
