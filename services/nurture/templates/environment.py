"""Jinja cut down to what a message needs, and what becomes of values that are not there."""

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import ChainableUndefined, TemplateError, Undefined
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape

from services.nurture.templates.localized import LOCALIZED

PLAIN_FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "e",
        "escape",
        "first",
        "float",
        "int",
        "join",
        "last",
        "length",
        "lower",
        "round",
        "striptags",
        "title",
        "trim",
        "truncate",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
FILTERS = PLAIN_FILTERS | frozenset(LOCALIZED)
TESTS = frozenset(
    [
        "defined",
        "undefined",
        "string",
        "number",
        "boolean",
        "eq",
        "equalto",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "in",
        "sequence",
    ]
)


class MissingValue(TemplateError):
    """The template prints a value that the lead does not have, and nothing says what to print instead."""


class Fallbacks:
    """What is printed for values that are not there, and which were asked for.

    `lenient` shows the name of a value that has none, for somebody who looks at a template.
    """

    def __init__(self, defaults: Mapping[str, str], *, lenient: bool = False) -> None:
        self.replaced: list[str] = []
        self.missing: list[str] = []
        self._defaults = defaults
        self._lenient = lenient

    def of(self, path: str) -> str:
        """What stands in for a value. Raises MissingValue."""
        if path in self._defaults:
            self.replaced.append(path)
            return self._defaults[path]
        self.missing.append(path)
        if self._lenient:
            return f"⟨{path}⟩"
        raise MissingValue(f"{path} is missing and has no default")


class Fields(dict[str, Any]):
    """Values by their names, which know their own path."""

    def __init__(self, values: Mapping[str, Any], path: str, fallbacks: Fallbacks) -> None:
        super().__init__({name: with_fallbacks(value, f"{path}.{name}", fallbacks) for name, value in values.items()})
        self.path = path
        self.fallbacks = fallbacks


def with_fallbacks(value: Any, path: str, fallbacks: Fallbacks) -> Any:
    """A value whose absent parts know what stands in for them."""
    if isinstance(value, Mapping):
        return Fields(value, path, fallbacks)
    return [with_fallbacks(item, path, fallbacks) for item in value] if isinstance(value, list) else value


class Absent(ChainableUndefined):
    """A value that is not there: false in a condition, replaced by a default, and never printed."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __str__(self) -> str:
        within = self._undefined_obj
        if isinstance(within, Fields):
            return within.fallbacks.of(f"{within.path}.{self._undefined_name}")
        raise MissingValue(f"{self._undefined_name} is missing and has no default")

    def __html__(self) -> str:
        return escape(str(self))


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The fields of the values that a message is given, and harmless filters."""

    def __init__(self, *, html: bool) -> None:
        super().__init__(autoescape=html, undefined=Absent, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: run for name, run in self.filters.items() if name in PLAIN_FILTERS} | LOCALIZED
        self.tests = {name: run for name, run in self.tests.items() if name in TESTS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            inner = f"{obj._undefined_name}.{argument}"  # noqa: SLF001  # the library's own, for its subclasses
            return Absent(obj=obj._undefined_obj, name=inner)  # noqa: SLF001  # the same
        if isinstance(obj, Mapping) and isinstance(argument, str) and _is_said(obj.get(argument)):
            return obj[argument]
        if isinstance(obj, LoopContext) and argument in ("index", "index0", "first", "last", "length"):
            return getattr(obj, argument)
        if isinstance(obj, list) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=str(argument))


def _is_said(value: Any) -> bool:
    """Whether there is a value: nothing, and a text of nothing but blanks, is none."""
    return value is not None and (not isinstance(value, str) or bool(value.strip()))
