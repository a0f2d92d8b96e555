"""Expressions: CEL compiled against a vocabulary, so that what cannot work is refused when it is saved."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cel

from shared.rules._source import Call, Reference, names_in, numbers_in, place
from shared.rules._vocabulary import Kind, Vocabulary

LONGEST = 4_000
DEEPEST_COMPREHENSION = 2
# Those of the library that exist with the arguments CEL gives them; it would know of a wrong one only at run time.
_FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "has", "all", "exists", "exists_one", "map", "filter"}
    | {"int", "uint", "double", "string", "bytes", "timestamp", "duration", "type", "dyn"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
_FAILURES = (KeyError, TypeError, RuntimeError, ValueError, ArithmeticError, IndexError)


class ExpressionFault(Exception):
    """An expression that can never work: where in the document, where in its text, and why."""

    def __init__(self, pointer: str, column: int, detail: str, line: int = 1) -> None:
        super().__init__(f"{pointer}: {detail} (line {line}, column {column})")
        self.pointer = pointer
        self.column = column
        self.line = line
        self.detail = detail


class Evaluation:
    """The values that expressions are tried on, converted once and used for all rules of one event."""

    __slots__ = ("context", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.context = cel.Context(dict(values))


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `references` are the variables and fields it reads, `numbers` its number literals and `functions` what it calls,
    operators in CEL's own spelling (`_+_`): for callers that fetch, cache or look ahead.
    """

    source: str
    references: tuple[tuple[str, ...], ...]
    numbers: tuple[float, ...]
    functions: frozenset[str]
    program: cel.Program

    def value(self, values: Mapping[str, Any] | Evaluation) -> Any:
        """What the expression comes to; raises what CEL raises, KeyError for a missing value."""
        if not isinstance(values, Evaluation):
            values = Evaluation(values)
        return self.program.execute(values.context)

    def holds(self, values: Mapping[str, Any] | Evaluation) -> tuple[bool, str]:
        """Whether the expression is true, and why not: a missing value or a wrong type makes it false."""
        if not isinstance(values, Evaluation):
            values = Evaluation(values)
        try:
            result = self.program.execute(values.context)
        except KeyError as missing:
            return False, f"{self._name_of(str(missing.args[0]), values.values)} is missing"
        except _FAILURES as failure:
            return False, self._why(failure, values.values)
        if result is True:
            return True, "true"
        return False, "false" if result is False else f"it is {type(result).__name__}, not true or false"

    def reads(self, *path: str) -> bool:
        """Whether the expression reads this name, or something in it."""
        return any(reference[: len(path)] == path for reference in self.references)

    def _why(self, failure: Exception, values: Mapping[str, Any]) -> str:
        absent = next((path[0] for path in self.references if path[0] not in values), None)
        if isinstance(failure, RuntimeError) and absent is not None:
            return f"{absent} is missing"
        return _sentence(failure)

    def _name_of(self, missing: str, values: Mapping[str, Any]) -> str:
        """The whole name of the field the library only knows the last part of."""
        for path in self.references:
            found: Any = values
            for depth, name in enumerate(path, start=1):
                if not isinstance(found, Mapping) or name not in found:
                    if name == missing:
                        return ".".join(path[:depth])
                    break
                found = found[name]
        return missing


def present(**values: Any) -> dict[str, Any]:
    """The values that are known: an absent one must be missing, since in CEL null is a value."""
    return {name: value for name, value in values.items() if value is not None}


def compile_expression(source: str, vocabulary: Vocabulary, pointer: str = "", *, boolean: bool = True) -> Expression:
    """Compile, and refuse what can never work: bad syntax, unknown names and functions, wrong types.

    `boolean` says that the result is used as a condition, so that anything but true or false is a fault as well.
    """
    if len(source) > LONGEST:
        raise ExpressionFault(pointer, LONGEST + 1, f"an expression has at most {LONGEST} characters")
    try:
        program = cel.compile(source)
    except ValueError as exc:
        raise _syntax_fault(pointer, str(exc)) from None
    references, calls, depth = names_in(source)
    for call in calls:
        _check_function(source, call, pointer)
    for reference in references:
        _check_reference(source, reference, vocabulary, pointer)
    if depth > DEEPEST_COMPREHENSION:
        raise ExpressionFault(pointer, 1, f"comprehensions may be nested {DEEPEST_COMPREHENSION} deep at most")
    functions = frozenset(program.functions())
    unseen = functions - {call.name for call in calls}
    if hidden := sorted(name for name in unseen if name.isidentifier() and not name.startswith("_")):
        raise ExpressionFault(pointer, 1, f"there is no function {hidden[0]}")
    paths = tuple(dict.fromkeys(reference.path for reference in references))
    expression = Expression(source, paths, numbers_in(source), functions, program)
    _try_out(expression, vocabulary, pointer, boolean)
    return expression


def _check_function(source: str, call: Call, pointer: str) -> None:
    if call.name not in _FUNCTIONS:
        line, column = place(source, call.start)
        raise ExpressionFault(pointer, column, f"there is no function {call.name}", line)


def _check_reference(source: str, reference: Reference, vocabulary: Vocabulary, pointer: str) -> None:
    def refuse(depth: int, detail: str) -> ExpressionFault:
        line, column = place(source, reference.starts[depth])
        return ExpressionFault(pointer, column, detail, line)

    found = None
    for depth in range(len(reference.path)):
        found = vocabulary.fields_at(reference.path[: depth + 1])
        if found is Kind.OPEN:
            return
        if found is None:
            known = vocabulary.fields_at(reference.path[:depth])
            name = ".".join(reference.path[: depth + 1])
            offered = f"; there are {', '.join(sorted(known))}" if isinstance(known, Mapping) else ""
            raise refuse(depth, f"there is no {name}{offered}")
    if isinstance(found, Mapping):
        detail = "name the field itself" if reference.indexed else f"name one of its fields: {', '.join(sorted(found))}"
        raise refuse(len(reference.path) - 1, f"{reference} is not a value; {detail}")


def _try_out(expression: Expression, vocabulary: Vocabulary, pointer: str, boolean: bool) -> None:
    """Run it on sample values of the right kinds, which shows wrong types, bad patterns and useless results."""
    try:
        result = expression.value(vocabulary.sample)
    except (TypeError, RuntimeError) as exc:
        raise ExpressionFault(pointer, 1, _sentence(exc)) from None
    except _FAILURES:
        return  # a value that the sample does not have: nothing can be said
    if boolean and not isinstance(result, bool):
        raise ExpressionFault(pointer, 1, f"a condition is true or false, this is {type(result).__name__}")


def _syntax_fault(pointer: str, message: str) -> ExpressionFault:
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", message)
    if found is None:
        return ExpressionFault(pointer, 1, message.splitlines()[-1])
    if "Recursion limit" in found[3]:
        return ExpressionFault(pointer, int(found[2]), "it is nested too deeply; use fewer brackets", int(found[1]))
    detail = re.sub(r" expecting \{.*", "", found[3]).replace("'<EOF>'", "end of the expression")
    return ExpressionFault(pointer, int(found[2]), detail, int(found[1]))


def _sentence(failure: Exception) -> str:
    """The first sentence of the library's message; the rest is advice for programmers."""
    text = str(failure.args[0]) if failure.args else type(failure).__name__
    text = text.split("\n")[0]
    return re.split(r"\.? CEL does not coerce|\. Check ", text)[0].rstrip(".:")
