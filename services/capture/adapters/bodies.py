"""Bodies read strictly: what two readers could understand differently is refused, not guessed."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.capture.adapters.errors import Unmappable
from services.capture.adapters.request import HookRequest

if TYPE_CHECKING:  # the library has the type for type checkers only
    from python_multipart.multipart import MultipartCallbacks

DEEPEST = 32
_MOST_FIELDS = 1_000
# What browsers call Latin-1 is Windows' table.
_CHARSETS = dict.fromkeys(("iso-8859-1", "latin1", "windows-1252"), "cp1252") | {"iso-8859-15": "iso-8859-15"}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL takes neither NUL nor half a character
_INTEGERS = range(-(2**63), 2**63)


def read_json(raw_body: bytes) -> Any:
    """The value, with decimals exact; Unmappable for what is no JSON, or is JSON only to a lenient reader."""
    try:
        value = json.loads(
            raw_body.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=Decimal,
        )
    except RecursionError:
        raise Unmappable(f"the JSON is nested deeper than {DEEPEST}") from None
    except ValueError as exc:  # no UTF-8, no JSON, or a number of thousands of digits
        raise Unmappable("the body is not JSON") from exc
    _check(value)
    return value


def read_object(raw_body: bytes) -> Mapping[str, Any]:
    """The JSON object; Unmappable for anything else."""
    value = read_json(raw_body)
    if not isinstance(value, dict):
        raise Unmappable("the body is not a JSON object")
    return value


def read_any(request: HookRequest) -> Any:
    """JSON, a form or a multipart form, by what it looks like before what it is labelled: many label JSON as text."""
    if request.raw_body.removeprefix(BOM_UTF8).lstrip()[:1] in (b"{", b"["):
        return read_json(request.raw_body)
    match request.content_type:
        case "multipart/form-data":
            fields = _multipart(request)
        case "application/x-www-form-urlencoded":
            fields = _form(request)
        case _:
            raise Unmappable("the body is neither JSON nor a form")
    form: dict[str, Any] = {}
    for name, value in fields:
        known = form.setdefault(name, value)
        if isinstance(known, list):
            known.append(value)
        elif known is not value:
            form[name] = [known, value]
    _check(form)
    return form


def object_at(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under this name; an empty one where there is something else, or nothing."""
    found = whole.get(name)
    return found if isinstance(found, dict) else {}


def objects_at(whole: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects in the list under this name."""
    found = whole.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def plain(value: Any) -> Any:
    """The value as JSON columns and expressions take it: decimals as doubles, as text what no number there holds."""
    match value:
        case Decimal():
            double = float(value)
            return double if abs(double) != float("inf") else str(value)
        case bool():
            return value
        case int():
            return value if value in _INTEGERS else str(value)
        case dict():
            return {name: plain(inner) for name, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case _:
            return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unmappable("a name comes twice in one JSON object")
    return found


def _refuse_constant(name: str) -> Any:
    raise Unmappable(f"{name} is not JSON")


def _check(value: Any) -> None:
    """Refuse what is too deep, or has texts that cannot be stored."""
    level: list[Any] = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for found in level:
            if isinstance(found, str):
                if _UNSTORABLE.search(found):
                    raise Unmappable("a text has a NUL or half a character in it")
            elif isinstance(found, dict | list):
                if depth == DEEPEST:
                    raise Unmappable(f"the JSON is nested deeper than {DEEPEST}")
                below.extend(found)
                below.extend(found.values() if isinstance(found, dict) else ())
        level = below
        depth += 1


def _form(request: HookRequest) -> list[tuple[str, str]]:
    try:
        charset = _charset(request.headers.get("content-type"))
        text = request.raw_body.decode(charset)
        return parse_qsl(text, keep_blank_values=True, encoding=charset, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as exc:
        raise Unmappable("the form cannot be read") from exc


def _charset(content_type: str | bytes | None) -> str:
    """The encoding that the sender names, where it is one that ASCII is a part of; else UTF-8."""
    named = _options(content_type).get(b"charset", b"").decode("latin-1").strip().lower()
    return _CHARSETS.get(named, "utf-8")


def _options(header: str | bytes | None) -> dict[bytes, bytes]:
    """What follows the first word of a header, by name."""
    written = header.encode("latin-1", "replace") if isinstance(header, str) else header
    return parse_options_header(written)[1]


def _multipart(request: HookRequest) -> list[tuple[str, str]]:
    """The fields by name; of a file only its name, since a lead has no place for more."""
    boundary = _options(request.headers.get("content-type")).get(b"boundary", b"")
    if not boundary:  # a boundary of dashes alone would be read as the end of a form without fields
        raise Unmappable("the multipart body names no boundary")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(request.raw_body)
        parser.finalize()
        if not parts.complete:
            raise Unmappable("the multipart body is cut off")
        return [part.field() for part in parts.found]
    except (FormParserError, ValueError) as exc:
        raise Unmappable("the multipart body cannot be read") from exc


class _Part:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.value = bytearray()

    def field(self) -> tuple[str, str]:
        options = _options(self.headers.get(b"content-disposition"))
        value = options.get(b"filename", bytes(self.value))
        return options.get(b"name", b"").decode(), value.decode(_charset(self.headers.get(b"content-type")))


class _Parts:
    """What the multipart parser finds, put together."""

    def __init__(self) -> None:
        self.found: list[_Part] = []
        self.complete = False
        self._name = bytearray()
        self._header = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self.found[-1].value.extend(data[start:end]),
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.found) == _MOST_FIELDS:
            raise Unmappable(f"the form has more than {_MOST_FIELDS} fields")
        self.found.append(_Part())

    def _end_header(self) -> None:
        self.found[-1].headers[bytes(self._name).lower()] = bytes(self._header)
        self._name.clear()
        self._header.clear()

    def _end(self) -> None:
        self.complete = True
