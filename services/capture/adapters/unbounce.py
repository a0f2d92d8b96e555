"""Unbounce: the form of a landing page. https://documentation.unbounce.com/hc/en-us/articles/203510044

The answers are JSON text in a field `data.json`, every one of them an array. Nothing names the lead.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import read_any, read_object
from services.capture.adapters.fields import text
from services.capture.adapters.form_answers import FormAnswer, form_fields, form_lead
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_PLACES = ("data.json", "data_json", "data")
_OF_PAGE = frozenset(
    {"ip_address", "page_uuid", "page_id", "page_url", "page_name", "date_submitted", "time_submitted", "data.xml"}
)


class Unbounce(Unsigned):
    """A submission; its time has minutes only."""

    kind: ClassVar[str] = "unbounce"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: None)

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_any(request)
        if not isinstance(body, dict):
            raise Unmappable("a submission is one object")
        data = {name: _lone(value) for name, value in _data(body).items()}
        answers = [FormAnswer(name, value) for name, value in data.items() if name not in _OF_PAGE]
        if "variant" not in data:
            answers.append(FormAnswer("variant", _lone(body.get("variant"))))
        fact = form_lead(
            self.delivery_id(request),
            request,
            settings,
            {"touch.url": data.get("page_url") or _lone(body.get("page_url")), **form_fields(answers, settings)},
            at=_submitted_at(data),
            properties={
                "page_id": _lone(body.get("page_id")) or data.get("page_uuid"),
                "page_name": data.get("page_name") or _lone(body.get("page_name")),
            },
        )
        return Reading((fact,), data, body | {"data.json": data})


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answers, as text in the form or, where the owner chose JSON, as they are."""
    for place in _PLACES:
        match body.get(place):
            case str() as written:
                return read_object(written.encode())
            case dict() as data:
                return data
    raise Unmappable("the answers are JSON in data.json")


def _lone(value: Any) -> Any:
    """An array of one is that one; a question with more is one of several choices."""
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else value or None


def _submitted_at(data: Mapping[str, Any]) -> str | None:
    """When, if it is told in UTC: other zones come as letters that mean more than one."""
    written = f"{text(data.get('date_submitted'))} {text(data.get('time_submitted'))}"
    try:
        return datetime.strptime(written, "%Y-%m-%d %I:%M %p UTC").replace(tzinfo=UTC).isoformat()
    except ValueError:
        return None


ADAPTER = Unbounce()
