"""Endpoints that are worked out when they are first asked for."""

import pytest
from fastapi import APIRouter
from fastapi.exceptions import FastAPIError

from shared.secrets import Secrets
from shared.settings import Settings
from shared.testing import make_settings
from shared.web import Endpoints, create_app

SETTINGS: Settings = make_settings("postgresql://nobody@127.0.0.1:1/none")
SECRETS = Secrets(SETTINGS.secret.get_secret_value())


def test_a_declaration_that_is_wrong_is_refused_when_the_document_is_made() -> None:
    endpoints = Endpoints(prefix="/v1/things")

    @endpoints.get("", response_model=Secrets)
    async def things() -> None:
        """Nothing."""

    app = create_app("capture", SETTINGS, SECRETS, [endpoints])
    with pytest.raises(FastAPIError, match="Invalid args for response field"):
        app.openapi()


def test_what_one_router_takes_from_another_has_the_tags_of_both() -> None:
    outer, inner = Endpoints(prefix="/v1", tags=["outer"]), Endpoints(tags=["inner"])

    @inner.get("/things")
    async def things() -> None:
        """Nothing."""

    outer.take(inner)
    described = create_app("capture", SETTINGS, SECRETS, [outer]).openapi()
    assert described["paths"]["/capture/v1/things"]["get"]["tags"] == ["outer", "inner"]


def test_a_router_that_works_everything_out_at_once_is_refused() -> None:
    router = APIRouter()

    @router.get("/things")
    async def things() -> None:
        """Nothing."""

    with pytest.raises(TypeError, match="not declared on `Endpoints`"):
        create_app("capture", SETTINGS, SECRETS, [router])
