"""Secrets that senders carry along, since they sign nothing: in `Authorization`, or in the address."""

from collections.abc import Iterator

from services.capture.adapters.request import HookRequest
from services.capture.adapters.signatures import base64_bytes, header_bytes


def basic_credentials(request: HookRequest) -> Iterator[bytes]:
    """`user:password`, of every Basic authorization that parses."""
    for credentials in _credentials(request, "basic"):
        decoded = base64_bytes(credentials)
        if decoded:
            yield decoded


def carried_secrets(request: HookRequest) -> Iterator[bytes]:
    """What may be the secret itself: a bearer's token, a Basic password or, without one, its user, `?token=`."""
    for credentials in _credentials(request, "bearer"):
        yield header_bytes(credentials)
    for decoded in basic_credentials(request):
        user, _, password = decoded.partition(b":")
        yield decoded
        yield password or user
    if token := request.query.get("token"):
        yield token.encode(errors="replace")


def _credentials(request: HookRequest, wanted: str) -> Iterator[str]:
    for value in request.headers.all("authorization"):
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == wanted and credentials.strip():
            yield credentials.strip()
