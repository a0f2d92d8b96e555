"""Which service tells which fact and which reacts to it: read from the services themselves, not from the table."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic import SecretStr

from shared.events import EVENT_OF, Event, PersonKeyCreated
from shared.service import Runtime, build_runtime
from shared.settings import Settings
from throughline.services import service_code

_FACTS = {kind.__name__: kind for kind in EVENT_OF.values()}
_MAKES_KEYS = frozenset({"emit_drafts", "destroy"})
_OPENS_BLOCKS = frozenset({"open_many", "tell_known"})


@cache
def looked_at(service: str) -> Runtime:
    """A service's runtime to look at: nothing is connected, and nothing listens at its addresses."""
    return build_runtime(
        service,
        Settings(
            database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
            kafka_bootstrap_servers="127.0.0.1:1",
            secret=SecretStr("00" * 32),
        ),
    )


def tells(service: str) -> frozenset[type[Event]]:
    """The facts that a service's code constructs. Persons' keys are told by the runtime when something is sealed."""
    called = _called(service)
    facts = {kind for name, kind in _FACTS.items() if name in called}
    return frozenset(facts | ({PersonKeyCreated} if called & _MAKES_KEYS else set()))


def reacts_to(service: str) -> frozenset[type[Event]]:
    """The facts that a service has a route for. Persons' keys are read by the runtime where something is opened."""
    facts = {route.event_type for route in service_code(service).routes(looked_at(service))}
    return frozenset(facts | ({PersonKeyCreated} if _called(service) & _OPENS_BLOCKS else set()))


@cache
def _called(service: str) -> frozenset[str]:
    """The last name of everything that a service's code calls."""
    names = set()
    for path in sorted(_folder(service).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(func=ast.Name(id="Encoded"), args=[ast.Name(id=name), *_]):
                    names |= {"Encoded", name}  # a fact that is written out without its model
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id=name), attr="__pydantic_validator__"):
                    names.add(name)  # where constructing must be fast, the validator itself is called
    return frozenset(names)


def _folder(service: str) -> Path:
    spec = find_spec(f"services.{service}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
