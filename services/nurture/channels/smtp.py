"""Email by SMTP: signed by DKIM where a key is set, over a few connections that are kept."""

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import dkim  # type: ignore[import-untyped]  # ships no types
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from dkim.canonicalization import CanonicalizationPolicy  # type: ignore[import-untyped]  # ships no types

from shared.smtp import Envelope, Mailer, Outcome

_OURS = b"DKIM-Signature"
_SIGNED = (
    b"from",
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"mime-version",
    b"content-type",
    b"list-id",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
# Named once more than they occur, so that nobody can add another one (RFC 6376 section 8.15).
_ONLY_THESE = (b"from", b"to", b"subject", b"list-unsubscribe", b"list-unsubscribe-post")


_RELAXED = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs emails for a domain, by RFC 6376 with RSA and SHA-256.

    dkimpy takes the mail apart and brings it into the form that is signed; its own RSA would take longer than sending.
    """

    domain: str
    selector: str
    key: RSAPrivateKey

    @classmethod
    def of(cls, domain: str, selector: str, pem: bytes) -> "Signer":
        """With a key as PEM. Raises ValueError for one that is none, TypeError for one of another kind."""
        key = load_pem_private_key(pem, None)
        if not isinstance(key, RSAPrivateKey):
            raise TypeError("mail is signed with a key for RSA")
        return cls(domain, selector, key)

    def sign(self, content: bytes) -> bytes:
        """The email with a signature before it."""
        headers, body = dkim.rfc822_parse(content)
        names = (*_SIGNED, *_ONLY_THESE)
        body_hash = base64.b64encode(hashlib.sha256(_RELAXED.canonicalize_body(body)).digest()).decode()
        unsigned = (
            f" v=1; a=rsa-sha256; c=relaxed/relaxed; d={self.domain}; s={self.selector}; t={int(time.time())};\r\n"
            f" h={':'.join(name.decode() for name in names)};\r\n bh={body_hash};\r\n b="
        ).encode()
        chosen = dkim.select_headers(_RELAXED.canonicalize_headers(headers), names)
        own = [(name, value.rstrip()) for name, value in _RELAXED.canonicalize_headers([(_OURS, unsigned)])]
        text = b"".join(name + b":" + value for name, value in [*chosen, *own])
        signature = base64.b64encode(self.key.sign(text, PKCS1v15(), SHA256())).decode()
        folded = "\r\n ".join(signature[start : start + 72] for start in range(0, len(signature), 72))
        return _OURS + b":" + unsigned + folded.encode() + b"\r\n" + content


class Smtp:
    """A mail server."""

    name = "smtp"

    def __init__(self, mailer: Mailer, signer: Signer | None) -> None:
        self._mailer = mailer
        self._signer = signer

    async def deliver(self, content: Envelope, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand over an email."""
        if self._signer is not None:
            content = replace(content, content=self._signer.sign(content.content))
        return await self._mailer.deliver(content, still_wanted)
