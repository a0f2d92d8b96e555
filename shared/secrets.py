"""One installation secret; every other key is derived from it, so that there is one thing to keep."""

from functools import cached_property

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Secrets:
    """Keys by purpose, derived by HKDF-SHA256 (RFC 5869) from the installation's secret."""

    def __init__(self, secret_hex: str) -> None:
        self._secret = bytes.fromhex(secret_hex)

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"throughline/{purpose}".encode()).derive(
            self._secret
        )

    @cached_property
    def identity(self) -> bytes:
        """Makes lead ids out of identifiers."""
        return self.derive("identity")

    @cached_property
    def wrapping(self) -> bytes:
        """Encrypts the keys of persons, and what has no person yet."""
        return self.derive("wrapping")

    @cached_property
    def tokens(self) -> bytes:
        """Signs access tokens."""
        return self.derive("tokens")

    @cached_property
    def links(self) -> bytes:
        """Signs the links in messages."""
        return self.derive("links")

    @cached_property
    def cursors(self) -> bytes:
        """Signs page cursors."""
        return self.derive("cursors")

    @cached_property
    def likeness(self) -> bytes:
        """Makes the keys by which people who may be the same are found."""
        return self.derive("likeness")
