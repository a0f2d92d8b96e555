"""What automation tools post: bodies whose names their user typed, those of a lead in the API by our template.

The tool's own id of what set it off, under `id`, makes its replays the same delivery.
"""

from collections.abc import Mapping
from typing import Any

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import form_lead, is_test, owner_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_OF_DELIVERY = frozenset({"id", "is_test", "test"})


class Automation(Unsigned):
    """A tool that is an HTTP client and nothing more to us."""

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: text(_body(request).get("id")))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body, key = _body(request), self.delivery_id(request)
        if is_test(body):
            return Reading((ignored(key, request, "test"),), body, body)
        told = {name: value for name, value in body.items() if name not in _OF_DELIVERY}
        fact = form_lead(
            key,
            request,
            settings,
            owner_fields(told, settings),
            at=text(body.get("occurred_at")),
            external_id=text(body.get("id")),
        )
        return Reading((fact,), body, body)


def _body(request: HookRequest) -> Mapping[str, Any]:
    body = read_any(request)
    if not isinstance(body, dict):
        raise Unmappable("the body is one object with the fields of a lead")
    return body
