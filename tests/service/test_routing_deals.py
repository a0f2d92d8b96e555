"""Deals: told once, won once, and their money told as one conversion."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from shared.events import ConversionRecorded, DealChanged
from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, lead_id, merged, read_back, routing_service


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        await service.hire("ann")
        await service.qualify("one")
        yield service


async def open_deal(routing: Routing, lead: str = "one", **fields: Any) -> httpx.Response:
    body = {"lead_id": lead_id(lead), "name": "Acme", "value_minor": 1_200_000, "currency": "EUR", **fields}
    return await routing.client.post("/v1/deals", json=body)


async def change(routing: Routing, deal_id: str, **fields: Any) -> httpx.Response:
    return await routing.client.patch(f"/v1/deals/{deal_id}", json=fields)


async def test_a_new_deal_starts_in_the_first_stage_and_belongs_to_the_leads_rep(routing: Routing) -> None:
    answer = await open_deal(routing)
    deal = answer.json()
    assert (answer.status_code, deal["stage"], deal["probability"], deal["status"]) == (
        201,
        "qualification",
        10,
        "open",
    )
    assert deal["rep_id"] == await routing.owner("one")
    told = await routing.service.told(DealChanged)
    assert [(fact.deal_id, fact.revision, fact.value_minor) for fact in told] == [(deal["deal_id"], 1, 1_200_000)]


async def test_a_deal_tells_the_teams_of_its_rep_and_the_stages_of_its_pipeline(routing: Routing) -> None:
    await routing.client.patch(f"/v1/reps/{await routing.owner('one')}", json={"teams": ["emea"]})
    deal_id = (await open_deal(routing)).json()["deal_id"]
    await change(routing, deal_id, won=True)
    told = await routing.service.told(DealChanged)
    assert [fact.teams for fact in told] == [("emea",), ("emea",)]
    assert {fact.pipeline_stages for fact in told} == {
        ("qualification", "needs_confirmed", "proposal_reviewed", "negotiation", "verbal_yes")
    }


async def test_winning_makes_one_conversion_and_winning_again_nothing(routing: Routing) -> None:
    deal_id = (await open_deal(routing)).json()["deal_id"]
    won = await asyncio.gather(*(change(routing, deal_id, won=True) for _ in range(3)))
    assert {answer.status_code for answer in won} == {200}
    assert len({answer.text for answer in won}) == 1
    deal = won[0].json()
    assert (deal["status"], deal["stage"], deal["probability"]) == ("won", "won", 100)
    told = await routing.service.told(ConversionRecorded)
    assert [
        (fact.conversion_id, fact.external_id, fact.origin, fact.type, fact.value_minor, fact.deal_id) for fact in told
    ] == [(deal["conversion_id"], deal_id, "routing", "deal_won", 1_200_000, deal_id)]
    assert [fact.revision for fact in await routing.service.told(DealChanged)] == [1, 2]


async def test_a_value_changed_after_the_win_corrects_the_same_conversion(routing: Routing) -> None:
    deal_id = (await open_deal(routing)).json()["deal_id"]
    await change(routing, deal_id, won=True, occurred_at="2026-11-20T10:00:00Z")
    corrected = await change(routing, deal_id, value_minor=900_000)
    assert (corrected.status_code, corrected.json()["status"]) == (200, "won")
    await change(routing, deal_id, name="Acme, first year")
    told = await routing.service.told(ConversionRecorded)
    assert [fact.value_minor for fact in told] == [1_200_000, 900_000]
    assert len({fact.conversion_id for fact in told}) == 1
    assert len({fact.event_id for fact in told}) == 2
    assert {fact.occurred_at for fact in told} == {datetime(2026, 11, 20, 10, tzinfo=UTC)}


async def test_stages_have_their_probability_and_leave_a_history(routing: Routing) -> None:
    deal_id = (await open_deal(routing, occurred_at="2026-11-01T09:00:00Z")).json()["deal_id"]
    moved = await change(routing, deal_id, stage="proposal_reviewed", occurred_at="2026-11-10T09:00:00Z")
    assert (moved.json()["probability"], moved.json()["opened_at"]) == (50, "2026-11-01T09:00:00Z")
    assert (await change(routing, deal_id, stage="proposal_reviewed")).json()["revision"] == 2
    lost = await change(routing, deal_id, lost=True, reason="budget")
    assert (lost.json()["status"], lost.json()["stage"], lost.json()["reason"]) == ("lost", "lost", "budget")
    history = (await routing.client.get(f"/v1/deals/{deal_id}")).json()["history"]
    assert [(step["stage"], step["probability"]) for step in history] == [
        ("qualification", 10),
        ("proposal_reviewed", 50),
        ("lost", 0),
    ]
    assert await routing.service.told(ConversionRecorded) == []


REOPENINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"won": True}, {"stage": "negotiation"}),
    ({"won": True}, {"lost": True, "reason": "budget"}),
    ({"lost": True, "reason": "budget"}, {"won": True}),
    ({"lost": True, "reason": "budget"}, {"stage": "qualification"}),
]


async def test_a_closed_deal_is_not_reopened(routing: Routing) -> None:
    for end, then in REOPENINGS:
        deal_id = (await open_deal(routing)).json()["deal_id"]
        await change(routing, deal_id, **end)
        refused = await change(routing, deal_id, **then)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:throughline:problem:routing:deal-closed")


IMPOSSIBLE_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"lost": True}, "/reason"),
    ({"stage": "signed"}, "/stage"),
    ({"stage": "won"}, "/stage"),
    ({"value_minor": -1}, "/value_minor"),
    ({"value_minor": "12"}, "/value_minor"),
    ({"won": False}, "/won"),
    ({"won": True, "stage": "negotiation"}, ""),
    ({"reason": "budget"}, ""),
    ({"owner": "me"}, "/owner"),
    ({"won": True, "occurred_at": "2099-01-01T00:00:00Z"}, "/occurred_at"),
]


async def test_of_two_changes_from_the_same_revision_one_is_told_that_it_is_not_so_any_more(routing: Routing) -> None:
    deal_id = (await open_deal(routing)).json()["deal_id"]
    address = f"/v1/deals/{deal_id}"
    read = (await routing.client.get(address)).headers["etag"]
    guarded = [routing.client.patch(address, json={"value_minor": n}, headers={"If-Match": read}) for n in (7, 8)]
    answers = await asyncio.gather(*guarded)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (done,) = [answer for answer in answers if answer.status_code == 200]
    reopened: dict[str, Any] = {"json": {"reason": "too soon"}, "headers": {"If-Match": read}}
    assert (await routing.client.patch(address, json={"won": True}, headers={"If-Match": "nothing"})).status_code == 422
    won = await routing.client.patch(address, json={"won": True}, headers={"If-Match": done.headers["etag"]})
    assert won.status_code == 200, won.text
    assert (await routing.client.post(f"{address}:reopen", **reopened)).status_code == 409
    assert (await routing.client.get(address)).json()["status"] == "won"


async def test_a_change_that_means_nothing_names_the_field(routing: Routing) -> None:
    deal_id = (await open_deal(routing)).json()["deal_id"]
    for fields, pointer in IMPOSSIBLE_CHANGES:
        refused = await change(routing, deal_id, **fields)
        assert refused.status_code == 422, fields
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer], fields
    assert (await routing.client.get(f"/v1/deals/{deal_id}")).json()["revision"] == 1


IMPOSSIBLE_DEALS: list[tuple[dict[str, Any], str]] = [
    ({"currency": "EURO"}, "/currency"),
    ({"currency": "XXX"}, "/currency"),
    ({"value_minor": 10.5}, "/value_minor"),
    ({"value_minor": -5}, "/value_minor"),
    ({"name": ""}, "/name"),
    ({"name": "a\x00b"}, "/name"),
    ({"stage": "nowhere"}, "/stage"),
    ({"lead_id": "no id \n"}, "/lead_id"),
    ({"probability": 50}, "/probability"),
    ({"occurred_at": "2026-11-01T00:00:00"}, "/occurred_at"),
    ({"occurred_at": "0001-01-01T00:00:00Z"}, "/occurred_at"),
]


async def test_a_deal_that_cannot_be_is_refused_and_not_stored(routing: Routing) -> None:
    for fields, pointer in IMPOSSIBLE_DEALS:
        refused = await open_deal(routing, **fields)
        assert refused.status_code == 422, fields
        assert pointer in [error["pointer"] for error in refused.json()["errors"]], fields
    assert (await routing.client.get("/v1/deals")).json()["items"] == []


async def heard_of_leads(routing: Routing, until: datetime) -> None:
    """As if all that was told of leads until then were here."""
    async with routing.service.runtime.database.reading() as connection:
        await connection.executemany(
            "INSERT INTO feed_watermarks (topic, partition, source, at) VALUES ('leads', $1, $2, $3)"
            " ON CONFLICT (topic, partition, source) DO UPDATE SET at = excluded.at",
            [
                (partition, source, until)
                for partition in range(routing.service.settings.topic_partitions)
                for source in ("capture", "nurture")
            ],
        )


async def test_a_deal_waits_for_its_lead_and_is_refused_only_once_all_told_before_it_is_here(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await heard_of_leads(routing, NOON - timedelta(microseconds=1))
    opening = asyncio.create_task(open_deal(routing, "two"))
    await asyncio.sleep(0)
    await routing.qualify("two")
    assert (await opening).status_code == 201
    opening = asyncio.create_task(open_deal(routing, "nobody"))
    await heard_of_leads(routing, NOON + timedelta(seconds=1))
    unknown = await opening
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/lead_id")
    monkeypatch.setattr("services.routing.deals.handlers.MARK_UNDER_WAY", timedelta(0))
    routing.clock.move(timedelta(seconds=2))  # the last mark is two seconds old: a lead may have been made since
    behind = await open_deal(routing, "nobody")
    assert (behind.status_code, "Retry-After" in behind.headers) == (503, True)
    no_id = await open_deal(routing, lead_id="b2b2b2b2-0000-4000-8000-000000000000")  # no id that capture makes
    assert (no_id.status_code, no_id.json()["errors"][0]["pointer"]) == (422, "/lead_id")


async def test_a_deal_of_a_lead_that_is_parked_is_not_refused(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await heard_of_leads(routing, NOON + timedelta(seconds=1))
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute(
            'INSERT INTO parked_events (consumer, key, topic, partition, "offset", event_id, type, value, slug, error,'
            " attempts) SELECT $1 || '.v' || version, $2, 'leads', 0, 0, 'e-1', 'x', ''::bytea, 's', 'e', 1"
            " FROM projections LIMIT 1",
            "routing",
            lead_id("three"),
        )
    monkeypatch.setattr("services.routing.deals.handlers.MARK_UNDER_WAY", timedelta(0))
    assert (await open_deal(routing, "three")).status_code == 503


async def test_the_same_external_id_is_the_same_deal(routing: Routing) -> None:
    answers = await asyncio.gather(*(open_deal(routing, external_id="crm-7") for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.json()["deal_id"] for answer in answers}) == 1
    assert len(await routing.service.told(DealChanged)) == 1
    other = await open_deal(routing, external_id="crm-7", value_minor=5)
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (409, "/external_id")


async def test_an_idempotency_key_makes_one_deal_of_two_requests(routing: Routing) -> None:
    body = {"lead_id": lead_id("one"), "name": "Acme", "value_minor": 1, "currency": "EUR"}
    headers = {"Idempotency-Key": "k-1"}
    answers = [await routing.client.post("/v1/deals", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    other = await routing.client.post("/v1/deals", json={**body, "value_minor": 2}, headers=headers)
    assert other.status_code == 422
    assert len((await routing.client.get("/v1/deals")).json()["items"]) == 1


async def test_deals_are_listed_by_lead_email_stage_and_rep_and_follow_merges(routing: Routing) -> None:
    await routing.qualify("two")
    first = (await open_deal(routing)).json()
    second = (await open_deal(routing, "two", stage="negotiation")).json()

    async def listed(**filters: str) -> set[str]:
        return {deal["deal_id"] for deal in (await routing.client.get("/v1/deals", params=filters)).json()["items"]}

    assert await listed(lead_id=lead_id("one")) == {first["deal_id"]}
    assert await listed(stage="negotiation") == {second["deal_id"]}
    assert await listed(rep_id=first["rep_id"]) == {first["deal_id"], second["deal_id"]}
    await routing.service.deliver(merged("two", into="one"))
    assert await listed(lead_id=lead_id("one")) == await listed(lead_id=lead_id("two"))
    assert await listed(lead_id=lead_id("one")) == {first["deal_id"], second["deal_id"]}
    page = (await routing.client.get("/v1/deals?limit=1")).json()
    rest = (await routing.client.get("/v1/deals", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert {page["items"][0]["deal_id"], rest["items"][0]["deal_id"]} == {first["deal_id"], second["deal_id"]}
    assert rest["next_cursor"] is None


async def test_rules_see_the_leads_open_deal(routing: Routing) -> None:
    senior = await routing.hire("sue", seniority=9)
    await routing.put_rules({"id": "big", "when": "deal.value_minor > 1000000", "strategy": "highest_seniority"})
    await open_deal(routing)
    moved = await routing.answer("one", "reassign", reason="by the rules")
    assert (moved.json()["rep_id"], moved.json()["trace"][0]["matched"]) == (senior, True)


async def test_a_pipeline_is_a_versioned_document(routing: Routing) -> None:
    shipped = (await routing.client.get("/v1/pipeline")).json()
    assert [stage["probability"] for stage in shipped["document"]["stages"]] == [10, 25, 50, 70, 90]
    deal_id = (await open_deal(routing)).json()["deal_id"]
    mine = {"stages": [{"id": "talk", "name": "Talk", "probability": 30}]}
    tried = await routing.client.post("/v1/pipeline:simulate", json={"document": mine})
    assert tried.json()["deals_without_stage"] == 1
    assert (await routing.client.put("/v1/pipeline", json=mine)).json()["version"] == 2
    assert (await open_deal(routing)).json()["stage"] == "talk"
    assert (await change(routing, deal_id, stage="negotiation")).status_code == 422
    bad = {"stages": [{"id": "won", "name": "Won", "probability": 30}]}
    refused = await routing.client.put("/v1/pipeline", json=bad)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/stages")


async def test_deadlines_wait_while_own_decisions_have_not_been_read_back(routing: Routing) -> None:
    await routing.hire("bob")
    owner = await routing.owner("one")
    await read_back(routing.service, routing.clock.now())
    await routing.pass_time(timedelta(days=1))
    assert await routing.owner("one") == owner
    await read_back(routing.service, routing.clock.now())
    await routing.service.run_timers()
    assert await routing.owner("one") == owner  # overdue by far, through no fault of the rep
    for _ in range(3):  # looked at late each time, which is forgiven three times at most
        routing.clock.move(timedelta(hours=1))
        await read_back(routing.service, routing.clock.now())
        await routing.service.run_timers()
    assert await routing.owner("one") != owner
