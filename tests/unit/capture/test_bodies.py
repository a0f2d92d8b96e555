"""JSON is read strictly, and exactly."""

from decimal import Decimal

import pytest

from services.capture.adapters.adapter import Unmappable
from services.capture.adapters.bodies import plain, read_json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1, "a": 1}',
        b'{"x": {"a": 1, "a": 2}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": ["\\ud800"]}',
        b'"\\udc00\\ud800"',
        b'{"a": "\xff"}',
        b'{"a": "\x00"}',
        '{"a": 1}'.encode("utf-16"),
        b"[" * 33 + b"]" * 33,
        b"[" * 200_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"a": ' + b"1" * 5_000 + b"}",
    ],
)
def test_what_two_readers_may_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(Unmappable):
        read_json(body)


def test_what_is_json_is_read() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert read_json(b"[" * 32 + b"]" * 32) is not None
    assert read_json(b'{"a": 249.90}')["a"] == Decimal("249.90")


def test_numbers_that_columns_cannot_hold_become_texts() -> None:
    assert plain(read_json(b"[1.5, 1e999, 9223372036854775807, 9223372036854775808, true]")) == [
        1.5,
        "1E+999",
        9223372036854775807,
        "9223372036854775808",
        True,
    ]
