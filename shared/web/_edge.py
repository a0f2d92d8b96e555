"""What surrounds every request, as plain ASGI: size limit while streaming, headers, trace, measures.

Addresses that hold what no text of the database can are refused here, for all endpoints.

No `BaseHTTPMiddleware`: one of those costs more than a durable write.
"""

import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from prometheus_client import Histogram

from shared.errors import FieldError, Invalid, NotFound, Packed, Rejected, TooLarge
from shared.telemetry import current_trace, histogram, log, new_trace, parse_trace, set_trace, span, tracing
from shared.web._problems import rejected

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECONDS = histogram("http_server_request_duration_seconds", "Time of a request, by its route", ["route", "status"])
SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
_SECURITY_NAMES = {name for name, _ in SECURITY}
_REQUEST_ID = re.compile(rb"^[\w.:-]{1,100}$")
_SERVER_ERRORS = 500


class Edge:
    """Wraps an ASGI app. An endpoint that takes more than others says so as `scope["body_limit"]` before it reads, and
    one that unpacks bodies as `scope["unpacks"]`.
    """

    def __init__(self, app: App, *, body_limit: int) -> None:
        self._app = app
        self._body_limit = body_limit
        self._measures: dict[tuple[str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = dict(scope)  # a route makes a GET of it, and the server must still know to send no body
        headers = dict(scope["headers"])
        trace = parse_trace(headers.get(b"traceparent", b"").decode("latin-1"))
        if not tracing():
            set_trace(trace or new_trace())
            await self._serve(scope, receive, send, headers)
            return
        with span(scope["method"], "server", [trace]) as here:
            set_trace(here)
            await self._serve(scope, receive, send, headers)

    async def _serve(  # noqa: C901, PLR0915  # one closure: a call each would cost more than they do
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]
    ) -> None:
        began = time.perf_counter()
        length = headers.get(b"content-length", b"0")
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.match(request_id):
            request_id = os.urandom(8).hex().encode()
        received = 0
        status = 0
        whole = False
        refused: Rejected | None = None

        async def limited_receive() -> Message:
            nonlocal received, refused
            limit = scope.get("body_limit", self._body_limit)
            if received == 0 and length.isdigit() and int(length) > limit:
                refused = _too_large(limit)
                raise refused
            if received == 0 and b"content-encoding" in headers and "unpacks" not in scope:
                refused = _packed(headers[b"content-encoding"])
                if refused is not None:
                    raise refused
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    refused = _too_large(limit)
                    raise refused
            return message

        async def dressed_send(message: Message) -> None:
            nonlocal status, whole
            if refused is not None and status == 0:
                return  # what the app makes of the broken reading is not the reason
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", [])
                names = {name for name, _ in given} & _SECURITY_NAMES
                extra = [pair for pair in SECURITY if pair[0] not in names] if names else SECURITY
                told = scope.get("state", {}).get("extra_headers", ())
                message["headers"] = [*given, *extra, *told, (b"x-request-id", request_id)]
            else:
                whole = not message.get("more_body", False)
            await send(message)

        try:
            if b"%00" in scope["query_string"] or "\0" in scope["path"]:
                await rejected(_unstorable(scope))(scope, receive, dressed_send)
            else:
                await self._app(scope, limited_receive, dressed_send)
        except (Packed, TooLarge):
            pass
        except Exception:
            # Of what was logged and answered in full the server need not hear: it would close the connection, on which
            # a proxy may be sending somebody else's request.
            if not whole:
                raise
        finally:
            if refused is not None and status == 0:
                answer = rejected(refused)
                refused = None
                await answer(scope, receive, dressed_send)
            route = scope.get("route")
            path = getattr(route, "path", "unmatched")
            measure = self._measures.get((path, status))
            if measure is None:
                measure = self._measures[path, status] = SECONDS.labels(path, str(status))
            measure.observe(time.perf_counter() - began)
            if status >= _SERVER_ERRORS:
                log.warning("request_answered", route=path, status=status, trace=current_trace())


def _unstorable(scope: Scope) -> Rejected:
    if "\0" in scope["path"]:
        return NotFound("no name holds a NUL character")
    said = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    places = dict.fromkeys(f"query:{name.replace(chr(0), '%00')}" for name, value in said if "\0" in name + value)
    return Invalid(f"look at {', '.join(places)}", [FieldError(place, "contains a NUL character") for place in places])


def _packed(coding: bytes) -> Packed | None:
    if coding.strip().lower() in (b"", b"identity"):
        return None
    return Packed(f"a body in {coding.decode('latin-1')[:40]!r} cannot be read here; send it plain")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is over {limit} bytes; send less at once")
