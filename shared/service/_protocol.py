"""HTTP/1.1 as uvicorn reads it, within bounds: what has no end is refused before it fills the memory."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

UNREAD_LIMIT = 64 * 1024
"""Bytes that may come one after another without a head that ends or a part of a body; uvicorn has no such limit."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose heads, trailers and extensions of chunks are no larger than they need be."""

    _unread = 0

    def data_received(self, data: bytes) -> None:
        """Take what came, unless more of it has no meaning yet than is allowed."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > UNREAD_LIMIT and not self.transport.is_closing():
            self.send_400_response("The request head is too large.")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._unread = 0
        super().on_body(body)
