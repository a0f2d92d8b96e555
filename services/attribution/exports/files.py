"""How rows of an export are written: a line each, or columns in Parquet.

Parquet's library takes 60 MB of memory, so it is loaded by the first export that needs it and by no other process.
"""

import io
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from services.attribution.exports.domain import COLUMNS, Column, ExportKind, Format

if TYPE_CHECKING:
    import pyarrow as pa

MEDIA_TYPES: Mapping[Format, str] = {"ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
_GZIP = 31  # zlib's way of saying: with gzip's header

Rows = Sequence[Mapping[str, Any]]


class Writer(Protocol):
    """Writes one file. What it answers are the bytes that are ready; `end` answers the last of them."""

    def write(self, rows: Rows) -> bytes: ...
    def end(self) -> bytes: ...


class Lines:
    """A row a line, as JSON."""

    def write(self, rows: Rows) -> bytes:
        """The lines of these rows."""
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z) for row in rows)

    def end(self) -> bytes:
        """Nothing: a file of lines has no end of its own."""
        return b""


class PackedLines(Lines):
    """The same, in gzip."""

    def __init__(self) -> None:
        self._pack = zlib.compressobj(6, zlib.DEFLATED, _GZIP)

    def write(self, rows: Rows) -> bytes:
        """What of these rows and the ones before is packed."""
        return self._pack.compress(super().write(rows))

    def end(self) -> bytes:
        """The rest of what is packed."""
        return self._pack.flush()


class ParquetFile:
    """A Parquet file, a row group at a time."""

    def __init__(self, kind: ExportKind) -> None:
        import pyarrow as pa  # noqa: PLC0415  # see above
        from pyarrow import parquet  # noqa: PLC0415  # the same

        self._columns = COLUMNS[kind]
        self._schema = pa.schema([(name, _arrow(column)) for name, column in self._columns.items()])
        self._ready = io.BytesIO()
        self._file = parquet.ParquetWriter(self._ready, self._schema, compression="zstd")

    def write(self, rows: Rows) -> bytes:
        """These rows as a row group."""
        import pyarrow as pa  # noqa: PLC0415  # see above

        if rows:
            columns = {name: [row[name] for row in rows] for name in self._columns}
            self._file.write_table(pa.table(columns, schema=self._schema))
        return self._taken()

    def end(self) -> bytes:
        """The footer, without which it is no file."""
        self._file.close()
        return self._taken()

    def _taken(self) -> bytes:
        taken = self._ready.getvalue()
        self._ready.seek(0)
        self._ready.truncate()
        return taken


def writer(kind: ExportKind, form: Format, *, packed: bool) -> Writer:
    """A writer of one file; lines may be packed, Parquet is packed in itself."""
    if form == "parquet":
        return ParquetFile(kind)
    return PackedLines() if packed else Lines()


def file_name(kind: ExportKind, form: Format, number: int | None = None) -> str:
    """What a file is called, or a numbered part of it, which is packed."""
    if number is None:
        return f"{kind}.{form}"
    return f"{kind}-{number:05}.{'ndjson.gz' if form == 'ndjson' else form}"


def _arrow(column: Column) -> "pa.DataType":
    import pyarrow as pa  # noqa: PLC0415  # see above

    match column:
        case "text":
            return pa.string()
        case "integer":
            return pa.int64()
        case "number":
            return pa.float64()
        case "boolean":
            return pa.bool_()
        case "time":
            return pa.timestamp("us", tz="UTC")
