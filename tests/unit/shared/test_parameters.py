"""Parameters of an address: what an endpoint of the API does not take is refused, and never quietly left aside."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, Query, Request
from starlette.responses import Response

from shared.secrets import Secrets
from shared.settings import Settings
from shared.testing import make_settings, token
from shared.web import DirectRoute, Endpoints, authorise, create_app, edged, requires

SETTINGS: Settings = make_settings("postgresql://nobody@127.0.0.1:1/none")
SECRETS = Secrets(SETTINGS.secret.get_secret_value())


def paged(limit: int = 50, cursor: str | None = None) -> tuple[int, str | None]:
    return limit, cursor


def routers() -> tuple[Endpoints, Endpoints, Endpoints]:
    endpoints = Endpoints(dependencies=[Depends(requires("capture:read"))])

    @endpoints.get("/v1/things")
    async def things(
        page: Annotated[tuple[int, str | None], Depends(paged)],
        dimension: str = "channel",
        first: Annotated[str | None, Query(alias="from")] = None,
        key: Annotated[list[str] | None, Query()] = None,
    ) -> list[object]:
        return [*page, dimension, first, key]

    @endpoints.put("/v1/things")
    async def all_things() -> None:
        """Nothing."""

    @endpoints.get("/v1/things/{thing_id}")
    async def thing(thing_id: str) -> str:
        return thing_id

    @endpoints.get("/t/{site_id}")
    async def page_of_the_world(site_id: str) -> str:
        return site_id

    @endpoints.get("/hooks/{source_id}/v1/{call}")
    async def hook(source_id: str, call: str) -> str:
        return source_id + call

    direct = Endpoints(route_class=DirectRoute)

    @direct.post("/v1/facts")
    async def facts(request: Request) -> Response:
        await authorise(request, "capture:write")
        return Response(status_code=204)

    @direct.post("/hooks/{source_id}")
    async def kept(request: Request, source_id: str) -> Response:
        return Response(f"{source_id} {request.path_params} {request.scope['route'].path}")

    public = Endpoints()

    @public.get("/v1/pages/{secret}")
    async def page_of_a_person(secret: str, lang: str = "en") -> str:
        return secret + lang

    return endpoints, direct, public


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = edged(create_app("capture", SETTINGS, SECRETS, routers()), SETTINGS)
    headers = {"authorization": f"Bearer {token(SETTINGS, 'capture:write')}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here/capture", headers=headers) as made:
        yield made


@pytest.mark.parametrize(
    "query", ["", "?", "limit=3&cursor=a&dimension=b&from=c&key=d&key=e", "key=d&key=d", "dimension=", "from=a%26b"]
)
async def test_what_an_endpoint_takes_is_taken(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/things?{query}" if query != "?" else "/v1/things")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "pointer", "detail"),
    [
        ("GET", "/v1/things?dimensions=source", "query:dimensions", "did you mean dimension? There are cursor, dim"),
        ("GET", "/v1/things?first=2026-01-01", "query:first", "There are cursor, dimension, from, key, limit"),
        ("GET", "/v1/things?limit=1&Limit=2", "query:Limit", "did you mean limit?"),
        ("GET", "/v1/things?=2", "query:", "is not a parameter here"),
        ("GET", "/v1/things?" + "x" * 200 + "=1", "query:" + "x" * 50, "is not a parameter here"),
        ("GET", "/v1/things?limit=1&limit=2", "query:limit", "is given 2 times, and only one can count"),
        ("GET", "/v1/things/a?cursor=b", "query:cursor", "is not a parameter here; there are none"),
        ("POST", "/v1/facts?dry_run=true", "query:dry_run", "is not a parameter here; there are none"),
    ],
)
async def test_what_it_does_not_take_is_refused_by_its_name(
    client: httpx.AsyncClient, method: str, path: str, pointer: str, detail: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert detail in fault["detail"]


async def test_who_may_not_ask_is_told_that_first(client: httpx.AsyncClient) -> None:
    for path in ("/v1/things?dimensions=source", "/v1/things/a?b=c"):
        assert (await client.get(path, headers={"authorization": ""})).status_code == 401


async def test_addresses_for_the_world_take_what_is_added_to_them(client: httpx.AsyncClient) -> None:
    for path in ("/t/a?utm_source=b&fbclid=c", "/hooks/a/v1/track?writeKey=b"):
        assert (await client.get(path)).status_code == 200


async def test_a_page_that_asks_for_no_token_takes_what_is_added_to_its_address(client: httpx.AsyncClient) -> None:
    del client.headers["authorization"]
    assert (await client.get("/v1/pages/a?lang=de&utm_source=b")).json() == "ade"


@pytest.mark.parametrize("query", ["", "?token=b&token=c"])
async def test_a_busy_endpoint_is_told_the_text_at_the_end_of_its_path(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.post(f"/hooks/%C3%BC%20b{query}")
    assert answer.text == "ü b {'source_id': 'ü b'} /capture/hooks/{source_id}"


async def test_a_busy_endpoint_is_of_one_path_and_method(client: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("POST", "/hooks/", 404),
        ("POST", "/hooks/a/b", 404),
        ("POST", "/hooks", 404),
        ("PUT", "/hooks/a", 405),
    ):
        assert (await client.request(method, path)).status_code == status


async def test_what_can_be_got_can_be_asked_for_its_head(client: httpx.AsyncClient) -> None:
    for path, status in (("/v1/things", 200), ("/v1/things/a?b=c", 422), ("/v1/facts", 405), ("/v1/nothing", 404)):
        assert (await client.head(path)).status_code == status


async def test_a_method_that_is_not_there_is_told_all_that_are(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/v1/things")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, PUT")
