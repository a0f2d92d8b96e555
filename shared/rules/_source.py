"""Reads the source of an expression for the names it uses, which the CEL library does not tell.

The library has already accepted the syntax when this runs, so the walk only has to tell names from text: which
identifiers are variables, which fields follow them, and which are only bound inside a comprehension.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
      | (?P<text>[bB]?[rR][bB]?(?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n]*'|"[^"\n]*")
          | [bB]?(?:'{3}(?:\\.|[^\\])*?'{3}|"{3}(?:\\.|[^\\])*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))
      | (?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?|\.\d+(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_COMPREHENSIONS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_LITERALS = frozenset({"true", "false", "null", "in"})
_TYPES = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type"})


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of source: `text`, `number`, `name` or `mark`; `start` counts characters from 0."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable and the fields read from it, `("lead", "employees")`, each with the place where it is named.

    `indexed` is set when a computed index follows, as in `event[stage]`.
    """

    path: tuple[str, ...]
    starts: tuple[int, ...]
    indexed: bool = False

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Call:
    """A function or method by name, and where."""

    name: str
    start: int


def names_in(source: str) -> tuple[list[Reference], list[Call], int]:
    """Every variable with its fields, every function, and how deeply comprehensions are nested."""
    tokens = tokens_in(source)
    references: list[Reference] = []
    calls: list[Call] = []
    scopes: list[tuple[str, int]] = []  # a comprehension's variable and the token at which it goes out of scope
    deepest = 0
    position = 0
    while position < len(tokens):
        token = tokens[position]
        scopes = [scope for scope in scopes if scope[1] > position]
        follower = tokens[position + 1].text if position + 1 < len(tokens) else ""
        member = position > 0 and tokens[position - 1].text == "." and tokens[position - 1].kind == "mark"
        if member and not _ends_operand(tokens, position - 2):
            references.append(Reference((f".{token.text}",), (token.start,)))  # CEL's absolute name; nothing has one
        if token.kind != "name" or (token.text in _LITERALS and not member):
            position += 1
        elif follower == "(":
            calls.append(Call(token.text, token.start))
            if member and token.text in _COMPREHENSIONS and position + 2 < len(tokens):
                scopes.append((tokens[position + 2].text, _closing(tokens, position + 1)))
                deepest = max(deepest, len(scopes))
                position += 1  # the parenthesis; the bound name comes next and is in scope
            position += 1
        elif member or token.text in {name for name, _ in scopes} or token.text in _TYPES:
            position += 1
        else:
            reference, position = _reference(tokens, position)
            references.append(reference)
    return references, calls, deepest


def tokens_in(source: str) -> list[Token]:
    """The pieces of an expression in order, without blanks and comments; a mark is one character."""
    return [token for token in _tokens(source) if token.kind != "skip"]


def numbers_in(source: str) -> tuple[float, ...]:
    """The number literals of an expression, each once, in ascending order."""
    texts = {token.text.rstrip("uU") for token in _tokens(source) if token.kind == "number"}
    return tuple(sorted({float(int(text, 16)) if text[:2] in ("0x", "0X") else float(text) for text in texts}))


def place(source: str, start: int) -> tuple[int, int]:
    """Line and column, both from 1, of a character."""
    before = source[:start]
    return before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1


def _tokens(source: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(source):
        yield Token(match.lastgroup or "mark", match.group(), match.start())


def _reference(tokens: list[Token], position: int) -> tuple[Reference, int]:
    """The variable at `position` with the fields read from it, and the place of the token after them."""
    path, starts = [tokens[position].text], [tokens[position].start]
    position += 1
    while position + 1 < len(tokens):
        mark, name = tokens[position], tokens[position + 1]
        after = tokens[position + 2].text if position + 2 < len(tokens) else ""
        if mark.text == "." and name.kind == "name" and after != "(":
            path.append(name.text)
            starts.append(name.start)
            position += 2
        elif mark.text == "[" and name.kind == "text" and after == "]" and name.text[0] in "'\"":
            path.append(name.text.strip("'\""))
            starts.append(name.start)
            position += 3
        else:
            break
    indexed = position < len(tokens) and tokens[position].text == "["
    return Reference(tuple(path), tuple(starts), indexed), position


def _ends_operand(tokens: list[Token], position: int) -> bool:
    """Whether the token there can be followed by a field."""
    return position >= 0 and (tokens[position].kind != "mark" or tokens[position].text in _CLOSING.values())


def _closing(tokens: list[Token], opening: int) -> int:
    """Where the bracket that opens at `opening` is closed."""
    depth = 0
    for position in range(opening, len(tokens)):
        if tokens[position].kind != "mark":
            continue
        if tokens[position].text in _CLOSING:
            depth += 1
        elif tokens[position].text in _CLOSING.values():
            depth -= 1
            if depth == 0:
                return position
    return len(tokens)
