"""Reports as they are sent: as JSON, or as CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

FORMULA = frozenset("=+-@\t\r")


def document(report: BaseModel | Mapping[str, Any]) -> Response:
    """A report as JSON, without what was not asked for. Written at once: a large one would be copied field by field.

    One with thousands of rows is made of dicts: to make and write a model of each costs five times as much.
    """
    if isinstance(report, BaseModel):
        text = report.model_dump_json(exclude_unset=True, by_alias=True).encode()
    else:
        text = to_json(report)
    return Response(text, media_type="application/json")


def sheet(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> Response:
    """A table as CSV; what is not known is an empty cell."""
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for line in lines:
        writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in line])
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8")


def _harmless(text: str) -> str:
    """A campaign's name comes from outside; a spreadsheet must not take it for a formula."""
    return f"'{text}" if text[:1] in FORMULA else text


def wants_sheet(request: Request, format: str | None) -> bool:
    """Whether a table is asked for as CSV: by the parameter, and without it by what is accepted."""
    return format == "csv" or (format is None and request.headers.get("accept", "").split(";")[0].strip() == "text/csv")
