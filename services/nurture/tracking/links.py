"""Addresses in messages: each names a message and a place in it, and nobody can make or guess one."""

import hmac
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Literal

from shared.ids import MessageId

LinkKind = Literal["o", "c", "u", "h"]
_MAC_BYTES = 16
_BODY_BYTES = 19


@dataclass(frozen=True, slots=True)
class Place:
    """What an address stands for: `number` counts the links of the message."""

    message_id: MessageId
    number: int


class Links:
    """Makes and reads the addresses of opens (`o`), clicks (`c`), unsubscriptions (`u`) and traps (`h`).

    A token is the message's id, the place and 128 bits of HMAC-SHA256 over both. `traps` says that messages hold an
    address that nobody sees.
    """

    def __init__(self, key: bytes, public_url: str, *, traps: bool = True) -> None:
        self._key = key
        self.traps = traps
        self.base = f"{public_url.rstrip('/')}/nurture"

    def address(self, kind: LinkKind, message_id: MessageId, number: int = 0) -> str:
        """The address to put in a message."""
        return f"{self.base}/{kind}/{self.token(kind, message_id, number)}"

    def token(self, kind: LinkKind, message_id: MessageId, number: int = 0) -> str:
        """The part of the address that names the message and the place."""
        body = kind.encode() + number.to_bytes(2, "big") + uuid.UUID(message_id).bytes
        return urlsafe_b64encode(body + self._mac(body)).decode().rstrip("=")

    def read(self, kind: LinkKind, token: str) -> Place | None:
        """What a token stands for; None when we did not make it for this."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        body, mac = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
        if len(mac) != _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body)) or body[:1] != kind.encode():
            return None
        return Place(MessageId(str(uuid.UUID(bytes=body[3:]))), int.from_bytes(body[1:3], "big"))

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC_BYTES]
