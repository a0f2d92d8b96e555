"""Endpoints that are worked out when they are first asked for.

FastAPI works out what an endpoint takes and answers when it is declared, and again in every router that includes it.
For the hundred endpoints of a service that is most of what a start of its API costs, and few are asked for at once.
"""

import re
from collections.abc import Callable, MutableMapping
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match, compile_path

from shared.web._parameters import Handler, asked_only

OF_THE_API = re.compile(r"(/\w+)?/v1/")
"""How paths of the API begin. Other addresses are for the world, which adds parameters of its own."""


class LateRoute(APIRoute):
    """A route that knows what matches it, and all else from the first moment that somebody wants to know it."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **declared: Any) -> None:
        self.path = path
        self.endpoint = endpoint
        self.methods = {method.upper() for method in declared["methods"] or ("GET",)}
        self.is_of_api = OF_THE_API.match(path) is not None
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self._declared = declared
        self._worked_out = False

    def __getattr__(self, name: str) -> Any:
        """Work it out: something is asked for that is not there yet."""
        if self._worked_out:
            raise AttributeError(name)
        self._worked_out = True
        super().__init__(self.path, self.endpoint, **self._declared)
        return getattr(self, name)

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """Whether a request is for this route; a HEAD is a GET of whose answer the server sends no body."""
        methods = self.methods or ()
        if scope.get("method") == "HEAD" and "GET" in methods and "HEAD" not in methods:
            match, found = super().matches({**scope, "method": "GET"})
            return match, {**found, "method": "GET"}
        return super().matches(scope)

    def get_route_handler(self) -> Handler:
        """What serves a request; parameters that the API does not know are refused."""
        handler = self.served_by()
        return asked_only(self.dependant, handler) if self.is_of_api else handler

    def served_by(self) -> Handler:
        """What serves a request whose parameters are in order."""
        return super().get_route_handler()

    def declare_on(self, router: APIRouter, prefix: str = "") -> None:
        """The same once more on another router, with what that one adds to all of its own."""
        declared = {name: value for name, value in self._declared.items() if name != "dependency_overrides_provider"}
        router.add_api_route(prefix + self.path, self.endpoint, route_class_override=type(self), **declared)


class Endpoints(APIRouter):
    """The endpoints of one part of a service."""

    def __init__(self, *, route_class: type[LateRoute] = LateRoute, **of_all: Any) -> None:
        super().__init__(route_class=route_class, **of_all)

    def take(self, other: APIRouter) -> None:
        """Take over the endpoints of another."""
        declare_all(other, self)


def declare_all(of: APIRouter, on: APIRouter, prefix: str = "") -> None:
    """Declare what was declared on one router on another, below a prefix."""
    for route in of.routes:
        if not isinstance(route, LateRoute):
            raise TypeError(f"{route} was not declared on `Endpoints`")
        route.declare_on(on, prefix)
