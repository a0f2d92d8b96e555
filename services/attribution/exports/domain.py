"""What an export holds: its columns, and what each is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

ExportKind = Literal["journeys", "conversions", "credits"]
Format = Literal["ndjson", "parquet"]
State = Literal["waiting", "running", "done", "failed"]
Column = Literal["text", "integer", "number", "boolean", "time"]

PART_ROWS = 50_000
"""About as many rows a part has: a few megabytes, which is what is read and written at once."""

COLUMNS: Mapping[ExportKind, Mapping[str, Column]] = MappingProxyType(
    {
        "journeys": {
            "lead_id": "text",
            "told_lead_id": "text",
            "touch_id": "text",
            "origin": "text",
            "occurred_at": "time",
            "received_at": "time",
            "type": "text",
            "channel": "text",
            "channel_rule": "text",
            "source": "text",
            "medium": "text",
            "campaign": "text",
            "content": "text",
            "page": "text",
            "referrer_host": "text",
            "automated": "boolean",
        },
        "conversions": {
            "conversion_id": "text",
            "external_id": "text",
            "origin": "text",
            "lead_id": "text",
            "told_lead_id": "text",
            "type": "text",
            "value_minor": "integer",
            "refunded_minor": "integer",
            "currency": "text",
            "occurred_at": "time",
            "received_at": "time",
            "deal_id": "text",
            "touches": "integer",
            "country": "text",
            "account": "text",
            "rep": "text",
        },
        "credits": {
            "conversion_id": "text",
            "lead_id": "text",
            "model": "text",
            "model_version": "integer",
            "place": "integer",
            "touch_id": "text",
            "origin": "text",
            "touch_occurred_at": "time",
            "channel": "text",
            "source": "text",
            "medium": "text",
            "campaign": "text",
            "touch_type": "text",
            "units": "integer",
            "share": "number",
            "value_minor": "integer",
            "currency": "text",
            "conversion_type": "text",
            "conversion_occurred_at": "time",
            "country": "text",
            "account": "text",
            "rep": "text",
        },
    }
)
