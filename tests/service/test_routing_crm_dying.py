"""A CRM that dies in the middle of an answer, and a sender that dies with it: no second record, and nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import pytest

from services.routing.webhooks.domain import Outgoing
from shared.webhooks import envelope
from tests.service.crm_servers import CrmServer
from tests.service.local_server import Asked, DiesAnswering, reply, serving
from tests.service.routing_support import Routing, erased, lead_id, merged
from tests.service.test_routing_crm import DEALS, LEADS, SERVERS
from tests.service.test_routing_crm_limits import Delivering, connection_to, known_by, staged, with_kim
from tests.service.test_routing_webhooks import tell

Death = Literal["reset", "cut", "killed"]
FIRST, SECOND, OTHER = "kim@customer.example", "kim@elsewhere.example", "kit@customer.example"


@pytest.fixture
async def routing(database_url: str) -> AsyncIterator[Routing]:
    async with with_kim(database_url) as service:
        yield service


@dataclass
class Mortal:
    """A CRM that does what it is asked, and dies before it has answered it; once for each word in what it is asked."""

    there: CrmServer
    death: Death
    words: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    sender: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        self.work, self.put = self.there.work, self.there.put
        self.there.work, self.there.put = self.dying, self.counted  # type: ignore[method-assign]  # around its own

    def counted(self, kind: str, key: str, values: dict[str, Any]) -> tuple[str, bool]:
        """Write a record, and note the kind of a new one."""
        crm_id, is_new = self.put(kind, key, values)
        self.made += [kind] if is_new else []
        return crm_id, is_new

    def dying(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        """Work, and die if it is time."""
        answer = self.work(asked, path, query)
        told = f"{asked.target} {asked.body.decode()}"
        due = next((word for word in self.words if asked.method != "GET" and word in told), None)
        if due is None:
            return answer
        self.words.remove(due)
        match self.death:
            case "cut":
                raise DiesAnswering(answer[: len(answer) * 3 // 4] if b"{" in answer else answer[:9])
            case "killed":
                assert self.sender is not None
                self.sender.cancel()
        raise DiesAnswering(b"")


class Sending(Delivering):
    """A sender that is begun anew when it was killed."""

    def __init__(self, routing: Routing, remote: Mortal) -> None:
        super().__init__(routing)
        self.remote = remote

    async def after(self, by: timedelta) -> None:
        """What is due then."""
        self.remote.sender = asyncio.create_task(super().after(by))
        await asyncio.wait([self.remote.sender])
        if self.remote.sender.cancelled():
            super().__init__(self.routing)
        else:
            self.remote.sender.result()


async def fact(routing: Routing, connection_id: str, name: str, kind: str, data: dict[str, Any]) -> None:
    body = envelope(kind, routing.clock.now(), data)
    await tell(routing, Outgoing(name, connection_id, kind, body, data["lead_id"]))


async def of_deliveries(routing: Routing, connection_id: str) -> dict[str, tuple[str, str]]:
    items = (await routing.client.get(f"/v1/webhooks/{connection_id}/deliveries?limit=200")).json()["items"]
    return {one["delivery_id"]: (one["state"], one["said"]) for one in items}


@pytest.mark.parametrize("death", ["reset", "cut", "killed"])
@pytest.mark.parametrize("crm", SERVERS)
async def test_who_is_another_by_the_time_that_an_answer_was_lost_is_one_record(
    routing: Routing, crm: str, death: Death
) -> None:
    merging = "erge" if crm != "salesforce" else "Merged_Into__c"
    there = SERVERS[crm](users={})
    there.contacts = {SECOND: "contact-7"}
    remote = Mortal(there, death, [FIRST, OTHER, "Rollout", merging])
    async with serving(there.server) as address:
        connection_id, sending = await connection_to(routing, crm, address), Sending(routing, remote)
        ways = {"ways": {"lead_merged_field": "Merged_Into__c"}}
        assert (await routing.client.patch(f"/v1/crm-connections/{connection_id}", json=ways)).status_code == 200
        await staged(routing, connection_id, "one")
        await sending.after(timedelta())
        await routing.qualify("kim", revision=2, personal=await known_by(routing, "kim", email=SECOND))
        await staged(routing, connection_id, "two")
        told = {"lead_id": lead_id("kim"), "name": "Rollout", "value_minor": 100, "currency": "EUR"}
        deal = (await routing.client.post("/v1/deals", json=told)).json()
        names = ("deal_id", "lead_id", "stage", "value_minor", "currency", "opened_at")
        about = {**{name: deal[name] for name in names}, "revision": 1, "personal": {"name": "Rollout"}}
        await fact(routing, connection_id, "deal", "throughline.deal.changed.v1", about)
        await routing.qualify("kit", personal=await known_by(routing, "kit", email=OTHER))
        new = {"lead_id": lead_id("kit"), "stage": "mql", "revision": 0}
        await fact(routing, connection_id, "kit", "throughline.stage.changed.v1", new)
        await sending.after(timedelta())
        await routing.service.deliver(merged("kit", "kim"))
        both = {"lead_id": lead_id("kim"), "from_lead_id": lead_id("kit")}
        await fact(routing, connection_id, "merge", "throughline.lead.merged.v1", both)
        for _ in range(10):
            await sending.after(timedelta(minutes=20))
        assert {state for state, _ in (await of_deliveries(routing, connection_id)).values()} == {"delivered"}
        assert remote.words == []
    assert sorted(remote.made) == sorted([LEADS[crm], LEADS[crm], DEALS[crm]])
    people = {one["id"]: one for (kind, _), one in there.records.items() if kind == LEADS[crm]}
    (kim,) = [crm_id for crm_id, one in people.items() if SECOND in one.values()]
    (rollout,) = [one["id"] for (kind, _), one in there.records.items() if kind == DEALS[crm]]
    assert there.associations == {(rollout, kim if crm == "hubspot" else "contact-7")}
    if crm == "salesforce":
        (kit,) = people.keys() - {kim}
        assert there.marks == {kit: {"Merged_Into__c": kim}}
    else:
        assert people.keys() == {kim}


@pytest.mark.parametrize("crm", SERVERS)
async def test_who_is_erased_before_the_answer_to_the_first_write_is_known_is_deleted_or_said_to_be_there(
    routing: Routing, crm: str
) -> None:
    there = SERVERS[crm](users={})
    remote = Mortal(there, "reset", [FIRST])
    async with serving(there.server) as address:
        connection_id, sending = await connection_to(routing, crm, address), Sending(routing, remote)
        await staged(routing, connection_id, "one")
        await sending.after(timedelta())
        place = f"/v1/crm-connections/{connection_id}/records/lead/{lead_id('kim')}"
        assert (await routing.client.get(place)).json()["crm_id"] is None
        await routing.service.deliver(erased("kim"))
        async with routing.service.consumer_runtime.database.transaction() as tx:
            await routing.service.consumer_runtime.keys.destroy(tx, lead_id("kim"), routing.clock.now())
        await fact(routing, connection_id, "gone", "throughline.lead.erased.v1", {"lead_id": lead_id("kim")})
        for _ in range(5):
            await sending.after(timedelta(minutes=20))
        state, said = (await of_deliveries(routing, connection_id))["gone"]
        receipt = (await routing.client.get(place)).json()
    if crm == "salesforce":
        assert (state, there.records) == ("delivered", {})
        assert receipt["erased_at"], receipt
    else:
        assert (state, receipt["erased_at"]) == ("failed", None)
        assert said.startswith("it may stand there")
        assert receipt["erasure"] == said


async def test_a_lead_that_is_refused_at_first_is_written_under_the_address_that_it_gets(routing: Routing) -> None:
    there = SERVERS["zoho"](users={})
    async with serving(there.server) as address:
        connection_id, sending = await connection_to(routing, "zoho", address), Delivering(routing)
        there.next_answers = [reply(200, {"users": []}), there.refused]
        await staged(routing, connection_id, "one")
        await sending.after(timedelta())
        await routing.qualify("kim", revision=2, personal=await known_by(routing, "kim", email=SECOND))
        await staged(routing, connection_id, "two")
        await sending.after(timedelta())
        assert [state for state, _ in (await of_deliveries(routing, connection_id)).values()] == ["delivered", "failed"]
    assert [one["Email"] for one in there.records.values()] == [SECOND]
