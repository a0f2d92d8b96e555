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
