"""A client for addresses that users name: it reaches the public internet, and of private networks what a setting lists.

The address that is connected to is the one that was checked, whatever DNS says a moment later; TLS still checks the
name. Redirects are not followed, proxies of the environment not used, and neither time nor size is without a bound.
"""

import asyncio
import json
import re
import socket
import ssl
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any

import httpcore
import httpx

from shared.errors import Rejected, Unavailable
from shared.settings import Settings

PORTS = frozenset({80, 443, 8080, 8443})
LARGEST_ANSWER = 1_000_000
LONGEST_REST_S = 86_400
_LONGEST_ADDRESS = 8_000
_CONNECTIONS = 100
_LITTLE, _PATIENCE_S = 16_384, 0.5
_NUMERIC = re.compile(r"[0-9a-fx]+(?:\.[0-9a-fx]+){0,3}\.?", re.ASCII | re.IGNORECASE)
# Public by their numbers, yet a network's own: what carries IPv4 inside IPv6 could lead anywhere, and Azure serves
# what its machines are told at a public address.
_INNER = tuple(
    ip_network(written)
    for written in (
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
    )
)

_INNER_NAMES = (".localhost", ".local", ".internal", ".home.arpa")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Address = IPv4Address | IPv6Address


class AddressRefused(Rejected):
    """The address leads, or may lead, into a private network, or is none that can be asked."""

    slug = "outbound/address-refused"
    title = "The address cannot be called"


class NoAnswer(Unavailable):
    """The other side could not be reached, or did not answer in time or within bounds."""

    slug = "outbound/no-answer"


class TooLargeAnswer(NoAnswer):
    """There is an answer, of more bytes than anybody wants."""

    slug = "outbound/answer-too-large"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status; redirects come as they are."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status says that it worked."""
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> int | None:
        """How long the other side wants to be left alone, where it says so; a day at most.

        It may say so in seconds, or as a time, which is one of the clock that its `Date` shows (RFC 9110, 10.2.3).
        """
        written = self.headers.get("retry-after", "")
        if written.isascii() and written.isdecimal():
            return min(int(written[:9]), LONGEST_REST_S)
        try:
            until, now = (parsedate_to_datetime(text) for text in (written, self.headers.get("date", "")))
            return min(max(ceil((until - now).total_seconds()), 0), LONGEST_REST_S)
        except (TypeError, ValueError):  # one is no time, or only one says in which zone
            return None

    def json(self) -> Any:
        """The body as JSON. Raises ValueError for anything else."""
        return json.loads(self.body)


class PrivateHosts:
    """The hosts of private networks that may be called all the same: names as they are written, addresses, networks."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks = []
        for written in listed:
            try:
                self._networks.append(ip_network(written, strict=False))
            except ValueError:
                self._names.add(written.lower().rstrip("."))

    def named(self, host: str) -> bool:
        """Whether this host is listed by its name or its address."""
        address = _as_address(host)
        return host.lower().rstrip(".") in self._names or (address is not None and self.holds(address))

    @property
    def has_networks(self) -> bool:
        """Whether a whole network is listed, in which names could lie."""
        return bool(self._networks)

    def holds(self, address: Address) -> bool:
        """Whether this address is in a listed network."""
        return any(address in network for network in self._networks)


def trusted_hosts(settings: Settings) -> list[str]:
    """The private hosts that an installation's settings allow: those listed, and those of providers it names itself."""
    return [*settings.outbound_private_hosts, *(httpx.URL(url).host for url in settings.providers.values())]


def check_url(url: str, private: PrivateHosts) -> httpx.URL:
    """The address taken apart. Raises AddressRefused for what can be seen without asking DNS."""
    if len(url) > _LONGEST_ADDRESS or any(char.isspace() or not char.isprintable() for char in url):
        raise AddressRefused("an address is one line without blanks, of 8000 characters at most")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as exc:
        raise AddressRefused(f"the address cannot be read: {exc}") from exc
    host = parsed.host
    if parsed.scheme not in ("http", "https") or not host:
        raise AddressRefused("an address begins with https:// or http:// and names a host")
    if parsed.userinfo or "\\" in url:
        raise AddressRefused("an address holds no user name or password, and no backslash")
    known = private.named(host)
    if parsed.port not in (None, *PORTS) and not known:
        raise AddressRefused(f"port {parsed.port} is not one of {', '.join(map(str, sorted(PORTS)))}")
    address = _as_address(host)
    if address is not None and not known and not is_public(address):
        raise AddressRefused(f"{host} is not an address of the public internet")
    if address is None and not known and not private.has_networks and _is_inner(host):
        raise AddressRefused(f"{host} is a name of a private network")
    return parsed


def _is_inner(host: str) -> bool:
    """Whether a name is one that public DNS does not have."""
    name = "." + host.lower().rstrip(".")
    return name.count(".") == 1 or name.endswith(_INNER_NAMES)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.scope_id is not None:
            return False
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(
        address in network for network in _INNER if isinstance(network, IPv6Network) == (address.version == 6)
    )


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, by the system."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connects to none but checked addresses: each time a connection is made, all that DNS answers are checked."""

    def __init__(self, private: PrivateHosts, resolve: Resolve) -> None:
        self._private = private
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in await self._checked(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's own signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("sockets of this machine are not called")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        literal = _as_address(host)
        try:
            written = [host] if literal is not None else await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise httpcore.ConnectError(f"the host is not known: {type(exc).__name__}") from exc
        if self._private.named(host):
            return written
        for text in written:
            address = _as_address(text)
            if address is None or not (is_public(address) or self._private.holds(address)):
                raise AddressRefused(f"{host} leads to {text}, which is not an address of the public internet")
        return written


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """The library's transport over a pool whose connections are guarded."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=_CONNECTIONS, keepalive_expiry=5.0, network_backend=backend
        )


class Outbound:
    """Calls what users name. Used as `async with`; one for many calls, since it keeps connections."""

    def __init__(
        self,
        private_hosts: Iterable[str] = (),
        *,
        ca_file: Path | None = None,
        resolve: Resolve = system_resolver,
    ) -> None:
        self._private = PrivateHosts(private_hosts)
        transport = _GuardedTransport(_Guarded(self._private, resolve), _context(ca_file))
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)

    @classmethod
    def of(cls, settings: Settings) -> "Outbound":
        """The client of a process: the addresses of providers that its own settings name are trusted."""
        return cls(trusted_hosts(settings), ca_file=settings.outbound_ca_file)

    async def __aenter__(self) -> "Outbound":
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, value, trace)

    async def call(  # noqa: PLR0913  # what a call is made of
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 10.0,
        largest: int = LARGEST_ANSWER,
        status_alone: bool = False,
    ) -> Answer:
        """What the other side answers. Raises AddressRefused; NoAnswer where there is none in time or it is too large.

        `timeout_s` is for all of it, from asking DNS to the last byte. With `status_alone` the body is of no interest,
        and neither its size nor its end: it stays out.
        """
        address = check_url(url, self._private)
        sent = {"accept-encoding": "gzip, deflate", "user-agent": "Throughline", **(headers or {})}
        try:
            async with asyncio.timeout(timeout_s):
                request = self._client.build_request(method, address, headers=sent, content=content, timeout=timeout_s)
                response = await self._client.send(request, stream=True)
                try:
                    body = await (_passed_over(response) if status_alone else _bounded(response, largest))
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            raise NoAnswer(f"no answer within {timeout_s:g} seconds") from exc
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, zlib.error, UnicodeError) as exc:
            raise NoAnswer(f"no answer: {type(exc).__name__}") from exc
        return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


@lru_cache(maxsize=4)
def _context(ca_file: Path | None) -> ssl.SSLContext:
    """What is believed of certificates; kept, since reading the system's takes tens of milliseconds."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def _passed_over(response: httpx.Response) -> bytes:
    """Read what is left if that is little, so that the connection can be used again; else it is closed."""
    size = 0
    with suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > _LITTLE:
                    break
    return b""


async def _bounded(response: httpx.Response, largest: int) -> bytes:
    """The body, unpacked; never more than `largest` bytes, however far it would unpack."""
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("identity", "gzip", "deflate"):
        raise NoAnswer("the answer is packed in a way that was not asked for")
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > largest:
            raise TooLargeAnswer(f"the answer has more than {largest} bytes")
    if packed == "identity" or not raw:
        return bytes(raw)
    body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(bytes(raw), largest + 1)
    if len(body) > largest:
        raise TooLargeAnswer(f"the answer has more than {largest} bytes")
    return body


def _as_address(text: str) -> Address | None:
    """The address that a text is, also in the spellings that resolvers take: 2130706433, 0x7f.1, 0177.0.0.1."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(text)) if _NUMERIC.fullmatch(text) else None
    except OSError:
        return None
