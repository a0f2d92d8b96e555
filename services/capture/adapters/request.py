"""A webhook request as it came in, as it is kept, and the answer to it."""

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus

import orjson

BLANK = "[blanked]"
SHORTEST_SECRET = 8  # a shorter text would be found, and blanked, where it is no secret
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_SECRET_PARAMETER = re.compile(r"(?<![^&])(token|secret|api_key|access_token)=[^&]*", re.IGNORECASE)
_BLANKED_PARAMETER = rf"\1={quote(BLANK)}"
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


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

    `url` and not the address that the server saw, since some sources sign it to the letter. `found` is what was looked
    up for it: the JSON of a provider's answer by the path asked for, the text of a certificate by its address.
    """

    method: str
    url: str
    headers: Headers
    raw_body: bytes
    received_at: datetime
    found: Mapping[str, Any] = field(default_factory=dict, compare=False)

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
    spellings = _spellings_of(tuple(secrets))
    address, mark, query = request.url.partition("?")
    headers = [
        (name, BLANK if name in _SECRET_HEADERS else _blanked(value, spellings))
        for name, value in request.headers.pairs
    ]
    body = _blanked(request.raw_body.decode(errors="surrogateescape"), spellings)
    if body.removeprefix("\ufeff").lstrip()[:1] in ("{", "["):
        if "\\" in body:
            body = _JSON_TEXT.sub(lambda found: _blanked_json_text(found[0], spellings), body)
    elif request.content_type == "application/x-www-form-urlencoded":
        body = _blanked_form(body, spellings)
    return replace(
        request,
        url=address + mark + _blanked_form(_SECRET_PARAMETER.sub(_BLANKED_PARAMETER, query), spellings),
        headers=Headers(tuple(headers)),
        raw_body=body.encode(errors="surrogateescape"),
    )


@lru_cache(maxsize=1_000)
def _spellings_of(secrets: tuple[str, ...]) -> Sequence[str]:
    """How any of the secrets may be written, the longest first."""
    return sorted({text for secret in secrets for text in _spellings(secret)}, key=len, reverse=True)


def _spellings(secret: str) -> set[str]:
    """How a secret may be written in a header, an address within a text, or JSON within a text."""
    if len(secret) < SHORTEST_SECRET:
        return set()
    on_the_wire = secret.encode().decode("latin-1")
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    slashed = {text.replace("/", "\\/") for text in in_json}  # as PHP writes it
    return {secret, on_the_wire, quote(secret, safe=""), quote_plus(secret), *in_json, *slashed}


def _blanked(text: str, spellings: Sequence[str]) -> str:
    for spelling in spellings:
        text = text.replace(spelling, BLANK)
    return text


def _blanked_json_text(quoted: str, spellings: Sequence[str]) -> str:
    """A text in JSON, quotes included: any character of the secret may be escaped in it."""
    try:
        text = json.loads(quoted, strict=False)
    except ValueError:
        return quoted
    blanked = _blanked(text, spellings)
    return quoted if blanked == text else json.dumps(blanked)


def _blanked_form(form: str, spellings: Sequence[str]) -> str:
    """Names and values of a form or a query: any character of the secret may be percent-encoded in them."""

    def part(found: re.Match[str]) -> str:
        text = unquote_plus(found[0])
        blanked = _blanked(text, spellings)
        return found[0] if blanked == text else quote_plus(blanked, errors="replace")

    return re.sub(r"[^&=]+", part, form)
