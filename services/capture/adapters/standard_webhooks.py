"""Standard Webhooks, and Svix, which is the same under other names: any sender that follows the specification.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from secrets import token_bytes
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    BadSignature,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    Touch,
)
from services.capture.adapters.bodies import read_object
from services.capture.adapters.fields import happened_at, ignored, person_of, touch_of, type_name
from services.capture.adapters.form_answers import is_test
from services.capture.adapters.lead_body import api_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import base64_bytes, header_bytes, hmac_sha256, require_any, require_now

_FAMILIES = ("webhook", "svix")
_SHARED, _PUBLIC = "whsec_", "whpk_"
_KEY_BYTES = range(24, 65)
_TRIES = frozenset({"ping", "test"})


class StandardWebhooks(Adapter):
    """The default mapping: `data` has the fields of a lead as in the API, `timestamp` says when."""

    kind: ClassVar[str] = "standard_webhooks"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        verify_standard(request, secrets, now)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: webhook_id(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        data = body.get("data")
        data = data if isinstance(data, dict) else {}
        key = self.delivery_id(request)
        happened = type_name(str(body.get("type") or "")) or "webhook_received"
        if happened in _TRIES or is_test(body) or is_test(data):
            return Reading((ignored(key, request, "test"),), data, body)
        record = data.get("id") if isinstance(data.get("id"), str | int) else None
        fields = api_fields(data)
        if record is not None:
            fields.setdefault("external_id", record)
            fields.pop("attributes.id", None)
        at, timed_by = happened_at(body.get("timestamp"), request)
        touch = Touch(type=settings.touch_type or happened, touch_id=key.partition(":")[2])
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(fields, settings.phone_country),
            touch=touch_of(fields, touch),
            external_id=None if record is None else str(record),
        )
        return Reading((fact,), data, body)

    def new_secret(self) -> str:
        return new_standard_secret()

    def secret_fault(self, secret: str) -> str | None:
        key = base64_bytes(secret.removeprefix(_PUBLIC).removeprefix(_SHARED))
        if secret.startswith(_PUBLIC):
            return None if key is not None and len(key) == 32 else "whpk_ is followed by the base64 of 32 bytes"
        return (
            None
            if key is not None and len(key) in _KEY_BYTES
            else "a secret is whsec_ and the base64 of 24 to 64 bytes"
        )


def verify_standard(request: HookRequest, secrets: Sequence[str], now: datetime) -> None:
    """BadSignature unless the request is signed with one of the secrets, within five minutes of now."""
    name, timestamp, listed = _headers(request)
    require_now(timestamp, now)
    signed = (header_bytes(name), b".", timestamp.encode(), b".", request.raw_body)
    signatures = [entry.partition(",") for entry in listed.split()]
    if _signed_with_public_key(b"".join(signed), signatures, secrets):
        return
    expected = (base64.b64encode(hmac_sha256(key, *signed)) for key in _keys(secrets))
    require_any(expected, (header_bytes(value) for version, _, value in signatures if version == "v1"))


def is_signed(request: HookRequest) -> bool:
    """Whether the request has the headers of a signature, good or bad."""
    return any(request.headers.all(f"{family}-signature") for family in _FAMILIES)


def webhook_id(request: HookRequest) -> str | None:
    """The sender's name for the message, the same for every attempt."""
    return next((name for family in _FAMILIES if (name := request.headers.get(f"{family}-id"))), None)


def new_standard_secret() -> str:
    """A secret of 32 random bytes."""
    return _SHARED + base64.b64encode(token_bytes(32)).decode()


def _headers(request: HookRequest) -> tuple[str, str, str]:
    for family in _FAMILIES:
        name, timestamp, listed = (request.headers.get(f"{family}-{part}") for part in ("id", "timestamp", "signature"))
        if name and timestamp and listed:
            return name, timestamp, listed
    raise BadSignature("the headers webhook-id, webhook-timestamp and webhook-signature are needed, each once")


def _keys(secrets: Sequence[str]) -> Iterator[bytes]:
    """The shared secrets as keys: unlike elsewhere, the bytes that the text stands for."""
    for secret in secrets:
        key = None if secret.startswith(_PUBLIC) else base64_bytes(secret.removeprefix(_SHARED))
        if key:
            yield key


def _signed_with_public_key(signed: bytes, signatures: Sequence[tuple[str, str, str]], secrets: Sequence[str]) -> bool:
    """Whether a `v1a` signature is that of one of the public keys."""
    for secret in secrets:
        public = base64_bytes(secret.removeprefix(_PUBLIC)) if secret.startswith(_PUBLIC) else None
        if public is None or len(public) != 32:
            continue
        key = Ed25519PublicKey.from_public_bytes(public)
        for version, _, value in signatures:
            if version == "v1a" and (signature := base64_bytes(value)) is not None and _fits(key, signature, signed):
                return True
    return False


def _fits(key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


ADAPTER = StandardWebhooks()
