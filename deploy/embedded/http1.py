"""HTTP/1.1 heads, read strictly and written anew: what the gateway passes on is never the bytes it was sent.

Two servers in a row must agree where one request ends and the next begins. So every head is parsed by llhttp in its
strict mode, exactly one framing is accepted, and the next server gets a head that says the same in one way only.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import httptools

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 32 * 1024

# Fields that belong to one connection (RFC 9110 section 7.6.1), and those that are written anew from what was read.
_SPECIAL = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings content-length host"
    b" x-forwarded-for x-forwarded-proto".split()
)
_NO_NAMES = (
    b"close",
    b"keep-alive",
    b"authorization",
)  # what Connection may say without taking a field away
# An offer to change the protocol makes llhttp stop before the body. We never take the offer (RFC 9110 section 7.8).
_UPGRADE = re.compile(rb"(?im)^upgrade:[^\r\n]*\r\n")


class BadHead(Exception):
    """A head that cannot be passed on; `status` is what its sender is told."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(slots=True)
class RequestHead:
    """What the gateway needs to know of a request, and the `lines` to pass on, each with a line end before it."""

    method: bytes = b""
    target: bytes = b""
    http_1_0: bool = False
    keep_alive: bool = True
    content_length: int | None = None
    chunked: bool = False
    host: bytes | None = None
    forwarded_for: bytes = b""
    forwarded_proto: bytes = b"http"
    lines: bytes = b""

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self.target += url

    @property
    def safe_to_repeat(self) -> bool:
        """Whether it asks only to read, so that sending it again changes nothing (RFC 9110 section 9.2.2)."""
        return self.method in (b"GET", b"HEAD", b"OPTIONS") and not self.content_length and not self.chunked

    def for_upstream(self, peer: bytes) -> bytes:
        """The head that the service gets."""
        framing = b""
        if self.chunked:
            framing = b"\r\ntransfer-encoding: chunked"
        elif self.content_length is not None:
            framing = b"\r\ncontent-length: %d" % self.content_length
        return b"%b %b HTTP/1.1\r\nhost: %b%b\r\nx-forwarded-for: %b%b\r\nx-forwarded-proto: %b%b\r\n\r\n" % (
            *(self.method, self.target, self.host or b"localhost", self.lines),
            *(self.forwarded_for, peer, self.forwarded_proto, framing),
        )


def read_request(head: bytes) -> RequestHead:
    """Read one complete request head, which ends with an empty line. Raises `BadHead`."""
    if b"pgrade" in head or b"PGRADE" in head:
        head = _UPGRADE.sub(b"", head)
    request = RequestHead()
    parser = httptools.HttpRequestParser(request)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        raise BadHead(HTTPStatus.NOT_IMPLEMENTED, "This is no tunnel.") from None
    except httptools.HttpParserError as exc:
        raise BadHead(HTTPStatus.BAD_REQUEST, f"The request cannot be read: {exc}.") from None
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise BadHead(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here.")
    request.http_1_0 = version == "1.0"
    request.method = parser.get_method()
    request.keep_alive = parser.should_keep_alive()
    if not request.target.startswith(b"/"):
        request.target = _origin_form(request.target)
    _read_fields(request, head[: -len(HEAD_END)].split(b"\r\n")[1:])
    if request.host is None and not request.http_1_0:
        raise BadHead(HTTPStatus.BAD_REQUEST, "The request names no host.")
    return request


def _read_fields(request: RequestHead, lines: list[bytes]) -> None:
    """Sort the lines of a head; llhttp has made sure of them: no space before a colon, no folding, no lone CR or LF."""
    kept = [b""]
    named: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in _SPECIAL:
            kept.append(line)
            continue
        value = value.strip(b" \t")
        if name == b"content-length":
            request.content_length = int(value)
        elif name == b"host":
            if request.host is not None:
                raise BadHead(HTTPStatus.BAD_REQUEST, "The request names more than one host.")
            request.host = value
        elif name == b"connection":
            named += [word.strip().lower() for word in value.split(b",")]
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise BadHead(
                    HTTPStatus.NOT_IMPLEMENTED,
                    "Only the chunked transfer coding is understood.",
                )
            request.chunked = True
        elif name == b"x-forwarded-for":
            request.forwarded_for += value + b", "
        elif name == b"x-forwarded-proto" and value in (b"http", b"https"):
            request.forwarded_proto = value
    if dropped := [name for name in named if name not in _NO_NAMES]:
        kept = [line for line in kept if line.partition(b":")[0].lower() not in dropped]
    request.lines = b"\r\n".join(kept)


def _origin_form(target: bytes) -> bytes:
    """The path and query of an absolute address; anything else addresses nothing here. Raises `BadHead`."""
    if not target.lower().startswith((b"http://", b"https://")):
        return b"*"
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise BadHead(HTTPStatus.BAD_REQUEST, "The address of the request cannot be read.") from None
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")


@dataclass(slots=True)
class ResponseHead:
    """What the gateway needs to know of an answer. `content_length` is None when only its end tells."""

    status: int
    content_length: int | None
    chunked: bool
    keep_alive: bool
    head: bytes
    as_it_came: bool

    @property
    def interim(self) -> bool:
        """Whether the real answer is still to come."""
        return self.status < 200

    def has_body(self, method: bytes) -> bool:
        """Whether bytes follow the head (RFC 9112 section 6.3)."""
        return method != b"HEAD" and self.status not in (204, 304)

    def for_client(self, *, chunked: bool, close: bool) -> bytes:
        """The head that the client gets."""
        if self.as_it_came and not chunked and not close:
            return self.head
        framing = b"\r\ntransfer-encoding: chunked" if chunked else b""
        if not chunked and self.content_length is not None:
            framing = b"\r\ncontent-length: %d" % self.content_length
        first, *lines = self.head[: -len(HEAD_END)].split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in _SPECIAL]
        end = b"\r\nconnection: close" if close else b""
        return b"HTTP/1.1%b%b%b\r\n\r\n" % (
            b"\r\n".join((first[len(b"HTTP/1.1") :], *kept)),
            framing,
            end,
        )


def read_response(head: bytes) -> ResponseHead:
    """Read one complete head of a service's answer. Raises `ValueError` when it is none."""
    first, *lines = head[: -len(HEAD_END)].split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise ValueError("not an HTTP answer")
    http_1_1 = version == b"HTTP/1.1"
    response = ResponseHead(int(rest[:3]), None, False, http_1_1, head, http_1_1)
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in _SPECIAL:
            continue
        if name == b"content-length":
            response.content_length = int(value)
        else:
            response.as_it_came = False
            if name == b"transfer-encoding":
                response.chunked = True
            elif name == b"connection":
                response.keep_alive = b"close" not in value.lower()
    return response


def answer(  # noqa: PLR0913  # the parts of an answer
    status: HTTPStatus,
    body: bytes,
    *,
    kind: bytes,
    headers: Sequence[bytes] = (),
    head_only: bool,
    close: bool,
) -> bytes:
    """An answer of the gateway's own."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (
        status,
        status.phrase.encode(),
        b"".join(
            (
                b"content-type: %b\r\ncontent-length: %d\r\n" % (kind, len(body)),
                b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n",
                *headers,
                b"connection: close\r\n" if close else b"",
            )
        ),
        b"" if head_only else body,
    )


def problem(  # noqa: PLR0913  # the parts of a problem
    status: HTTPStatus,
    slug: str,
    detail: str,
    *,
    retry_after: int | None = None,
    head_only: bool,
    close: bool,
) -> bytes:
    """A problem document (RFC 9457) as an answer."""
    document = {
        "type": f"urn:throughline:problem:{slug}",
        "title": status.phrase,
        "status": status,
        "detail": detail,
    }
    return answer(
        status,
        json.dumps(document).encode(),
        kind=b"application/problem+json",
        headers=[b"retry-after: %d\r\n" % retry_after] if retry_after is not None else [],
        head_only=head_only,
        close=close,
    )


class Chunks:
    """Takes a chunked body apart (RFC 9112 section 7.1)."""

    _HEAD = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"

    def __init__(self) -> None:
        self.complete = False
        self.excess = False
        self._found: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self._HEAD)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._found.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.complete = True

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body in `data`. Raises `BadHead` when it is not chunked as it should be.

        `complete` tells that the body has ended; `excess`, that bytes came after its end.
        """
        self._found = []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self.complete:
                raise BadHead(HTTPStatus.BAD_REQUEST, f"The body cannot be read: {exc}.") from None
            self.excess = True
        return self._found


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
