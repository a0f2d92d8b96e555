"""SendGrid: what became of mails. https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event

Our secret is their public key, base64 without PEM lines. The delivery is an array of events, each with a name of its
own; the same event can come twice, also within one array.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.capture.adapters.adapter import PLAIN, Adapter, BadSignature, Fact, HookRequest, MappingSettings, Reading
from services.capture.adapters.bodies import read_json
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import ignored
from services.capture.adapters.mail import (
    OUR_MESSAGE_ID,
    MailEvent,
    address,
    batch_name,
    content_name,
    facts_of_many,
    link,
    short,
)
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import base64_bytes, require_within

_SIGNATURE = "x-twilio-email-event-webhook-signature"
_TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
_RETRIED_FOR = timedelta(hours=24)
_TEST_MESSAGE = "14c5d75ce93."  # what the button "Test your integration" sends events of
_EVENTS = {
    "delivered": "delivered",
    "deferred": "deferred",
    "bounce": "bounced",
    "dropped": "dropped",
    "open": "opened",
    "click": "clicked",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
    "group_resubscribe": "resubscribed",
}


class SendGrid(Adapter):
    """The signature is over the timestamp and the body to its last line break."""

    kind: ClassVar[str] = "sendgrid"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        timestamp, written = request.headers.get(_TIMESTAMP), request.headers.get(_SIGNATURE)
        signature = base64_bytes(written) if written else None
        if not timestamp or not signature:
            raise BadSignature("the headers of the signature and of its timestamp are needed, each once")
        require_within(timestamp, now, _RETRIED_FOR)
        signed = timestamp.encode() + request.raw_body
        if not any(_fits(key, signature, signed) for secret in secrets if (key := _public_key(secret)) is not None):
            raise BadSignature("the signature does not fit")

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name([_name(event) for event in _events(request)]))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        events = _events(request)
        if not events:
            raise Unmappable("the delivery has no events")
        readers = [(f"{self.kind}:{_name(event)}", event) for event in events]
        facts = facts_of_many([(key, _reader(key, event, request)) for key, event in readers], request)
        return Reading(facts, events[0] if len(events) == 1 else {}, events)

    secret_from: ClassVar[str] = "from SendGrid: Settings, Mail Settings, Event Webhooks, Signature Verification"

    def secret_fault(self, secret: str) -> str | None:
        return None if _public_key(secret) is not None else "the secret is SendGrid's verification key, in base64"


def _events(request: HookRequest) -> list[Mapping[str, Any]]:
    body = read_json(request.raw_body)
    if not isinstance(body, list) or not all(isinstance(event, dict) for event in body):
        raise Unmappable("the body is not a list of events")
    return body


def _name(event: Mapping[str, Any]) -> str:
    return short(event.get("sg_event_id")) or content_name(event)


def _reader(key: str, event: Mapping[str, Any], request: HookRequest) -> Callable[[], Fact]:
    return lambda: _fact(key, event, request)


def _fact(key: str, event: Mapping[str, Any], request: HookRequest) -> Fact:
    happened = _EVENTS.get(str(event.get("event")))
    if happened is None:
        return ignored(key, request, "event_type")
    if str(event.get("sg_message_id")).startswith(_TEST_MESSAGE):
        return ignored(key, request, "test")
    blocked = happened == "bounced" and event.get("type") == "blocked"
    machine = {"machine": "true"} if event.get("sg_machine_open") is True else {}
    return MailEvent(
        key=key,
        event="blocked" if blocked else happened,
        email=address(event.get("email")),
        at=event.get("timestamp"),
        message_id=short(event.get(OUR_MESSAGE_ID)) or short(event.get("sg_message_id")),
        permanent=True if happened == "bounced" else None,
        url=link(event.get("url")) if happened == "clicked" else None,
        properties={name: event.get(name) for name in ("reason", "status", "response")} | machine,
    ).fact(request)


def _public_key(secret: str) -> EllipticCurvePublicKey | None:
    try:
        key = load_der_public_key(base64_bytes(secret) or b"")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None


def _fits(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


ADAPTER = SendGrid()
