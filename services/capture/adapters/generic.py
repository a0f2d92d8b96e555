"""Any sender: JSON or a form, a mapping for its fields, and the secret in whatever way the sender can carry it.

A Standard Webhooks signature, where there is one, also proves the body and the time.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.bodies import read_any
from services.capture.adapters.fields import happened_at, ignored, person_of, text, touch_of
from services.capture.adapters.form_answers import is_test
from services.capture.adapters.lead_body import api_fields, tracking_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import require_secret
from services.capture.adapters.standard_webhooks import is_signed, new_standard_secret, verify_standard, webhook_id
from services.capture.mapping import FORM_SUBMITTED


class Generic(Adapter):
    """Without a mapping, the body has the fields of a lead as in the API."""

    kind: ClassVar[str] = "generic"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        if is_signed(request):
            verify_standard(request, secrets, now)
        else:
            require_secret(request, secrets)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: webhook_id(request) or _mapped_key(request, settings))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_any(request)
        if not settings.places and not isinstance(body, Mapping):
            raise Unmappable("without a mapping, the body is one object with the fields of a lead")
        top = body if isinstance(body, Mapping) else {}
        key = self.delivery_id(request, settings)
        if is_test(top):
            return Reading((ignored(key, request, "test"),), top, body)
        fields = tracking_fields(top) if settings.places else api_fields(top)
        at, timed_by = happened_at(None if settings.places else top.get("occurred_at"), request)
        touch = Touch(type=settings.touch_type or FORM_SUBMITTED, touch_id=key.partition(":")[2])
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(fields, settings.phone_country),
            touch=touch_of(fields, touch),
        )
        return Reading((fact,), top, body)

    def new_secret(self) -> str:
        return new_standard_secret()


def _mapped_key(request: HookRequest, settings: MappingSettings) -> Any:
    body = read_any(request)
    top = body if isinstance(body, Mapping) else {}
    if settings.places:
        return text(settings.find(Reading((), top, body), request).get("idempotency_key"))
    return text(top.get("idempotency_key"))


ADAPTER = Generic()
