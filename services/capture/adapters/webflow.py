"""Webflow: form submissions. https://developers.webflow.com/data/docs/working-with-webhooks

Webhooks made in the dashboard are not signed: they carry the secret in their address.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    HookRequest,
    MappingSettings,
    Reading,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, read_object
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import require_secret
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any, require_now_ms

_TYPES = {"FormEmail": "email", "FormPhone": "phone", "Email": "email", "Phone": "phone"}
_BOXES = frozenset({"FormCheckboxInput", "Checkbox"})


class Webflow(Adapter):
    """Answers are known by the names of their fields as the page shows them."""

    kind: ClassVar[str] = "webflow"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        signed = any(request.headers.all(f"x-webflow-{part}") for part in ("signature", "timestamp"))
        if not signed:
            require_secret(request, secrets)
            return
        timestamp = request.headers.get("x-webflow-timestamp") or ""
        require_now_ms(timestamp, now)
        given = (header_bytes(value) for value in request.headers.all("x-webflow-signature"))
        signatures = (hmac_sha256(key, timestamp.encode(), b":", request.raw_body) for key in keys(secrets))
        require_any((signature.hex().encode() for signature in signatures), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: object_at(read_object(request.raw_body), "payload")["id"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        key = self.delivery_id(request)
        if body.get("triggerType") != "form_submission":
            return Reading((ignored(key, request, "trigger_type"),), {}, body)
        payload = object_at(body, "payload")
        data = payload.get("data")
        if not isinstance(data, dict):
            raise Unmappable("a form submission has data")
        types = _types(payload.get("schema"))
        answers = [_answer(name, value, types.get(name)) for name, value in data.items()]
        fact = form_lead(
            key,
            request,
            settings,
            {"touch.url": payload.get("pageUrl"), **form_fields(answers, settings)},
            at=payload.get("submittedAt"),
            external_id=text(payload.get("id")),
            properties={"form_id": payload.get("formId"), "form_name": payload.get("name")},
        )
        return Reading((fact,), data, body)


def _types(schema: Any) -> dict[str, str]:
    fields = schema if isinstance(schema, list) else []
    return {str(field.get("fieldName")): str(field.get("fieldType")) for field in fields if isinstance(field, dict)}


def _answer(name: str, value: Any, written_type: str | None) -> FormAnswer:
    box = True if isinstance(value, bool) or written_type in _BOXES else None
    return FormAnswer(name, value, by_type=_TYPES.get(written_type or ""), box=box)


ADAPTER = Webflow()
