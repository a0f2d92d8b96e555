"""The rows of a report out of its figures, beside those of another period, and as a sheet: pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from fastapi import Response
from pydantic import BaseModel, Field

from shared.web import sheet

MOST_ROWS = 10_000
NAMES = ("period", "key", "stage")
"""What a row is about: the first columns of a sheet."""


class Place(NamedTuple):
    """Which row: in which piece of the period, of which key, of which stage."""

    piece: int
    key: str
    stage: str = ""


class Between(BaseModel):
    """A period, its last day excluded."""

    first: date = Field(serialization_alias="from")
    end: date = Field(serialization_alias="to")


def ratio(part: float, whole: float) -> float | None:
    """A part of a whole; None of nothing."""
    return round(part / whole, 6) if whole else None


def change(now: Any, then: Any) -> Any:
    """By which part of what it was each figure has changed; None where it was nothing, or is not known."""
    if isinstance(now, Mapping):
        before = then if isinstance(then, Mapping) else {}
        return {name: change(value, before.get(name)) for name, value in now.items() if _has_figures(value)}
    if now is None or not then:
        return None
    return round((now - then) / abs(then), 6)


def flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """A row as cells: what lies inside is named by the way to it, parts of a list by their stage."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flat(inner, f"{before}{name}_")
        elif isinstance(inner, list):
            for part in inner:
                rest = {field: figure for field, figure in part.items() if field != "stage"}
                yield from flat(rest, f"{before}{name}_{part['stage']}_")
        else:
            yield f"{before}{name}", inner


def sheet_of(rows: Sequence[BaseModel], more: Mapping[str, Any]) -> Response:
    """Rows as CSV: what they are about, all other columns that any row has, then what is the same of all."""
    lines = [dict(flat(row.model_dump(exclude_unset=True))) for row in rows]
    known = dict.fromkeys(column for line in lines for column in line)
    columns = [*(name for name in NAMES if name in known), *(column for column in known if column not in NAMES)]
    return sheet([*columns, *more], ([*(line.get(column) for column in columns), *more.values()] for line in lines))


def beside(
    now: Mapping[Place, BaseModel], then: Mapping[Place, BaseModel] | None, labels: Sequence[date | None]
) -> Iterable[tuple[Place, dict[str, Any]]]:
    """The fields of each row: its figures, its first day where there is one, and what it is compared with."""
    for place, figures in now.items():
        fields: dict[str, Any] = {"key": place.key, **dict(figures)}
        if labels[place.piece] is not None:
            fields["period"] = labels[place.piece]
        if then is not None:
            other = then.get(place)
            fields["previous"] = other
            fields["change"] = change(figures.model_dump(), other.model_dump()) if other is not None else None
        yield place, fields


def _has_figures(value: Any) -> bool:
    return value is None or isinstance(value, int | float | Mapping)
