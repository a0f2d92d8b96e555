"""Rows out of the bytes of a CSV or NDJSON file, however they are cut into pieces; what is broken is one bad row.

Every row knows the byte after it, so that reading can begin again there.
"""

import csv
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from services.capture.reading import may_hold_bad_text, text_faults

Format = Literal["csv", "ndjson"]
LONGEST_LINE = 1 << 20
LONGEST_SHOWN = 2_000
BOM = b"\xef\xbb\xbf"
DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_UNFINISHED = "unexpected end of data"


@dataclass(frozen=True, slots=True)
class Row:
    """A row that begins on `line`; the next begins at byte `end`, on `next_line`.

    `values` are its cells, or an object; `fault` says why it cannot be read, `text` is then what stands there.
    """

    line: int
    end: int
    next_line: int
    values: Sequence[str] | Mapping[str, Any] = ()
    fault: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to read on: a byte, and the line that begins there."""

    position: int
    line: int


class Reader(Protocol):
    """Takes a file apart, piece by piece."""

    def feed(self, data: bytes, *, last: bool) -> Iterator[Row]:
        """The rows that are complete with this piece; after the last one, all."""
        ...


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with its end, and how long it is: of one that is too long only the beginning is kept."""

    text: bytes
    size: int


class _Lines:
    """The lines of a file, to be taken one by one and put back."""

    def __init__(self, begin: Place) -> None:
        self.position = begin.position
        self.line = begin.line
        self.taken: list[_Line] = []
        self._waiting: deque[_Line] = deque()
        self._rest = b""
        self._dropped = 0

    def add(self, data: bytes, *, last: bool) -> None:
        """Take another piece of the file."""
        if self._dropped:
            data = self._drop(data, last=last)
        lines = (self._rest + data).splitlines(keepends=True) if not self._dropped else []
        if not self._dropped:
            self._rest = b""
        # A carriage return at the end may be half of a line's end.
        if lines and not last and (not lines[-1].endswith((b"\n", b"\r")) or lines[-1].endswith(b"\r")):
            self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE and not self._dropped:
            self._dropped = len(self._rest) - LONGEST_LINE
            self._rest = self._rest[:LONGEST_LINE]
        self._waiting.extend(_Line(line, len(line)) for line in lines)

    def _drop(self, data: bytes, *, last: bool) -> bytes:
        """Leave out the middle of a line that is too long; answers what follows it."""
        line = data.splitlines(keepends=True)[0] if data else b""
        if not line.endswith((b"\n", b"\r")) and not last:
            self._dropped += len(line)
            return b""
        self._waiting.append(_Line(self._rest + line[-1:], len(self._rest) + self._dropped + len(line)))
        self._rest, self._dropped = b"", 0
        return data[len(line) :]

    def next(self) -> _Line | None:
        """The next line, which counts as taken."""
        if not self._waiting:
            return None
        line = self._waiting.popleft()
        self.taken.append(line)
        return line

    def put_back(self, first: int) -> None:
        """Have the lines from a place in those taken on again."""
        self._waiting.extendleft(reversed(self.taken[first:]))
        del self.taken[first:]

    def done(self) -> tuple[int, Place]:
        """Be done with what is taken: the line on which it began, and where the next begins."""
        began = self.line
        self.position += sum(line.size for line in self.taken)
        self.line += sum(line.text.endswith((b"\n", b"\r")) for line in self.taken)
        self.taken.clear()
        return began, Place(self.position, self.line)


class CsvRows:
    """Reads CSV: quotes, line ends of every kind, also inside quotes. Python's reader, told where it is.

    A quote that never ends would swallow the rest of the file; then only its first line is bad, and reading goes on
    behind it. `columns` is how many cells a row has, 0 for any number.
    """

    def __init__(self, begin: Place, columns: int, delimiter: str, encoding: str) -> None:
        self._lines = _Lines(begin)
        self._columns = columns
        self._encoding = encoding
        self._undecodable = False
        self._size = 0
        self._reader = csv.reader(self, delimiter=delimiter, strict=True)

    def __iter__(self) -> "CsvRows":
        return self

    def __next__(self) -> str:
        """The next line as text, asked for by Python's reader."""
        line = self._lines.next()
        if line is None:
            raise StopIteration
        self._size += line.size
        if self._size > LONGEST_LINE:
            raise csv.Error(f"the row is longer than {LONGEST_LINE} bytes")
        try:
            return line.text.decode(self._encoding)
        except UnicodeDecodeError:
            self._undecodable = True
            return line.text.decode(self._encoding, "replace")

    def feed(self, data: bytes, *, last: bool) -> Iterator[Row]:
        """The rows that are complete with this piece; after the last one, all."""
        self._lines.add(data, last=last)
        while True:
            self._undecodable, self._size = False, 0
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as exc:
                if _UNFINISHED in str(exc) and not last:
                    self._lines.put_back(0)
                    return
                yield self._broken(str(exc))
                continue
            row = self._row(values)
            if row is not None:
                yield row

    def _row(self, values: list[str]) -> Row | None:
        fault = None
        if self._undecodable:
            fault = f"is not text in {self._encoding}; say the file's encoding"
        elif any("\x00" in value for value in values):
            fault = "contains a NUL character"
        elif self._columns and len(values) > self._columns and not any(values[self._columns :]):
            values = values[: self._columns]
        elif self._columns and len(values) != self._columns and any(values):
            fault = f"has {len(values)} cells where the header has {self._columns}"
        text = _shown(self._lines.taken, self._encoding) if fault else ""
        line, after = self._lines.done()
        if not fault and not any(value and not value.isspace() for value in values):
            return None
        return Row(line, after.position, after.line, values, fault, text)

    def _broken(self, fault: str) -> Row:
        self._lines.put_back(1)
        text = _shown(self._lines.taken, self._encoding)
        line, after = self._lines.done()
        if _UNFINISHED in fault:
            fault = "a quote is opened and never closed"
        return Row(line, after.position, after.line, (), fault, text)


class JsonRows:
    """Reads NDJSON: an object on each line."""

    def __init__(self, begin: Place) -> None:
        self._lines = _Lines(begin)

    def feed(self, data: bytes, *, last: bool) -> Iterator[Row]:
        """The rows that are complete with this piece; after the last one, all."""
        self._lines.add(data, last=last)
        while (taken := self._lines.next()) is not None:
            raw = taken.text
            line, after = self._lines.done()
            if raw.isspace():
                continue
            values, fault = _object_in(raw)
            text = _shown([taken], "utf-8") if fault else ""
            yield Row(line, after.position, after.line, values, fault, text)


def _object_in(raw: bytes) -> tuple[Mapping[str, Any], str | None]:
    if len(raw) > LONGEST_LINE:
        return {}, f"the row is longer than {LONGEST_LINE} bytes"
    try:
        values = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}, "is not valid JSON"
    if not isinstance(values, dict):
        return {}, "is not a JSON object"
    if may_hold_bad_text(raw) and (faults := list(text_faults(values, ""))):
        return {}, f"{faults[0].pointer.strip('/')}: {faults[0].detail}"
    return values, None


def _shown(lines: Sequence[_Line], encoding: str) -> str:
    text = b"".join(line.text for line in lines)[: LONGEST_SHOWN * 4].decode(encoding, "replace")
    return text[:LONGEST_SHOWN].rstrip("\r\n").replace("\x00", "\N{SYMBOL FOR NULL}")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file is to be read, and where its first row begins."""

    columns: tuple[str, ...]
    delimiter: str
    encoding: str
    begin: Place

    def reader(self, form: Format, begin: Place | None = None) -> Reader:
        """A reader that begins at the first row, or further on."""
        if form == "ndjson":
            return JsonRows(begin or self.begin)
        return CsvRows(begin or self.begin, len(self.columns), self.delimiter, self.encoding)


def shape_of(form: Format, sample: bytes, *, whole: bool, delimiter: str | None, encoding: str | None) -> Shape:
    """How a file with this beginning is to be read, as far as nobody said so."""
    begin = Place(len(BOM) if sample.startswith(BOM) else 0, 1)
    if form == "ndjson":
        rows = _first_rows(JsonRows(begin), sample[begin.position :], whole=whole)
        return Shape(tuple(dict.fromkeys(name for row in rows for name in row.values)), "", "utf-8", begin)
    encoding = encoding or _encoding_of(sample, whole=whole)
    said = _said_delimiter(sample[begin.position :])
    if said is not None:
        delimiter, length = delimiter or said[0], said[1]
        begin = Place(begin.position + length, 2)
    sample = sample[begin.position :]
    delimiter = delimiter or _delimiter_of(begin, sample, encoding, whole=whole)
    header = next(iter(_first_rows(CsvRows(begin, 0, delimiter, encoding), sample, whole=whole)), None)
    if header is None or header.fault:
        return Shape((), delimiter, encoding, begin)
    return Shape(_titles(header.values), delimiter, encoding, Place(header.end, header.next_line))


def _first_rows(reader: Reader, sample: bytes, *, whole: bool) -> list[Row]:
    rows = []
    for row in reader.feed(sample, last=whole):
        rows.append(row)
        if len(rows) == _SAMPLE_ROWS:
            break
    return rows


def _encoding_of(sample: bytes, *, whole: bool) -> str:
    """UTF-8, unless the beginning is something else: then what Windows writes."""
    try:
        # The sample may end within a character.
        (sample if whole else sample[: sample.rfind(b"\n") + 1]).decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _said_delimiter(sample: bytes) -> tuple[str, int] | None:
    """What a first line `sep=;` says, as Excel writes it; and how long that line is."""
    line = next(iter(sample[:20].splitlines(keepends=True)), b"")
    said = line.strip().strip(b'"')
    if said.lower().startswith(b"sep=") and len(said) <= len(b"sep=;"):
        return (said[4:].decode("ascii", "replace") or "\t"), len(line)
    return None


def _delimiter_of(begin: Place, sample: bytes, encoding: str, *, whole: bool) -> str:
    """The one by which most rows have as many cells as the header, and the most cells."""

    def score(delimiter: str) -> tuple[int, int]:
        rows = _first_rows(CsvRows(begin, 0, delimiter, encoding), sample, whole=whole)
        cells = len(rows[0].values) if rows else 0
        return (sum(len(row.values) == cells for row in rows) if cells > 1 else 0), cells

    return max(DELIMITERS, key=score)


def _titles(header: Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """The names of columns, each once."""
    titles: list[str] = []
    for number, raw in enumerate(header, 1):
        title = " ".join(raw.split())[:200] or f"column {number}"
        again = 2
        while title in titles:
            title = f"{' '.join(raw.split())[:190] or 'column'} ({again})"
            again += 1
        titles.append(title)
    return tuple(titles)
