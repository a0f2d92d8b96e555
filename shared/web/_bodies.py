"""Bodies that an endpoint reads as bytes, since it keeps what exactly was sent: read and shown by their model."""

from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shared.web._problems import invalid

M = TypeVar("M", bound=BaseModel)


def read_body(model: type[M], body: bytes) -> M:
    """What was sent, by its model. Raises Invalid."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise invalid(exc) from exc


@cache
def described_body(*models: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """The request body for OpenAPI; with several models, one of them."""
    schemas = [_inlined(model.model_json_schema(), {}) for model in models]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its definitions put where they are referred to; OpenAPI has no place for local ones."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    definitions = schema.get("$defs", definitions)
    inner = _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions) if "$ref" in schema else {}
    return inner | {
        name: _inlined(value, definitions) for name, value in schema.items() if name not in ("$defs", "$ref")
    }
