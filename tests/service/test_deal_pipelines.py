"""Pipelines: what stages ask for, what is measured of them, what deals bring, what is told late, what falls silent."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from shared.events import ConversionRecorded, DealChanged, DealRotted
from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, lead_id, selling

GATED = {
    "stages": [
        {"id": "first", "name": "First", "probability": 10, "force": True, "rot_days": 5}
        | {"exit": [{"id": "big_enough", "when": "deal.value_minor > 1000 && lead.country == 'DE'"}]},
        {"id": "second", "name": "Second", "probability": 60, "required": ["expected_close_on", "notes.scope"]},
    ],
}
SEATS = {"product": "seat", "quantity": 10, "unit_minor": 1_000, "recurring": {"interval": "month"}}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with selling(settings) as service:
        yield service


async def open_deal(routing: Routing, lead: str = "one", **fields: Any) -> dict[str, Any]:
    body = {"lead_id": lead_id(lead), "name": "Acme", "currency": "EUR", **fields}
    answer = await routing.client.post("/v1/deals", json=body if "lines" in body else {"value_minor": 500, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def change(routing: Routing, deal_id: str, **fields: Any) -> httpx.Response:
    return await routing.client.patch(f"/v1/deals/{deal_id}", json=fields)


async def import_lines(routing: Routing, *lines: Any) -> list[dict[str, Any]]:
    body = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    answer = await routing.client.post("/v1/deals:import", content=body)
    assert answer.status_code == 200, answer.text
    return [orjson.loads(line) for line in answer.text.splitlines()]


def pointers(answer: httpx.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_a_move_that_misses_something_names_each_of_it_and_may_be_forced_with_a_reason(routing: Routing) -> None:
    assert (await routing.client.put("/v1/pipelines/big", json=GATED)).status_code == 200
    deal_id = (await open_deal(routing, pipeline="big"))["deal_id"]
    refused = await change(routing, deal_id, stage="second")
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:throughline:problem:routing:deal-not-ready")
    assert pointers(refused) == ["/stage", "/expected_close_on", "/notes/scope"]
    ready = await change(
        routing,
        deal_id,
        stage="second",
        value_minor=5_000,
        expected_close_on="2026-12-24",
        notes={"scope": "All of it"},
    )
    assert (ready.status_code, ready.json()["probability"], ready.json()["pipeline_id"]) == (200, 60, "big")
    other = (await open_deal(routing, pipeline="big"))["deal_id"]
    forced = await change(routing, other, stage="second", force=True, reason="the board said so")
    assert forced.status_code == 200
    step = (await routing.client.get(f"/v1/deals/{other}/history")).json()["items"][-1]
    assert (step["forced"], step["reason"]) == (["big_enough", "expected_close_on", "notes.scope"], "the board said so")
    assert step["by"]
    assert (await change(routing, other, won=True)).status_code == 200, "the second stage asks for nothing on leaving"


async def test_pipelines_are_documents_with_names_and_show_what_was_measured(routing: Routing) -> None:
    lines = [
        {"lead_id": lead_id("one"), "external_id": f"d-{number}", "name": "Old", "currency": "EUR", "value_minor": 10}
        | {
            "occurred_at": "2026-01-01T00:00:00Z",
            "changes": [
                {"occurred_at": "2026-01-02T00:00:00Z", "stage": "negotiation"}
                if number < 49
                else {"occurred_at": "2026-01-02T00:00:00Z", "value_minor": 11},
                {"occurred_at": "2026-02-01T00:00:00Z", "won": True}
                if number % 5 == 0
                else {"occurred_at": "2026-02-01T00:00:00Z", "lost": True, "lost_reason": "pricing"},
            ],
        }
        for number in range(50)
    ]
    assert (await import_lines(routing, *lines))[-1]["created"] == 50
    shown = (await routing.client.get("/v1/pipelines/default")).json()
    assert shown["stages"][0] | {"stage": "qualification"} == {
        "stage": "qualification",
        "probability": 20,
        "default": 10,
        "measured": 20.0,
        "passed": 50,
        "won": 10,
    }
    assert (shown["stages"][3]["probability"], shown["stages"][3]["passed"]) == (70, 49)
    assert (await open_deal(routing))["probability"] == 20
    assert [one["pipeline_id"] for one in (await routing.client.get("/v1/pipelines")).json()["items"]] == [
        "default",
        "renewals",
    ]
    assert (await routing.client.get("/v1/pipelines/none")).status_code == 404
    refused = await routing.client.put("/v1/pipelines/x", json={**GATED, "renewal": {"pipeline": "nowhere"}})
    assert (refused.status_code, pointers(refused)) == (422, ["/renewal/pipeline"])
    nowhere = await routing.client.post(
        "/v1/deals", json={"lead_id": lead_id("one"), "name": "A", "value_minor": 1, "currency": "EUR", "pipeline": "x"}
    )
    assert (nowhere.status_code, pointers(nowhere)) == (422, ["/pipeline"])


async def test_lines_make_the_value_and_what_recurs_and_nothing_else_may(routing: Routing) -> None:
    deal = await open_deal(routing, lines=[SEATS, {"product": "setup", "unit_minor": 7}])
    assert (deal["value_minor"], deal["recurring_minor"], deal["annual_minor"]) == (120_007, 10_000, 120_000)
    refused = await change(routing, deal["deal_id"], value_minor=5)
    assert (refused.status_code, pointers(refused)) == (422, ["/value_minor"])
    fewer = await change(routing, deal["deal_id"], lines=[{**SEATS, "quantity": 1}])
    assert (fewer.json()["value_minor"], fewer.json()["recurring_minor"]) == (12_000, 1_000)
    huge = await change(routing, deal["deal_id"], lines=[{**SEATS, "quantity": 10**9, "unit_minor": 10**15}])
    assert (huge.status_code, pointers(huge)) == (422, ["/lines"])
    told = (await routing.service.told(DealChanged))[-1]
    assert (told.value_minor, told.recurring_minor, told.lines[0].quantity) == (12_000, 1_000, 1)
    backwards = await change(routing, deal["deal_id"], contract_starts_on="2027-01-01")
    assert backwards.status_code == 200
    backwards = await change(routing, deal["deal_id"], contract_ends_on="2026-01-01")
    assert (backwards.status_code, pointers(backwards)) == (422, ["/contract_ends_on"])


async def test_reopening_takes_the_money_back_and_winning_again_is_one_conversion_again(routing: Routing) -> None:
    deal_id = (await open_deal(routing, stage="negotiation"))["deal_id"]
    assert (await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "?"})).status_code == 409
    await change(routing, deal_id, won=True)
    answers = await asyncio.gather(
        *(routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "signed by mistake"}) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    deal = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (deal["status"], deal["stage"], deal["probability"], deal["conversion_id"]) == (
        "open",
        "negotiation",
        70,
        None,
    )
    await change(routing, deal_id, value_minor=300)
    await change(routing, deal_id, won=True)
    told = await routing.service.told(ConversionRecorded)
    assert [(fact.value_minor, fact.withdrawn) for fact in told] == [(500, False), (0, True), (300, False)]
    assert len({fact.conversion_id for fact in told}) == 1 and len({fact.event_id for fact in told}) == 3
    history = (await routing.client.get(f"/v1/deals/{deal_id}/history")).json()
    assert [(step["status"], step["reason"]) for step in history["items"]][1:3] == [
        ("won", None),
        ("open", "signed by mistake"),
    ]


async def test_a_change_told_late_stands_where_it_happened(routing: Routing) -> None:
    deal_id = (await open_deal(routing, occurred_at="2026-11-01T12:00:00Z"))["deal_id"]
    await change(routing, deal_id, stage="negotiation", occurred_at="2026-11-11T12:00:00Z")
    late = await change(routing, deal_id, stage="needs_confirmed", occurred_at="2026-11-06T12:00:00Z")
    assert (late.json()["stage"], late.json()["revision"]) == ("negotiation", 5)
    told = await routing.service.told(DealChanged)
    assert [(fact.stage, fact.revision, fact.begins) for fact in told] == [
        ("qualification", 1, 0),
        ("negotiation", 2, 0),
        ("qualification", 3, 3),
        ("needs_confirmed", 4, 3),
        ("negotiation", 5, 3),
    ]
    history = (await routing.client.get(f"/v1/deals/{deal_id}/history")).json()
    assert [(stage["stage"], round(stage["seconds"] / 86_400)) for stage in history["stages"]] == [
        ("qualification", 5),
        ("needs_confirmed", 5),
        ("negotiation", 14),
    ]
    again = await change(routing, deal_id, stage="needs_confirmed", occurred_at="2026-11-06T12:00:00Z")
    assert again.json()["revision"] == 5
    await change(routing, deal_id, won=True, occurred_at="2026-11-20T12:00:00Z")
    before = await change(routing, deal_id, stage="verbal_yes", occurred_at="2026-11-19T12:00:00Z")
    assert (before.status_code, before.json()["status"]) == (200, "won")
    assert (await change(routing, deal_id, stage="verbal_yes", occurred_at="2026-11-21T12:00:00Z")).status_code == 409
    assert len(await routing.service.told(ConversionRecorded)) == 1


def past(external_id: str, *changes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "external_id": external_id, "lead_id": lead_id("one"), "name": "Old", "currency": "EUR", "value_minor": 100,
        "occurred_at": "2026-01-01T00:00:00Z", "changes": changes, **fields,
    }  # fmt: skip


MOVED = {"occurred_at": "2026-01-10T00:00:00Z", "stage": "negotiation"}
WON = {"occurred_at": "2026-02-01T00:00:00Z", "won": True, "contract_ends_on": "2027-01-31"}


async def test_an_import_answers_line_by_line_and_in_any_order_makes_the_same_deals(routing: Routing) -> None:
    results = await import_lines(
        routing,
        past("a", MOVED, WON),
        past("b", WON),
        b"no json",
        past("b", MOVED, WON),
        past("c", {"occurred_at": "2026-01-10T00:00:00Z", "stage": "nowhere"}),
        past("d", lead_id=lead_id("nobody")),
        past("a", MOVED, WON),
        past("e", value_minor="x"),
    )
    assert [line.get("status") for line in results[:-1]] == [
        "created",
        "created",
        "rejected",
        "updated",
        "rejected",
        "rejected",
        "unchanged",
        "rejected",
    ]
    assert [error["pointer"] for line in results for error in line.get("errors", ())] == [
        "",
        "/changes/0/stage",
        "/lead_id",
        "/value_minor",
    ]
    assert results[-1] == {"lines": 8, "created": 2, "updated": 1, "unchanged": 1, "rejected": 4}
    ways = []
    for result in results[:2]:
        history = (await routing.client.get(f"/v1/deals/{result['deal_id']}/history")).json()
        ways.append([(step["at"], step["stage"], step["value_minor"]) for step in history["items"]])
    assert ways[0] == ways[1]
    assert [stage for _, stage, _ in ways[0]] == ["qualification", "negotiation", "won"]
    told = await routing.service.told(ConversionRecorded)
    assert sorted(fact.external_id for fact in told) == sorted(result["deal_id"] for result in results[:2])
    assert (await routing.client.get(f"/v1/deals/{results[0]['deal_id']}/handoff")).status_code == 404


async def test_a_forecast_counts_one_currency_with_the_range_that_chance_leaves(routing: Routing) -> None:
    for stage, value in (("verbal_yes", 1_000), ("proposal_reviewed", 500), ("qualification", 200)):
        await open_deal(routing, stage=stage, value_minor=value, expected_close_on="2026-12-10")
    await open_deal(routing, value_minor=77)
    won = await open_deal(routing, value_minor=50)
    await change(routing, won["deal_id"], won=True)
    asked = {"from": "2026-11-01", "to": "2027-01-01"}
    made = (await routing.client.get("/v1/forecast", params=asked)).json()
    total = made["total"]
    assert (total["won_minor"], total["committed_minor"], total["best_case_minor"]) == (50, 1_050, 1_550)
    assert (total["weighted_minor"], total["open_minor"], made["undated"]) == (
        50 + 900 + 250 + 20,
        1_700,
        {"deals": 1, "value_minor": 77},
    )
    assert total["value"] == {"low": 750, "high": 1_550, "method": "exact"}
    months = (await routing.client.get("/v1/forecast", params={**asked, "by": "month"})).json()["rows"]
    assert [(row["key"], row["deals"]) for row in months] == [("2026-11", 1), ("2026-12", 3)]
    await open_deal(routing, currency="USD", expected_close_on="2026-12-10")
    refused = await routing.client.get("/v1/forecast", params=asked)
    assert (refused.status_code, pointers(refused)) == (422, ["query:currency"])
    assert (await routing.client.get("/v1/forecast", params={**asked, "currency": "USD"})).json()["total"]["deals"] == 1
    assert (
        await routing.client.get("/v1/forecast", params={"from": "2026-12-01", "to": "2026-11-01"})
    ).status_code == 422
    listed = await routing.client.get("/v1/deals", params={"closing_from": "2026-12-01", "status": "open"})
    assert len(listed.json()["items"]) == 4


async def test_a_deal_counts_in_the_forecast_as_it_did_when_its_stage_is_taken_out(routing: Routing) -> None:
    talk, signed = ({"id": one, "name": one, "probability": percent} for one, percent in (("talk", 20), ("signed", 95)))
    await routing.client.put("/v1/pipelines/short", json={"stages": [talk, signed]})
    await open_deal(routing, pipeline="short", stage="signed", expected_close_on="2026-12-01")

    async def total() -> dict[str, Any]:
        asked = {"from": "2026-11-25", "to": "2027-01-01", "pipeline": "short", "by": "month"}
        return dict((await routing.client.get("/v1/forecast", params=asked)).json()["rows"][0])

    before = await total()
    assert (before["key"], before["committed_minor"], before["weighted_minor"]) == ("2026-12", 500, 475)
    assert (await routing.client.put("/v1/pipelines/short", json={"stages": [talk]})).status_code == 200
    assert await total() == before


async def test_a_deal_that_falls_silent_is_listed_and_told_once_each_time(routing: Routing) -> None:
    await routing.client.put("/v1/pipelines/big", json=GATED)
    quick = (await open_deal(routing, pipeline="big"))["deal_id"]
    slow = (await open_deal(routing))["deal_id"]

    async def silent() -> set[str]:
        return {deal["deal_id"] for deal in (await routing.client.get("/v1/deals?rotting=true")).json()["items"]}

    assert await silent() == set()
    await routing.pass_time(timedelta(days=5))
    await routing.service.run_timers()
    assert await silent() == {quick}
    assert [(fact.deal_id, fact.stage) for fact in await routing.service.told(DealRotted)] == [(quick, "first")]
    await change(routing, quick, value_minor=501)
    assert await silent() == set()
    await routing.pass_time(timedelta(days=26))
    told = await routing.service.told(DealRotted)
    assert [fact.deal_id for fact in told] == [quick, quick, slow] or [fact.deal_id for fact in told] == [
        quick,
        slow,
        quick,
    ]
    assert len({fact.event_id for fact in told}) == 3
    assert told[-1].occurred_at == NOON + timedelta(days=31, milliseconds=1)


async def test_why_deals_are_lost_is_one_of_the_pipelines_reasons(routing: Routing) -> None:
    reasons: list[tuple[dict[str, Any], str | None]] = [
        ({"reason": "Poor fit"}, "poor_fit"),
        ({"reason": "their dog did not like it"}, "other"),
        ({"lost_reason": "competition"}, "competition"),
        ({"lost_reason": "boredom"}, None),
        ({"lost_reason": "other"}, None),
    ]
    for told, kept in reasons:
        answer = await change(routing, (await open_deal(routing))["deal_id"], lost=True, **told)
        assert (answer.status_code, answer.json().get("lost_reason")) == (422 if kept is None else 200, kept)
    lost = (await routing.client.get("/v1/deals?status=lost")).json()["items"]
    (deal_id,) = [deal["deal_id"] for deal in lost if deal["lost_reason"] == "poor_fit"]
    await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "they came back"})
    history = (await routing.client.get(f"/v1/deals/{deal_id}/history")).json()["items"]
    assert [step["reason"] for step in history] == [None, "Poor fit", "they came back"]


async def test_a_restored_database_learns_all_of_its_deals(routing: Routing) -> None:
    deal_id = (await open_deal(routing, lines=[SEATS], expected_close_on="2026-12-10"))["deal_id"]
    await change(routing, deal_id, stage="negotiation")
    await change(routing, deal_id, stage="needs_confirmed", occurred_at="2026-11-20T00:00:00Z")
    await change(routing, deal_id, won=True, occurred_at="2026-11-25T11:00:00Z")
    shown = (await routing.client.get(f"/v1/deals/{deal_id}")).json()
    told = await routing.service.told(DealChanged)
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("TRUNCATE deals, deal_history")
    await routing.service.deliver(*told)
    learnt = (await routing.client.get(f"/v1/deals/{deal_id}")).json()
    way, again = ([(step["at"], step["stage"]) for step in deal.pop("history")] for deal in (shown, learnt))
    assert (learnt, again) == (shown, way)
    assert (await change(routing, deal_id, stage="negotiation")).status_code == 409


async def test_a_deal_out_of_a_stage_that_is_gone_passes_those_that_followed_it(routing: Routing) -> None:
    stages = [
        {"id": "first", "name": "First", "probability": 10},
        {"id": "middle", "name": "Middle", "probability": 30},
        {"id": "legal", "name": "Legal", "probability": 60, "required": ["notes.scope"]}
        | {"exit": [{"id": "signed", "when": "deal.value_minor > 1000"}]},
    ]
    assert (await routing.client.put("/v1/pipelines/big", json={"stages": stages})).status_code == 200
    deal_id = (await open_deal(routing, pipeline="big", stage="middle"))["deal_id"]
    left = [stages[2], stages[0]]  # the order of today says nothing of what was ahead of it
    assert (await routing.client.put("/v1/pipelines/big", json={"stages": left})).status_code == 200
    assert pointers(await change(routing, deal_id, won=True)) == ["/won", "/notes/scope"]
    assert pointers(await change(routing, deal_id, stage="legal")) == ["/notes/scope"]
    assert (await change(routing, deal_id, stage="legal", notes={"scope": "all"})).status_code == 200
    assert (await change(routing, deal_id, won=True, value_minor=2_000)).status_code == 200


async def test_a_deal_out_of_the_last_stage_is_won_when_that_is_gone(routing: Routing) -> None:
    stages = [
        {"id": "first", "name": "First", "probability": 10, "exit": [{"id": "no", "when": "deal.value_minor > 1000"}]},
        {"id": "last", "name": "Last", "probability": 30},
    ]
    assert (await routing.client.put("/v1/pipelines/big", json={"stages": stages})).status_code == 200
    deal_id = (await open_deal(routing, pipeline="big", value_minor=2_000))["deal_id"]
    assert (await change(routing, deal_id, stage="last")).status_code == 200
    assert (await change(routing, deal_id, value_minor=500)).status_code == 200
    assert (await routing.client.put("/v1/pipelines/big", json={"stages": stages[:1]})).status_code == 200
    assert (await change(routing, deal_id, won=True)).status_code == 200


async def test_what_recurs_is_taken_away_by_null_unless_it_follows_from_lines(routing: Routing) -> None:
    deal_id = (await open_deal(routing, value_minor=500, recurring_minor=100))["deal_id"]
    assert (await change(routing, deal_id, value_minor=700)).json()["recurring_minor"] == 100
    assert (await change(routing, deal_id, recurring_minor=None)).json()["recurring_minor"] is None
    lined = (await open_deal(routing, lines=[SEATS]))["deal_id"]
    assert pointers(await change(routing, lined, recurring_minor=None)) == ["/recurring_minor"]


async def test_a_forecast_names_open_deals_whose_day_is_past(routing: Routing) -> None:
    today = NOON.date()
    for days, value in ((-40, 100), (-1, 200), (0, 400), (20, 800), (40, 1_600)):
        day = (today + timedelta(days=days)).isoformat()
        await open_deal(routing, value_minor=value, expected_close_on=day)

    async def forecast(first: int, last: int) -> tuple[int, dict[str, Any]]:
        asked = {"from": str(today + timedelta(days=first)), "to": str(today + timedelta(days=last))}
        made = (await routing.client.get("/v1/forecast", params=asked)).json()
        return made["total"]["open_minor"], made["overdue"]

    assert await forecast(0, 30) == (1_200, {"deals": 2, "value_minor": 300})
    assert await forecast(-10, 30) == (1_400, {"deals": 1, "value_minor": 100})
    assert await forecast(30, 60) == (1_600, {"deals": 2, "value_minor": 300})
