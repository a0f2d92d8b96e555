"""Problem details (RFC 9457) for everything that goes wrong."""

import re
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from shared.errors import FieldError, Invalid, Malformed, QuotaExceeded, Rejected, Unavailable
from shared.telemetry import describe, log

PROBLEM_JSON = "application/problem+json"
_TITLES = {
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "The method is not allowed here"),
    406: ("not-acceptable", "No acceptable representation"),
    415: ("unsupported-media-type", "The media type is not supported"),
}
_PLAIN = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "json_invalid": "is not valid JSON",
    "model_type": "is not an object",
    "model_attributes_type": "is not an object",
    "dict_type": "is not an object",
}
_OF_SEVERAL = re.compile(r"constrained-[a-z]+|[a-z-]+\[.*\]", re.DOTALL)
"""What a validation puts into a place to say which of several shapes it means: nothing that anybody sent."""


def type_uri(slug: str) -> str:
    """The stable `type` of a problem."""
    return f"urn:throughline:problem:{slug.replace('/', ':')}"


def problem(  # noqa: PLR0913  # the members of a problem document
    status: int,
    slug: str,
    title: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A problem document as a response."""
    body: dict[str, Any] = {"type": type_uri(slug), "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [field_error(error) for error in errors]
    return Response(orjson.dumps(body), status, headers, PROBLEM_JSON)


def field_error(error: FieldError) -> dict[str, Any]:
    """One entry of `errors[]`."""
    entry: dict[str, Any] = {"pointer": error.pointer, "detail": error.detail}
    if error.column is not None:
        entry["column"] = error.column
    return entry


def problem_body(exc: Rejected) -> dict[str, Any]:
    """The members of a rejection's problem document, for an item of a batch."""
    body: dict[str, Any] = {
        "type": type_uri(exc.slug),
        "title": exc.title,
        "status": exc.status,
        "detail": exc.detail,
    }
    if exc.errors:
        body["errors"] = [field_error(error) for error in exc.errors]
    return body


def rejected(exc: Rejected) -> Response:
    """The problem document of a rejection."""
    headers = {"WWW-Authenticate": "Bearer"} if exc.status == 401 else None
    if isinstance(exc, QuotaExceeded):
        headers = {"Retry-After": str(exc.retry_after)}
    return problem(exc.status, exc.slug, exc.title, exc.detail, exc.errors, headers)


def unavailable(exc: Unavailable) -> Response:
    """503 with Retry-After."""
    return problem(503, exc.slug, "Not possible right now", exc.detail, headers={"Retry-After": str(exc.retry_after)})


def faults_of(exc: ValidationError | RequestValidationError, root: str = "") -> list[FieldError]:
    """The faults that a validation found, each with the JSON Pointer of its field."""
    faults = []
    for error in exc.errors():
        location = list(error["loc"])
        where = str(location.pop(0)) if isinstance(exc, RequestValidationError) and location else "body"
        if where == "body" and error["type"] == "json_invalid" and location and isinstance(location[-1], int):
            location.pop()
        if location and location[-1] == "[key]":  # of a name that is wrong itself
            location.pop()
        location = [part for part in location if not (isinstance(part, str) and _OF_SEVERAL.fullmatch(part))]
        path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location)
        pointer = root + path if where == "body" else f"{where}:{'.'.join(map(str, location))}"
        faults.append(FieldError(pointer, _PLAIN.get(error["type"], error["msg"].removeprefix("Value error, "))))
    return list(dict.fromkeys(faults))


def invalid(exc: ValidationError | RequestValidationError, root: str = "") -> Rejected:
    """A validation's faults as a rejection."""
    faults = faults_of(exc, root)
    if any(error["type"] == "json_invalid" for error in exc.errors()):
        return Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")])
    names = ", ".join(fault.pointer or "the body" for fault in faults[:5])
    return Invalid(f"look at {names}", faults)


def answer_to(exc: Exception) -> Response:
    """The problem document of anything that an endpoint raised."""
    match exc:
        case Rejected():
            return rejected(exc)
        case Unavailable():
            return unavailable(exc)
        case RequestValidationError() | ValidationError():
            return rejected(invalid(exc))
        case HTTPException():
            slug, title = _TITLES.get(exc.status_code, ("request-failed", "The request failed"))
            return problem(exc.status_code, slug, title, str(exc.detail), headers=dict(exc.headers or {}))
        case _:
            log.error("request_failed", fault=describe(exc))
            return problem(500, "internal", "Something went wrong here", "it was logged; nothing was stored")


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an app with a problem document."""

    async def answer(request: Request, exc: Exception) -> Response:
        response = answer_to(exc)
        if response.status_code == 405:
            response.headers["allow"] = ", ".join(_methods_at(request.scope["path"], app))
        return response

    for kind in (Rejected, Unavailable, RequestValidationError, ValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _methods_at(path: str, app: FastAPI) -> list[str]:
    """What an address can be asked for; the router knows only the first of its routes."""
    here = [route for route in app.routes if isinstance(route, Route) and route.path_regex.match(path)]
    methods = {method for route in here for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
