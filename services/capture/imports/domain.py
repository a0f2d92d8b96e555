"""What a row of a file means: its cells in the fields of the call that the API has for such a thing."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from services.capture.adapters.bodies import plain
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.facts import Reading
from services.capture.adapters.fields import consent_state, phone_of, text, time_of, type_name
from services.capture.exports.cells import unguarded
from services.capture.facts.inputs import ConversionInput, CostInput, TouchInput
from services.capture.imports.columns import Kind, field_fault
from services.capture.imports.rows import Row
from services.capture.leads.inputs import LeadInput
from services.capture.mapping import MOST_FIELDS, compiled, escaped, look_up, place_faults, result_of
from shared.errors import FieldError, Rejected
from shared.money import NotAnAmount, UnknownCurrency, parse_minor
from shared.phones import known_country
from shared.rules import Evaluation, Expression

MODELS: Mapping[Kind, type[BaseModel]] = {
    "leads": LeadInput,
    "touches": TouchInput,
    "conversions": ConversionInput,
    "costs": CostInput,
}
PHONE_COUNTRY = "phone_country"
_MONEY = {"value": "value_minor", "amount": "amount_minor"}
_WHOLE = frozenset({"employees", "annual_revenue", "value_minor", "amount_minor"})
_TIMES = frozenset({"occurred_at", "captured_at", "touch.occurred_at"})
_OBJECTS = frozenset({"attributes", "consent", "external_ids", "properties"})
_AS_IT_IS = ("attributes.", "properties.", "touch.properties.")
# 1200, 1,200 and what tables make of whole numbers: 1200.0
_NUMBER = re.compile(r"(?P<whole>[0-9]{1,15}|[0-9]{1,3}(?:[,' \u00a0][0-9]{3})+)(?:\.0+)?", re.ASCII)
# A comma before three digits groups them, before one or two it begins the decimals.
_GROUPED = re.compile(r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+)(?:\.(?P<part>[0-9]+))?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"(?P<whole>[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+),(?P<part>[0-9]{1,2})", re.ASCII)
LONGEST_REASON = 500
LONGEST_NAME = 255


class BadRow(Exception):
    """Nothing can be made of a row, for this reason."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a row says. Of a lead also when the person was known first, and their ids at several sources."""

    content: BaseModel
    captured_at: datetime | None
    external_ids: Mapping[str, str]
    body: Mapping[str, Any]


def settings_faults(kind: Kind, mapping: Mapping[str, Any] | None, defaults: Mapping[str, Any]) -> list[FieldError]:
    """The faults of a mapping and of defaults, with pointers below `/mapping` and `/defaults`."""
    return [*_mapping_faults(kind, mapping or {}), *_default_faults(kind, defaults)]


def _mapping_faults(kind: Kind, mapping: Mapping[str, Any]) -> Iterator[FieldError]:
    if len(mapping) > MOST_FIELDS:
        yield FieldError("/mapping", f"a mapping has at most {MOST_FIELDS} fields")
    for field, place in mapping.items():
        pointer = f"/mapping/{escaped(field)}"
        if detail := field_fault(kind, field):
            yield FieldError(pointer, detail)
        yield from place_faults(place, pointer)


def _default_faults(kind: Kind, defaults: Mapping[str, Any]) -> Iterator[FieldError]:
    for field, value in defaults.items():
        pointer = f"/defaults/{escaped(field)}"
        if field == PHONE_COUNTRY:
            if not isinstance(value, str) or not known_country(value):
                yield FieldError(pointer, "not the ISO 3166 code of a country, such as DE")
        elif detail := field_fault(kind, field):
            yield FieldError(pointer, detail)


def missing_columns(mapping: Mapping[str, Any], columns: Sequence[str]) -> list[FieldError]:
    """The places of a mapping that a file with these columns does not have."""
    offered = ", ".join(columns[:30])
    return [
        FieldError(f"/mapping/{escaped(field)}", f"the file has no column {place!r}; it has {offered}")
        for field, place in mapping.items()
        if isinstance(place, str) and place not in columns
    ]


@dataclass(frozen=True)
class RowMapping:
    """A mapping, ready for use: from rows to what they tell."""

    kind: Kind
    columns: tuple[str, ...]
    mapping: Mapping[str, Any]
    defaults: Mapping[str, Any]
    source: str

    def told_by(self, row: Row) -> Told:
        """What a row tells. Raises BadRow with the reason."""
        if row.fault is not None:
            raise BadRow(row.fault)
        values = self.cells(row)
        fields = self._constants | self._found(values)
        try:
            body = _body_of(fields, self.defaults.get(PHONE_COUNTRY))
            captured_at, ids = body.pop("captured_at", None), _external_ids(body.pop("external_ids", {}))
            captured = None if captured_at is None else time_of(captured_at)
            if "external_id" in body:
                ids = {self.source: body["external_id"], **ids}
            elif ids:  # as good as one of this source to be known by
                body["external_id"] = next(iter(ids.values()))
            content: BaseModel = self._validate(orjson.dumps(body))
        except ValidationError as exc:
            raise BadRow(_said(exc)) from exc
        except Unmappable as exc:
            raise BadRow(f"captured_at: {exc.detail}") from exc
        except TypeError as exc:  # orjson's own, for numbers over 64 bits
            raise BadRow("holds a number over 64 bits") from exc
        return Told(content, captured, ids if self.kind == "leads" else {}, body)

    def cells(self, row: Row) -> Mapping[str, Any]:
        """The row by the titles of its columns."""
        if isinstance(row.values, Mapping):
            return row.values
        return dict(zip(self.columns, map(unguarded, row.values), strict=False))

    def _found(self, values: Mapping[str, Any]) -> dict[str, Any]:
        evaluation: Evaluation | None = None
        reading = Reading((), {}, values)
        found: dict[str, Any] = {}
        for field, place in self._places:
            if isinstance(place, str):
                value = values[place] if place in values else look_up(place, reading)
            else:
                evaluation = evaluation or Evaluation({"body": plain(values), "query": {}, "headers": {}})
                value = _calculated(result_of(place, evaluation))
            if value is not None and value != "" and not (isinstance(value, str) and value.isspace()):
                found[field] = value
        return found

    @cached_property
    def _places(self) -> tuple[tuple[str, str | Expression], ...]:
        return tuple((field, compiled(place)) for field, place in self.mapping.items())

    @cached_property
    def _constants(self) -> dict[str, Any]:
        return {field: value for field, value in self.defaults.items() if field != PHONE_COUNTRY}

    @cached_property
    def _validate(self) -> Callable[[bytes], Any]:
        return MODELS[self.kind].__pydantic_validator__.validate_json


def _calculated(value: Any) -> Any:
    """What an expression came to, as JSON has it; a whole number is one however it was calculated."""
    whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    return plain(int(value) if whole else value)


def _body_of(fields: Mapping[str, Any], country: str | None) -> dict[str, Any]:
    """The fields as the body of a call. A whole name is split where its parts are not given."""
    body: dict[str, Any] = {}
    for field, raw in fields.items():
        group, _, name = field.partition(".")
        if not name:
            value = _object(raw) if field in _OBJECTS else _fitting(field, raw, country)
            if field in _OBJECTS and isinstance(value, dict) and isinstance(known := body.get(field, {}), dict):
                body[field] = {**value, **known}
            else:
                body[field] = value
        elif group == "touch" and name.startswith("properties."):
            properties = body.setdefault("touch", {}).setdefault("properties", {})
            properties[name.removeprefix("properties.")] = raw
        else:
            value = raw if field.startswith(_AS_IT_IS) else _fitting(field, raw, country)
            if isinstance(inner := body.setdefault(group, {}), dict):
                inner[name] = value
    if "name" in body:
        first, _, last = str(text(body.pop("name")) or "").partition(" ")
        body = {"first_name": first, **({"last_name": last.strip()} if last.strip() else {}), **body}
    _tell_money(body)
    if "touch" in body and set(body["touch"]) and "type" not in body["touch"]:
        body["touch"]["type"] = "form_submitted"
    return body


def _fitting(field: str, raw: Any, country: str | None) -> Any:
    """A cell as its field takes it; what does not fit stays as it is, for the field to say so."""
    if field in _WHOLE:
        number = _NUMBER.fullmatch(raw.strip()) if isinstance(raw, str) else None
        return int(re.sub(r"[^0-9]", "", number["whole"])) if number else raw
    if field in _TIMES:
        try:
            return time_of(raw).isoformat()
        except Unmappable:
            return raw
    if field.startswith("consent."):
        return consent_state(raw) or raw
    written = text(raw)
    if written is None:
        return raw
    match field:
        case "phone":
            local = country is not None or not isinstance(raw, str)  # else the field itself knows what to do
            return (phone_of(raw, country) if local else None) or written
        case "type" | "touch.type":
            return type_name(written)
        case "currency":
            return written.upper()
        case "date":
            return written.replace("T", " ").partition(" ")[0]
    return written


def _external_ids(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise BadRow("external_ids: is not an object of sources and ids")
    ids = {source: written for source, raw in given.items() if (written := text(raw)) is not None}
    if any(not source or len(source) > LONGEST_NAME or len(written) > LONGEST_NAME for source, written in ids.items()):
        raise BadRow(f"external_ids: sources and ids have 1 to {LONGEST_NAME} characters")
    return ids


def _object(raw: Any) -> Any:
    """An object that stands whole in one cell, as JSON."""
    if not isinstance(raw, str):
        return raw
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw


def _tell_money(body: dict[str, Any]) -> None:
    """Amounts in major units become whole minor ones of their currency."""
    for field, minor in _MONEY.items():
        if field not in body:
            continue
        written = _decimal(str(body.pop(field)))
        if minor in body or "currency" not in body:
            continue  # said in minor units too; or the currency is missed first
        try:
            body[minor] = parse_minor(written, str(body["currency"]))
        except NotAnAmount as exc:
            raise BadRow(f"{field}: {exc}") from exc
        except UnknownCurrency as exc:
            raise BadRow(f"currency: {exc}") from exc


def _decimal(written: str) -> str:
    bare = re.sub(r"[ \u00a0'_]", "", written)
    match = _GROUPED.fullmatch(bare) or _DECIMAL_COMMA.fullmatch(bare)
    if match is None:
        return bare
    return re.sub(r"[^0-9]", "", match["whole"]) + (f".{match['part']}" if match["part"] else "")


def _said(exc: ValidationError) -> str:
    """What is wrong with a row, in a line."""
    told = []
    for error in exc.errors(include_url=False, include_input=False)[:5]:
        place = ".".join(str(part) for part in error["loc"])
        detail = "is required" if error["type"] == "missing" else error["msg"].removeprefix("Value error, ")
        told.append(f"{place}: {detail}" if place else detail)
    return "; ".join(told)[:LONGEST_REASON]


def reason_of(exc: Rejected) -> str:
    """Why what a row tells was refused."""
    if exc.errors:
        return "; ".join(f"{error.pointer.strip('/')}: {error.detail}" for error in exc.errors)[:LONGEST_REASON]
    return exc.detail[:LONGEST_REASON]
