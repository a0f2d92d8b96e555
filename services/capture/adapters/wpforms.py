"""WPForms: entries of a WordPress form, under the names that the owner types. https://wpforms.com/docs/webhooks-addon/

The names to use: `entry_id form_id email name phone company page_url entry_date`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.fields import happened_at, ignored, text
from services.capture.adapters.form_answers import form_lead, is_test, owner_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_OF_ENTRY = frozenset({"entry_id", "form_id", "form_name", "page_url", "entry_date", "is_test", "test"})


class WPForms(Unsigned):
    """An entry; a date in words, as the site may write it, does not say when it was."""

    kind: ClassVar[str] = "wpforms"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _entry_name(_entry(request)))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        entry, key = _entry(request), self.delivery_id(request)
        if is_test(entry):
            return Reading((ignored(key, request, "test"),), entry, entry)
        page = text(entry.get("page_url"))
        fact = form_lead(
            key,
            request,
            settings,
            owner_fields({name: value for name, value in entry.items() if name not in _OF_ENTRY}, settings),
            at=_readable_time(entry.get("entry_date"), request),
            external_id=text(entry.get("entry_id")),
            page=page,
            properties={"form_id": entry.get("form_id"), "form_name": entry.get("form_name"), "page_url": page},
        )
        return Reading((fact,), entry, entry)


def _entry(request: HookRequest) -> Mapping[str, Any]:
    entry = read_any(request)
    if not isinstance(entry, dict):
        raise Unmappable("an entry is one object")
    return entry


def _entry_name(entry: Mapping[str, Any]) -> str | None:
    """Entries are numbered across forms, so that one which does not name its form still has a name."""
    form, number = text(entry.get("form_id")), text(entry.get("entry_id"))
    return f"{form}:{number}" if form and number else number


def _readable_time(value: Any, request: HookRequest) -> Any:
    try:
        happened_at(value, request)
    except Unmappable:
        return None
    return value


ADAPTER = WPForms()
