"""Filters as SQL: values travel as parameters, columns come from a table of ours; no text of a filter is ever SQL."""

from collections.abc import Mapping
from typing import Any, assert_never

from services.attribution.reports.filters import (
    Compared,
    Condition,
    Field,
    Fixed,
    Matched,
    Method,
    Not,
    OneOf,
    Operand,
    Relation,
    Together,
    kind_of,
)
from shared.rules import TEXT

# By code point, as CEL compares, and with letters of all languages, whatever the database's own rules are.
COLLATION = 'COLLATE "pg_c_utf8"'
RELATIONS: dict[Relation, str] = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class Arguments:
    """The arguments of a statement, numbered in the order in which they are bound."""

    def __init__(self, *first: Any) -> None:
        self.values: list[Any] = list(first)

    def bind(self, value: Any, kind: str) -> str:
        """The placeholder of another argument of this SQL type."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def condition_sql(condition: Condition, columns: Mapping[str, str], arguments: Arguments) -> str:
    """A condition over these columns, by the names that filters call them."""

    def operand(value: Operand) -> str:
        match value:
            case Field(name):
                return columns[name]
            case str():
                return arguments.bind(value, "text")
            case int():
                return arguments.bind(value, "bigint")

    match condition:
        case Compared(left, relation, right):
            collation = COLLATION if kind_of(left) is TEXT else ""
            return f"{operand(left)} {RELATIONS[relation]} {operand(right)} {collation}"
        case OneOf(left, among):
            kind = "text[]" if kind_of(left) is TEXT else "bigint[]"
            return f"{operand(left)} = ANY({arguments.bind(list(among), kind)})"
        case Matched(left, method, right):
            return _matched(method, operand(left), operand(right))
        case Not(part):
            return f"NOT ({condition_sql(part, columns, arguments)})"
        case Together(every, parts):
            return (" AND " if every else " OR ").join(f"({condition_sql(p, columns, arguments)})" for p in parts)
        case Fixed(holds):
            return "true" if holds else "false"
    assert_never(condition)


def _matched(method: Method, text: str, other: str) -> str:
    match method:
        case "contains":
            return f"strpos({text}, {other}) > 0"
        case "startsWith":
            return f"starts_with({text}, {other})"
        case "endsWith":
            return f"right({text}, length({other})) = {other}"
        case "matches":
            return f"{text} {COLLATION} ~ {other}"
    assert_never(method)
