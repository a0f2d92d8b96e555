"""The HTTP app of a service, and the little one on its management port."""

from collections.abc import Awaitable, Callable, Sequence

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

from shared.secrets import Secrets
from shared.settings import Settings
from shared.telemetry import render
from shared.web._direct import Direct
from shared.web._edge import App, Edge, Receive, Scope, Send
from shared.web._endpoints import declare_all
from shared.web._idempotency import Answers
from shared.web._openapi import DescribedApp
from shared.web._problems import install_problem_handlers
from shared.web._tokens import Authenticator

DOCS_POLICY = (
    "default-src 'none'; script-src https://cdn.jsdelivr.net 'unsafe-inline'; "
    "style-src https://cdn.jsdelivr.net 'unsafe-inline'; img-src data: https://fastapi.tiangolo.com; "
    "connect-src 'self'; frame-ancestors 'none'"
)
Check = Callable[[], Awaitable[str | None]]


def create_app(
    service: str, settings: Settings, secrets: Secrets, routers: Sequence[APIRouter], *, version: str = "0.1.0"
) -> FastAPI:
    """A service's API below its own prefix, its OpenAPI at `/<service>/openapi.json`."""
    prefix = f"/{service}"
    app = DescribedApp(
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `Edge` has its own, for direct routes too
        title=f"Throughline {service}",
        version=version,
        openapi_url=f"{prefix}/openapi.json",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
    )
    app.state.authenticator = Authenticator(settings, secrets)
    app.state.answers = Answers(secrets)
    install_problem_handlers(app)
    for router in routers:
        declare_all(router, on=app.router, prefix=prefix)

    async def docs(_request: Request) -> Response:
        page = get_swagger_ui_html(openapi_url=f"{prefix}/openapi.json", title=app.title)
        page.headers["content-security-policy"] = DOCS_POLICY
        return page

    app.add_route(f"{prefix}/docs", docs, include_in_schema=False)
    return app


def edged(app: FastAPI, settings: Settings) -> App:
    """The app with what surrounds every request, its direct routes in front."""
    return Edge(Direct(app), body_limit=settings.body_limit)


class ManagementApp:
    """`/livez` (the process), `/readyz` (what it depends on) and `/metrics`, on a port of their own."""

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = checks
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        await (await self._answer(scope["path"]))(scope, receive, send)

    async def _answer(self, path: str) -> Response:
        if path == "/livez":
            return _json(200, {"status": "pass"})
        if path == "/metrics":
            return Response(render(), media_type="text/plain; version=0.0.4; charset=utf-8")
        if path == "/readyz":
            faults = {name: await _fault(check) for name, check in self._checks.items()}
            if self.draining:
                faults["draining"] = "the process is stopping"
            checks = {
                name: {"status": "fail", "detail": fault} if fault else {"status": "pass"}
                for name, fault in faults.items()
            }
            failed = any(faults.values())
            return _json(503 if failed else 200, {"status": "fail" if failed else "pass", "checks": checks})
        return _json(404, {"status": "unknown", "paths": ["/livez", "/readyz", "/metrics"]})


async def _fault(check: Check) -> str | None:
    try:
        return await check()
    except Exception as exc:  # noqa: BLE001  # a check that fails is a fault, not a missing answer
        return type(exc).__name__


def _json(status: int, body: object) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
