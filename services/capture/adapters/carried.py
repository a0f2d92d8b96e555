"""Secrets that travel as they are, for sources that sign nothing: in the address, or echoed in the body."""

import json
from collections.abc import Iterator

from services.capture.adapters.adapter import HookRequest, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.signatures import header_bytes


def token_in_address(request: HookRequest) -> Iterator[bytes]:
    """`?token=`, if it is there."""
    if token := request.query.get("token"):
        yield token.encode(errors="replace")


def bearer_token(request: HookRequest) -> Iterator[bytes]:
    """What follows `Authorization: Bearer`."""
    for value in request.headers.all("authorization"):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            yield header_bytes(token.strip())


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
