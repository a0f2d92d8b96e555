"""Assignments, stages and deals stand in a CRM as they stand here; its limits and errors lose nothing."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from shared.settings import Settings
from shared.testing import eventually
from tests.service.crm_servers import CrmServer, HubSpotServer, SalesforceServer, ZohoServer
from tests.service.local_server import reply, serving
from tests.service.routing_support import Routing, captured, entered, erased, lead_id, merged, routing_service

CREDENTIALS = {"client_id": "us", "client_secret": "secret", "refresh_token": "again"}
SERVERS: dict[str, type[CrmServer]] = {"salesforce": SalesforceServer, "hubspot": HubSpotServer, "zoho": ZohoServer}
LEADS = {"salesforce": "Lead", "hubspot": "contacts", "zoho": "Leads"}
DEALS = {"salesforce": "Opportunity", "hubspot": "deals", "zoho": "Deals"}
ANN = "ann@sales.example.com"


@pytest.fixture
async def routing(kafka_settings: Settings) -> AsyncIterator[Routing]:
    settings = kafka_settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"})})
    async with routing_service(settings, kafka=True) as service:
        yield service


async def known(routing: Routing, name: str, **personal: Any) -> None:
    """A lead of whom something personal is known, and who is qualified."""
    runtime = routing.service.consumer_runtime
    async with runtime.database.transaction() as tx:
        ciphers, _ = await runtime.keys.ciphers(tx.connection, [lead_id(name)], routing.clock.now())
    block = runtime.keys.seal(lead_id(name), ciphers[lead_id(name)], orjson.dumps(personal)).decode()
    async with routing.service.runtime.database.transaction() as tx:
        tx.emit(captured(name, personal=block), entered(name))


def owner_of(crm: str, record: dict[str, Any]) -> Any:
    match crm:
        case "salesforce":
            return record.get("OwnerId")
        case "hubspot":
            return record.get("hubspot_owner_id")
    return (record.get("Owner") or {}).get("id")


@pytest.mark.parametrize("crm", SERVERS)
async def test_what_is_decided_here_stands_in_the_crm(  # noqa: C901, PLR0915  # one story
    routing: Routing, crm: str
) -> None:
    there = SERVERS[crm](users={ANN: "user-7"})
    there.contacts = {"kim@customer.example": "contact-7", "kit@customer.example": "contact-8"}
    async with serving(there.server) as address:
        told = {
            "crm": crm,
            "name": "ours",
            "base_url": address,
            "auth_url": address,
            "credentials": CREDENTIALS,
            "ways": {
                "stages": {"mql": "Qualified", "sql": "Working"},
                "deal_stages": {"proposal_reviewed": "Proposed"},
                "lead_merged_field": "Merged_Into__c",
            },
        }
        answer = await routing.client.post("/v1/crm-connections", json=told)
        assert answer.status_code == 201, answer.text
        assert "secret" not in answer.text
        connection_id = answer.json()["connection_id"]
        place = f"/v1/webhooks/{connection_id}/deliveries"
        status_field = {"salesforce": "Status", "hubspot": "hs_lead_status", "zoho": "Lead_Status"}[crm]

        def records(kind: str) -> list[dict[str, Any]]:
            return [record for (of, _), record in there.records.items() if of == kind]

        async def deliveries(state: str) -> list[dict[str, Any]]:
            return list((await routing.client.get(f"{place}?state={state}&limit=200")).json()["items"])

        await routing.hire("ann")
        await known(routing, "kim", email="kim@customer.example", last_name="Kim")

        async def assigned() -> None:
            lead = records(LEADS[crm])[0]
            assert "kim@customer.example" in lead.values()
            assert (owner_of(crm, lead), lead[status_field]) == ("user-7", "Qualified")

        await eventually(assigned)
        assert there.tokens_given == 1

        # The session ends there: another one is opened, and nothing is lost.
        there.token = "ended"
        async with routing.service.runtime.database.transaction() as tx:
            tx.emit(entered("kim", "sql", "mql", at=datetime.now(UTC)))

        async def moved() -> None:
            assert [lead[status_field] for lead in records(LEADS[crm])] == ["Working"]

        await eventually(moved)
        assert there.tokens_given == 2

        # A deal, beside limits that are reached: it waits, and is written when it is tried again.
        there.next_answers = [there.limited]
        deal = {"lead_id": lead_id("kim"), "name": "Rollout", "value_minor": 125_050, "currency": "EUR",
                "stage": "proposal_reviewed"}  # fmt: skip
        made = await routing.client.post("/v1/deals", json=deal)
        assert made.status_code == 201, made.text

        async def waits() -> dict[str, Any]:
            one = (await deliveries("waiting"))[0]
            assert one["status"] in (403, 429)
            return one

        waiting = await eventually(waits)
        await routing.client.post(f"{place}/{waiting['delivery_id']}:retry")

        async def sold() -> None:
            one = records(DEALS[crm])[0]
            assert {"1250.50", "Rollout", "Proposed"} <= {str(value) for value in one.values()}

        await eventually(sold)
        place_of_deal = f"records/deal/{made.json()['deal_id']}"

        async def noted() -> None:
            shown = await routing.client.get(f"/v1/crm-connections/{connection_id}/{place_of_deal}")
            assert shown.json()["crm_id"] == records(DEALS[crm])[0]["id"]
            contact = records("contacts")[0]["id"] if crm == "hubspot" else "contact-7"
            assert there.associations == {(records(DEALS[crm])[0]["id"], contact)}

        await eventually(noted)

        # What the CRM refuses is told by its codes, and without what is personal.
        there.next_answers = [there.refused]
        async with routing.service.runtime.database.transaction() as tx:
            tx.emit(entered("kim", "opportunity", "sql", at=datetime.now(UTC)))

        async def refused() -> None:
            one = (await deliveries("failed"))[0]
            assert there.refused_code in one["said"]
            assert "ann@" not in one["said"]

        await eventually(refused)

        # Two leads turn out to be one person, who then asks to be forgotten.
        (kim,) = [lead["id"] for lead in records(LEADS[crm])]
        await known(routing, "kit", email="kit@customer.example", last_name="Kit")

        async def both() -> str:
            others = [str(lead["id"]) for lead in records(LEADS[crm]) if lead["id"] != kim]
            return others[0]

        kit = await eventually(both)
        async with routing.service.runtime.database.transaction() as tx:
            tx.emit(merged("kit", "kim", at=datetime.now(UTC)))

        async def one_person() -> None:
            if crm != "salesforce":
                assert [lead["id"] for lead in records(LEADS[crm])] == [kim]
            else:
                assert there.marks == {kit: {"Merged_Into__c": kim}}

        await eventually(one_person)
        async with routing.service.runtime.database.transaction() as tx:
            tx.emit(erased("kim", at=datetime.now(UTC)), erased("kit", at=datetime.now(UTC)))

        async def forgotten() -> None:
            assert records(LEADS[crm]) == []
            for name in ("kim", "kit"):
                one = f"/v1/crm-connections/{connection_id}/records/lead/{lead_id(name)}"
                receipt = (await routing.client.get(one)).json()
                assert receipt["erased_at"], receipt
                assert receipt["erasure"].startswith("answered "), receipt

        await eventually(forgotten)
        assert len(records(DEALS[crm])) == 1


async def test_a_connection_that_cannot_work_is_refused_or_says_so_when_it_is_tested(routing: Routing) -> None:
    there = ZohoServer(users={})
    async with serving(there.server) as address:
        told: dict[str, Any] = {"crm": "zoho", "name": "ours", "base_url": address, "auth_url": address}
        for wrong, pointer in (
            ({"credentials": {"client_id": "us"}}, "/credentials"),
            ({"credentials": CREDENTIALS, "crm": "salesforce", "base_url": None}, "/base_url"),
            ({"credentials": CREDENTIALS, "base_url": "http://10.0.0.1/"}, "/base_url"),
            ({"credentials": CREDENTIALS, "filter": "event."}, "/filter"),
            (
                {"credentials": CREDENTIALS, "ways": {"lead_fields": {"Email": "lead. email"}}},
                "/ways/lead_fields/Email",
            ),
        ):
            answer = await routing.client.post("/v1/crm-connections", json={**told, **wrong})
            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"][0]["pointer"].startswith(pointer), answer.text
        wrong_secret = {**CREDENTIALS, "client_secret": "other"}
        answer = await routing.client.post("/v1/crm-connections", json={**told, "credentials": wrong_secret})
        connection_id = answer.json()["connection_id"]
        await routing.client.post(f"/v1/webhooks/{connection_id}:test")
        place = f"/v1/webhooks/{connection_id}/deliveries"

        async def said(words: str) -> None:
            one = (await routing.client.get(place)).json()["items"][0]
            assert words in str(one["said"])

        await eventually(lambda: said("look at the credentials"))
        changed = await routing.client.patch(f"/v1/crm-connections/{connection_id}", json={"credentials": CREDENTIALS})
        assert changed.status_code == 200
        (waiting,) = (await routing.client.get(place)).json()["items"]
        await routing.client.post(f"{place}/{waiting['delivery_id']}:retry")
        await eventually(lambda: said("answered 200"))
        assert (await routing.client.patch(f"/v1/webhooks/{connection_id}", json={"url": address})).status_code == 409
        assert (await routing.client.delete(f"/v1/crm-connections/{connection_id}")).status_code == 204
        assert (await routing.client.get(f"/v1/webhooks/{connection_id}")).status_code == 404


async def test_a_deal_whose_contact_may_not_be_looked_for_is_written_and_says_so(routing: Routing) -> None:
    there = ZohoServer(users={})
    async with serving(there.server) as address:
        told = {"crm": "zoho", "name": "ours", "base_url": address, "auth_url": address, "credentials": CREDENTIALS,
                "types": ["throughline.deal.changed.v1"]}  # fmt: skip
        connection = (await routing.client.post("/v1/crm-connections", json=told)).json()
        refusal = reply(401, {"code": "OAUTH_SCOPE_MISMATCH", "details": {}, "message": "no", "status": "error"})
        done = {"code": "SUCCESS", "action": "insert"}
        there.next_answers = [
            *(reply(200, {"data": [{**done, "details": {"id": crm_id}}]}) for crm_id in ("lead-1", "deal-1")),
            refusal,
        ]
        await known(routing, "kim", email="kim@customer.example", last_name="Kim")
        deal = {"lead_id": lead_id("kim"), "name": "Rollout", "value_minor": 1, "currency": "EUR"}

        async def opened() -> None:
            assert (await routing.client.post("/v1/deals", json=deal)).status_code == 201

        await eventually(opened)
        place = f"/v1/webhooks/{connection['connection_id']}/deliveries?state=delivered"

        async def said() -> None:
            deliveries = (await routing.client.get(place)).json()["items"]
            contact = "its contact: answered 401: OAUTH_SCOPE_MISMATCH"
            assert [contact in one["said"] for one in deliveries] == [True]

        await eventually(said)
        assert (there.tokens_given, there.next_answers) == (1, [])


async def test_a_stage_that_overtakes_the_profile_is_written_once_that_is_here(routing: Routing) -> None:
    there = HubSpotServer(users={})
    async with serving(there.server) as address:
        told = {"crm": "hubspot", "name": "ours", "base_url": address, "auth_url": address, "credentials": CREDENTIALS}
        answer = await routing.client.post("/v1/crm-connections", json={**told, "ways": {"stages": {"lead": "New"}}})
        place = f"/v1/webhooks/{answer.json()['connection_id']}/deliveries"
        async with routing.service.runtime.database.transaction() as tx:
            tx.emit(entered("kim", "lead", "subscriber", at=datetime.now(UTC)))

        async def waits() -> str:
            items = (await routing.client.get(place)).json()["items"]
            assert [(one["state"], one["said"]) for one in items] == [("waiting", "the lead's profile is on its way")]
            return str(items[0]["delivery_id"])

        waiting = await eventually(waits)
        await known(routing, "kim", email="kim@customer.example")
        await routing.client.post(f"{place}/{waiting}:retry")

        async def written() -> None:
            assert [contact.get("email") for contact in there.records.values()] == ["kim@customer.example"]

        await eventually(written)
