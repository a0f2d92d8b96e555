"""What a CRM does not take for hours or days is there in the end, once; and the connection says why it is not yet."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from services.routing.crm.handlers import CrmWriter
from services.routing.webhooks.domain import Outgoing
from services.routing.webhooks.handlers import Deliverer
from shared.testing import make_settings
from shared.webhooks import envelope
from tests.service.crm_servers import CrmServer, HubSpotServer, SalesforceServer, ZohoServer
from tests.service.local_server import Asked, reply, serving
from tests.service.routing_support import Routing, lead_id, routing_service
from tests.service.test_routing_crm import CREDENTIALS, SERVERS
from tests.service.test_routing_webhooks import tell, until_done

DAY = timedelta(days=1)


@asynccontextmanager
async def with_kim(database_url: str) -> AsyncIterator[Routing]:
    """A service that may write to this machine, whose rep ann has the lead kim."""
    settings = make_settings(database_url, outbound_private_hosts=frozenset({"127.0.0.1"}))
    async with routing_service(settings) as service:
        await service.hire("ann")
        await service.qualify("kim", personal=await known_by(service, "kim", email="kim@customer.example"))
        yield service


@pytest.fixture
async def routing(database_url: str) -> AsyncIterator[Routing]:
    async with with_kim(database_url) as service:
        yield service


async def known_by(routing: Routing, name: str, **personal: Any) -> str:
    """What is known of a person, sealed."""
    runtime, who = routing.service.consumer_runtime, lead_id(name)
    async with runtime.database.transaction() as tx:
        ciphers, _ = await runtime.keys.ciphers(tx.connection, [who], routing.clock.now())
    return runtime.keys.seal(who, ciphers[who], orjson.dumps(personal)).decode()


class Limited(CrmServer):
    """A CRM that answers `limited` to everything but the call for a token, as long as it is set."""

    is_limited = True
    refusal: bytes | None = None

    async def respond(self, asked: Asked) -> bytes:
        """An answer to one request."""
        if self.is_limited and not asked.target.startswith(self.token_path):
            return self.refusal or self.limited
        return await super().respond(asked)


class WatchfulSalesforce(SalesforceServer):
    """Lets in no second lead with an address, as its standard rule for duplicates does; `own` was there before."""

    own: dict[str, Any] | None = None

    def work(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        """What is answered to who may come in."""
        wanted = query.get("q", [""])[0]
        if " FROM Lead WHERE " in wanted:
            fits = self.own is not None and f"'{self.own['Email']}'" in wanted and "Throughline_Id__c = null" in wanted
            return reply(200, {"totalSize": int(fits), "done": True, "records": [{"Id": "00Q1"}] if fits else []})
        if self.own is not None and asked.method == "PATCH":
            content = orjson.loads(asked.body)
            if path.endswith("/Lead/00Q1") and asked.headers["sforce-duplicate-rule-header"] == "allowSave=true":
                self.records["Lead", content.pop("Throughline_Id__c")] = {**self.own, "id": "00Q1", **content}
                return reply(204)
            if ("Lead", path.rpartition("/")[2]) not in self.records:
                return reply(400, [{"message": "Use one of these records?", "errorCode": "DUPLICATES_DETECTED"}])
        return super().work(asked, path, query)


class LimitedSalesforce(Limited, SalesforceServer):
    """Says REQUEST_LIMIT_EXCEEDED, and not until when."""


async def connection_to(
    routing: Routing, crm: str, address: str, credentials: Mapping[str, str] = MappingProxyType(CREDENTIALS)
) -> str:
    told = {"crm": crm, "name": "ours", "base_url": address, "auth_url": address, "credentials": dict(credentials)}
    answer = await routing.client.post("/v1/crm-connections", json=told)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["connection_id"])


async def staged(routing: Routing, connection_id: str, name: str) -> None:
    """A change of stage on its way to the CRM."""
    data = {"lead_id": lead_id("kim"), "stage": "mql", "revision": 0}
    body = envelope("throughline.stage.changed.v1", routing.clock.now(), data)
    await tell(routing, Outgoing(name, connection_id, "throughline.stage.changed.v1", body, lead_id("kim")))


async def shown(routing: Routing, connection_id: str) -> dict[str, Any]:
    return dict((await routing.client.get(f"/v1/crm-connections/{connection_id}")).json())


async def states(routing: Routing, connection_id: str) -> list[tuple[str, int]]:
    items = (await routing.client.get(f"/v1/webhooks/{connection_id}/deliveries")).json()["items"]
    return [(one["state"], one["attempts"]) for one in reversed(items)]


class Delivering:
    """One worker's deliverer, that lets time pass."""

    def __init__(self, routing: Routing) -> None:
        runtime = routing.service.consumer_runtime
        self.routing, self.deliverer = routing, Deliverer(runtime, {"crm": CrmWriter(runtime).deliver})

    async def after(self, by: timedelta) -> None:
        """What is due then."""
        self.routing.clock.move(by)
        await until_done(self.deliverer)


async def test_a_limit_that_is_reached_for_days_gives_nothing_up_and_is_told(routing: Routing) -> None:
    there = LimitedSalesforce(users={})
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "salesforce", address)
        for name in ("one", "two"):
            await staged(routing, connection_id, name)
        delivering = Delivering(routing)
        await delivering.after(timedelta())
        asked = len(there.server.asked)
        await staged(routing, connection_id, "three")
        await Delivering(routing).after(timedelta(minutes=10))
        assert len(there.server.asked) == asked, "who is at the limit is left alone, by every worker"
        for _ in range(12):
            await delivering.after(DAY / 2)
        waiting = await shown(routing, connection_id)
        assert (waiting["state"], waiting["failures"], waiting["waiting"]) == ("active", 0, 3)
        assert "REQUEST_LIMIT_EXCEEDED; goes on at 2026-12-01" in waiting["reason"]
        there.is_limited = False
        await delivering.after(timedelta(minutes=15))
        done = await shown(routing, connection_id)
    assert (done["waiting"], done["reason"], await states(routing, connection_id)) == (
        0, None, [("delivered", 1)] * 3,
    )  # fmt: skip
    assert len(there.records) == 1


@pytest.mark.parametrize("crm", SERVERS)
async def test_a_token_that_is_not_given_is_blamed_on_the_credentials_only_when_it_is_their_fault(
    routing: Routing, crm: str
) -> None:
    there = SERVERS[crm](users={})
    there.given = lambda: {"nothing": "yet"}  # type: ignore[method-assign]  # this server alone
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, crm, address)
        await routing.client.post(f"/v1/webhooks/{connection_id}:test")
        delivering = Delivering(routing)
        for _ in range(15):
            await delivering.after(timedelta(hours=6))
        refused = await shown(routing, connection_id)
        assert refused["reason"] == "no token: answered 200; look at the credentials"
        assert (refused["failures"], await states(routing, connection_id)) == (15, [("waiting", 0)])

        del there.given
        answers = [reply(503, b"<html>"), reply(429)]
        respond = there.respond

        async def away(asked: Asked) -> bytes:
            return answers.pop(0) if answers else await respond(asked)

        there.server.respond = away
        said = []
        for _ in range(2):
            await routing.client.patch(f"/v1/crm-connections/{connection_id}", json={"credentials": CREDENTIALS})
            await delivering.after(timedelta())
            said.append((await shown(routing, connection_id))["reason"].partition(";")[0])
        assert said == ["no token: answered 503", "no token: answered 429"]
        await delivering.after(timedelta(minutes=1))
        assert (await shown(routing, connection_id))["reason"] is None
        assert [state for state, _ in await states(routing, connection_id)] == ["delivered"]


async def test_a_limit_met_while_asking_for_a_user_is_no_failure(routing: Routing) -> None:
    class LimitedHubSpot(Limited, HubSpotServer):
        refusal = reply(429, {"status": "error", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"})

    there = LimitedHubSpot(users={})
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "hubspot", address)
        await staged(routing, connection_id, "one")
        delivering = Delivering(routing)
        for _ in range(3):
            await delivering.after(timedelta(seconds=20))
        limited = await shown(routing, connection_id)
        assert limited["failures"] == 0
        assert limited["reason"].startswith("asked for a user: answered 429: RATE_LIMIT, TEN_SECONDLY_ROLLING; goes on")
        there.is_limited = False
        await delivering.after(timedelta(seconds=20))
    assert (len(there.records), await states(routing, connection_id)) == (1, [("delivered", 1)])


async def test_a_fact_whose_calls_take_too_long_is_let_go_before_its_claim_lapses(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.routing.crm.handlers.LONGEST_S", 0.05)
    there, free = ZohoServer(users={}), asyncio.Event()
    respond = there.respond

    async def slow(asked: Asked) -> bytes:
        await free.wait()
        return await respond(asked)

    there.server.respond = slow
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "zoho", address)
        await routing.client.post(f"/v1/webhooks/{connection_id}:test")
        delivering = Delivering(routing)
        await delivering.after(timedelta())
        assert (await shown(routing, connection_id))["reason"] == "not done within 0.05 seconds"
        free.set()
        monkeypatch.undo()
        await delivering.after(timedelta(minutes=1))
    assert await states(routing, connection_id) == [("delivered", 2)]


@pytest.mark.parametrize("email", ["kim@customer.example", "somebody@else.example"])
async def test_a_lead_that_the_crm_had_before_is_written_and_stays_one(routing: Routing, email: str) -> None:
    there = WatchfulSalesforce(users={})
    there.own = {"Email": email, "LastName": "Kim", "Company": "Acme"}
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "salesforce", address)
        for name in ("one", "two"):
            await staged(routing, connection_id, name)
        await Delivering(routing).after(timedelta())
    if email == "kim@customer.example":
        assert await states(routing, connection_id) == [("delivered", 1)] * 2
        assert [(one["id"], one["LastName"]) for one in there.records.values()] == [("00Q1", "Kim")]
    else:
        assert [state for state, _ in await states(routing, connection_id)] == ["failed"] * 2
        assert there.records == {}


async def test_what_sales_wrote_into_a_field_that_nobody_here_knows_stays(routing: Routing) -> None:
    there = SalesforceServer(users={})
    async with serving(there.server) as address:
        connection_id = await connection_to(routing, "salesforce", address)
        await staged(routing, connection_id, "one")
        delivering = Delivering(routing)
        await delivering.after(timedelta())
        (lead,) = there.records.values()
        assert lead["LastName"] == "[not provided]"
        lead["LastName"] = "Kim"
        await staged(routing, connection_id, "two")
        await delivering.after(timedelta())
        assert [one["LastName"] for one in there.records.values()] == ["Kim"]
        there.records.clear()
        await staged(routing, connection_id, "three")
        await delivering.after(timedelta())
    assert [one["LastName"] for one in there.records.values()] == ["[not provided]"], "deleted there, written whole"
    assert await states(routing, connection_id) == [("delivered", 1)] * 3
