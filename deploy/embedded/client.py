"""The gateway's connections from its clients."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from deploy.embedded.http1 import (
    HEAD_END,
    HEAD_LIMIT,
    LAST_CHUNK,
    BadHead,
    Chunks,
    RequestHead,
    answer,
    chunk,
    problem,
    read_request,
)
from deploy.embedded.ports import LOOPBACK
from deploy.embedded.upstream import PROGRESS_WITHIN, Service, Upstream

if TYPE_CHECKING:
    from deploy.embedded.gateway import Gateway

CONNECTIONS = 4_000
HELD_BYTES = 64 * 1024  # of a body, while its service is being connected
KEEP_CLIENT = 75.0
CONNECT_WITHIN = 5.0
HEAD_WITHIN = 15.0
LINGER = 3.0
LINGER_BYTES = 16 * 1024 * 1024
RETRY_AFTER = 2


class Client(asyncio.Protocol):
    """A client's connection: one request at a time is read, passed on and answered.

    States: "head" (a request head is awaited), "body" (its body is passed on), "answer" (all of it was passed on),
    "linger" (answered for good; what still comes is thrown away, so that the answer is not lost in a reset).
    """

    transport: asyncio.Transport

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway
        self.loop = gateway.loop
        self.state = "head"
        self.buffer = b""
        self.peer = b"unknown"
        self.request = RequestHead()
        self.service: Service | None = None
        self.upstream: Upstream | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.head = b""
        self.left = 0
        self.chunks: Chunks | None = None
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.retried = False
        self.answering = False
        self.last_request = False
        self.half_closed = False
        self.lingered = 0
        self.deadline = self.loop.time() + HEAD_WITHIN

    # --- from the client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0].encode() if peer else b"unknown"
        self.gateway.clients.add(self)
        if len(self.gateway.clients) > CONNECTIONS:
            self.refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "busy",
                "Too many connections are open.",
                RETRY_AFTER,
            )

    def data_received(self, data: bytes) -> None:
        if self.state == "head":
            if not self.buffer:
                self.deadline = self.loop.time() + HEAD_WITHIN
            self.buffer += data
            self._read_head()
        elif self.state == "body":
            self.deadline = self.loop.time() + PROGRESS_WITHIN
            self._read_body(data)
        elif self.state == "answer":  # the next request, early: it waits in the socket
            self.buffer += data
            self.hold()
        else:
            self.lingered += len(data)
            if self.lingered > LINGER_BYTES:
                self.transport.close()

    def eof_received(self) -> bool:
        """A client that closed its half still gets the answers to what it has sent in full."""
        self.half_closed = True
        return self.state == "answer" or HEAD_END in self.buffer

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        if self.upstream is not None:
            self.upstream.abandon()
        self.upstream = None
        self.gateway.forget(self)

    def pause_writing(self) -> None:
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.resume_reading()

    def _read_head(self) -> None:
        end = self.buffer.find(HEAD_END)
        if end == 0 or self.buffer.startswith(b"\r\n"):  # an empty line before a request means nothing
            self.buffer = self.buffer.lstrip(b"\r\n")
            end = self.buffer.find(HEAD_END)
        if end > HEAD_LIMIT or (end < 0 and len(self.buffer) > HEAD_LIMIT):
            self.refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "The request head is too large.",
            )
            return
        if end < 0:
            if self.half_closed:
                self.transport.close()
            return
        end += len(HEAD_END)
        head, body, self.buffer = self.buffer[:end], self.buffer[end:], b""
        try:
            self.request = read_request(head)
        except BadHead as exc:
            self.refuse(exc.status, "invalid-request", exc.detail)
            return
        self._begin(body)

    def _begin(self, body: bytes) -> None:
        request = self.request
        self.deadline = self.loop.time() + PROGRESS_WITHIN
        self.retried = False
        self.last_request = not request.keep_alive or request.http_1_0 or self.gateway.closing
        self.chunks = Chunks() if request.chunked else None
        self.left = request.content_length or 0
        self.state = "body" if request.chunked or self.left else "answer"
        self.service = self.gateway.service(request.target)
        if self.service is None:
            self._answer_here(body)
            return
        self.head = request.for_upstream(self.peer)
        if self.state == "answer":
            self.buffer = body
        elif body:
            self._read_body(body)
        if self.state == "linger":  # the body was not what it should be
            return
        upstream = self.service.take()
        if upstream is not None:
            self._attach(upstream)
        else:
            self.connecting = self.loop.create_task(self._connect(self.service))

    def _read_body(self, data: bytes) -> None:
        try:
            passed_on = self._framed(data)
        except BadHead as exc:
            self._give_up_upstream()
            if self.answering:
                self.transport.abort()
            else:
                self.refuse(exc.status, "invalid-request", exc.detail)
            return
        if self.upstream is not None:
            self.upstream.transport.write(passed_on)
        else:
            self.held.append(passed_on)
            self.held_bytes += len(passed_on)
            if self.held_bytes > HELD_BYTES:
                self.hold()

    def _framed(self, data: bytes) -> bytes:
        """The part of `data` that belongs to this request's body, framed for the service."""
        if self.chunks is not None:
            passed_on = b"".join(map(chunk, self.chunks.feed(data)))
            if self.chunks.complete:
                self.state = "answer"
                self.last_request = self.last_request or self.chunks.excess
                return passed_on + LAST_CHUNK
            return passed_on
        if len(data) > self.left:
            data, self.buffer = data[: self.left], data[self.left :]
            self.hold()
        self.left -= len(data)
        if self.left == 0:
            self.state = "answer"
        return data

    # --- to the service

    async def _connect(self, service: Service) -> None:
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                _, upstream = await self.loop.create_connection(
                    lambda: Upstream(service, self.loop), LOOPBACK, service.port
                )
        except (OSError, TimeoutError):
            self.connecting = None
            self.unavailable()
            return
        self.connecting = None
        self._attach(upstream)

    def _attach(self, upstream: "Upstream") -> None:
        self.upstream = upstream
        upstream.client = self
        upstream.transport.write(b"".join((self.head, *self.held)) if self.held else self.head)
        if self.held:
            self.held = []
            self.held_bytes = 0
            self.read_on()

    def _give_up_upstream(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
            self.connecting = None
        if self.upstream is not None:
            self.upstream.abandon()
            self.upstream = None

    # --- back to the client

    def upstream_lost(self, upstream: "Upstream") -> None:
        """The service's connection ended before its answer did."""
        self.upstream = None
        if self.answering:
            self.transport.abort()  # a cut answer must not look like a whole one
        elif upstream.used and not self.retried and self.request.safe_to_repeat:
            assert self.service is not None
            self.retried = True
            self.connecting = self.loop.create_task(self._connect(self.service))
        else:
            self.unavailable()

    def answered(self) -> None:
        """The answer has been written in full."""
        self.upstream = None
        self.answering = False
        if self.state == "body":  # answered before the body was in: the rest of it is of no use
            self._linger()
        elif self.last_request or self.gateway.closing:
            self._linger() if self.buffer or self.chunks is not None else self.transport.close()
        else:
            self.state = "head"
            self.deadline = self.loop.time() + KEEP_CLIENT
            self.read_on()
            if self.buffer:
                self.loop.call_soon(self._next_request)
            elif self.half_closed:
                self.transport.close()

    def _next_request(self) -> None:
        if self.state == "head" and self.buffer and not self.transport.is_closing():
            self._read_head()

    def hold(self) -> None:
        """Read no more for now."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _answer_here(self, body: bytes) -> None:
        request = self.request
        head_only = request.method == b"HEAD"
        close = self.last_request or self.state == "body"
        if request.target.partition(b"?")[0] != b"/":
            raw = problem(
                HTTPStatus.NOT_FOUND,
                "not-found",
                "No service has this path.",
                head_only=head_only,
                close=close,
            )
        elif request.method not in (b"GET", b"HEAD"):
            raw = problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Only read.",
                head_only=head_only,
                close=close,
            )
        else:
            raw = answer(
                HTTPStatus.OK,
                self.gateway.index(),
                kind=b"application/json",
                head_only=head_only,
                close=close,
            )
        self.transport.write(raw)
        if self.state == "answer":
            self.buffer = body
        self.answered()

    def unavailable(self) -> None:
        """The service is away; it will be back."""
        name = self.service.name if self.service else "service"
        self.refuse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "dependency-unavailable",
            f"{name} is away for the moment.",
            RETRY_AFTER,
        )

    def refuse(self, status: HTTPStatus, slug: str, detail: str, retry_after: int | None = None) -> None:
        """Answer with a problem; the connection goes on where the request was read to its end."""
        if self.transport.is_closing() or self.state == "linger":
            return
        close = self.state != "answer" or self.last_request
        head_only = self.request.method == b"HEAD"
        self.transport.write(
            problem(
                status,
                slug,
                detail,
                retry_after=retry_after,
                head_only=head_only,
                close=close,
            )
        )
        self.held = []
        if close:
            self._linger()
        else:
            self.answered()

    def _linger(self) -> None:
        self.state = "linger"
        self.buffer = b""
        self.deadline = self.loop.time() + LINGER
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.transport.resume_reading()

    def close_if_idle(self) -> None:
        """Close a connection that waits for its next request."""
        if self.state == "head" and not self.buffer:
            self.transport.close()

    def out_of_time(self) -> None:
        """Nothing has moved for too long."""
        if self.state == "head" and not self.buffer:
            self.transport.close()
        elif self.state == "linger" or self.answering:
            self.transport.abort()
        elif self.state == "head" or (self.state == "body" and self.transport.is_reading()):
            self._give_up_upstream()
            self.refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                "timeout",
                "The request did not arrive in time.",
            )
        else:  # the service does not answer, or takes no more of the body
            self._give_up_upstream()
            self.unavailable()
