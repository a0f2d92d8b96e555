"""HTTP: every error is a problem document that names the field, and what surrounds a request surrounds all of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any

import httpx
import jwt
import orjson
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, Depends, Request
from pydantic import Field
from starlette.responses import Response

from shared.db import Tx
from shared.errors import Conflict, NotFound, Unavailable
from shared.secrets import Secrets
from shared.service import Runtime, ServiceCode
from shared.settings import Settings
from shared.testing import Harness, harness, token
from shared.web import (
    Endpoints,
    Input,
    Limit,
    ManagementApp,
    OccurredAt,
    Page,
    create_token,
    idempotent,
    make_cursor,
    read_cursor,
    requires,
)
from tests.service.runtime_world import SERVICE, touch, value

PROBLEM = "application/problem+json"


class Address(Input):
    street: str = ""


class Thing(Input):
    name: str = ""
    count: Annotated[int, Field(ge=0)] = 0
    at: OccurredAt | None = None
    address: Address | None = None
    places: list[Address] = Field(default_factory=list)
    extra: dict[str, Any] = Field(default_factory=dict)


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    router = Endpoints(dependencies=[Depends(requires("capture:read"))])

    @router.post("/things")
    async def post_thing(thing: Thing) -> dict[str, Any]:
        return thing.model_dump(mode="json")

    @router.post("/orders", dependencies=[Depends(requires("capture:write"))])
    async def post_order(request: Request) -> Response:
        body = await request.body()

        async def make(tx: Tx) -> Response:
            tx.emit(touch("ann"))
            if b"conflict" in body:
                raise Conflict("it was changed meanwhile")
            number = await tx.connection.fetchval("SELECT nextval('event_log_position_1')")
            return Response(orjson.dumps({"order": number}), 201, media_type="application/json")

        return await idempotent(runtime.database, request, body, make)

    @router.get("/things")
    async def list_things(limit: Limit = 50, cursor: str | None = None) -> Page[int]:
        start = read_cursor(runtime.secrets, "things", cursor) or 0
        more = make_cursor(runtime.secrets, "things", start + limit) if start + limit < 100 else None
        return Page(items=list(range(start, min(start + limit, 100))), next_cursor=more)

    @router.get("/faults/{kind}")
    async def fault(kind: str) -> None:
        raise {"missing": NotFound("no such thing"), "away": Unavailable("not now", retry_after=7)}.get(
            kind, ZeroDivisionError("of Canary Smith")
        )

    @router.delete("/things", dependencies=[Depends(requires("capture:admin"))])
    async def delete_things() -> None:
        return None

    return (router,)


CODE = ServiceCode(SERVICE, routers, lambda _runtime: (), lambda _runtime: ())


@pytest_asyncio.fixture
async def service(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(CODE, settings.model_copy(update={"body_limit": 10_000})) as made:
        yield made


def pointers(answer: httpx.Response) -> list[str]:
    """The fields that a problem document names; what every one of them has is checked too."""
    body = answer.json()
    assert answer.headers["content-type"] == PROBLEM
    assert body["status"] == answer.status_code
    assert body["type"].startswith("urn:throughline:problem:")
    assert body["title"]
    assert body["detail"]
    return [error["pointer"] for error in body.get("errors", [])]


BAD = [
    (b'{"colour": "red"}', ["/colour"]),
    (b'{"count": "many"}', ["/count"]),
    (b'{"count": -1}', ["/count"]),
    (b'{"name": "a\\u0000b"}', ["/name"]),
    (b'{"address": {"street": "a\\u0000b"}}', ["/address/street"]),
    (b'{"places": [{}, {"street": "\\u0000"}]}', ["/places/1/street"]),
    (b'{"extra": {"a": ["\\u0000"]}}', ["/extra"]),
    (b'{"extra": {"a\\u0000": 1}}', ["/extra"]),
    (b'{"extra": {"n": 1000000000000000000000000000000}}', ["/extra"]),
    (b'{"extra": {"n": NaN}}', ["/extra"]),
    (b'{"name": "\\ud800"}', ["/name"]),
    (b'{"extra": {"a": "\\udfff"}}', ["/extra"]),
    (b'{"extra": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}", ["/extra"]),
    (b'{"name": "a\\u0000", "extra": {"b": "\\u0000"}}', ["/name", "/extra"]),
    (b'{"at": "2099-01-01T00:00:00Z"}', ["/at"]),
    (b'{"at": "2026-01-01T00:00:00"}', ["/at"]),
    (b'{"at": "0001-01-01T00:00:00+14:00"}', ["/at"]),
    (b'{"at": "0001-01-01T00:00:00Z"}', ["/at"]),
    (b'{"at": "yesterday"}', ["/at"]),
    (b"[]", [""]),
    (b'"text"', [""]),
]


@pytest.mark.parametrize(("body", "fields"), BAD, ids=[body[:40].decode() for body, _ in BAD])
async def test_a_field_that_is_not_valid_is_named(service: Harness, body: bytes, fields: list[str]) -> None:
    answer = await service.client.post("/things", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert pointers(answer) == fields


@pytest.mark.parametrize("body", [b"", b"{", b"{'a': 1}", b"\xff\xfe", b"[" * 9_000])
async def test_a_body_that_is_no_json_is_a_bad_request(service: Harness, body: bytes) -> None:
    answer = await service.client.post("/things", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    pointers(answer)
    if body:
        assert answer.status_code == 400


async def test_good_text_of_every_script_is_taken(service: Harness) -> None:
    body = {
        "name": "Zoë Ōé 李 🙂",
        "extra": {"n": 2**63 - 1, "x": 1.5, "deep": [[[{"a": None}]]]},
        "at": "2026-01-01T02:00:00+02:00",
    }
    answer = await service.client.post("/things", json=body)
    assert answer.status_code == 200
    assert answer.json()["at"] == "2026-01-01T00:00:00Z"
    assert answer.json()["extra"] == body["extra"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/faults/missing", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/things", 405),
        ("GET", "/things?limit=0", 422),
        ("GET", "/things?limit=201", 422),
        ("GET", "/things?cursor=abc", 400),
        ("GET", "/faults/away", 503),
        ("GET", "/faults/bug", 500),
    ],
)
async def test_every_error_is_a_problem_document_with_the_usual_headers(
    service: Harness, method: str, path: str, status: int
) -> None:
    answer = await service.client.request(method, path, headers={"x-request-id": "mine-1"})
    assert answer.status_code == status
    named = pointers(answer)
    assert named == ([f"query:{path.partition('?')[2].partition('=')[0]}"] if "?" in path else [])
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "Canary" not in answer.text
    if status == 503:
        assert answer.headers["retry-after"] == "7"
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("address", "status", "places"),
    [
        ("/faults/a%00b", 404, []),
        ("/nothing%00", 404, []),
        ("/things?limit=%00", 422, ["query:limit"]),
        ("/things?cursor=a%00&limit=1&more=%00", 422, ["query:cursor", "query:more"]),
        ("/things?a%00=1", 422, ["query:a%00"]),
    ],
)
async def test_an_address_that_no_text_of_the_database_can_hold_is_refused_before_anything_is_asked(
    service: Harness, address: str, status: int, places: list[str]
) -> None:
    answer = await service.client.get(address)
    assert (answer.status_code, pointers(answer)) == (status, places)
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_request_without_a_sound_id_is_given_one(service: Harness) -> None:
    ids = set()
    for given in ("", "a b", "x" * 200, "<script>"):
        answer = await service.client.get("/things", headers={"x-request-id": given})
        ids.add(answer.headers["x-request-id"])
        assert answer.headers["x-request-id"] != given
    assert len(ids) == 4


async def test_the_documentation_may_load_what_it_is_made_of(service: Harness) -> None:
    answer = await service.client.get("/docs")
    assert answer.status_code == 200
    assert "script-src https://cdn.jsdelivr.net" in answer.headers["content-security-policy"]
    assert (await service.client.get("/openapi.json")).status_code == 200


async def test_a_packed_body_is_refused_where_plain_ones_are_read(service: Harness) -> None:
    for path in ("/things", "/orders"):
        for coding, refused in (("gzip", True), ("br", True), ("identity", False)):
            headers = {"content-encoding": coding, "content-type": "application/json"}
            answer = await service.client.post(path, content=b'{"name": "one"}', headers=headers)
            assert (answer.status_code == 415) == refused, (path, coding, answer.text)


async def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(service: Harness) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        yield b'{"name": "'
        for _ in range(20):
            yield b"x" * 1_000
        yield b'"}'

    for path in ("/things", "/orders"):
        said = await service.client.post(path, content=b'{"name": "' + b"x" * 20_000 + b'"}')
        streamed = await service.client.post(path, content=dripping(), headers={"content-type": "application/json"})
        for answer in (said, streamed):
            assert answer.status_code == 413
            assert pointers(answer) == []
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert await value(service.runtime.database, "SELECT count(*) FROM event_log") == 0


async def test_only_a_token_with_the_scope_may(service: Harness) -> None:
    def bearing(*scopes: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token(service.settings, *scopes)}"}

    async def status(method: str, path: str, headers: dict[str, str]) -> int:
        answer = await service.client.request(method, path, headers=headers)
        if answer.status_code >= 400:
            pointers(answer)
        return answer.status_code

    assert await status("GET", "/things", bearing("capture:read")) == 200
    assert await status("POST", "/orders", bearing("capture:read")) == 403
    assert await status("POST", "/orders", bearing("capture:write")) == 201
    assert await status("GET", "/things", bearing("capture:write")) == 200
    assert await status("DELETE", "/things", bearing("capture:write")) == 403
    assert await status("DELETE", "/things", bearing("capture:admin")) == 200
    assert await status("POST", "/orders", bearing("capture:admin")) == 201
    assert await status("GET", "/things", bearing("scoring:admin", "routing:read")) == 403


async def test_a_token_that_does_not_count_is_refused_and_nothing_happens(service: Harness) -> None:
    secrets, now = Secrets(service.settings.secret.get_secret_value()), datetime.now(UTC)
    good = token(service.settings)
    head, body, signature = good.split(".")
    expired = create_token(secrets, ["capture:write"], timedelta(minutes=1), now - timedelta(hours=1))
    foreign = create_token(Secrets("ab" * 32), ["capture:write"], timedelta(hours=1), now)
    claims = jwt.decode(good, options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", "none")
    endless = jwt.encode({key: each for key, each in claims.items() if key != "exp"}, secrets.tokens, "HS256")
    for given in (
        *(
            f"Bearer {each}"
            for each in (expired, foreign, unsigned, endless, f"{head}.{body}x.{signature}", "a.b.c", "")
        ),
        "Basic YTpi",
        good,
    ):
        answer = await service.client.post("/orders", headers={"authorization": given})
        assert answer.status_code == 401, given
        assert pointers(answer) == []
        assert answer.headers["www-authenticate"] == "Bearer"
    del service.client.headers["authorization"]
    assert (await service.client.post("/orders")).status_code == 401
    assert await value(service.runtime.database, "SELECT count(*) FROM event_log") == 0


async def test_over_its_quota_a_token_is_told_to_wait_and_its_reads_and_other_tokens_go_on(settings: Settings) -> None:
    few = settings.model_copy(update={"rate_limit_writes": 3, "rate_limit_reads": 5})
    async with harness(CODE, few) as service:
        taken = [await service.client.post("/things", json={"name": "a"}) for _ in range(3)]
        refused = await service.client.post("/things", json={"name": "a"})
        read = await service.client.get("/things")
        other = await service.client.post(
            "/things", json={"name": "a"}, headers={"authorization": f"Bearer {token(few, 'capture:admin')}"}
        )
    assert [answer.headers["ratelimit"] for answer in taken] == [
        '"write";r=2;t=20',
        '"write";r=1;t=40',
        '"write";r=0;t=60',
    ]
    assert taken[0].headers["ratelimit-policy"] == '"write";q=3;w=60'
    assert refused.status_code == 429
    assert refused.headers["content-type"] == PROBLEM
    assert refused.json()["type"] == "urn:throughline:problem:quota-exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["ratelimit"].startswith('"write";r=0')
    assert read.status_code != 429 and read.headers["ratelimit"] == '"read";r=4;t=12'
    assert other.status_code != 429


def test_a_token_for_what_does_not_exist_is_not_made() -> None:
    with pytest.raises(ValueError, match="capture:fly"):
        create_token(Secrets("ab" * 32), ["capture:fly"], timedelta(hours=1), datetime.now(UTC))


@contextmanager
def issuer() -> Iterator[tuple[str, rsa.RSAPrivateKey]]:
    """An OpenID Connect issuer's key set on a port of its own."""
    key = rsa.generate_private_key(65537, 2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    keys = json.dumps({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(keys)

        def log_message(self, format: str, *args: object) -> None:  # the name it has there
            pass

    server = HTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", key
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_tokens_of_an_openid_issuer_are_taken_by_its_key_set(settings: Settings) -> None:
    with issuer() as (address, key):
        by_issuer = settings.model_copy(
            update={"oidc_issuer": address, "oidc_jwks_url": f"{address}/keys", "oidc_audience": "throughline"}
        )

        def bearing(**changes: Any) -> dict[str, str]:
            claims = {"iss": address, "aud": "throughline", "sub": "ann", "exp": datetime.now(UTC) + timedelta(hours=1)}
            signed = jwt.encode({**claims, **changes}, key, "RS256", headers={"kid": "one"})
            return {"authorization": f"Bearer {signed}"}

        async with harness(CODE, by_issuer) as service:

            async def status(headers: dict[str, str]) -> int:
                return (await service.client.get("/things", headers=headers)).status_code

            assert await status(bearing(scope="openid capture:read")) == 200
            assert await status(bearing(scp="capture:read other")) == 200
            assert await status(bearing(scp=["capture:read"])) == 200
            assert await status(bearing(scope="openid")) == 403
            assert await status(bearing(scope="capture:read", aud="others")) == 401
            assert await status(bearing(scope="capture:read", iss="https://evil.example")) == 401
            assert await status(bearing(scope="capture:read", exp=datetime.now(UTC) - timedelta(hours=1))) == 401
            assert await status({"authorization": f"Bearer {token(by_issuer)}"}) == 200
            forged = rsa.generate_private_key(65537, 2048)
            claims = {"iss": address, "aud": "throughline", "sub": "x", "scope": "capture:read", "exp": 9_999_999_999}
            signed = jwt.encode(claims, forged, "RS256", headers={"kid": "one"})
            assert await status({"authorization": f"Bearer {signed}"}) == 401


async def test_an_issuer_that_does_not_answer_is_waited_for(settings: Settings) -> None:
    away = settings.model_copy(update={"oidc_issuer": "http://x", "oidc_jwks_url": "http://127.0.0.1:1/keys"})
    key = rsa.generate_private_key(65537, 2048)
    signed = jwt.encode({"sub": "ann", "exp": 9_999_999_999}, key, "RS256", headers={"kid": "one"})
    async with harness(CODE, away) as service:
        answer = await service.client.get("/things", headers={"authorization": f"Bearer {signed}"})
        assert answer.status_code == 503


async def test_the_same_key_and_body_again_is_the_same_answer_and_one_effect(service: Harness) -> None:
    headers = {"idempotency-key": "key-1"}
    first = await service.client.post("/orders", content=b"a", headers=headers)
    renewed = {"authorization": f"Bearer {token(service.settings)}"}
    again = await service.client.post("/orders", content=b"a", headers={**headers, **renewed})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    other = await service.client.post("/orders", content=b"b", headers=headers)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:throughline:problem:idempotency-key-reused"
    assert await value(service.runtime.database, "SELECT count(*) FROM event_log") == 1


async def test_of_many_at_once_with_one_key_one_takes_effect(service: Harness) -> None:
    headers = {"idempotency-key": "key-1"}
    answers = await asyncio.gather(*(service.client.post("/orders", content=b"a", headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert await value(service.runtime.database, "SELECT count(*) FROM event_log") == 1


async def test_an_error_stores_neither_effect_nor_key(service: Harness) -> None:
    headers = {"idempotency-key": "key-1"}
    assert (await service.client.post("/orders", content=b"conflict", headers=headers)).status_code == 409
    assert await value(service.runtime.database, "SELECT count(*) FROM event_log") == 0
    assert (await service.client.post("/orders", content=b"fine", headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
async def test_a_key_that_is_none_is_refused(service: Harness, key: str) -> None:
    answer = await service.client.post("/orders", headers=[(b"idempotency-key", key.encode())])
    assert answer.status_code == 422
    assert pointers(answer) == ["header:Idempotency-Key"]


async def test_a_list_is_walked_by_its_cursors_and_a_forged_one_is_refused(service: Harness) -> None:
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = {"limit": "40", **({"cursor": cursor} if cursor else {})}
        page = (await service.client.get("/things", params=query)).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(100))
    good = make_cursor(service.runtime.secrets, "things", 40)
    of_another_list = make_cursor(service.runtime.secrets, "others", 40)
    of_another_company = make_cursor(Secrets("ab" * 32), "things", 40)
    forged = [good[:-2] + "AA", good[4:], "", "ü", "=", of_another_list, of_another_company]
    assert (await service.client.get("/things", params={"cursor": good})).json()["items"][0] == 40
    for each in forged:
        assert (await service.client.get("/things", params={"cursor": each})).status_code == 400


async def test_the_management_port_tells_life_readiness_and_measures() -> None:
    faults: dict[str, str | None] = {"postgres": None}

    async def check() -> str | None:
        return faults["postgres"]

    async def broken() -> str | None:
        raise ZeroDivisionError

    app = ManagementApp({"postgres": check})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://m") as client:
        assert (await client.get("/livez")).json() == {"status": "pass"}
        assert (await client.get("/readyz")).status_code == 200
        faults["postgres"] = "no answer"
        unready = await client.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["checks"]["postgres"] == {"status": "fail", "detail": "no answer"}
        assert (await client.get("/livez")).status_code == 200
        faults["postgres"] = None
        app.draining = True
        assert (await client.get("/readyz")).status_code == 503
        metrics = await client.get("/metrics")
        assert "throughline_capture_commit_seconds_bucket" in metrics.text
        assert (await client.get("/other")).status_code == 404
    app = ManagementApp({"odd": broken})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://m") as client:
        assert (await client.get("/readyz")).json()["checks"]["odd"]["detail"] == "ZeroDivisionError"
