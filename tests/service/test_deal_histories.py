"""Whatever is told of a deal is kept, also what changes nothing at the time, and makes the same deal in any order."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import orjson
import pytest

from shared.events import DealChanged
from shared.settings import Settings
from tests.service.routing_support import Routing, lead_id, selling

OPENED = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with selling(settings) as service:
        yield service


def day(number: int) -> str:
    return (OPENED + timedelta(days=number)).isoformat()


def deal(external_id: str, **more: Any) -> dict[str, Any]:
    told = {"external_id": external_id, "name": "Acme", "value_minor": 500, "currency": "EUR", "occurred_at": day(0)}
    return {"lead_id": lead_id("one"), **told, **more}


async def opened(routing: Routing, external_id: str) -> str:
    answer = await routing.client.post("/v1/deals", json=deal(external_id))
    deal_id: str = answer.json()["deal_id"]
    return deal_id


async def change(routing: Routing, deal_id: str, **told: Any) -> dict[str, Any]:
    answer = await routing.client.patch(f"/v1/deals/{deal_id}", json=told)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def stood(routing: Routing, deal_id: str) -> list[tuple[str, int]]:
    history = (await routing.client.get(f"/v1/deals/{deal_id}")).json()["history"]
    return [(step["stage"], step["value_minor"]) for step in history]


async def test_what_is_told_after_a_past_that_changed_nothing_is_kept(routing: Routing) -> None:
    nothing = [{"occurred_at": day(number), "value_minor": 500} for number in range(1, 6)]
    line = orjson.dumps(deal("told", changes=nothing))
    imported = await routing.client.post("/v1/deals:import", content=line)
    deal_id = orjson.loads(imported.content.split(b"\n")[0])["deal_id"]
    await change(routing, deal_id, stage="negotiation")
    await change(routing, deal_id, value_minor=700)
    assert (await change(routing, deal_id, won=True))["status"] == "won"
    assert await stood(routing, deal_id) == [
        ("qualification", 500),
        ("negotiation", 500),
        ("negotiation", 700),
        ("won", 700),
    ]
    again = await routing.client.post("/v1/deals:import", content=line)
    assert orjson.loads(again.content.split(b"\n")[0])["status"] == "unchanged"
    told = [fact.revision for fact in await routing.service.told(DealChanged)]
    assert told == sorted(set(told))


MOVES: tuple[dict[str, Any], ...] = (
    {"occurred_at": day(8), "stage": "negotiation"},
    {"occurred_at": day(13), "stage": "verbal_yes", "value_minor": 900},
    {"occurred_at": day(21), "stage": "qualification"},
    {"occurred_at": day(25), "value_minor": 500},
)


async def test_calls_told_in_any_order_make_the_same_deal_and_each_of_them_twice_the_same_too(
    routing: Routing,
) -> None:
    for place, moves in enumerate(permutations(MOVES)):
        deal_id = await opened(routing, f"crm-{place}")
        for move in moves:
            after = await change(routing, deal_id, **move)
            assert await change(routing, deal_id, **move) == after
        assert await stood(routing, deal_id) == [
            ("qualification", 500),
            ("negotiation", 500),
            ("verbal_yes", 900),
            ("qualification", 900),
            ("qualification", 500),
        ]


async def test_a_move_of_a_time_when_the_deal_was_closed_is_refused_after_it_was_reopened(routing: Routing) -> None:
    deal_id = await opened(routing, "reopened")
    await change(routing, deal_id, won=True, occurred_at=day(10))
    reopening = {"reason": "signed by mistake", "occurred_at": day(20)}
    assert (await routing.client.post(f"/v1/deals/{deal_id}:reopen", json=reopening)).status_code == 200
    move = {"stage": "negotiation", "occurred_at": day(15)}
    refused = await routing.client.patch(f"/v1/deals/{deal_id}", json=move)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:throughline:problem:routing:deal-closed")
    assert "won on 2026-10-11" in refused.json()["detail"]
