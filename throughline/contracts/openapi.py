"""The OpenAPI documents of the services, as they serve them at `/<service>/openapi.json`."""

from typing import Any

from shared.web import create_app
from throughline.contracts.services import looked_at
from throughline.services import service_code


def openapi(service: str) -> dict[str, Any]:
    """A service's document; no server is needed."""
    runtime = looked_at(service)
    document: dict[str, Any] = create_app(
        service, runtime.settings, runtime.secrets, service_code(service).routers(runtime)
    ).openapi()
    return document
