"""Channel groupings as they are tried and refused."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.test_attribution_groupings import PARTNERS, put, state
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def test_preview_tells_channel_and_rule(attribution: Harness) -> None:
    async def preview(**body: Any) -> dict[str, Any]:
        answer = await attribution.client.post("/v1/channel-groupings:preview", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    touch = {"source": "acme", "medium": "cpc"}
    found = await preview(touch=touch)
    assert (found["channel"], found["rule"]) == ("Paid Other", "paid_other:tags")
    found = await preview(touch=touch, document=PARTNERS)
    assert (found["channel"], found["rule"], found["default_channel"]) == (
        "Partners",
        "grouping:0:partners",
        "Paid Other",
    )
    await put(attribution, PARTNERS, draft=True)
    assert (await preview(touch=touch, version=2))["rule"] == "grouping:2:partners"
    assert (await preview(touch={"channel": "Fair"}))["rule"] == "caller"
    assert (await preview(touch={"page": "https://acme.com/x", "referrer_host": "acme.com"}))["rule"] == "direct"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/touch"),
        ({"touch": {"sauce": "x"}}, "/touch/sauce"),
        ({"touch": {}, "version": 0}, "/version"),
        ({"touch": {}, "version": 1, "document": {}}, ""),
        ({"touch": {}, "document": {"rules": [{"channel": "A", "when": "touch.x"}]}}, "/document/rules/0/when"),
        ({"touch": {"click_ids": ["x"] * 21}}, "/touch/click_ids"),
    ],
)
async def test_preview_of_nothing_sensible_is_refused(attribution: Harness, body: dict[str, Any], pointer: str) -> None:
    answer = await attribution.client.post("/v1/channel-groupings:preview", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"rules": [{"channel": "A", "when": "touch.nothing"}]}, ["/rules/0/when"]),
        ({"rules": [{"channel": "A"}]}, ["/rules/0/when"]),
        ({"rules": [{"channel": "", "when": "true"}]}, ["/rules/0/channel"]),
        ({"otherwise": ""}, ["/otherwise"]),
        ({"keep_given": 7}, ["/keep_given"]),
        ({"other": 1}, ["/other"]),
        ({"rules": [{"channel": "A\u0000", "when": "true"}]}, ["/rules/0/channel"]),
    ],
)
async def test_document_that_cannot_work_is_refused_at_its_place(
    attribution: Harness, document: dict[str, Any], pointers: Sequence[str]
) -> None:
    answer = await attribution.client.put("/v1/channel-groupings", json=document)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert (await state(attribution))["version"] == 1
