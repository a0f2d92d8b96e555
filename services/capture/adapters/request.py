"""A webhook request as it came in, as it is kept, and the answer to it."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

import orjson

BLANK = "[blanked]"
SHORTEST_SECRET = 8  # a shorter text would be found, and blanked, where it is no secret
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_SECRET_PARAMETERS = frozenset({"token", "secret", "api_key", "access_token"})


@dataclass(frozen=True)
class Headers:
    """Header fields by name, in any case; a name can come more than once."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> "Headers":
        items = pairs.items() if isinstance(pairs, Mapping) else pairs
        return cls(tuple((name.lower(), value) for name, value in items))

    def all(self, name: str) -> list[str]:
        """Every value under this name, in order."""
        return self._by_name.get(name.lower(), [])

    def get(self, name: str) -> str | None:
        """The only value under this name; None when there is none, or more than one and so nobody can say which."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in self.pairs:
            found.setdefault(name, []).append(value)
        return found


@dataclass(frozen=True)
class HookRequest:
    """A request to a hook. `url` is the public address as configured, with the query as it came.

    `url` and not the address that the server saw, since some sources sign it to the letter.
    """

    method: str
    url: str
    headers: Headers
    raw_body: bytes
    received_at: datetime

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters of the address; of one that comes twice, the first."""
        found: dict[str, str] = {}
        for name, value in parse_qsl(self.url.partition("?")[2], keep_blank_values=True):
            found.setdefault(name, value)
        return found

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case."""
        return (self.headers.get("content-type") or "").split(";")[0].strip().lower()

    def dump(self) -> bytes:
        """The request as it is sealed into a delivery."""
        return orjson.dumps(
            {
                "method": self.method,
                "url": self.url,
                "headers": self.headers.pairs,
                "body": base64.b64encode(self.raw_body).decode(),
                "received_at": self.received_at.isoformat(),
            }
        )

    @classmethod
    def load(cls, dumped: bytes) -> "HookRequest":
        """The request that `dump` made the bytes of."""
        kept = orjson.loads(dumped)
        return cls(
            method=kept["method"],
            url=kept["url"],
            headers=Headers(tuple((name, value) for name, value in kept["headers"])),
            raw_body=base64.b64decode(kept["body"]),
            received_at=datetime.fromisoformat(kept["received_at"]),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the source; nothing and 200 for most."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None


def strip_secrets(request: HookRequest, secrets: Sequence[str]) -> HookRequest:
    """The request without credentials and tokens in the address, and without the secret wherever it is echoed."""
    address, _, query = request.url.partition("?")
    parameters = [
        (name, BLANK if name.lower() in _SECRET_PARAMETERS or value in secrets else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    url, body = request.url, request.raw_body
    if any(value == BLANK for _, value in parameters):
        url = f"{address}?{urlencode(parameters)}"
    headers = [(name, BLANK if name in _SECRET_HEADERS else value) for name, value in request.headers.pairs]
    for spelling in sorted({s for secret in secrets for s in _spellings(secret)}, key=len, reverse=True):
        url = url.replace(spelling, BLANK)
        headers = [(name, value.replace(spelling, BLANK)) for name, value in headers]
        body = body.replace(spelling.encode(), BLANK.encode())
    return replace(request, url=url, headers=Headers(tuple(headers)), raw_body=body)


def _spellings(secret: str) -> set[str]:
    """How a secret may be written in a header, a form, an address or JSON."""
    if len(secret) < SHORTEST_SECRET:
        return set()
    in_json = orjson.dumps(secret).decode()[1:-1]
    return {secret, quote(secret, safe=""), quote_plus(secret), in_json, in_json.replace("/", "\\/")}
