"""Secrets that travel as they are, for sources that sign nothing: in a header, the address, or echoed in the body."""

import json
from collections.abc import Iterator
from urllib.parse import unquote

from services.capture.adapters.adapter import HookRequest, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.signatures import base64_bytes, header_bytes


def carried_secrets(request: HookRequest) -> Iterator[bytes]:
    """What may be the secret itself: a bearer's token, a Basic password or, without one, its user, `?token=`."""
    yield from bearer_token(request)
    for decoded in basic_credentials(request):
        user, _, password = decoded.partition(b":")
        yield decoded
        yield password or user
    yield from token_in_address(request)


def token_in_address(request: HookRequest) -> Iterator[bytes]:
    """`?token=`, if it is there: a plus in it is a blank, or was written by somebody who meant a plus."""
    if token := request.query.get("token"):
        yield token.encode(errors="replace")
        parts = (part.partition("=") for part in request.url.partition("?")[2].split("&"))
        written = next((value for name, _, value in parts if name == "token"), "")
        yield unquote(written).encode(errors="replace")


def bearer_token(request: HookRequest) -> Iterator[bytes]:
    """What follows `Authorization: Bearer`."""
    yield from (header_bytes(credentials) for credentials in _credentials(request, "bearer"))


def basic_credentials(request: HookRequest) -> Iterator[bytes]:
    """`user:password`, of every Basic authorization that parses."""
    for credentials in _credentials(request, "basic"):
        if decoded := base64_bytes(credentials):
            yield decoded


def _credentials(request: HookRequest, wanted: str) -> Iterator[str]:
    for value in request.headers.all("authorization"):
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == wanted and credentials.strip():
            yield credentials.strip()


def text_in_body(request: HookRequest, name: str) -> Iterator[bytes]:
    """The text under this name of the body, if it is there.

    JSON is read leniently: whoever knows the secret is the source, and what is odd in the rest is judged later.
    """
    try:
        body = json.loads(request.raw_body)
    except (ValueError, RecursionError):
        try:
            body = read_any(request)
        except Unmappable:
            return
    value = body.get(name) if isinstance(body, dict) else None
    if isinstance(value, str):
        yield value.encode(errors="replace")
