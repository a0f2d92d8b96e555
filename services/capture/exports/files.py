"""What a row of an export holds, and how it is written."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson

from services.capture.adapters.fields import CONSENT_CHANNELS
from services.capture.enrichment.builtin import BUILT_IN
from services.capture.exports.cells import guarded
from services.capture.leads.domain import FIELDS, profile_of, together
from services.capture.leads.handlers import person_since
from services.capture.leads.queries import Family
from shared.consents import Consent, latest_consents, marketing_words

ExportKind = Literal["leads", "consent", "deliveries"]
COLUMNS: Mapping[ExportKind, tuple[str, ...]] = {
    "leads": (
        "lead_id",
        *FIELDS,
        "external_ids",
        "attributes",
        *(f"consent.{channel}" for channel in CONSENT_CHANNELS),
        "captured_at",
        "created_at",
        "updated_at",
    ),
    "consent": ("event_id", "lead_id", "channel", "purpose", "state", "occurred_at", "received_at", "origin", "reason"),
    "deliveries": (
        "source_id",
        "delivery_id",
        "kind",
        "state",
        "facts",
        "received",
        "lead_id",
        "reason",
        "received_at",
        "handled_at",
    ),
}


def person_row(family: Family, consents: Sequence[Consent]) -> dict[str, Any]:
    """A person with everything that was told or found of them; not what follows, which an import would tell."""
    profile = profile_of(together((row.lead_id, row.statements) for row in family.rows), frozenset(BUILT_IN))
    return {
        "lead_id": family.root.lead_id,
        **{name: getattr(profile, name) for name in FIELDS},
        "external_ids": dict(profile.external_ids),
        "attributes": dict(profile.attributes),
        "consent": marketing_words(latest_consents(consents)),
        "captured_at": person_since(family.rows),
        "created_at": family.root.created_at,
        "updated_at": max(row.updated_at for row in family.rows),
    }


def header(kind: ExportKind) -> bytes:
    """The titles of the columns. The mark before them tells spreadsheets that it is UTF-8."""
    return b"\xef\xbb\xbf" + _written([COLUMNS[kind]])


def as_csv(kind: ExportKind, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows of a CSV file; objects stand in their cells as JSON, but for consent, which has a column a channel."""
    return _written([_cell(_value(row, column)) for column in COLUMNS[kind]] for row in rows)


def as_ndjson(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A row a line, as JSON."""
    return b"".join(orjson.dumps(dict(row)) + b"\n" for row in rows)


def _value(row: Mapping[str, Any], column: str) -> Any:
    group, _, name = column.partition(".")
    return row[group].get(name) if name else row[column]


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case dict():
            return orjson.dumps(value).decode() if value else ""
        case datetime():
            return value.isoformat()
        case _:
            return guarded(str(value))


def _written(rows: Iterable[Sequence[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
