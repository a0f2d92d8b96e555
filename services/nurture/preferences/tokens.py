"""The addresses of preference pages: each is one person's for ever, tells nothing of them, and nobody can make one."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from shared.ids import LeadId, MessageId


class PreferenceLinks:
    """Makes and reads them: the lead's id under AES-SIV (RFC 5297), which encrypts and signs at once.

    In a message the address goes on, after a dot, with the message's id, sealed for this person: so it is known by
    which message somebody came.
    """

    def __init__(self, key: bytes, public_url: str) -> None:
        self._cipher = AESSIV(key)
        self._base = f"{public_url.rstrip('/')}/nurture/v1/preferences"

    def address(self, lead_id: LeadId, message_id: MessageId | None = None) -> str:
        """The address of a person's page; nobody's, if there is no such person."""
        page = f"{self._base}/{_written(self._cipher.encrypt(lead_id.encode(), None))}"
        if message_id is None:
            return page
        return f"{page}.{_written(self._cipher.encrypt(UUID(message_id).bytes, [lead_id.encode()]))}"

    def read(self, token: str) -> LeadId | None:
        """Whose page it is; None when we did not make it."""
        try:
            return LeadId(self._cipher.decrypt(_read(token.partition(".")[0]), None).decode())
        except (ValueError, InvalidTag):
            return None

    def message_of(self, token: str, lead_id: LeadId) -> MessageId | None:
        """The message by which a person came to their page; None when it was by none."""
        try:
            return MessageId(str(UUID(bytes=self._cipher.decrypt(_read(token.partition(".")[2]), [lead_id.encode()]))))
        except (ValueError, InvalidTag):
            return None


def _written(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def _read(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))
