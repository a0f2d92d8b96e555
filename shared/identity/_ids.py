"""Lead ids out of identifiers: the same on every replica and at every replay, and nobody can guess them."""

import hmac

from shared.ids import LeadId, uuid8
from shared.secrets import Secrets


class LeadIds:
    """Makes lead ids by HMAC-SHA256 from identifiers, which must be normalised already.

    Strongest first: email, phone, external id (per source), anonymous id. `generation` counts how often the person
    behind the identifier was erased.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._key = secrets.identity

    def of_email(self, email: str, generation: int = 0) -> LeadId:
        """The id made from a normalised email address."""
        return self._make("email", email, generation)

    def of_phone(self, phone: str, generation: int = 0) -> LeadId:
        """The id made from an E.164 number."""
        return self._make("phone", phone, generation)

    def of_external_id(self, source: str, external_id: str, generation: int = 0) -> LeadId:
        """The id made from a source's own id of the person."""
        return self._make("external", f"{source}\x1f{external_id}", generation)

    def of_anonymous_id(self, anonymous_id: str, generation: int = 0) -> LeadId:
        """The id made from a browser's anonymous id."""
        return self._make("anonymous", anonymous_id, generation)

    def fingerprint(self) -> str:
        """What the database keeps, to refuse a start with another key."""
        return hmac.digest(self._key, b"fingerprint", "sha256").hex()[:32]

    def hash_of(self, kind: str, value: str) -> str:
        """A keyed hash of an identifier, to look it up without storing it in clear."""
        return hmac.digest(self._key, f"hash\x1f{kind}\x1f{value}".encode(), "sha256").hex()

    def _make(self, kind: str, value: str, generation: int) -> LeadId:
        text = f"{kind}\x1f{value}\x1f{generation}".encode()
        return LeadId(uuid8(hmac.digest(self._key, text, "sha256")))
