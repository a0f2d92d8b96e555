"""How analytics, chat, mail and SMS providers sign, by kind."""

import base64
import hashlib
import hmac
from datetime import datetime
from urllib.parse import parse_qsl

from tests.samples.sender import Signer


def _in_body_or_private(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    """Mailgun signs within the body; for SendGrid and Amazon only a private key could sign."""
    return {}


def _postmark(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(secret.encode()).decode()}


def _resend(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    name, seconds = "msg_382d3e61723a18b536baafa772a", str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{name}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {"svix-id": name, "svix-timestamp": seconds, "svix-signature": "v1," + base64.b64encode(mac).decode()}


def _twilio(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    is_json = body.lstrip()[:1] in (b"{", b"[")
    pairs = [] if is_json else parse_qsl(body.decode(), keep_blank_values=True)
    signed = url + "".join(f"{name}{value}" for name, value in sorted(set(pairs)))
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha1).digest()
    return {"x-twilio-signature": base64.b64encode(mac).decode()}


def _segment(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"x-signature": hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}


def _rudderstack(body: bytes, secret: str, url: str, now: datetime) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


SIGNERS: dict[str, Signer] = {
    "mailgun": _in_body_or_private,
    "postmark": _postmark,
    "resend": _resend,
    "rudderstack": _rudderstack,
    "segment": _segment,
    "sendgrid": _in_body_or_private,
    "ses": _in_body_or_private,
    "twilio": _twilio,
}
