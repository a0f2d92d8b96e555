"""Deals that a CRM tells of without a contact: whose they are where that is clear, listed with the reason elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.events import TouchRecorded
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture
from throughline.services import service_code

MESSAGE = """<?xml version="1.0" encoding="UTF-8"?>
<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<e:Body><notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>00D</OrganizationId>{0}
</notifications></e:Body></e:Envelope>"""
RECORD = """<Notification><Id>{0}</Id>
<sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">{1}</sObject></Notification>"""
ACCOUNT, CONTACT = "0015g00000ABCdeEAH", "0035g00000ABCdeEAH"
DEAL = "0065g00000ABCdeEAH"


@pytest.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def tell(capture: Capture, source: dict[str, Any], *deals: dict[str, str]) -> None:
    """An outbound message about deals, each with an id of its notification."""
    told = [
        RECORD.format(
            deal["notification"],
            "".join(f"<sf:{name}>{value}</sf:{name}>" for name, value in deal.items() if name != "notification"),
        )
        for deal in deals
    ]
    answer = await capture.harness.client.post(
        f"/hooks/{source['source_id']}",
        params={"token": source["secret"]},
        content=MESSAGE.format("".join(told)),
        headers={"content-type": "text/xml"},
    )
    assert answer.status_code == 200, answer.text
    await capture.map_deliveries()


def deal(notification: str, stage: str = "Proposal", **fields: str) -> dict[str, str]:
    return {"notification": notification, "Id": DEAL, "StageName": stage, **fields}


async def untied(capture: Capture) -> list[dict[str, Any]]:
    return list((await capture.get("crm-deals")).json()["items"])


async def stages(capture: Capture) -> list[tuple[str, str]]:
    """Of each stage that was told of somebody: whose it is, and the touch that tells it."""
    touches = [fact for fact in await capture.harness.told(TouchRecorded) if fact.type == "crm_stage_changed"]
    return sorted((fact.lead_id, fact.touch_id) for fact in touches)


async def test_a_deal_is_the_only_persons_of_its_account_and_stays_theirs(capture: Capture) -> None:
    source = await capture.source("salesforce")
    await capture.post("accounts", {"name": "Acme", "domains": ["acme.example"], "external_id": ACCOUNT})
    ann = await capture.lead(email="ann@acme.example")
    await tell(capture, source, deal("n1", AccountId=ACCOUNT))
    await capture.lead(email="ben@acme.example")
    await tell(capture, source, deal("n2", "Closed Won", AccountId=ACCOUNT))
    assert await untied(capture) == []
    (known,) = (await capture.get("crm-deals", state="tied")).json()["items"]
    assert (known["deal_id"], known["lead_id"], known["reason"]) == (DEAL, ann["lead_id"], "only_person")
    assert [lead_id for lead_id, _ in await stages(capture)] == [ann["lead_id"]] * 2


async def test_the_name_of_the_account_will_do(capture: Capture) -> None:
    mapping = {"company": "Account_Name__c"}
    source = await capture.source("salesforce", mapping=mapping)
    await capture.post("accounts", {"name": "Acme", "domains": ["acme.example"]})
    ann = await capture.lead(email="ann@acme.example")
    await tell(capture, source, deal("n1", Account_Name__c="ACME Inc."))
    assert [lead_id for lead_id, _ in await stages(capture)] == [ann["lead_id"]]


async def test_what_is_not_clear_is_listed_with_the_reason_and_mapped_once_it_is_tied(capture: Capture) -> None:
    source = await capture.source("salesforce")
    other = {**deal("n0", AccountId="0015g00000ZZZZZEAH"), "Id": "0065g00000ZZZZZEAH"}
    await tell(capture, source, deal("n1"), other)
    await tell(capture, source, deal("n2", "Closed Won"))
    found = {each["deal_id"]: each for each in await untied(capture)}
    assert {each["reason"] for each in found.values()} == {"no_account", "unknown_account"}
    assert (found[DEAL]["waiting"], found[DEAL]["stage"]) == (2, "Closed Won")
    path = f"sources/{source['source_id']}/deliveries"
    waiting = (await capture.get(path, state="quarantined")).json()["items"]
    assert len(waiting) == 2
    assert DEAL in waiting[0]["reason"]

    account = (await capture.post("accounts", {"name": "Acme", "domains": ["acme.example"]})).json()
    ann, ben = await capture.lead(email="ann@acme.example"), await capture.lead(email="ben@acme.example")
    named = {"source_id": source["source_id"], "deal_id": DEAL}
    several = (await capture.post("crm-deals:tie", {**named, "account_id": account["account_id"]})).json()
    assert (several["lead_id"], several["reason"]) == (None, "several_people")
    assert several["people"] == sorted([ann["lead_id"], ben["lead_id"]])
    assert await stages(capture) == []

    tied = await capture.post("crm-deals:tie", {**named, "email": "Ben@acme.example"})
    assert (tied.status_code, tied.json()["lead_id"], tied.json()["waiting"]) == (200, ben["lead_id"], 0)
    await capture.harness.run_timers()
    assert [lead_id for lead_id, _ in await stages(capture)] == [ben["lead_id"]] * 2
    assert [each["deal_id"] for each in await untied(capture)] == [other["Id"]]
    summary = (await capture.get(f"{path}:summary")).json()
    assert (summary["mapped"], summary["quarantined"]) == (1, 1)  # the first message still holds the other deal
    await tell(capture, source, deal("n3", "Reopened"))
    assert [lead_id for lead_id, _ in await stages(capture)] == [ben["lead_id"]] * 3


async def test_a_contact_that_comes_later_ties_what_came_without_one(capture: Capture) -> None:
    source = await capture.source("salesforce")
    await tell(capture, source, deal("n1"))
    assert len(await untied(capture)) == 1
    await tell(capture, source, deal("n2", ContactId=CONTACT))
    await capture.harness.run_timers()
    assert await untied(capture) == []
    told = await stages(capture)
    assert len(told) == len({touch_id for _, touch_id in told}) == 2
    assert len({lead_id for lead_id, _ in told}) == 1


async def test_a_tie_and_a_delivery_at_the_same_moment_lose_nothing(capture: Capture) -> None:
    source = await capture.source("salesforce")
    ann = await capture.lead(email="ann@acme.example")
    tie = {"source_id": source["source_id"], "lead_id": ann["lead_id"]}
    for number in range(5):
        deal_id = f"0065g0000{number:06}AAA"
        answers = await asyncio.gather(
            tell(capture, source, {**deal(f"n{number}"), "Id": deal_id}),
            capture.post("crm-deals:tie", {**tie, "deal_id": deal_id}),
        )
        assert answers[1].status_code == 200, answers[1].text
    await capture.harness.run_timers()
    assert len(await stages(capture)) == 5
    assert await untied(capture) == []


async def test_an_erased_persons_deals_are_nobodys(capture: Capture) -> None:
    source = await capture.source("salesforce")
    ann = await capture.lead(email="ann@acme.example")
    await capture.post("crm-deals:tie", {"source_id": source["source_id"], "deal_id": DEAL, "lead_id": ann["lead_id"]})
    assert (await capture.post(f"leads/{ann['lead_id']}:erase", None)).status_code == 200
    assert (await capture.get("crm-deals", state="tied")).json()["items"] == []
    await tell(capture, source, deal("n1"))
    assert await stages(capture) == []
    assert len(await untied(capture)) == 1


@pytest.mark.parametrize(
    ("told", "status", "about"),
    [
        ({}, 422, "exactly one"),
        ({"lead_id": "0" * 8 + "-0000-8000-8000-" + "0" * 12, "email": "a@b.example"}, 422, "exactly one"),
        ({"lead_id": "0" * 8 + "-0000-8000-8000-" + "0" * 12}, 404, "no lead"),
        ({"lead_id": "nobody"}, 422, "lead_id"),
        ({"email": "nobody at home"}, 422, "/email"),
        ({"email": "nobody@home.example"}, 422, "/email"),
        ({"account_id": "none"}, 404, "no account"),
        ({"account_id": "0" * 8 + "-0000-8000-8000-" + "0" * 12}, 404, "no account"),
    ],
)
async def test_a_tie_to_nobody_says_what_is_wrong(
    capture: Capture, told: dict[str, str], status: int, about: str
) -> None:
    source = await capture.source("salesforce")
    answer = await capture.post("crm-deals:tie", {"source_id": source["source_id"], "deal_id": DEAL, **told})
    assert (answer.status_code, about in answer.text) == (status, True), answer.text
    gone = await capture.post("crm-deals:tie", {"source_id": "none", "deal_id": DEAL, "email": "a@b.example"})
    assert gone.status_code == 404
