"""Wix: form submissions. https://dev.wix.com/docs/rest/articles/getting-started/webhooks

The body is a JWT and nothing else; the secret is the app's public key.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    BadSignature,
    HookRequest,
    MappingSettings,
    Reading,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, read_json, read_object
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name

_ALGORITHM = "RS256"  # and never what the token asks for: `none`, or HS256 with the public key, are anybody's
_SUBMITTED = "wix.forms.v4.submission_created"
_MADE_UP_END = re.compile(r"_[0-9a-f]{4}$")


class Wix(Adapter):
    """Retries run for two days with the same token, so that only its end is checked, not its age."""

    kind: ClassVar[str] = "wix"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        claims = _signed_claims(request.raw_body.strip(), list(_public_keys(secrets)))
        ends = claims.get("exp")
        if not isinstance(ends, int | Decimal) or isinstance(ends, bool) or ends <= now.timestamp():
            raise BadSignature("the token is not, or no longer, valid")

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _event(_envelope(request))["id"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        envelope = _envelope(request)
        event, key = _event(envelope), self.delivery_id(request)
        if _event_type(envelope, event) != _SUBMITTED:
            return Reading((ignored(key, request, "event_type"),), {}, event)
        if event.get("triggeredByAnonymizeRequest") is True:
            return Reading((ignored(key, request, "anonymized"),), {}, event)
        entity = object_at(object_at(event, "createdEvent"), "entity")
        submissions = entity.get("submissions")
        if not isinstance(submissions, dict):
            raise Unmappable("a submission has submissions")
        fact = form_lead(
            key,
            request,
            settings,
            form_fields((_answer(name, value) for name, value in submissions.items()), settings),
            at=entity.get("createdDate") or event.get("eventTime"),
            external_id=text(entity.get("id")) or text(event.get("entityId")),
            properties={
                "form_id": entity.get("formId"),
                "contact_id": entity.get("contactId"),
                "site_id": envelope.get("instanceId"),
            },
        )
        return Reading((fact,), submissions, event)

    secret_from: ClassVar[str] = "from the app's page at dev.wix.com: Webhooks, Get Public Key"

    def secret_fault(self, secret: str) -> str | None:
        return None if any(_public_keys([secret])) else "the secret is the app's public RSA key, as PEM"


def _public_keys(secrets: Sequence[str]) -> Iterator[RSAPublicKey]:
    for secret in secrets:
        try:
            key = load_pem_public_key(secret.replace("\\n", "\n").encode())
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, RSAPublicKey):
            yield key


def _signed_claims(token: bytes, public_keys: Sequence[RSAPublicKey]) -> Mapping[str, Any]:
    jws = jwt.PyJWS(algorithms=[_ALGORITHM])
    for key in public_keys:
        try:
            return read_object(jws.decode(token, key, algorithms=[_ALGORITHM]))
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, Unmappable):
            continue
    raise BadSignature("the body is no token signed with one of the keys")


def _envelope(request: HookRequest) -> Mapping[str, Any]:
    """What the token's claim `data` says, as JSON in a text; its signature was checked at the door."""
    _, _, rest = request.raw_body.strip().partition(b".")
    try:
        payload = jwt.utils.base64url_decode(rest.partition(b".")[0])
    except ValueError as exc:
        raise Unmappable("the body is no token") from exc
    return _unpacked(read_object(payload).get("data"))


def _event(envelope: Mapping[str, Any]) -> Mapping[str, Any]:
    return _unpacked(envelope.get("data"))


def _unpacked(value: Any) -> Mapping[str, Any]:
    found = read_json(value.encode()) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise Unmappable("an event is JSON in a text in JSON in a text in a token")
    return found


def _event_type(envelope: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    if envelope.get("eventType"):
        return str(envelope["eventType"])
    return f"{event.get('entityFqdn')}_{event.get('slug')}"


def _answer(name: str, value: Any) -> FormAnswer:
    """Wix puts four characters of its own behind the names of fields."""
    return FormAnswer(name, value, label=_MADE_UP_END.sub("", name), box=True if isinstance(value, bool) else None)


ADAPTER = Wix()
