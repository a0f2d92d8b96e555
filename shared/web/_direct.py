"""The busiest endpoints, served around FastAPI: its layers cost more than a durable write, and they use none of them.

FastAPI still documents such a route. It has no parameters: the endpoint takes the request and answers the response.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from shared.web._endpoints import LateRoute
from shared.web._parameters import Handler
from shared.web._problems import answer_to

Endpoint = Callable[[Request], Awaitable[Response]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class DirectRoute(LateRoute):
    """A route that `Direct` serves; `Endpoints(route_class=DirectRoute)`."""

    def served_by(self) -> Handler:
        """The endpoint itself, should FastAPI get to serve it (for instance by another method's path)."""
        endpoint: Handler = self.endpoint
        return endpoint


class Direct:
    """Wraps an app: requests to direct routes go to their endpoints, all others to the app."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._routes = {
            (method, route.path): route
            for route in app.routes
            if isinstance(route, DirectRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None or scope["query_string"]:  # FastAPI's way knows that such a route takes no parameters
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except Exception as exc:  # noqa: BLE001  # as FastAPI's own handlers would
            response = answer_to(exc)
        await response(scope, receive, send)
