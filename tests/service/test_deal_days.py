"""Which day it is: a pipeline's time zone says when contracts end, and a question's whose days are counted."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.settings import Settings
from tests.service.routing_support import NOON, Routing, selling
from tests.service.test_deal_pipelines import change, open_deal, pointers
from tests.service.test_renewals import renewals


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with selling(settings) as service:
        yield service


async def test_a_renewal_is_opened_by_the_day_of_the_zone_that_its_pipeline_names(routing: Routing) -> None:
    """At noon of 25 November in UTC it is the 26th already at UTC+14, and ninety days are left until 24 February."""
    document = (await routing.client.get("/v1/pipelines/default")).json()["document"]
    deal = await open_deal(routing, contract_ends_on="2027-02-24")
    assert (await change(routing, deal["deal_id"], won=True)).status_code == 200
    await routing.service.run_timers()
    assert await renewals(routing) == []
    for zone, status in (("Nowhere/Land", 422), ("Pacific/Kiritimati", 200)):
        renewal = {"days_before": 90, "pipeline": "renewals", "time_zone": zone}
        put = await routing.client.put("/v1/pipelines/default", json={**document, "renewal": renewal})
        assert put.status_code == status, put.text
    await routing.service.run_timers()
    assert len(await renewals(routing)) == 1


async def test_a_forecast_counts_deals_by_the_days_of_the_zone_it_is_asked_in(routing: Routing) -> None:
    """At noon in UTC a deal that is won is won on the next day at UTC+14, and what was expected today is overdue."""
    won = await open_deal(routing, value_minor=50)
    await change(routing, won["deal_id"], won=True)
    await open_deal(routing, value_minor=200, expected_close_on=NOON.date().isoformat())
    day_after = str(NOON.date() + timedelta(days=1))
    asked = {"from": day_after, "to": "2027-01-01"}
    for zone, sold, late, listed in (("UTC", 0, 0, 0), ("Pacific/Kiritimati", 50, 200, 1)):
        made = (await routing.client.get("/v1/forecast", params={**asked, "tz": zone})).json()
        assert (made["total"]["won_minor"], made["overdue"]["value_minor"]) == (sold, late), zone
        found = await routing.client.get("/v1/deals", params={"closing_from": day_after, "tz": zone})
        assert len(found.json()["items"]) == listed
    assert (await routing.client.get("/v1/forecast", params={**asked, "tz": "Nowhere"})).status_code == 422


async def test_a_day_is_written_out_and_lies_within_years(routing: Routing) -> None:
    deal = await open_deal(routing)
    for day in ("1764201600", 1_764_201_600, "2026-11-27T00:00:00Z", "0001-01-01", "9999-12-31"):
        for name in ("expected_close_on", "contract_starts_on", "contract_ends_on"):
            refused = await change(routing, deal["deal_id"], **{name: day})
            assert (refused.status_code, pointers(refused)) == (422, [f"/{name}"]), day
        for path, asked in (("deals", {"closing_from": day}), ("forecast", {"from": day, "to": "2200-01-01"})):
            assert (await routing.client.get(f"/v1/{path}", params=asked)).status_code == 422, day
