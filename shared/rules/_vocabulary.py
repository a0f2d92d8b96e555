"""The names an expression may use, and what each holds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a name holds. INTEGER and NUMBER (a double) differ because CEL never turns one into the other."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIME = "time"
    TEXTS = "list of texts"
    OPEN = "anything"


TEXT, INTEGER, NUMBER, BOOLEAN, TIME, TEXTS, OPEN = Kind

_SAMPLES: dict[Kind, Any] = {
    Kind.TEXT: "",
    Kind.INTEGER: 1,
    Kind.NUMBER: 1.0,
    Kind.BOOLEAN: True,
    Kind.TIME: datetime(2020, 1, 1, tzinfo=UTC),
    Kind.TEXTS: [],
}


class Vocabulary:
    """The top-level names, each a kind or, when only certain fields exist, the fields by name.

    `Vocabulary({"stage": TEXT, "event": {"type": TEXT, "properties": OPEN}})` knows `stage`, `event.type` and every
    `event.properties.…`, and nothing else.
    """

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names: dict[str, Any] = dict(names)
        self.sample: dict[str, Any] = {
            name: sampled for name, kind in names.items() if (sampled := _sample(kind)) is not None
        }

    def fields_at(self, path: tuple[str, ...]) -> Mapping[str, Any] | Kind | None:
        """What is found at `path`: fields, a kind, or None when there is no such name. All under OPEN is OPEN."""
        found: Any = self.names
        for name in path:
            if found is Kind.OPEN:
                return Kind.OPEN
            if not isinstance(found, Mapping) or name not in found:
                return None
            found = found[name]
        return found  # type: ignore[no-any-return]  # a Mapping or a Kind by construction


def _sample(kind: Any) -> Any:
    """A value of this kind to try an expression on; None where nothing can be said about it."""
    if isinstance(kind, Mapping):
        return {name: sampled for name, inner in kind.items() if (sampled := _sample(inner)) is not None}
    return {} if kind is Kind.OPEN else _SAMPLES[kind]
