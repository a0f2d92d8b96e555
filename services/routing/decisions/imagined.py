"""A lead that does not exist, as a request describes it: checked against what rules may read."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.routing.people.domain import FIELDS
from shared.errors import FieldError, Invalid
from shared.rules import Kind

_WORDS = {
    Kind.TEXT: "is not a text",
    Kind.INTEGER: "is not a whole number",
    Kind.NUMBER: "is not a number",
    Kind.BOOLEAN: "is not true or false",
}


def imagined_inputs(told: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a decision about such a lead. Raises Invalid that names every field that rules cannot read."""
    faults = [fault for name, value in told.items() for fault in _faults(FIELDS[name], value, f"/{name}")]
    if faults:
        raise Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
    inputs = {name: _converted(FIELDS[name], value) for name, value in told.items()}
    account = inputs.get("lead", {}).get("account", {})
    if owner := account.get("owner_id"):
        owners = [{"account_id": account.get("account_id", "the account"), "owner_id": owner, "levels_up": 0}]
        return {**inputs, "account_owners": owners}
    return inputs


def _faults(kind: Any, value: Any, place: str) -> Iterator[FieldError]:
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            yield FieldError(place, "is not an object")
            return
        for name, inner in value.items():
            if name not in kind:
                yield FieldError(f"{place}/{name}", f"is nothing that rules read; they read {', '.join(sorted(kind))}")
            else:
                yield from _faults(kind[name], inner, f"{place}/{name}")
    elif not _is(kind, value):
        yield FieldError(place, _WORDS[kind])


def _is(kind: Kind, value: Any) -> bool:
    match kind:
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case _:
            return True


def _converted(kind: Any, value: Any) -> Any:
    """Whole numbers become doubles where rules expect those: CEL does not turn one into the other."""
    if isinstance(kind, Mapping):
        return {name: _converted(kind[name], inner) for name, inner in value.items()}
    return float(value) if kind is Kind.NUMBER else value
