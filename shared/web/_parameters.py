"""What an endpoint is asked beside its path: only what it takes, and each once if it takes one.

A misspelt parameter that nobody looks at would have a report answer another question than the one that was asked.
Public pages take what the world adds to their addresses.
"""

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query

from shared.errors import FieldError, Invalid
from shared.web._tokens import Authenticator

Handler = Callable[[Request], Coroutine[Any, Any, Any]]
MOST_TOLD = 10
LONGEST_TOLD = 50


def asked_only(dependant: Dependant, handle: Handler) -> Handler:
    """A handler that refuses, with Invalid, parameters that its endpoint does not take."""
    fields = [field for field in get_flat_params(dependant) if isinstance(field.field_info, Query)]
    takes_many = {field.alias: _takes_many(field.field_info.annotation) for field in fields}

    async def check(request: Request) -> Any:
        token = request.headers.get("authorization")  # without it a call is refused for that, or is of a public page
        if token is not None and request.scope["query_string"]:
            faults = [*faults_of_names((name for name, _ in request.query_params.multi_items()), takes_many)]
            if faults:
                authenticator: Authenticator = request.app.state.authenticator
                await authenticator.principal(token)  # who may not ask is told that
                raise Invalid(f"look at {', '.join(fault.pointer for fault in faults)}", faults)
        return await handle(request)

    return check


def faults_of_names(asked: Iterator[str], takes_many: Mapping[str, bool]) -> Iterator[FieldError]:
    """What is wrong with the names of parameters; `takes_many` are those there are, and if several of one may come."""
    for name, times in Counter(asked).most_common(MOST_TOLD):
        if name not in takes_many:
            yield FieldError(f"query:{name[:LONGEST_TOLD]}", _unknown(name[:LONGEST_TOLD], takes_many))
        elif times > 1 and not takes_many[name]:
            yield FieldError(f"query:{name}", f"is given {times} times, and only one can count")


def _unknown(name: str, known: Collection[str]) -> str:
    if not known:
        return "is not a parameter here; there are none"
    nearest = get_close_matches(name, known, n=1)
    meant = f"; did you mean {nearest[0]}?" if nearest else ";"
    return f"is not a parameter here{meant} There are {', '.join(sorted(known))}"


def _takes_many(annotation: Any) -> bool:
    return any(get_origin(part) is list for part in (annotation, *get_args(annotation)))
