"""A person is one record in a CRM that finds people by their address, whatever becomes of that; deals never go back."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.routing.webhooks.domain import Outgoing
from shared.webhooks import envelope
from tests.service.crm_servers import CrmServer, HubSpotServer, ZohoServer
from tests.service.local_server import reply, serving
from tests.service.routing_support import Routing, lead_id
from tests.service.test_routing_crm import SERVERS
from tests.service.test_routing_crm_limits import Delivering, connection_to, known_by, shown, staged, states, with_kim
from tests.service.test_routing_webhooks import tell

LOCKED = reply(423, {"status": "error", "message": "Locked"}, retry_after="2")
MOVING = reply(477, {"status": "error", "message": "Migration in progress"}, retry_after="7200")
MAY_NOT = reply(403, {"status": "error", "category": "MISSING_SCOPES", "message": "has not been granted"})


@pytest.fixture
async def routing(database_url: str) -> AsyncIterator[Routing]:
    async with with_kim(database_url) as service:
        yield service


def addresses(there: CrmServer) -> dict[str, str]:
    return {one["id"]: str(one.get("email") or one.get("Email")) for one in there.records.values()}


async def listed(routing: Routing, connection_id: str) -> list[dict[str, Any]]:
    return list((await routing.client.get(f"/v1/webhooks/{connection_id}/deliveries")).json()["items"])


async def moves_to(routing: Routing, email: str) -> None:
    await routing.qualify("kim", revision=2, personal=await known_by(routing, "kim", email=email))


@pytest.mark.parametrize("crm", ["hubspot", "zoho"])
async def test_who_has_another_address_is_the_same_record_and_is_erased_with_it(routing: Routing, crm: str) -> None:
    there = SERVERS[crm](users={})
    async with serving(there.server) as address:
        connection_id, delivering = await connection_to(routing, crm, address), Delivering(routing)
        await staged(routing, connection_id, "one")
        await delivering.after(timedelta())
        (crm_id,) = addresses(there)
        await moves_to(routing, "kim@elsewhere.example")
        await staged(routing, connection_id, "two")
        await delivering.after(timedelta())
        assert addresses(there) == {crm_id: "kim@elsewhere.example"}
        (said, _) = [one["said"] for one in (await listed(routing, connection_id))]
        assert said == "answered 200"

        # Who sales has deleted is written anew, and becomes nobody when the person is erased.
        there.records.clear()
        await staged(routing, connection_id, "three")
        await delivering.after(timedelta())
        assert list(addresses(there).values()) == ["kim@elsewhere.example"]
        there.records.clear()
        body = envelope("throughline.lead.erased.v1", routing.clock.now(), {"lead_id": lead_id("kim")})
        await tell(routing, Outgoing("gone", connection_id, "throughline.lead.erased.v1", body, lead_id("kim")))
        await delivering.after(timedelta())
        assert await states(routing, connection_id) == [("delivered", 1)] * 4
        receipt = await routing.client.get(f"/v1/crm-connections/{connection_id}/records/lead/{lead_id('kim')}")
        assert receipt.json()["erased_at"], receipt.text
        assert "gone already" in receipt.json()["erasure"]


async def test_an_address_that_is_another_contact_s_makes_the_two_one(routing: Routing) -> None:
    there = HubSpotServer(users={})
    there.put("contacts", "kim@elsewhere.example", {"email": "kim@elsewhere.example"})
    (other,) = addresses(there)
    async with serving(there.server) as address:
        connection_id, delivering = await connection_to(routing, "hubspot", address), Delivering(routing)
        await staged(routing, connection_id, "one")
        await delivering.after(timedelta())
        await moves_to(routing, "kim@elsewhere.example")
        await staged(routing, connection_id, "two")
        await delivering.after(timedelta())
        assert addresses(there) == {other: "kim@elsewhere.example"}
        record = await routing.client.get(f"/v1/crm-connections/{connection_id}/records/lead/{lead_id('kim')}")
        assert record.json()["crm_id"] == other
        assert await states(routing, connection_id) == [("delivered", 1)] * 2


@pytest.mark.parametrize("status", [207, 409])
async def test_a_conflict_is_written_into_the_contact_that_it_names(routing: Routing, status: int) -> None:
    there = HubSpotServer(users={})
    there.put("contacts", "kim@second.example", {"email": "kim@second.example"})  # which has ours as a second address
    (other,) = addresses(there)
    told = {"category": "CONFLICT", "message": f"Contact already exists. Existing ID: {other}"}
    several = {"status": "COMPLETE", "results": [], "numErrors": 1, "errors": [{"status": "error", **told}]}
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "hubspot", address)
        await staged(routing, connection_id, "one")
        users = reply(200, {"results": []})
        there.next_answers = [users, reply(207, several) if status == 207 else reply(409, told)]
        await Delivering(routing).after(timedelta())
        assert await states(routing, connection_id) == [("delivered", 1)]
    assert addresses(there) == {other: "kim@second.example"}, "whatever its first address is"


@pytest.mark.parametrize("refusal", [LOCKED, MOVING, MAY_NOT])
async def test_what_hubspot_will_take_later_is_not_given_up(routing: Routing, refusal: bytes) -> None:
    there = HubSpotServer(users={})
    async with serving(there.server) as address:
        connection_id, delivering = await connection_to(routing, "hubspot", address), Delivering(routing)
        await staged(routing, connection_id, "one")
        there.next_answers = [reply(200, {"results": []}), *[refusal] * 2]
        await delivering.after(timedelta())
        waiting = await shown(routing, connection_id)
        assert waiting["waiting"] == 1, waiting
        if refusal is MOVING:
            asked = len(there.server.asked)
            await delivering.after(timedelta(hours=1))
            assert len(there.server.asked) == asked, "it said two hours"
        for _ in range(2):
            await delivering.after(timedelta(hours=3))
        assert [state for state, _ in await states(routing, connection_id)] == ["delivered"]


async def test_who_asks_for_tokens_too_often_is_not_told_to_look_at_the_credentials(routing: Routing) -> None:
    there = ZohoServer(users={})
    told = {"error": "Access Denied", "status": "failure"}
    said = "You have made too many requests continuously. Please try again after some time."
    there.wrong_client = lambda: reply(400, {**told, "error_description": said})  # type: ignore[method-assign]  # this one
    async with serving(there.server) as address:
        credentials = {"client_id": "them", "client_secret": "secret", "refresh_token": "again"}
        connection_id = await connection_to(routing, "zoho", address, credentials)
        await staged(routing, connection_id, "one")
        await Delivering(routing).after(timedelta())
        reason = (await shown(routing, connection_id))["reason"]
    assert reason.startswith("no token: answered 400: TOO_MANY_REQUESTS; goes on at")


@pytest.mark.parametrize("crm", SERVERS)
async def test_a_fact_of_a_deal_that_is_sent_again_does_not_take_the_deal_back(routing: Routing, crm: str) -> None:
    there = SERVERS[crm](users={})
    async with serving(there.server) as address:
        connection_id, delivering = await connection_to(routing, crm, address), Delivering(routing)
        told = {"lead_id": lead_id("kim"), "name": "Rollout", "value_minor": 100, "currency": "EUR"}
        deal = (await routing.client.post("/v1/deals", json=told)).json()
        changed = {"stage": "negotiation", "value_minor": 900}
        assert (await routing.client.patch(f"/v1/deals/{deal['deal_id']}", json=changed)).status_code == 200
        fact: dict[str, Any] = {
            **{name: deal[name] for name in ("deal_id", "lead_id", "stage", "value_minor", "currency", "opened_at")},
            "revision": 1,
            "personal": {"name": "Rollout"},
        }
        body = envelope("throughline.deal.changed.v1", routing.clock.now(), fact)
        await tell(routing, Outgoing("old", connection_id, "throughline.deal.changed.v1", body, lead_id("kim")))
        await delivering.after(timedelta())
        assert await states(routing, connection_id) == [("delivered", 1)]
    (written,) = (
        set(map(str, one.values())) for (kind, _), one in there.records.items() if "eal" in kind or "Opp" in kind
    )
    assert {"negotiation", "9.00", "Rollout"} <= written
