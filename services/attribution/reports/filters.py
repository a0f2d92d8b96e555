"""The language of filters: the part of CEL that can be answered by a database, read into a tree of conditions.

CEL itself checks the text first: syntax, names, types. What is left of it here are comparisons of fields with texts and
whole numbers, `in`, `contains`, `startsWith`, `endsWith`, `matches`, and `&&`, `||`, `!` and parentheses between them.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import cel

from services.attribution.errors import InvalidFilter
from services.attribution.reports.patterns import PatternFault, postgres_pattern
from shared.errors import FieldError
from shared.rules import INTEGER, TEXT, ExpressionFault, Kind, Token, Vocabulary, compile_expression, place, tokens_in

Relation = Literal["==", "!=", "<=", ">=", "<", ">"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)  # the longer of two that begin alike is tried first
Method = Literal["contains", "startsWith", "endsWith", "matches"]
METHODS: tuple[Method, ...] = get_args(Method)
POINTER = "query:filter"
LONGEST = 4_000
DEEPEST = 50
UNDERSTOOD = "a filter is made of ==, !=, <, <=, >, >=, in, contains, startsWith, endsWith, matches, &&, || and !"


@dataclass(frozen=True, slots=True)
class Field:
    """What a filter calls by its name."""

    name: str
    kind: Kind


Operand = Field | str | int


@dataclass(frozen=True, slots=True)
class Compared:
    """Two values of one kind, compared."""

    left: Operand
    relation: Relation
    right: Operand


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value that is one of several."""

    left: Operand
    among: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """A text that has another in it, or matches a pattern, which is PostgreSQL's already."""

    left: Operand
    method: Method
    right: Operand


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    part: "Condition"


@dataclass(frozen=True, slots=True)
class Together:
    """Several conditions: `all` of them, or any."""

    all: bool
    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """`true` or `false`."""

    holds: bool


Condition = Compared | OneOf | Matched | Not | Together | Fixed


def parse_filter(source: str, vocabulary: Vocabulary) -> Condition:
    """The condition that a filter's text says. Raises InvalidFilter with the column of what cannot be answered."""
    try:
        _check(source, vocabulary)
        return _Reader(source, vocabulary).whole()
    except ExpressionFault as fault:
        where = f"line {fault.line}: {fault.detail}" if fault.line > 1 else fault.detail
        raise InvalidFilter("the filter cannot be answered", [FieldError(POINTER, where, fault.column)]) from None


def _check(source: str, vocabulary: Vocabulary) -> None:
    """Let CEL refuse what it can; of a wrong type it does not know the place, but the reader mostly does."""
    try:
        compile_expression(source, vocabulary, POINTER)
    except ExpressionFault as fault:
        if len(source) <= LONGEST and _is_cel(source):
            _Reader(source, vocabulary).whole()
        raise fault from None


def _is_cel(source: str) -> bool:
    try:
        cel.compile(source)
    except ValueError:
        return False
    return True


def kind_of(operand: Operand) -> Kind:
    """Text or whole number."""
    match operand:
        case Field(_, kind):
            return kind
        case str():
            return TEXT
        case int():
            return INTEGER


def fields_of(condition: Condition | None) -> frozenset[str]:
    """The names of the fields that decide about a condition."""
    match condition:
        case Compared(left, _, right) | Matched(left, _, right):
            return frozenset(operand.name for operand in (left, right) if isinstance(operand, Field))
        case OneOf(Field(name)):
            return frozenset({name})
        case Not(part):
            return fields_of(part)
        case Together(_, parts):
            return frozenset().union(*(fields_of(part) for part in parts))
        case _:
            return frozenset()


class _Reader:
    """Reads tokens from left to right, a method for each level of binding."""

    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        self._source = source
        self._vocabulary = vocabulary
        self._tokens = tokens_in(source)
        self._next = 0
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._any()
        if self._next < len(self._tokens):
            raise self._fault(self._tokens[self._next], UNDERSTOOD)
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Together(False, tuple(parts))

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else Together(True, tuple(parts))

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._fault(self._here(), f"conditions may be nested {DEEPEST} deep at most")
        try:
            if self._peek("!") and not self._peek("!="):
                self._take("!")
                return Not(self._one())
            if self._take("("):
                inner = self._any()
                self._must(")")
                return inner
            if self._here().text in {"true", "false"} and self._here().kind == "name":
                self._next += 1
                return Fixed(self._tokens[self._next - 1].text == "true")
            return self._test()
        finally:
            self._depth -= 1

    def _test(self) -> Condition:
        begin = self._here()
        left = self._operand()
        if self._take("."):
            return self._matched(begin, left)
        if self._here_is("name", "in"):
            self._next += 1
            return OneOf(left, self._list(left))
        relation = next((one for one in RELATIONS if self._take(one)), None)
        if relation is None:
            if self._next < len(self._tokens) and self._here().text not in {")", "&", "|"}:
                raise self._fault(self._here(), UNDERSTOOD)
            raise self._fault(begin, "this is a value, not a condition; compare it with something")
        at = self._here()
        right = self._operand()
        if kind_of(left) is not kind_of(right):
            raise self._fault(
                at, f"this is of kind {kind_of(right).value} and is not compared with {kind_of(left).value}"
            )
        return Compared(left, relation, right)

    def _matched(self, begin: Token, left: Operand) -> Matched:
        name = self._here()
        method = next((one for one in METHODS if one == name.text), None)
        if method is None:
            raise self._fault(name, UNDERSTOOD)
        self._next += 1
        self._must("(")
        at = self._here()
        right = self._operand()
        if self._take(","):
            raise self._fault(at, f"{name.text} takes one text")
        self._must(")")
        for token, operand in ((begin, left), (at, right)):
            if kind_of(operand) is not TEXT:
                raise self._fault(token, f"this is no text; {name.text} is for texts")
        if method == "matches":
            right = self._pattern(at, right)
        return Matched(left, method, right)

    def _pattern(self, at: Token, pattern: Operand) -> str:
        if not isinstance(pattern, str):
            raise self._fault(at, "a pattern is written out as a text")
        try:
            return postgres_pattern(pattern)
        except PatternFault as fault:
            raise self._fault(at, str(fault)) from None

    def _list(self, left: Operand) -> tuple[str, ...] | tuple[int, ...]:
        self._must("[")
        texts: list[str] = []
        numbers: list[int] = []
        while not self._take("]"):
            at = self._here()
            value = self._operand()
            if isinstance(value, Field):
                raise self._fault(at, "a list holds values that are written out, not fields")
            if kind_of(value) is not kind_of(left):
                raise self._fault(
                    at, f"this is of kind {kind_of(value).value} and never equals what is of kind {kind_of(left).value}"
                )
            if isinstance(value, str):
                texts.append(value)
            else:
                numbers.append(value)
            self._take(",")
        return tuple(numbers) if kind_of(left) is INTEGER else tuple(texts)

    def _operand(self) -> Operand:
        token = self._here()
        self._next += 1
        follower = self._tokens[self._next].text if self._next < len(self._tokens) else ""
        if token.kind == "name" and follower != "(" and token.text not in {"true", "false", "null", "in"}:
            kind = self._vocabulary.fields_at((token.text,))
            if not isinstance(kind, Kind):
                names = ", ".join(sorted(self._vocabulary.names))
                raise self._fault(token, f"there is no {token.text}; there are {names}")
            return Field(token.text, kind)
        if token.kind == "text" and token.text[0] in "'\"rR":
            return self._text(token)
        negative = token.text == "-"
        if negative:
            token = self._here()
            self._next += 1
        if token.kind == "number":
            return self._number(token, negative)
        raise self._fault(token, UNDERSTOOD)

    def _text(self, token: Token) -> str:
        text: str = cel.compile(token.text).execute(cel.Context({}))
        if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise self._fault(token, "no stored text has such a character")
        return text

    def _number(self, token: Token, negative: bool) -> int:
        try:
            number = int(token.text, 16 if token.text[:2] in {"0x", "0X"} else 10)
        except ValueError:
            raise self._fault(token, "values are compared with whole numbers, in minor units") from None
        return -number if negative else number

    def _here(self) -> Token:
        end = Token("mark", "", len(self._source))
        return self._tokens[self._next] if self._next < len(self._tokens) else end

    def _here_is(self, kind: str, text: str) -> bool:
        return self._here().kind == kind and self._here().text == text

    def _peek(self, mark: str) -> bool:
        """Whether the next characters are this mark; a mark of two characters is two tokens without a gap."""
        tokens = self._tokens[self._next : self._next + len(mark)]
        starts_in_a_row = [token.start - tokens[0].start for token in tokens] == list(range(len(mark)))
        return starts_in_a_row and all(t.kind == "mark" for t in tokens) and "".join(t.text for t in tokens) == mark

    def _take(self, mark: str) -> bool:
        found = self._peek(mark)
        if found:
            self._next += len(mark)
        return found

    def _must(self, mark: str) -> None:
        if not self._take(mark):
            raise self._fault(self._here(), UNDERSTOOD)

    def _fault(self, token: Token, detail: str) -> ExpressionFault:
        line, column = place(self._source, token.start)
        return ExpressionFault(POINTER, column, detail, line)
