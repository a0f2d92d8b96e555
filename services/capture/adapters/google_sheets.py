"""Google Sheets: rows that our Apps Script posts as Standard Webhooks, since Sheets has no webhook of its own."""

from typing import ClassVar

from services.capture.adapters.adapter import HookRequest, MappingSettings, Reading, Unmappable
from services.capture.adapters.bodies import object_at, read_object
from services.capture.adapters.fields import ignored, text
from services.capture.adapters.form_answers import form_lead, is_test, owner_fields
from services.capture.adapters.standard_webhooks import StandardWebhooks

_ROW_ADDED = "sheet.row_added"


class GoogleSheets(StandardWebhooks):
    """Cells are known by the headers of their columns."""

    kind: ClassVar[str] = "google_sheets"

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body, key = read_object(request.raw_body), self.delivery_id(request)
        data = object_at(body, "data")
        if body.get("type") != _ROW_ADDED or is_test(body) or is_test(data):
            reason = "event_type" if body.get("type") != _ROW_ADDED else "test"
            return Reading((ignored(key, request, reason),), {}, body)
        values = data.get("values")
        if not isinstance(values, dict):
            raise Unmappable("a row has values by their headers")
        place = [text(data.get(name)) for name in ("spreadsheet_id", "sheet", "row")]
        fact = form_lead(
            key,
            request,
            settings,
            owner_fields(values, settings),
            at=body.get("timestamp"),
            external_id=":".join(part for part in place if part) if all(place) else None,
        )
        return Reading((fact,), values, body)


ADAPTER = GoogleSheets()
