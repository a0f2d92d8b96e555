"""Rates of exchange over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import Harness, harness, token
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


def rate(base: str, quote: str, day: str, value: Any) -> dict[str, Any]:
    return {"date": day, "base": base, "quote": quote, "rate": value}


async def put(service: Harness, *rates: dict[str, Any]) -> None:
    answer = await service.client.put("/v1/rates", json={"rates": rates})
    assert (answer.status_code, answer.json()) == (200, {"stored": len(rates)})


async def test_rates_are_stored_replaced_listed_and_taken_back(attribution: Harness) -> None:
    await put(
        attribution, rate("USD", "EUR", "2026-01-02", "0.9"), rate("GBP", "EUR", "2026-01-02", "1.150000000000000001")
    )
    await put(attribution, rate("USD", "EUR", "2026-01-02", "0.91"), rate("USD", "EUR", "2026-01-03", "1"))
    pages, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await attribution.client.get("/v1/rates", params=query)).json()
        pages.append(page["items"])
        if not (cursor := page["next_cursor"]):
            break
    assert pages == [
        [rate("USD", "EUR", "2026-01-03", "1"), rate("GBP", "EUR", "2026-01-02", "1.150000000000000001")],
        [rate("USD", "EUR", "2026-01-02", "0.91")],
    ]
    found = await attribution.client.get("/v1/rates", params={"base": "USD", "to": "2026-01-03"})
    assert [item["rate"] for item in found.json()["items"]] == ["0.91"]
    assert (await attribution.client.delete("/v1/rates/USD/EUR/2026-01-03")).status_code == 204
    gone = await attribution.client.delete("/v1/rates/USD/EUR/2026-01-03")
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:throughline:problem:attribution:no-such-rate")


@pytest.mark.parametrize(
    ("rates", "pointer"),
    [
        ([], "/rates"),
        ([rate("USD", "EUR", "2026-01-02", 0.9)], "/rates/0/rate"),
        ([rate("USD", "EUR", "2026-01-02", "-1")], "/rates/0/rate"),
        ([rate("USD", "EUR", "2026-01-02", "1e5")], "/rates/0/rate"),
        ([rate("USD", "EUR", "2026-01-02", "0.0")], "/rates/0/rate"),
        ([rate("USD", "EUR", "2026-01-02", "0.1234567890123456789")], "/rates/0/rate"),
        ([rate("USD", "USD", "2026-01-02", "1")], "/rates/0/quote"),
        ([rate("USD", "XXX", "2026-01-02", "1")], "/rates/0/quote"),
        ([rate("usd", "EUR", "2026-01-02", "1")], "/rates/0/base"),
        ([rate("USD", "EUR", "1066-01-02", "1")], "/rates/0/date"),
        ([rate("USD", "EUR", "2026-01-02", "1"), rate("USD", "EUR", "2026-01-02", "2")], "/rates/1/rate"),
    ],
)
async def test_bad_rates_are_named_and_none_is_stored(
    attribution: Harness, rates: list[dict[str, Any]], pointer: str
) -> None:
    answer = await attribution.client.put("/v1/rates", json={"rates": [*rates]})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await attribution.client.get("/v1/rates")).json()["items"] == []


async def test_rates_need_their_scopes(attribution: Harness) -> None:
    reader = {"authorization": f"Bearer {token(attribution.settings, 'attribution:read')}"}
    body = {"rates": [rate("USD", "EUR", "2026-01-02", "1")]}
    assert (await attribution.client.put("/v1/rates", json=body, headers=reader)).status_code == 403
    assert (await attribution.client.delete("/v1/rates/USD/EUR/2026-01-02", headers=reader)).status_code == 403
    assert (await attribution.client.get("/v1/rates", headers=reader)).status_code == 200
    assert (await attribution.client.get("/v1/rates", headers={"authorization": ""})).status_code == 401
    assert (await attribution.client.get("/v1/rates", params={"cursor": "x"})).status_code == 400
