"""Comparisons of numbers in an expression, as functions that can be bounded: for looking ahead to when one turns.

Bounds are those of interval arithmetic with derivatives beside the values (R. E. Moore, Interval Analysis, 1966): what
they exclude cannot happen, whatever the numbers in between.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from shared.rules._source import Token, names_in, tokens_in

Path: TypeAlias = tuple[str, ...]
Sign: TypeAlias = Literal["+", "-", "*", "/", "%"]
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_RELATIONS = frozenset(_HOLDS)
_LOOSER = _RELATIONS | {"&&", "||", "?", ":", ",", "in"}
_PAIRS = frozenset({"&&", "||", "<=", ">=", "==", "!="})
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_UNBOUNDED = math.inf


class Span(NamedTuple):
    """The values that a number takes in a stretch of time, at least and at most, and how fast it changes there."""

    low: float
    high: float
    slope_low: float = 0.0
    slope_high: float = 0.0


Reading: TypeAlias = Span | float | int
Readings: TypeAlias = Mapping[Path, Reading]
ANYTHING = Span(-_UNBOUNDED, _UNBOUNDED, -_UNBOUNDED, _UNBOUNDED)


@dataclass(frozen=True, slots=True)
class Number:
    """A literal; with a point it is a double, as CEL has it."""

    value: float | int


@dataclass(frozen=True, slots=True)
class Name:
    """A value by its path, `("score", "engagement")`."""

    path: Path
    start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """`int(…)`, which drops what is behind the point, or `double(…)`."""

    to: str
    of: "Term"


@dataclass(frozen=True, slots=True)
class Operation:
    """Two terms and what is done with them."""

    operator: Sign
    left: "Term"
    right: "Term"


Term: TypeAlias = Number | Name | Cast | Operation


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two terms that are compared."""

    operator: str
    left: Term
    right: Term

    def bar(self) -> "tuple[Path, str, float | int] | None":
        """The name, the relation and the number, where one is compared with the other and nothing is computed."""
        mirrored = _MIRRORED.get(self.operator, self.operator)
        for one, relation, other in ((self.left, self.operator, self.right), (self.right, mirrored, self.left)):
            if isinstance(one, Name):
                match other:
                    case Number(value):
                        return one.path, relation, value
                    case Operation("-", Number(0), Number(value)):
                        return one.path, relation, -value
        return None

    def holds(self, known: Mapping[Path, float | int]) -> bool | None:
        """Whether it is true; None if there is no answer."""
        try:
            left, right = _value(self.left, known), _value(self.right, known)
        except (KeyError, ZeroDivisionError, OverflowError, ValueError):
            return None
        return _HOLDS[self.operator](left, right)

    def gap(self, readings: Readings) -> Span:
        """What the left side is more than the right, over a stretch; nothing moves where a value is missing."""
        try:
            left, right = _span(self.left, readings), _span(self.right, readings)
        except KeyError:
            return Span(1.0, 1.0)
        gap = _minus(left, right)
        error = 1e-12 * max(abs(left.low), abs(left.high), abs(right.low), abs(right.high), 1.0)
        return Span(gap.low - error, gap.high + error, gap.slope_low, gap.slope_high) if error < math.inf else gap


def comparisons_in(source: str, varying: Callable[[Path], bool]) -> tuple[list[Comparison], bool]:
    """The comparisons that depend on a varying value, and whether that is all the expression does with such values."""
    tokens = _joined(tokens_in(source))
    free = {reference.starts[0]: reference.path for reference in names_in(source)[0]}
    found: list[Comparison] = []
    seen: set[int] = set()
    for place, token in enumerate(tokens):
        if token.kind != "mark" or token.text not in _RELATIONS:
            continue
        left, right = _left_of(tokens, place), _right_of(tokens, place)
        try:
            comparison = Comparison(token.text, _Terms(left).whole(), _Terms(right).whole())
        except _Unclear:
            continue
        names = _names(comparison)
        if any(varying(name.path) for name in names) and all(name.start in free for name in names):
            found.append(comparison)
            seen |= {name.start for name in names}
    return found, all(start in seen for start, path in free.items() if varying(path))


class _Unclear(Exception):
    """Something else than arithmetic."""


class _Terms:
    """Reads a piece of an expression as arithmetic, by recursive descent."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._place = 0

    def whole(self) -> Term:
        """All of the piece."""
        term = self._sum()
        if self._place < len(self._tokens):
            raise _Unclear
        return term

    def _next(self) -> str:
        return self._tokens[self._place].text if self._place < len(self._tokens) else ""

    def _take(self, text: str | None = None) -> Token:
        if self._place >= len(self._tokens) or text not in (None, self._next()):
            raise _Unclear
        self._place += 1
        return self._tokens[self._place - 1]

    def _sum(self) -> Term:
        term = self._product()
        while (sign := self._next()) in ("+", "-"):
            self._take()
            term = Operation(sign, term, self._product())  # type: ignore[arg-type]  # one of the two
        return term

    def _product(self) -> Term:
        term = self._single()
        while (sign := self._next()) in ("*", "/", "%"):
            self._take()
            term = Operation(sign, term, self._single())  # type: ignore[arg-type]  # one of the three
        return term

    def _single(self) -> Term:
        token = self._take()
        if token.kind == "number":
            return Number(_literal(token.text))
        if token.text == "-":
            return Operation("-", Number(0), self._single())
        if token.text == "(":
            term = self._sum()
            self._take(")")
            return term
        if token.kind != "name":
            raise _Unclear
        if self._next() != "(":
            return self._name(token)
        if token.text not in ("int", "double"):
            raise _Unclear
        self._take("(")
        term = Cast(token.text, self._sum())
        self._take(")")
        return term

    def _name(self, first: Token) -> Name:
        path = [first.text]
        while self._next() in (".", "["):
            opening = self._take().text
            part = self._take()
            if part.kind != ("name" if opening == "." else "text") or self._next() == "(":
                raise _Unclear
            path.append(part.text.strip("'\""))
            if opening == "[":
                self._take("]")
        return Name(tuple(path), first.start)


def _literal(text: str) -> float | int:
    text = text.rstrip("uU")
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return float(text) if set(text) & set(".eE") else int(text)


def _joined(tokens: list[Token]) -> list[Token]:
    """The same with each operator of two characters in one piece."""
    joined: list[Token] = []
    for token in tokens:
        last = joined[-1] if joined else None
        pair = last.text + token.text if last is not None else ""
        if last is not None and last.kind == token.kind == "mark" and pair in _PAIRS and last.start + 1 == token.start:
            joined[-1] = Token("mark", pair, last.start)
        else:
            joined.append(token)
    return joined


def _left_of(tokens: list[Token], place: int) -> list[Token]:
    depth, start = 0, place
    while start > 0:
        text = tokens[start - 1].text if tokens[start - 1].kind != "text" else ""
        if depth == 0 and (text in _LOOSER or text in _OPENING):
            break
        depth += (text in _CLOSING) - (text in _OPENING)
        start -= 1
    return tokens[start:place]


def _right_of(tokens: list[Token], place: int) -> list[Token]:
    depth, end = 0, place + 1
    while end < len(tokens):
        text = tokens[end].text if tokens[end].kind != "text" else ""
        if depth == 0 and (text in _LOOSER or text in _CLOSING):
            break
        depth += (text in _OPENING) - (text in _CLOSING)
        end += 1
    return tokens[place + 1 : end]


def _names(term: Term | Comparison) -> list[Name]:
    match term:
        case Name():
            return [term]
        case Number():
            return []
        case Cast():
            return _names(term.of)
        case Operation() | Comparison():
            return _names(term.left) + _names(term.right)


def _value(term: Term, known: Mapping[Path, float | int]) -> float | int:
    match term:
        case Number():
            return term.value
        case Name():
            return known[term.path]
        case Cast():
            value = _value(term.of, known)
            return math.trunc(value) if term.to == "int" else float(value)
        case Operation():
            return _worked_out(term.operator, _value(term.left, known), _value(term.right, known))


def _worked_out(sign: Sign, left: float | int, right: float | int) -> float | int:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            if isinstance(left, int) and isinstance(right, int):
                return _quotient(left, right)
            return left / right if right else math.copysign(math.inf, left)
        case "%":
            if isinstance(left, int) and isinstance(right, int):
                return left - right * _quotient(left, right)
            return math.fmod(left, right)


def _quotient(left: int, right: int) -> int:
    """Whole numbers divided as CEL does: towards zero."""
    whole = abs(left) // abs(right)
    return whole if (left < 0) == (right < 0) else -whole


def _span(term: Term, readings: Readings) -> Span:
    match term:
        case Number():
            return Span(term.value, term.value)
        case Name():
            reading = readings[term.path]
            return reading if isinstance(reading, Span) else Span(reading, reading)
        case Cast():
            span = _span(term.of, readings)
            return _truncated(span) if term.to == "int" else span
        case Operation():
            whole = _is_whole(term.left, readings) and _is_whole(term.right, readings)
            return _bounded(term.operator, _span(term.left, readings), _span(term.right, readings), whole=whole)


def _bounded(sign: Sign, left: Span, right: Span, *, whole: bool) -> Span:
    match sign:
        case "+":
            return Span(*(one + other for one, other in zip(left, right, strict=True)))
        case "-":
            return _minus(left, right)
        case "*":
            return _times(left, right)
        case "/":
            quotient = _times(left, _reciprocal(right))
            return _truncated(quotient) if whole else quotient
        case "%":
            if left.low == left.high and right.low == right.high != 0:
                rest = math.fmod(left.low, right.low)
                return Span(rest, rest)
            most = max(abs(right.low), abs(right.high))
            return Span(-most, most, -_UNBOUNDED, _UNBOUNDED)


def _is_whole(term: Term, readings: Readings) -> bool:
    match term:
        case Number():
            return isinstance(term.value, int)
        case Name():
            return isinstance(readings.get(term.path), int)
        case Cast():
            return term.to == "int"
        case Operation():
            return _is_whole(term.left, readings) and _is_whole(term.right, readings)


def _minus(left: Span, right: Span) -> Span:
    return Span(
        left.low - right.high,
        left.high - right.low,
        left.slope_low - right.slope_high,
        left.slope_high - right.slope_low,
    )


def _times(left: Span, right: Span) -> Span:
    low, high = _product(left.low, left.high, right.low, right.high)
    one = _product(left.slope_low, left.slope_high, right.low, right.high)
    other = _product(left.low, left.high, right.slope_low, right.slope_high)
    return Span(low, high, one[0] + other[0], one[1] + other[1])


def _product(a: float, b: float, c: float, d: float) -> tuple[float, float]:
    products = [x * y if x and y else 0.0 for x in (a, b) for y in (c, d)]
    return min(products), max(products)


def _reciprocal(span: Span) -> Span:
    if span.low > 0 or span.high < 0:
        low, high = 1 / span.high, 1 / span.low
        squares = _product(low, high, low, high) if low < 0 < high else (min(low**2, high**2), max(low**2, high**2))
        slope = _product(-span.slope_high, -span.slope_low, *squares)
        return Span(low, high, *slope)
    if span.low == 0 and span.high > 0:
        return Span(1 / span.high, _UNBOUNDED, -_UNBOUNDED, _UNBOUNDED)
    return Span(_UNBOUNDED, _UNBOUNDED) if span.low == span.high == 0 else ANYTHING


def _truncated(span: Span) -> Span:
    """Steps up to whole numbers: between two of them nothing moves."""
    if not (math.isfinite(span.low) and math.isfinite(span.high)):
        return ANYTHING
    low, high = float(math.trunc(span.low)), float(math.trunc(span.high))
    if low == high:
        return Span(low, high)
    return Span(low, high, -_UNBOUNDED if span.slope_low < 0 else 0.0, _UNBOUNDED if span.slope_high > 0 else 0.0)
