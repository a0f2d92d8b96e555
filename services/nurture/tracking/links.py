"""Addresses in messages: each names a message and a place in it, and nobody can make or guess one."""

import hmac
import re
import uuid
from base64 import b32decode, b32encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Literal

from shared.ids import MessageId

LinkKind = Literal["o", "c", "u", "h"]
SHORT_PLACES = 256
"""So many links of one message have short addresses."""
_MAC_BYTES = 16
_BODY_BYTES = 19
_SHORT_HEAD_BYTES = 6
_SHORT_MAC_BYTES = 5
_SHORT_TOKEN = re.compile(r"[a-z2-7]{20}")


@dataclass(frozen=True, slots=True)
class Place:
    """What an address stands for: `number` counts the links of the message."""

    message_id: MessageId
    number: int


@dataclass(frozen=True, slots=True)
class ShortToken:
    """What a short address says: between which ids its message lies, the place, and what proves it of that message."""

    first: MessageId
    last: MessageId
    number: int
    mac: bytes


class Links:
    """Makes and reads the addresses of opens (`o`), clicks (`c`), unsubscriptions (`u`) and traps (`h`).

    A token is the message's id, the place and 128 bits of HMAC-SHA256 over both. `traps` says that messages hold an
    address that nobody sees. Text messages are paid by their length, so clicks in them have short addresses (decision
    0042): 48 bits of the message's id, the place and 40 bits of the HMAC. They begin with `short_url`, where it is set.
    """

    def __init__(self, key: bytes, public_url: str, *, traps: bool = True, short_url: str | None = None) -> None:
        self._key = key
        self.traps = traps
        self.base = f"{public_url.rstrip('/')}/nurture"
        self._short = f"{self.base}/s" if short_url is None else short_url.rstrip("/")

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

    def short_address(self, message_id: MessageId, number: int) -> str:
        """The address of a click to put in a text message; for a `number` below SHORT_PLACES."""
        head = uuid.UUID(message_id).bytes[:_SHORT_HEAD_BYTES] + number.to_bytes(1, "big")
        token = b32encode(head + self._short_mac(message_id, number)).decode().rstrip("=").lower()
        return f"{self._short}/{token}"

    @staticmethod
    def read_short(token: str) -> ShortToken | None:
        """What a short token says, which `proves` has still to hold against; None for what is none. Case is nothing."""
        if not _SHORT_TOKEN.fullmatch(token.lower()):
            return None
        raw = b32decode(token.upper() + "=" * (-len(token) % 8))
        head, number, mac = raw[:_SHORT_HEAD_BYTES], raw[_SHORT_HEAD_BYTES], raw[_SHORT_HEAD_BYTES + 1 :]
        first, last = (str(uuid.UUID(bytes=head + rest * (16 - len(head)))) for rest in (b"\x00", b"\xff"))
        return ShortToken(MessageId(first), MessageId(last), number, mac)

    def proves(self, token: ShortToken, message_id: MessageId) -> bool:
        """Whether a short address was made here for this message."""
        return hmac.compare_digest(token.mac, self._short_mac(message_id, token.number))

    def _short_mac(self, message_id: MessageId, number: int) -> bytes:
        return self._mac(b"s" + number.to_bytes(1, "big") + uuid.UUID(message_id).bytes)[:_SHORT_MAC_BYTES]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC_BYTES]
