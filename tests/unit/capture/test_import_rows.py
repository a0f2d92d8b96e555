"""Rows out of CSV and NDJSON, however the bytes are cut; what is broken is one bad row."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.imports.rows import LONGEST_LINE, Format, Place, Row, Shape, shape_of

cells = st.text(alphabet=st.sampled_from('ab;,"\n\r\t äß€😀= '), max_size=8)
tables = st.lists(st.lists(cells, min_size=3, max_size=3), min_size=0, max_size=12)


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]


def read(shape: Shape, form: Format, data: bytes, cuts: Sequence[int] = (), begin: Place | None = None) -> list[Row]:
    begin = begin or shape.begin
    reader = shape.reader(form, begin)
    pieces = pieces_of(data[begin.position :], cuts)
    return [row for n, piece in enumerate(pieces, 1) for row in reader.feed(piece, last=n == len(pieces))]


def shape(data: bytes, form: Format = "csv", **said: Any) -> Shape:
    return shape_of(form, data, whole=True, **{"delimiter": None, "encoding": None, **said})


def written(rows: list[list[str]], delimiter: str = ",", line_end: str = "\r\n") -> bytes:
    out = io.StringIO(newline="")
    quoting: Any = csv.QUOTE_MINIMAL if line_end == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([["a", "b", "c"], *rows])
    return out.getvalue().encode()


@given(tables, st.lists(st.integers(0, 200), max_size=6), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",;\t"))
def test_what_a_writer_quotes_is_read_as_it_was_however_it_is_cut(
    rows: list[list[str]], cuts: list[int], line_end: str, delimiter: str
) -> None:
    data = written(rows, delimiter, line_end)
    found = read(shape(data, delimiter=delimiter), "csv", data, cuts)
    assert [list(row.values) for row in found] == [row for row in rows if any(cell.strip() for cell in row)]
    assert all(row.fault is None for row in found)


@given(tables, st.lists(st.integers(0, 200), max_size=3))
def test_reading_begins_again_behind_any_row(rows: list[list[str]], cuts: list[int]) -> None:
    data = written(rows)
    how = shape(data, delimiter=",")
    found = read(how, "csv", data)
    for number, row in enumerate(found, 1):
        assert read(how, "csv", data, cuts, Place(row.end, row.next_line)) == found[number:]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_no_bytes_break_the_readers_and_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    for form in ("csv", "ndjson"):
        how = shape(data, form)
        whole = read(how, form, data)
        assert read(how, form, data, cuts) == whole
        assert [row.end for row in whole] == sorted(row.end for row in whole)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), max_size=8), st.integers(0, 80))
def test_objects_are_read_however_they_are_cut(rows: list[dict[str, str]], cut: int) -> None:
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    found = read(shape(data, "ndjson"), "ndjson", data, [cut])
    assert [row.values for row in found if not row.fault] == [
        row for row in rows if "\x00" not in "".join([*row, *row.values()])
    ]
    assert [row.line for row in found] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("data", "columns", "first"),
    [
        (b"\xef\xbb\xbfemail,name\nann@example.com,Ann\n", ("email", "name"), ["ann@example.com", "Ann"]),
        ("email;name\nann@example.com;Jürgen, Graf\n".encode(), ("email", "name"), ["ann@example.com", "Jürgen, Graf"]),
        ("email;name\nann@example.com;Jürgen\n".encode("cp1252"), ("email", "name"), ["ann@example.com", "Jürgen"]),
        (b"sep=|\r\nemail|name\r\nann@example.com|Ann\r\n", ("email", "name"), ["ann@example.com", "Ann"]),
        (b"email\tname\rann@example.com\tAnn\r", ("email", "name"), ["ann@example.com", "Ann"]),
        (b"email\nann@example.com", ("email",), ["ann@example.com"]),
        (b"email,,email\na,b,c\n", ("email", "column 2", "email (2)"), ["a", "b", "c"]),
    ],
)
def test_how_a_file_is_written_is_found_out(data: bytes, columns: tuple[str, ...], first: list[str]) -> None:
    how = shape(data)
    assert how.columns == columns
    assert list(read(how, "csv", data)[0].values) == first


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"a,b,c", "has 3 cells where the header has 2"),
        (b"alone", "has 1 cells where the header has 2"),
        (b"a,b\x00", "contains a NUL character"),
        (b"a,\xff\xfe", "is not text in utf-8"),
        (b'a,"b"c', "expected after"),
        (b"a," + b"x" * 200_000, "field larger than field limit"),
        (b"a," + b"x" * (2 * LONGEST_LINE), "longer than"),
        (b'a,"never closed', "never closed"),
    ],
)
def test_a_broken_row_is_one_bad_row_with_its_reason(line: bytes, fault: str) -> None:
    data = b"email,name\nann@example.com,Ann\n" + line + b"\nben@example.com,Ben\ncid@example.com,Cid\n"
    how = shape_of("csv", data[:31], whole=False, delimiter=None, encoding="utf-8")
    good, bad, *others = read(how, "csv", data, [100, 3_000_000])
    assert fault in (bad.fault or "")
    assert (good.line, bad.line) == (2, 3)
    assert [list(row.values) for row in others if not row.fault][-1] == ["cid@example.com", "Cid"]
    assert others[-1].line == 5


def test_rows_of_nothing_are_no_rows() -> None:
    data = b"email,name\n\n,\n  , \nann@example.com,Ann,,,\n\n"
    (row,) = read(shape(data), "csv", data)
    assert (row.line, list(row.values)) == (5, ["ann@example.com", "Ann"])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json}", "is not valid JSON"),
        (b"[1]", "is not a JSON object"),
        (b'{"a": "\\u0000"}', "a: contains a NUL character"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b"[" * 10_000, "is not valid JSON"),
    ],
)
def test_a_line_that_is_no_object_is_one_bad_row(line: bytes, fault: str) -> None:
    data = b'{"a": 1}\n' + line + b'\n{"a": 2}'
    first, bad, last = read(shape(data, "ndjson"), "ndjson", data, [15])
    assert (first.values, last.values) == ({"a": 1}, {"a": 2})
    assert (bad.fault, bad.line) == (fault, 2)
