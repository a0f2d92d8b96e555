"""Other systems are told facts: those they want, once each, one lead's in order, from any time on."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from services.routing.subscriptions.domain import TYPES
from services.routing.subscriptions.reading import Subscribing
from shared.settings import Settings
from shared.testing import eventually
from tests.service.local_server import LocalServer, reply, serving
from tests.service.routing_support import Routing, captured, entered, erased, lead_id, routing_service

STAGE = "throughline.stage.changed.v1"
LEAD = "throughline.lead.captured.v1"
ASSIGNED = "throughline.lead.assigned.v1"


@pytest.fixture
async def routing(kafka_settings: Settings) -> AsyncIterator[Routing]:
    settings = kafka_settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"})})
    async with routing_service(settings, kafka=True) as service:
        yield service


async def tell(routing: Routing, *facts: Any) -> None:
    """Publish facts, as other services would."""
    async with routing.service.runtime.database.transaction() as tx:
        tx.emit(*facts)


async def subscribe(routing: Routing, **told: Any) -> dict[str, Any]:
    answer = await routing.client.post("/v1/subscriptions", json={"from": "2026-11-25T11:00:00Z", **told})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def bodies(server: LocalServer) -> list[dict[str, Any]]:
    return [orjson.loads(asked.body) for asked in server.asked]


async def sealed(routing: Routing, name: str, personal: dict[str, Any]) -> str:
    """A personal block of a lead."""
    runtime = routing.service.consumer_runtime
    async with runtime.database.transaction() as tx:
        ciphers, _ = await runtime.keys.ciphers(tx.connection, [lead_id(name)], routing.clock.now())
    return runtime.keys.seal(lead_id(name), ciphers[lead_id(name)], orjson.dumps(personal)).decode()


def of_first_lead(told: list[dict[str, Any]]) -> list[str]:
    """The stage changes of one lead, in the order in which they came."""
    return [
        one["data"]["event_id"] for one in told if (one["type"], one["data"]["lead_id"]) == (STAGE, lead_id("lead-0"))
    ]


async def test_what_is_wanted_arrives_once_and_in_order_and_again_when_asked(routing: Routing) -> None:
    server = LocalServer()
    names = [f"lead-{number}" for number in range(6)]
    async with serving(server) as address:
        made = await subscribe(
            routing, url=f"{address}/facts", types=[STAGE, ASSIGNED], filter="event.type != 'x' && event.lead_id != ''"
        )
        assert made["secret"].startswith("whsec_")
        await routing.hire("ann")
        await tell(routing, *(captured(name, country="AT") for name in names), *(entered(name) for name in names))

        async def all_told() -> None:
            kinds = [(one["type"], one["data"]["lead_id"]) for one in bodies(server)]
            assert sorted(kinds) == sorted((kind, lead_id(name)) for kind in (STAGE, ASSIGNED) for name in names)

        await eventually(all_told)
        first = bodies(server)
        assert all("personal" not in one["data"] and one["timestamp"] for one in first)

        async def logged() -> None:
            log = await routing.client.get(f"/v1/webhooks/{made['endpoint_id']}/deliveries?limit=200")
            assert [item["state"] for item in log.json()["items"]] == ["delivered"] * len(first)

        await eventually(logged)

        # The same again: under other ids, and never twice for one of them.
        await routing.client.post(f"/v1/subscriptions/{made['subscription_id']}:replay", json={"from": made["since"]})
        other = Subscribing(routing.service.consumer_runtime)  # beside the worker that reads already

        async def told_again() -> None:
            assert len(server.asked) == 2 * len(first)

        await asyncio.gather(other.run(), eventually(told_again))
        ids = [asked.headers["webhook-id"] for asked in server.asked]
        assert len(set(ids)) == len(ids)
        assert of_first_lead(bodies(server)[len(first) :]) == of_first_lead(first)

        # Not again: nothing is told that was told before.
        replay = {"from": made["since"], "again": False}
        await routing.client.post(f"/v1/subscriptions/{made['subscription_id']}:replay", json=replay)
        await tell(routing, entered("late"))

        async def the_late_one() -> None:
            assert [one["data"]["lead_id"] for one in bodies(server)[2 * len(first) :]][:1] == [lead_id("late")]

        await eventually(the_late_one)


async def test_an_endpoint_that_was_away_misses_nothing(routing: Routing) -> None:
    server = LocalServer()
    async with serving(server) as address:
        made = await subscribe(routing, url=f"{address}/facts", types=[STAGE], filter="event.stage == 'mql'")
        place = f"/v1/webhooks/{made['endpoint_id']}"
        assert (await routing.client.delete(place)).status_code == 409
        assert (await routing.client.post(f"{place}:suspend", json={"reason": "maintenance"})).status_code == 200
        await tell(routing, *(entered(f"away-{number}") for number in range(30)))
        assert (await routing.client.post(f"{place}:resume")).status_code == 200

        async def all_told() -> None:
            assert len({one["data"]["lead_id"] for one in bodies(server)}) == 30

        await eventually(all_told)
        assert len(server.asked) == 30


async def test_what_is_personal_goes_along_only_when_asked_for_and_never_of_erased_people(routing: Routing) -> None:
    server = LocalServer([reply(503)])
    async with serving(server) as address:
        made = await subscribe(routing, url=f"{address}/facts", types=[LEAD], personal=True)
        await tell(routing, captured("anna", personal=await sealed(routing, "anna", {"email": "anna@example.com"})))

        async def tried() -> None:
            assert server.asked

        await eventually(tried)
        assert bodies(server)[0]["data"]["personal"]["email"] == "anna@example.com"
        await tell(routing, erased("anna"))

        async def dropped() -> None:
            routing.clock.move(timedelta(minutes=1))
            log = await routing.client.get(f"/v1/webhooks/{made['endpoint_id']}/deliveries")
            assert [item["state"] for item in log.json()["items"]] != ["waiting"]

        await eventually(dropped)


@pytest.mark.parametrize(
    ("told", "pointer"),
    [
        ({"types": ["throughline.key.created.v1"], "url": "https://example.com/a"}, "/types"),
        ({"types": [], "url": "https://example.com/a"}, "/types"),
        ({"types": [STAGE]}, ""),
        ({"types": [STAGE], "url": "https://example.com/a", "filter": "event.total >"}, "/filter"),
        ({"types": [STAGE], "url": "https://example.com/a", "filter": "event.total > 1 && event.nope == 1"}, "/filter"),
        ({"types": [STAGE], "url": "https://example.com/a", "filter": "lead.country == 'AT'"}, "/filter"),
        ({"types": [STAGE], "url": "http://10.0.0.1/a"}, "/url"),
        ({"types": [STAGE], "url": "https://example.com/a", "from": "2999-01-01T00:00:00Z"}, "/from"),
    ],
)
async def test_what_cannot_work_is_refused(routing: Routing, told: dict[str, Any], pointer: str) -> None:
    answer = await routing.client.post("/v1/subscriptions", json=told)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_subscription_is_changed_paused_and_ended(routing: Routing) -> None:
    made = await subscribe(routing, url="https://example.com/a", types=list(TYPES), name="everything")
    place = f"/v1/subscriptions/{made['subscription_id']}"
    changed = await routing.client.patch(place, json={"types": [STAGE], "filter": "event.fit > 30", "paused": True})
    assert (changed.json()["types"], changed.json()["paused"], changed.json()["name"]) == ([STAGE], True, "everything")
    unknown = await routing.client.patch(place, json={"types": [ASSIGNED]})  # nothing that is assigned has a fit
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/filter")
    assert (await routing.client.patch(place, json={"filter": None})).json()["filter"] is None
    assert [one["subscription_id"] for one in (await routing.client.get("/v1/subscriptions")).json()["items"]] == [
        made["subscription_id"]
    ]
    assert (await routing.client.delete(place)).status_code == 204
    assert (await routing.client.get(place)).status_code == 404
    assert (await routing.client.delete(f"/v1/webhooks/{made['endpoint_id']}")).status_code == 204
