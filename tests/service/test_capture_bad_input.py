"""Bad input at every endpoint of capture: a problem that names the field, and nothing stored."""

import json
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import harness, token
from tests.service.capture_world import Capture
from throughline.services import service_code

UNKNOWN = "0db2ed11-1f5c-8c3e-9a6b-000000000001"
LEAD = {"email": "ann@example.com"}
TOUCH = {"email": "ann@example.com", "type": "page_view"}
CONVERSION = {"email": "ann@example.com", "external_id": "o", "type": "purchase", "value_minor": 1, "currency": "EUR"}
REFUND = {"external_id": "o", "refund_id": "r", "amount_minor": 1, "currency": "EUR"}
COST = {"date": "2026-11-01", "channel": "Paid Search", "amount_minor": 1, "currency": "EUR"}
SOURCE = {"kind": "generic", "name": "Our form"}
BODIES: dict[str, Any] = {
    "leads": LEAD,
    "touches": TOUCH,
    "conversions": CONVERSION,
    "refunds": REFUND,
    "costs": {"costs": [COST]},
    "sources": SOURCE,
    f"sources/{UNKNOWN}/secrets": {},
    f"leads/{UNKNOWN}:merge": {"with": UNKNOWN},
}
NUL, HALF = "a\x00b", "\ud800"
FUTURE = "2099-01-01T00:00:00Z"
MINUS_INFINITY = "0001-01-01T00:00:00Z"  # of PostgreSQL: it comes back without a zone, and no fold can compare it
BEFORE_ALL_TIME = "0001-01-01T00:00:00+14:00"

FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("leads", {"email": 5}, "/email"),
    ("leads", {"email": "nobody"}, "/email"),
    ("leads", {"phone": "12"}, "/phone"),
    ("leads", {"employees": "50"}, "/employees"),
    ("leads", {"employees": -1}, "/employees"),
    ("leads", {"annual_revenue": 1.5}, "/annual_revenue"),
    ("leads", {"attributes": []}, "/attributes"),
    ("leads", {"attributes": {"n": 10**30}}, "/attributes"),
    ("leads", {"consent": {"email": "maybe"}}, "/consent/email"),
    ("leads", {"touch": {}}, "/touch/type"),
    ("leads", {"touch": {"type": "page_view", "email": "b@example.com"}}, "/touch/email"),
    ("leads", {"touch": {"type": "page_view", "occurred_at": FUTURE}}, "/touch/occurred_at"),
    ("leads", {"touch": {"type": "page_view", "occurred_at": BEFORE_ALL_TIME}}, "/touch/occurred_at"),
    ("leads", {"attributes": {"n": [float("inf")]}}, "/attributes"),
    ("leads", {"consent": {"fax": "granted"}}, "/consent/fax"),
    ("leads", {"score": 100}, "/score"),
    ("leads", {"first_name": NUL}, "/first_name"),
    ("leads", {"attributes": {"a": [HALF]}}, "/attributes/a/0"),
    ("leads", {"occurred_at": FUTURE}, "/occurred_at"),
    ("leads", {"occurred_at": "2026-11-01T10:00:00"}, "/occurred_at"),
    ("leads", {"occurred_at": 1_700_000_000}, "/occurred_at"),
    ("leads", {"company": "x" * 501}, "/company"),
    ("touches", {"type": None}, "/type"),
    ("touches", {"type": "Page View"}, "/type"),
    ("touches", {"email": "nobody"}, "/email"),
    ("touches", {"lead_id": "lead-1"}, "/lead_id"),
    ("touches", {"properties": [1]}, "/properties"),
    ("touches", {"properties": {"a": NUL}}, "/properties/a"),
    ("touches", {"properties": {"a": "x" * 70_000}}, "/properties"),
    ("touches", {"campaign": HALF}, "/campaign"),
    ("touches", {"occurred_at": FUTURE}, "/occurred_at"),
    ("touches", {"occurred_at": BEFORE_ALL_TIME}, "/occurred_at"),
    ("touches", {"occurred_at": MINUS_INFINITY}, "/occurred_at"),
    ("touches", {"properties": {"n": float("nan")}}, "/properties"),
    ("touches", {"touch_id": ""}, "/touch_id"),
    ("touches", {"campain": "x"}, "/campain"),
    ("conversions", {"value_minor": -1}, "/value_minor"),
    ("conversions", {"value_minor": "1"}, "/value_minor"),
    ("conversions", {"value_minor": True}, "/value_minor"),
    ("conversions", {"value_minor": 10**16}, "/value_minor"),
    ("conversions", {"currency": "EURO"}, "/currency"),
    ("conversions", {"currency": "eur"}, "/currency"),
    ("conversions", {"currency": "XAU"}, "/currency"),
    ("conversions", {"occurred_at": FUTURE}, "/occurred_at"),
    ("conversions", {"external_id": NUL}, "/external_id"),
    ("conversions", {"email": None}, "/lead_id"),
    ("conversions", {"deal_id": "d"}, "/deal_id"),
    ("refunds", {"amount_minor": -1}, "/amount_minor"),
    ("refunds", {"currency": "XXX"}, "/currency"),
    ("refunds", {"refund_id": None}, "/refund_id"),
    ("refunds", {"occurred_at": FUTURE}, "/occurred_at"),
    ("refunds", {"external_id": HALF}, "/external_id"),
    ("refunds", {"reason": "x"}, "/reason"),
    ("sources", {"kind": "fax"}, "/kind"),
    ("sources", {"name": ""}, "/name"),
    ("sources", {"name": NUL}, "/name"),
    ("sources", {"secret": "short"}, "/secret"),
    ("sources", {"mapping": {"emial": "x"}}, "/mapping/emial"),
    ("sources", {"mapping": {"email": {"cel": "bdy.x"}}}, "/mapping/email/cel"),
    ("sources", {"defaults": {"phone_country": "Germany"}}, "/defaults/phone_country"),
    ("sources", {"active": True}, "/active"),
    (f"sources/{UNKNOWN}/secrets", {"secret": 5}, "/secret"),
    (f"leads/{UNKNOWN}:merge", {"with": "x"}, "/with"),
]
COST_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"amount_minor": -1}, "amount_minor"),
    ({"currency": "XXX"}, "currency"),
    ({"date": "2099-01-01"}, "date"),
    ({"date": "yesterday"}, "date"),
    ({"date": "1764201600"}, "date"),  # no seconds since 1970
    ({"date": "1899-12-31"}, "date"),
    ({"date": "0001-01-01"}, "date"),  # minus infinity in PostgreSQL
    ({"channel": NUL}, "channel"),
    ({"campaign": HALF}, "campaign"),
    ({"chanel": "x"}, "chanel"),
]


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def nothing_is_stored(capture: Capture) -> None:
    for table in ("event_log", "leads", "sources", "idempotency_keys", "deliveries"):
        assert await capture.rows(f"SELECT 1 FROM {table}") == []


def escaped(body: Any) -> bytes:
    """JSON with every unusual character escaped, also those that are no text."""
    return json.dumps(body).encode()


async def test_every_fault_is_a_422_that_points_at_its_field(capture: Capture) -> None:
    wrong = []
    for path, patch, pointer in FAULTS:
        response = await capture.harness.client.post(f"/v1/{path}", content=escaped({**BODIES[path], **patch}))
        found = [error["pointer"] for error in response.json().get("errors", ())]
        media = response.headers["content-type"]
        if response.status_code != 422 or pointer not in found or media != "application/problem+json":
            wrong.append((path, patch, response.status_code, found, media))
    assert wrong == []
    await nothing_is_stored(capture)


async def test_a_bad_cost_is_a_422_alone_and_named_beside_a_good_one(capture: Capture) -> None:
    for patch, field in COST_FAULTS:
        alone = await capture.harness.client.post("/v1/costs", content=escaped({"costs": [{**COST, **patch}]}))
        assert alone.status_code == 422, (patch, alone.text)
        assert [error["pointer"] for error in alone.json()["errors"]] == [f"/costs/0/{field}"]
    await nothing_is_stored(capture)
    for patch, field in COST_FAULTS:
        mixed = await capture.harness.client.post("/v1/costs", content=escaped({"costs": [COST, {**COST, **patch}]}))
        assert (mixed.status_code, mixed.json()["accepted"]) == (202, 1)
        assert mixed.json()["rejected"][0]["errors"][0]["pointer"] == f"/costs/1/{field}"


async def test_a_touch_before_all_time_spoils_no_batch(capture: Capture) -> None:
    touches = [{**TOUCH, "occurred_at": "2026-03-04T12:15:30+02:00"}, {**TOUCH, "occurred_at": BEFORE_ALL_TIME}]
    response = await capture.harness.client.post("/v1/touches", json={"touches": touches})
    assert (response.status_code, response.json()["accepted"]) == (202, 1)
    assert response.json()["rejected"][0]["errors"][0]["pointer"] == "/touches/1/occurred_at"


@pytest.mark.parametrize("moment", [BEFORE_ALL_TIME, "9999-12-31T23:59:59-14:00"])
async def test_times_that_no_database_holds_are_refused_by_name(capture: Capture, moment: str) -> None:
    lead = await capture.lead(email="ann@example.com")
    source = await capture.source()
    for path, name in (
        (f"leads/{lead['lead_id']}/consent", "as_of"),
        (f"leads/{lead['lead_id']}/consent", "known_at"),
        ("consent", "changed_since"),
        (f"sources/{source['source_id']}/deliveries:summary", "from"),
        (f"sources/{source['source_id']}/deliveries:summary", "to"),
    ):
        response = await capture.harness.client.get(f"/v1/{path}", params={name: moment})
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, f"query:{name}")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b'{"email": "ann@example.com"', b"nul"])
async def test_what_is_no_json_is_a_400(capture: Capture, content: bytes) -> None:
    for path in BODIES:
        if content == b"" and path.endswith("/secrets"):
            continue
        response = await capture.harness.client.post(f"/v1/{path}", content=content)
        assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json"), path
    await nothing_is_stored(capture)


@pytest.mark.parametrize("body", [[], [LEAD], "ann@example.com", 5, None, True])
async def test_json_that_is_no_object_is_a_422(capture: Capture, body: Any) -> None:
    for path in BODIES:
        response = await capture.harness.client.post(f"/v1/{path}", content=orjson.dumps(body))
        assert response.status_code == 422, (path, response.text)
    await nothing_is_stored(capture)


async def test_deep_nesting_is_refused(capture: Capture) -> None:
    for depth in (40, 100_000):
        deep = b'{"email":"ann@example.com","type":"page_view","properties":{"a":' + b"[" * depth + b"]" * depth + b"}}"
        assert (await capture.harness.client.post("/v1/touches", content=deep)).status_code in (400, 422)
    await nothing_is_stored(capture)


async def test_no_token_is_401_and_another_scope_403(capture: Capture) -> None:
    source = await capture.source()
    lead = await capture.lead(email="ann@example.com")
    before = await capture.rows("SELECT 1 FROM event_log")
    client = capture.harness.client
    reads = [
        "leads",
        f"leads/{lead['lead_id']}",
        "leads?email=ann@example.com",
        "sources",
        f"sources/{source['source_id']}",
        f"sources/{source['source_id']}/deliveries",
        f"leads/{lead['lead_id']}/consent",
    ]
    writes = [("POST", path, body) for path, body in BODIES.items()]
    writes += [
        ("DELETE", f"sources/{source['source_id']}/secrets/1", None),
        ("PATCH", f"sources/{source['source_id']}", {}),
        ("POST", f"leads/{lead['lead_id']}:erase", None),
        ("POST", f"leads/{lead['lead_id']}:unmerge", None),
        ("POST", f"sources/{source['source_id']}/deliveries:retry", None),
    ]
    every = [("GET", path, None) for path in reads] + writes
    settings = capture.harness.settings
    for method, path, body in every:
        for authorization in ("", "Bearer nonsense", "Basic YTpi"):
            response = (
                await client.request(
                    method,
                    f"/v1/{path}",
                    json=body,
                    headers={"authorization": authorization} if authorization else None,
                )
                if authorization
                else await _without_token(capture, method, path, body)
            )
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
        wrong = {"authorization": f"Bearer {token(settings, 'scoring:admin')}"}
        assert (await client.request(method, f"/v1/{path}", json=body, headers=wrong)).status_code == 403, (
            method,
            path,
        )
    for method, path, body in writes:
        reading = {"authorization": f"Bearer {token(settings, 'capture:read')}"}
        assert (await client.request(method, f"/v1/{path}", json=body, headers=reading)).status_code == 403
    assert await capture.rows("SELECT 1 FROM event_log") == before


async def _without_token(capture: Capture, method: str, path: str, body: Any) -> Any:
    client = capture.harness.client
    request = client.build_request(method, f"/v1/{path}", json=body)
    del request.headers["authorization"]
    return await client.send(request)


async def test_unknown_ids_are_404_with_a_problem(capture: Capture) -> None:
    for method, path, body in (
        ("GET", f"leads/{UNKNOWN}", None),
        ("GET", f"leads/{UNKNOWN}/consent", None),
        ("POST", f"leads/{UNKNOWN}:merge", {"with": UNKNOWN}),
        ("POST", f"leads/{UNKNOWN}:unmerge", None),
        ("POST", f"leads/{UNKNOWN}:erase", None),
        ("GET", f"sources/{UNKNOWN}", None),
        ("PATCH", f"sources/{UNKNOWN}", {"name": "x"}),
        ("POST", f"sources/{UNKNOWN}/secrets", {}),
        ("DELETE", f"sources/{UNKNOWN}/secrets/1", None),
        ("GET", f"sources/{UNKNOWN}/deliveries", None),
        ("POST", f"sources/{UNKNOWN}/deliveries:retry", None),
        ("GET", "nothing", None),
    ):
        response = await capture.harness.client.request(method, f"/v1/{path}", json=body)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json"), path
    await nothing_is_stored(capture)


async def test_bad_query_parameters_are_named(capture: Capture) -> None:
    for params, pointer in (
        ({"email": "nobody"}, "query:email"),
        ({"phone": "12"}, "query:phone"),
        ({"email": ""}, "query:email"),
        ({"phone": ""}, "query:phone"),
        ({"external_id": ""}, "query:external_id"),
        ({"anonymous_id": ""}, "query:anonymous_id"),
        ({"limit": "201"}, "query:limit"),
        ({"limit": "x"}, "query:limit"),
    ):
        response = await capture.harness.client.get("/v1/leads", params=params)
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)
    for key in ("x" * 256, " ", "ü"):
        response = await capture.harness.client.post(
            "/v1/leads", json=LEAD, headers=[(b"idempotency-key", key.encode())]
        )
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "header:Idempotency-Key")
    await nothing_is_stored(capture)


async def test_ids_that_no_database_text_can_hold_are_simply_unknown(capture: Capture) -> None:
    for path in ("/v1/leads/%00", "/v1/sources/%00", "/v1/leads/%00/consent"):
        assert (await capture.harness.client.get(path)).status_code == 404
    assert (await capture.harness.client.post("/hooks/%00", content=b"{}")).status_code == 404
    assert (await capture.harness.client.post("/v1/leads/%00:erase")).status_code == 404
