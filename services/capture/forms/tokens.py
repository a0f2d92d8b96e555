"""What a form carries from being shown to being sent, and what a link to confirm carries: signed, nobody makes one."""

import hmac
import struct
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime

from services.capture.forms.domain import FormToken
from shared.ids import new_id
from shared.secrets import Secrets

_BODY = struct.Struct(">16sIQ")
_MAC_BYTES = 16
_ID_BYTES = 16


class FormTokens:
    """Makes and reads the tokens of forms and of links. A form's token is good for that form alone."""

    def __init__(self, secrets: Secrets) -> None:
        self._forms = secrets.derive("form-tokens")
        self._links = secrets.derive("optin-links")

    def form_token(self, form_id: str, version: int, now: datetime) -> str:
        """A token for a form that is shown now: it names one submission."""
        body = _BODY.pack(uuid.UUID(new_id()).bytes, version, int(now.timestamp() * 1_000))
        return _text(body + _mac(self._forms, form_id.encode() + body))

    def read_form_token(self, form_id: str, token: str) -> FormToken | None:
        """What a form's token says; None when we did not make it for this form."""
        raw = _bytes(token)
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, _mac(self._forms, form_id.encode() + body)):
            return None
        submission, version, shown_ms = _BODY.unpack(body)
        shown_at = datetime.fromtimestamp(shown_ms / 1_000, UTC)
        return FormToken(str(uuid.UUID(bytes=submission)), version, shown_at, token)

    def link_token(self, optin_id: str) -> str:
        """The part of a link that names what it confirms."""
        body = uuid.UUID(optin_id).bytes
        return _text(body + _mac(self._links, body))

    def read_link_token(self, token: str) -> str | None:
        """What a link confirms; None when we did not make it."""
        raw = _bytes(token)
        body, mac = raw[:_ID_BYTES], raw[_ID_BYTES:]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, _mac(self._links, body)):
            return None
        return str(uuid.UUID(bytes=body))


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, said, "sha256")[:_MAC_BYTES]


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(token: str) -> bytes:
    """The bytes of a token as we write it: of all the texts that come to the same bytes, one."""
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4)) if token.isascii() else b""
    except ValueError:
        return b""
    return raw if _text(raw) == token else b""
