"""Gravity Forms: entries of a WordPress form. https://docs.gravityforms.com/triggering-webhooks-on-form-submissions/

Fields have numbers for names, which the mapping of each form explains; feeds can send chosen fields under any name.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import read_any
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import form_lead, is_test, owner_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.shared_secret import Unsigned

_NUMBER = re.compile(r"[0-9]+([._][0-9]+)?", re.ASCII)
_OF_ENTRY = frozenset(
    {
        *("id", "form_id", "form_title", "post_id", "date_created", "date_updated", "is_starred", "is_read", "ip"),
        *("source_url", "source_id", "user_agent", "currency", "payment_status", "payment_amount", "payment_date"),
        *("payment_method", "transaction_id", "transaction_type", "is_fulfilled", "created_by", "status"),
        *("is_approved", "resume_token", "is_test", "test"),
    }
)
_THROWN_AWAY = frozenset({"spam", "trash"})


class GravityForms(Unsigned):
    """An entry; its time is UTC without saying so."""

    kind: ClassVar[str] = "gravityforms"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _entry_name(_entry(request)))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        entry, key = _entry(request), self.delivery_id(request)
        if text(entry.get("status")) in _THROWN_AWAY or is_test(entry):
            reason = "test" if is_test(entry) else "status"
            return Reading((ignored(key, request, reason),), entry, entry)
        named = {name: value for name, value in entry.items() if name not in _OF_ENTRY and not _NUMBER.fullmatch(name)}
        page = text(entry.get("source_url"))
        fact = form_lead(
            key,
            request,
            settings,
            owner_fields(named, settings),
            at=text(entry.get("date_created")),
            external_id=text(entry.get("id")),
            page=page,
            properties={"form_id": entry.get("form_id"), "page_url": page},
        )
        return Reading((fact,), entry, entry)


def _entry(request: HookRequest) -> Mapping[str, Any]:
    entry = read_any(request)
    if not isinstance(entry, dict):
        raise Unmappable("an entry is one object")
    return entry


def _entry_name(entry: Mapping[str, Any]) -> str | None:
    """Entries are numbered across forms, so that one which does not name its form still has a name."""
    form, number = text(entry.get("form_id")), text(entry.get("id"))
    return f"{form}:{number}" if form and number else number


ADAPTER = GravityForms()
