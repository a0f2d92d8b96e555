"""Versions of a pipeline over HTTP: who changes one knows the one before."""

from collections.abc import AsyncIterator

import pytest

from shared.settings import Settings
from tests.service.routing_support import Routing, selling

SIMPLE = {"name": "Big", "stages": [{"id": "talk", "name": "Talk", "probability": 20}]}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with selling(settings) as service:
        yield service


async def test_a_pipeline_is_not_written_over_by_who_has_not_seen_the_last_change(routing: Routing) -> None:
    client, known = routing.client, {"If-Match": '"1"'}
    assert (await client.put("/v1/pipelines/big", json=SIMPLE)).headers["etag"] == '"1"'
    changed = {**SIMPLE, "name": "Bigger"}
    assert (await client.put("/v1/pipelines/big", json=changed, headers=known)).headers["etag"] == '"2"'
    assert (await client.put("/v1/pipelines/big", json=SIMPLE, headers=known)).status_code == 409
    late = await client.post("/v1/pipelines/big:activate", json={"version": 1}, headers=known)
    assert late.status_code == 409
    now = await client.get("/v1/pipelines/big")
    assert (now.headers["etag"], now.json()["version"], now.json()["document"]["name"]) == ('"2"', 2, "Bigger")


async def test_a_pipeline_with_a_name_lives_as_every_document_does(routing: Routing) -> None:
    client, big = routing.client, "/v1/pipelines/big"
    assert (await client.post(f"{big}:validate", json=SIMPLE)).json()["valid"]
    assert not (await client.post(f"{big}:validate", json={**SIMPLE, "stages": []})).json()["valid"]
    nowhere = await client.post(f"{big}:validate", json={**SIMPLE, "renewal": {"pipeline": "nowhere"}})
    assert [one["pointer"] for one in nowhere.json()["errors"]] == ["/renewal/pipeline"]
    assert (await client.get(f"{big}/activations")).status_code == 404
    await client.put(big, json=SIMPLE)
    await client.put(big, json={**SIMPLE, "name": "Bigger"})
    assert (await client.get(f"{big}/versions/1")).json()["document"]["name"] == "Big"
    between = (await client.get(f"{big}:diff", params={"from": 1, "to": 2})).json()
    assert (between["same"], between["from"], between["to"]) == (False, 1, 2)
    assert (await client.post(f"{big}:diff", json={**SIMPLE, "name": "Bigger"})).json()["same"]
    back = await client.post(f"{big}:rollback", json={"reason": "too big"})
    assert (back.status_code, back.json()["version"], back.json()["pipeline_id"]) == (200, 1, "big")
    planned = await client.post(f"{big}:activate", json={"version": 2, "at": "2099-01-01T00:00:00Z"})
    assert planned.status_code == 200, planned.text
    [plan] = (await client.get(f"{big}/activations", params={"state": "planned"})).json()["items"]
    assert (await client.delete(f"{big}/activations/{plan['id']}")).json()["state"] == "cancelled"
    assert (await client.get(big)).json()["version"] == 1
