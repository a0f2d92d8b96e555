"""How ad platforms and CRMs sign, by kind."""

import base64
import hashlib
import hmac
from datetime import datetime

from tests.samples.sender import Signer


def _mac(secret: str, signed: bytes) -> bytes:
    return hmac.new(secret.encode(), signed, hashlib.sha256).digest()


def _meta(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + _mac(secret, body).hex()}


def _linkedin(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-li-signature": _mac(secret, b"hmacsha256=" + body).hex()}


def _hubspot(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    milliseconds = str(round(now.timestamp() * 1_000))
    signed = b"POST" + url.encode() + body + milliseconds.encode()
    return {
        "x-hubspot-request-timestamp": milliseconds,
        "x-hubspot-signature-v3": base64.b64encode(_mac(secret, signed)).decode(),
    }


def _unsigned(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    """The secret is in the body or in the address."""
    return {}


SIGNERS: dict[str, Signer] = {
    "facebook": _meta,
    "instagram": _meta,
    "whatsapp": _meta,
    "google_ads": _unsigned,
    "linkedin": _linkedin,
    "tiktok": _unsigned,
    "salesforce": _unsigned,
    "hubspot": _hubspot,
    "zoho": _unsigned,
}
