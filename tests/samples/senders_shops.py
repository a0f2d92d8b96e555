"""How schedulers, shops, payments and Slack sign, by kind."""

import base64
import hashlib
import hmac
import html
from datetime import datetime

from tests.samples.sender import Signer


def _calendly(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    seconds = int(now.timestamp())
    return {"calendly-webhook-signature": f"t={seconds},v1={_mac(secret, f'{seconds}.'.encode() + body).hex()}"}


def _cal_com(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-cal-signature-256": _mac(secret, body).hex()}


def _mindbody(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-mindbody-signature": "sha256=" + _base64(_mac(secret, body))}


def _square(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-square-hmacsha256-signature": _base64(_mac(secret, url.encode() + body))}


def _woocommerce(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-wc-webhook-signature": _base64(_mac(html.unescape(secret), body))}


def _slack(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    seconds = str(int(now.timestamp()))
    signature = "v0=" + _mac(secret, f"v0:{seconds}:".encode() + body).hex()
    return {"x-slack-request-timestamp": seconds, "x-slack-signature": signature}


def _mac(secret: str, signed: bytes) -> bytes:
    return hmac.new(secret.encode(), signed, hashlib.sha256).digest()


def _base64(mac: bytes) -> str:
    return base64.b64encode(mac).decode()


SIGNERS: dict[str, Signer] = {
    "calendly": _calendly,
    "cal_com": _cal_com,
    "mindbody": _mindbody,
    "square": _square,
    "woocommerce": _woocommerce,
    "slack": _slack,
}
