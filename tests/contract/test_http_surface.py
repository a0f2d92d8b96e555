"""The calls that are promised to others are there, under their names."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from throughline.contracts.documents import DOCS
from throughline.services import SERVICES

PROMISED = """
POST /capture/v1/leads
GET /capture/v1/leads
GET /capture/v1/leads/{lead_id}
POST /capture/v1/touches
POST /capture/v1/conversions
POST /capture/v1/refunds
POST /capture/v1/costs
POST /capture/v1/sources
POST /capture/v1/sources/{source_id}/secrets
DELETE /capture/v1/sources/{source_id}/secrets/{n}
POST /capture/hooks/{source_id}
GET /capture/hooks/{source_id}
HEAD /capture/hooks/{source_id}
GET /scoring/v1/leads/{lead_id}
GET /scoring/v1/rules
PUT /scoring/v1/rules
GET /scoring/v1/rules/versions
POST /scoring/v1/rules:simulate
POST /scoring/v1/rules:activate
POST /routing/v1/reps
GET /routing/v1/rules
PUT /routing/v1/rules
GET /routing/v1/rules/versions
POST /routing/v1/rules:simulate
POST /routing/v1/rules:activate
GET /routing/v1/leads/{lead_id}/assignment
POST /routing/v1/leads/{lead_id}/assignment:accept
POST /routing/v1/leads/{lead_id}/assignment:reject
POST /routing/v1/leads/{lead_id}/assignment:reassign
POST /routing/v1/deals
PATCH /routing/v1/deals/{deal_id}
POST /nurture/v1/sequences
GET /nurture/v1/leads/{lead_id}/messages
GET /attribution/v1/leads/{lead_id}/journey
GET /attribution/v1/conversions/{conversion_id}/credits
GET /attribution/v1/reports/attribution
GET /attribution/v1/reports/compare
"""
FOUND_BY_ANOTHER_ID = {"/nurture/v1/leads/{lead_id}/messages/{message_id}/explain"}
PROVEN_BY_THEIR_ADDRESS = {"/nurture/v1/preferences/{token}"}


def document(service: str) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads((DOCS / "openapi" / f"{service}.json").read_bytes())
    return read


@pytest.mark.parametrize("call", PROMISED.split("\n")[1:-1])
def test_a_promised_call_is_there(call: str) -> None:
    method, path = call.split()
    assert method.lower() in document(path.split("/")[1])["paths"][path]


@pytest.mark.parametrize("service", SERVICES)
def test_every_call_has_a_name_of_its_own_and_answers_problems(service: str) -> None:
    operations = [
        operation
        for path in document(service)["paths"].values()
        for operation in path.values()
        if "responses" in operation
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        html = {"text/html"} & {
            media for answer in operation["responses"].values() for media in answer.get("content", ())
        }
        assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"} | html
        assert operation.get("description") or operation.get("summary")


@pytest.mark.parametrize("service", SERVICES)
def test_every_reference_and_every_part_of_a_path_is_described(service: str) -> None:
    told = document(service)
    schemas = {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}
    assert set(references(told)) <= schemas
    for path, operations in told["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path


def references(described: Any) -> Iterator[str]:
    if isinstance(described, dict):
        for name, value in described.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(described, list):
        for each in described:
            yield from references(each)


@pytest.mark.parametrize("service", SERVICES)
def test_every_call_below_v1_asks_for_a_token_but_those_whose_address_is_one(service: str) -> None:
    for path, operations in document(service)["paths"].items():
        for operation in operations.values():
            asks = path.startswith(f"/{service}/v1/") and path not in PROVEN_BY_THEIR_ADDRESS
            assert bool(operation.get("security")) == asks, path


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_told_about_a_lead_is_also_found_by_email(service: str) -> None:
    calls = {path: one["get"] for path, one in document(service)["paths"].items() if "get" in one}
    asked = {path for path, call in calls.items() if any(one["name"] == "email" for one in call.get("parameters", ()))}
    for path in calls.keys() - FOUND_BY_ANOTHER_ID:
        before, lead, told = path.partition("/leads/{lead_id}")
        if lead:
            name = told.removeprefix("/")
            ways = {f"{before}/{name}", f"{before}/{name}s", f"{before}/leads:{name}"} if name else {f"{before}/leads"}
            assert asked & ways, path


@pytest.mark.parametrize("service", SERVICES)
def test_every_body_that_is_read_is_described(service: str) -> None:
    for path, operations in document(service)["paths"].items():
        if "200" in operations.get("get", {}).get("responses", ()):
            assert operations["get"]["responses"]["200"].get("content"), path


@pytest.mark.parametrize("service", SERVICES)
def test_whoever_is_to_send_a_document_is_told_what_it_looks_like(service: str) -> None:
    paths = document(service)["paths"]

    def shown(path: str, method: str) -> Any:
        body = paths[path][method].get("requestBody", {})
        return body.get("content", {}).get("application/json", {}).get("schema", {}).get("properties")

    documents = [path for path in paths if f"{path}/activations" in paths]
    for path in documents:
        assert shown(path, "put"), f"PUT {path}"
        assert shown(f"{path}:validate", "post") == shown(f"{path}:diff", "post") == shown(path, "put")
        assert "reason" in shown(f"{path}:rollback", "post")
    assert documents or service == "capture"
