"""An open renewal follows the contract that it renews: its dates, what it brings, and whether there is one at all."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from shared.settings import Settings
from tests.service.routing_support import Routing, lead_id, selling
from tests.service.test_deal_pipelines import SEATS, change, open_deal


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with selling(settings) as service:
        yield service


async def won(routing: Routing, **fields: Any) -> str:
    deal_id: str = (await open_deal(routing, contract_ends_on="2027-01-31", **fields))["deal_id"]
    assert (await change(routing, deal_id, won=True)).status_code == 200
    await routing.service.run_timers()
    return deal_id


async def renewals(routing: Routing) -> list[dict[str, Any]]:
    return list((await routing.client.get("/v1/deals?pipeline=renewals")).json()["items"])


async def test_an_open_renewal_follows_its_contract_but_for_what_somebody_set(routing: Routing) -> None:
    deal_id = await won(routing, lines=[SEATS])
    (renewal,) = await renewals(routing)
    assert (renewal["expected_close_on"], renewal["contract_ends_on"], renewal["value_minor"]) == (
        "2027-01-31", "2028-01-31", 120_000,
    )  # fmt: skip
    bob = await routing.hire("bob")
    extended = {"contract_ends_on": "2028-02-29", "lines": [{**SEATS, "quantity": 20}], "rep_id": bob, "name": "Acme 2"}
    for _ in range(2):
        answer = await change(routing, deal_id, **extended)
        assert answer.status_code == 200, answer.text
    (renewal,) = await renewals(routing)
    names = ("name", "rep_id", "expected_close_on", "contract_starts_on", "contract_ends_on", "value_minor", "revision")
    assert [renewal[name] for name in names] == [
        "Renewal of Acme 2", bob, "2028-02-29", "2028-03-01", "2029-02-28", 240_000, 2,
    ]  # fmt: skip
    history = (await routing.client.get(f"/v1/deals/{renewal['deal_id']}/history")).json()["items"]
    assert [(step["by"], "contract_starts_on" in step["changed"]) for step in history] == [("throughline", True)] * 2

    set_by_hand = await change(routing, renewal["deal_id"], expected_close_on="2027-12-01", stage="proposed")
    assert set_by_hand.status_code == 200, set_by_hand.text
    await change(routing, deal_id, contract_ends_on="2028-06-30")
    (renewal,) = await renewals(routing)
    assert (renewal["expected_close_on"], renewal["contract_starts_on"], renewal["stage"]) == (
        "2027-12-01", "2028-07-01", "proposed",
    )  # fmt: skip
    last = await change(routing, deal_id, contract_ends_on="2999-12-31")
    assert last.status_code == 200, last.text
    await change(routing, deal_id, contract_ends_on=None)
    await routing.service.run_timers()
    (renewal,) = await renewals(routing)
    assert (renewal["contract_starts_on"], renewal["contract_ends_on"], renewal["status"]) == (None, None, "open")


@pytest.mark.parametrize("how", ["reopened", "imported"])
async def test_a_renewal_of_a_deal_that_is_not_won_any_more_is_lost_and_comes_again(routing: Routing, how: str) -> None:
    deal_id = await won(routing, external_id="crm-1", value_minor=500)
    (renewal,) = await renewals(routing)
    if how == "reopened":
        answer = await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "not signed"})
    else:
        deal = (await routing.client.get(f"/v1/deals/{deal_id}")).json()
        names = ("external_id", "name", "value_minor", "currency", "contract_ends_on")
        at = deal["closed_at"]
        lost = [{"occurred_at": at, "reopened": True, "stage": "negotiation"}, {"occurred_at": at, "lost": True}]
        past = {name: deal[name] for name in names} | {"lead_id": lead_id("one"), "occurred_at": at, "changes": lost}
        answer = await routing.client.post("/v1/deals:import", content=orjson.dumps(past))
    assert answer.status_code == 200, answer.text
    (gone,) = await renewals(routing)
    assert (gone["deal_id"], gone["status"], gone["lost_reason"]) == (renewal["deal_id"], "lost", "other")
    assert gone["reason"] == "the deal that it renews is not won any more"
    if how == "imported":
        await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "signed after all"})
    routing.clock.move(timedelta(minutes=1))
    assert (await change(routing, deal_id, won=True)).status_code == 200
    await routing.service.run_timers()
    assert sorted(one["status"] for one in await renewals(routing)) == ["lost", "open"]


async def test_a_deal_won_again_at_the_time_of_its_first_win_is_renewed_again_but_not_one_that_sales_lost(
    routing: Routing,
) -> None:
    deal_id = await won(routing)
    at = (await routing.client.get(f"/v1/deals/{deal_id}")).json()["closed_at"]
    for times in (1, 2):
        routing.clock.move(timedelta(days=1))
        again = await routing.client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": "typo", "occurred_at": at})
        assert again.status_code == 200, again.text
        assert (await change(routing, deal_id, won=True, occurred_at=at)).status_code == 200
        for _ in range(2):
            await routing.service.run_timers()
        assert sorted(one["status"] for one in await renewals(routing)) == [*["lost"] * times, "open"]
    (last,) = [one for one in await renewals(routing) if one["status"] == "open"]
    assert (await change(routing, last["deal_id"], lost=True, reason="pricing")).status_code == 200
    await routing.service.run_timers()
    assert [one["status"] for one in await renewals(routing)] == ["lost"] * 3


async def test_a_renewal_that_has_ended_stays_as_it_is(routing: Routing) -> None:
    deal_id = await won(routing)
    (renewal,) = await renewals(routing)
    assert (await change(routing, renewal["deal_id"], won=True)).status_code == 200
    await change(routing, deal_id, contract_ends_on="2027-03-31", value_minor=7)
    (again,) = await renewals(routing)
    assert (again["expected_close_on"], again["value_minor"], again["status"]) == ("2027-01-31", 500, "won")
