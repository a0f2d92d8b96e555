"""What nobody means and anybody can send: nurture says what is wrong with it, and no fault of ours comes of it."""

import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.nurture_world import SEQUENCE
from throughline.contracts.documents import DOCS
from throughline.services import service_code

PATHS: dict[str, Any] = orjson.loads((DOCS / "openapi" / "nurture.json").read_bytes())["paths"]
CALLS = [(method, path.removeprefix("/nurture")) for path, found in PATHS.items() for method in found]
FIRST, LAST = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"


@pytest_asyncio.fixture
async def nurture(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("nurture"), settings) as made:
        yield made


async def test_a_name_that_no_text_can_hold_is_simply_unknown(nurture: Harness) -> None:
    named = [(method, path) for method, path in CALLS if "{" in path]
    assert len(named) > 50
    for method, path in named:
        answer = await nurture.client.request(method, re.sub(r"{\w+}", "a%00b", path), json={})
        assert answer.status_code == 404, (method, path, answer.text)


async def test_the_same_document_once_more_would_change_nothing(nurture: Harness) -> None:
    saved = (await nurture.client.post("/v1/sequences", json=SEQUENCE)).json()["sequence_id"]
    told = (await nurture.client.post(f"/v1/sequences/{saved}:diff", json=SEQUENCE)).json()
    assert (told["same"], told["changed"]) == (True, [])
    bad = await nurture.client.post(f"/v1/sequences/{saved}:diff", json={**SEQUENCE, "steps": 1})
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/steps")


async def test_times_before_and_after_all_others_are_refused(nurture: Harness) -> None:
    saved = (await nurture.client.post("/v1/sequences", json=SEQUENCE)).json()["sequence_id"]
    for at in (FIRST, LAST):
        for path, body in (
            (f"/v1/sequences/{saved}:activate", {"version": 1, "at": at}),
            ("/v1/sending-policy:activate", {"version": 1, "at": at}),
            ("/v1/leads/anybody/pauses", {"reason": "on leave", "until": at}),
        ):
            answer = await nurture.client.post(path, json=body)
            assert answer.status_code == 422, (path, answer.text)
            assert answer.json()["errors"][0]["detail"] == "lies outside of the years 1900 to 2999"
        assert (await nurture.client.get("/v1/messages", params={"since": at})).status_code == 422


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"steps": [{"id": f"w{number}", "wait": {"days": 1}} for number in range(10_000)]}, "/steps"),
        ({"trigger": "(" * 1_900 + "true" + ")" * 1_900}, "/trigger"),
        ({"name": "a\x00b"}, "/name"),
        ({"surprise": 1}, "/surprise"),
        ({"steps": [{"id": "w", "wait": {"days": 10**30}}]}, "/steps/0/wait/days"),
    ],
)
async def test_a_document_beyond_all_bounds_is_refused_with_its_place(
    nurture: Harness, changes: dict[str, Any], pointer: str
) -> None:
    answer = await nurture.client.post("/v1/sequences", json={**SEQUENCE, **changes})
    assert answer.status_code == 422, answer.text
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "9" * 400])
async def test_a_number_that_is_none_is_refused(nurture: Harness, number: str) -> None:
    body = orjson.dumps(SEQUENCE).replace(b'{"days":3}', f'{{"days":{number}}}'.encode())
    assert number.encode() in body
    answer = await nurture.client.post("/v1/sequences", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
