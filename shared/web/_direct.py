"""The busiest endpoints, served around FastAPI: its layers cost more than a durable write, and they use none of them.

FastAPI still documents such a route. It has no parameters but one at the end of its path, which is a text: the endpoint
takes the request, and that by its name, and answers the response.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from shared.web._endpoints import LateRoute
from shared.web._parameters import Handler
from shared.web._problems import answer_to

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class DirectRoute(LateRoute):
    """A route that `Direct` serves; `Endpoints(route_class=DirectRoute)`."""

    def served_by(self) -> Handler:
        """The endpoint itself, should FastAPI get to serve it (for instance by another method's path)."""

        async def serve(request: Request) -> Response:
            response: Response = await self.endpoint(request, **request.path_params)
            return response

        return serve


class Direct:
    """Wraps an app: requests to direct routes go to their endpoints, all others to the app."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._routes: dict[tuple[str, str], DirectRoute] = {}
        self._named: dict[tuple[str, str], tuple[DirectRoute, str]] = {}
        for route in (route for route in app.routes if isinstance(route, DirectRoute)):
            start, _, name = route.path_format.partition("{")
            for method in route.methods or ():
                if name:
                    self._named[method, start] = (route, name.removesuffix("}"))
                else:
                    self._routes[method, start] = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._route_of(scope) if scope["type"] == "http" else None
        if route is None or (
            scope["query_string"] and route.is_of_api
        ):  # FastAPI's way knows that it takes no parameters
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request, **request.path_params)
        except Exception as exc:  # noqa: BLE001  # as FastAPI's own handlers would
            response = answer_to(exc)
        await response(scope, receive, send)

    def _route_of(self, scope: Scope) -> DirectRoute | None:
        path: str = scope["path"]
        if route := self._routes.get((scope["method"], path)):
            return route
        start, slash, text = path.rpartition("/")
        found = self._named.get((scope["method"], start + slash)) if text else None
        if found is None:
            return None
        route, name = found
        scope["path_params"] = {name: text}
        return route
