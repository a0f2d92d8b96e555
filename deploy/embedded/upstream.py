"""The gateway's connections to its services: one request at a time each, kept for the next."""

import asyncio
from typing import TYPE_CHECKING, cast

from deploy.embedded.http1 import HEAD_END, HEAD_LIMIT, LAST_CHUNK, BadHead, Chunks, ResponseHead, chunk, read_response

if TYPE_CHECKING:
    from deploy.embedded.client import Client

KEEP_UPSTREAM = 30.0  # seconds; less than the services keep an idle connection (75 s), so that none closes under us
PROGRESS_WITHIN = 60.0


class Service:
    """A service's address, and the connections to it that wait for their next request."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.idle: list[Upstream] = []

    def take(self) -> "Upstream | None":
        """The connection used last, which is the least likely to be closing."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing():
                return upstream
        return None


class Upstream(asyncio.Protocol):
    """A connection to a service: it carries one client's request at a time."""

    transport: asyncio.Transport

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.loop = loop
        self.client: Client | None = None
        self.buffer = b""
        self.response: ResponseHead | None = None
        self.left: int | None = None
        self.chunks: Chunks | None = None
        self.used = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:  # nobody asked
            self.transport.abort()
            return
        client.deadline = self.loop.time() + PROGRESS_WITHIN
        try:
            if self.response is None:
                self._read_head(client, self.buffer + data if self.buffer else data)
            else:
                self._read_body(client, data)
        except (ValueError, BadHead):
            self.abandon()
            client.upstream_lost(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.service.idle:
            self.service.idle.remove(self)
        client, self.client = self.client, None
        if client is None:
            return
        if self.response is not None and self.left is None and self.chunks is None and exc is None:
            self._finish(client)  # the end of the connection was the end of the answer
        else:
            client.upstream_lost(self)

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.hold()

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.read_on()

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.client = None
        self.transport.abort()

    def _read_head(self, client: "Client", data: bytes) -> None:
        end = data.find(HEAD_END)
        if end < 0:
            if len(data) > HEAD_LIMIT:
                raise ValueError("a head without end")
            self.buffer = data
            return
        end += len(HEAD_END)
        response = read_response(data[:end])
        body, self.buffer = data[end:], b""
        if response.interim:
            if not client.request.http_1_0:
                client.transport.write(response.for_client(chunked=False, close=False))
            if body:
                self._read_head(client, body)
            return
        self.response = response
        has_body = response.has_body(client.request.method)
        if not has_body:
            self.left = 0
        elif response.chunked:
            self.chunks = Chunks()
        else:
            self.left = response.content_length
        until_close = has_body and self.left is None
        client.last_request = client.last_request or client.state == "body"
        client.answering = True
        head = response.for_client(
            chunked=(until_close or (response.chunked and not has_body)) and not client.request.http_1_0,
            close=client.last_request,
        )
        self._read_body(client, body, head)

    def _read_body(self, client: "Client", data: bytes, head: bytes = b"") -> None:
        complete = False
        if self.chunks is not None:
            pieces = self.chunks.feed(data) if data else []
            data = b"".join(pieces if client.request.http_1_0 else map(chunk, pieces))
            complete = self.chunks.complete
            if complete and not client.request.http_1_0:
                data += LAST_CHUNK
        elif self.left is not None:
            if len(data) > self.left:
                raise ValueError("more than was announced")
            self.left -= len(data)
            complete = self.left == 0
        elif data and not client.request.http_1_0:
            data = chunk(data)
        if head or data:
            client.transport.write(head + data)
        if complete:
            self._finish(client)

    def _finish(self, client: "Client") -> None:
        assert self.response is not None
        until_close = self.left is None and self.chunks is None
        if until_close and not client.request.http_1_0:
            client.transport.write(LAST_CHUNK)
        excess = self.chunks is not None and self.chunks.excess
        reusable = self.response.keep_alive and client.state == "answer" and not until_close and not excess
        self.client = self.response = self.left = self.chunks = None
        self.used = True
        if reusable:
            self.idle_since = self.loop.time()
            self.transport.resume_reading()
            self.service.idle.append(self)
        else:
            self.transport.close()
        client.answered()
