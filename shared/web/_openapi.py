"""An app that tells the truth about itself: problem documents, tokens, and names of operations that stay."""

import re
import warnings
from typing import Any

from fastapi import FastAPI

from shared.web._problems import PROBLEM_JSON

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "What kind of problem it is; stable."},
        "title": {"type": "string", "description": "The same for every problem of its type."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is wrong this time."},
        "errors": {
            "type": "array",
            "description": "What is wrong, field by field.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer to what is wrong in the request."},
                    "detail": {"type": "string"},
                    "column": {"type": "integer", "description": "Where in an expression it is wrong."},
                },
            },
        },
    },
}
_TOKEN: dict[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token made by `throughline tokens create --scope …`, or by the installation's OpenID Connect "
    "issuer. Scopes are `<service>:read`, `:write`, which includes reading, and `:admin`, which includes both; "
    "a 403 names the one that is missing.",
}
_CONTENT = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_ANSWER = {"description": "What went wrong.", "content": _CONTENT}
HTML = "text/html"
_ANSWER_OF_PAGE = {
    "description": "What went wrong; also as a page, for people.",
    "content": {**_CONTENT, HTML: {"schema": {"type": "string"}}},
}
_METHODS = ("get", "head", "post", "put", "patch", "delete")
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


class DescribedApp(FastAPI):
    """A FastAPI app whose OpenAPI document says what really comes back."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            with warnings.catch_warnings():
                # A route of several methods is described once for each; the names are made below.
                warnings.filterwarnings("ignore", "Duplicate Operation ID")
                self.openapi_schema = _truthful(super().openapi())
        return self.openapi_schema


def _truthful(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _FRAMEWORKS_OWN:
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = {"token": _TOKEN}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                _describe(operations[method], method, path)
    return document


def _describe(operation: dict[str, Any], method: str, path: str) -> None:
    operation["operationId"] = re.sub(r"\W+", "_", f"{method}{path}").strip("_")
    operation["responses"].pop("422", None)
    is_page = any(HTML in answer.get("content", ()) for answer in operation["responses"].values())
    operation["responses"]["default"] = _ANSWER_OF_PAGE if is_page else _ANSWER
    if path.split("/")[2] == "v1":  # `/hooks/…/v1/…` is an address of somebody else's making
        operation.setdefault("security", [{"token": []}])  # a page whose address is its proof says that it has none
