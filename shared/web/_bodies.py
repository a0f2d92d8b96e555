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
def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """The request body for OpenAPI."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
