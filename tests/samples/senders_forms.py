"""How form builders, sheets and automation tools sign, by kind."""

import base64
import hashlib
import hmac
from datetime import datetime

from tests.samples.sender import Signer

_MESSAGE_ID = "gs_0cf93deb_2"


def _bearer(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def _in_the_request(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    """A token in the address, or a body that is its own signature."""
    return {}


def _webflow(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    timestamp = str(int(now.timestamp() * 1000))
    return {
        "x-webflow-timestamp": timestamp,
        "x-webflow-signature": _mac(secret.encode(), f"{timestamp}:".encode() + body).hex(),
    }


def _tally(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"tally-signature": base64.b64encode(_mac(secret.encode(), body)).decode()}


def _google_sheets(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    seconds = str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = base64.b64encode(_mac(key, f"{_MESSAGE_ID}.{seconds}.".encode() + body)).decode()
    return {"webhook-id": _MESSAGE_ID, "webhook-timestamp": seconds, "webhook-signature": f"v1,{mac}"}


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


SIGNERS: dict[str, Signer] = {
    "webflow": _webflow,
    "wix": _in_the_request,
    "gravityforms": _bearer,
    "contact_form_7": _in_the_request,
    "wpforms": _bearer,
    "elementor": _in_the_request,
    "tally": _tally,
    "jotform": _in_the_request,
    "fillout": _bearer,
    "unbounce": _in_the_request,
    "google_sheets": _google_sheets,
    "clay": _bearer,
    "zapier": _bearer,
    "make": _bearer,
}
