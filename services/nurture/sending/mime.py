"""An email of a text and an HTML part, written in one pass. Pure.

The library's classes read each header back several times; where a header is what it looks like, that is left out.
"""

import re
from binascii import b2a_qp
from collections.abc import Iterable
from email.headerregistry import Address, HeaderRegistry
from email.policy import EmailPolicy
from functools import lru_cache
from typing import Any

BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_LONGEST_LINE = 78
"""RFC 5322 section 2.1.1: what is longer is folded."""
_BOUNDARY = "=_throughline"
"""Never in what is quoted-printable, where `=` is followed by two digits or ends a line (RFC 2045 section 6.7)."""
_PART = f"--{_BOUNDARY}\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
_TEXT, _HTML, _END = (each.encode() for each in (_PART % "plain", f"\r\n{_PART % 'html'}", f"\r\n--{_BOUNDARY}--\r\n"))
_TYPE = f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="{_BOUNDARY}"\r\n\r\n'.encode()


class _Headers(HeaderRegistry):
    """Makes the class of a kind of header once; the library makes one for each header of each email."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, type[Any]] = {}

    def __getitem__(self, name: str) -> type[Any]:
        kind = self._made.get(name.lower())
        if kind is None:
            kind = self._made[name.lower()] = super().__getitem__(name)
        return kind


_POLICY = EmailPolicy(raise_on_defect=True, linesep="\r\n", header_factory=_Headers())


def header(name: str, value: str) -> bytes:
    """A header of ASCII letters in one piece, as our own long tokens need it. Raises ValueError."""
    if BREAKS.search(value):
        raise ValueError(f"the header {name} holds a line break or a control character")
    return f"{name}: {value}\r\n".encode("ascii")


def words(name: str, value: str) -> bytes:
    """A header of words: encoded where they are not ASCII or look encoded, folded where they are long."""
    if value.isascii() and "=?" not in value and len(name) + 2 + len(value) <= _LONGEST_LINE:
        return header(name, value)
    return _folded(name, value)


@lru_cache(maxsize=100)
def mailbox(name: str, display_name: str, username: str, domain: str) -> bytes:
    """A header that names one mailbox, written once for all emails."""
    return _folded(name, Address(display_name, username, domain))


def written(headers: Iterable[bytes], text: str, html: str) -> bytes:
    """The email. Raises ValueError for text that no encoding has."""
    return b"".join((*headers, _TYPE, _TEXT, _quoted(text), _HTML, _quoted(html), _END))


def _folded(name: str, value: str | Address) -> bytes:
    kept = _POLICY.header_store_parse(name, value)[1]
    return _POLICY.fold_binary(name, kept)


def _quoted(text: str) -> bytes:
    lines = text.encode().splitlines()
    return b2a_qp(b"\r\n".join(lines) + b"\r\n")
