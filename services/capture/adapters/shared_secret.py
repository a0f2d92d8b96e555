"""The secret itself in the request, for senders that sign nothing: it proves neither the body nor the time.

The ways: `Authorization` (Bearer or Basic), `?token=` in the address, a field of the body.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from services.capture.adapters.adapter import PLAIN, Adapter, HookRequest, MappingSettings, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.carried import carried_secrets
from services.capture.adapters.signatures import keys, require_any


class Unsigned(Adapter):
    """A kind of source whose sender signs nothing."""

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_secret(request, secrets)


def require_secret(request: HookRequest, secrets: Sequence[str]) -> None:
    """BadSignature unless the request carries one of the secrets."""
    require_any(keys(secrets), _carried(request))


def _carried(request: HookRequest) -> Iterator[bytes]:
    """Every text of the request that may be the secret itself."""
    yield from carried_secrets(request)
    yield from (value.encode() for value in _texts_of(request))


def _texts_of(request: HookRequest) -> Iterator[str]:
    """The texts at the top of the body: senders that can set no header echo the secret in a field."""
    try:
        body = read_any(request)
    except Unmappable:
        return
    if isinstance(body, Mapping):
        yield from (value for value in body.values() if isinstance(value, str))
