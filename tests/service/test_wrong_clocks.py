"""F22 within the services: machines whose clocks are wrong tell of deals, reps and accounts at the database's time."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from shared.clock import SystemClock
from shared.events import AccountScored, DealRotted
from shared.settings import Settings
from shared.testing import FrozenClock, Harness, harness
from tests.service.routing_support import Routing, captured, entered, lead_id, read_back
from tests.service.scoring_world import GOOD_FIT, World
from throughline.services import service_code

DAY = timedelta(days=1)
QUICK: dict[str, Any] = {
    "rot_days": 1,
    "stages": [{"id": name, "name": name.title(), "probability": 10} for name in ("first", "second", "third")],
}


class WrongClock(SystemClock):
    """The clock of a machine that is so far off."""

    def __init__(self, off: timedelta) -> None:
        self._off = off

    def now(self) -> datetime:
        return super().now() + self._off


@pytest_asyncio.fixture
async def ahead(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("routing"), settings, clock=WrongClock(2 * DAY)) as service:
        await read_back(service, datetime.now(UTC) + 365 * DAY)
        yield service


@pytest_asyncio.fixture
async def behind(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("routing"), settings, clock=WrongClock(-2 * DAY)) as service:
        yield service


async def test_f22_a_deal_goes_the_way_it_was_told_and_rots_when_it_is_silent(ahead: Harness, behind: Harness) -> None:
    assert (await ahead.client.put("/v1/pipelines/quick", json=QUICK)).status_code == 200
    await ahead.deliver(captured("one"))
    body = {"lead_id": lead_id("one"), "name": "Acme", "value_minor": 1, "currency": "EUR", "pipeline": "quick"}
    deal = (await behind.client.post("/v1/deals", json=body)).json()
    path = f"/v1/deals/{deal['deal_id']}"
    for machine, stage in ((ahead, "second"), (behind, "third")):
        assert (await machine.client.patch(path, json={"stage": stage})).json()["stage"] == stage
    history = (await ahead.client.get(f"{path}/history")).json()["items"]
    assert [step["stage"] for step in history] == ["first", "second", "third"]
    for machine in (ahead, behind):
        await machine.run_timers()
    assert await ahead.told(DealRotted) == []
    assert (await ahead.client.get("/v1/deals?rotting=true")).json()["items"] == []


async def test_f22_a_lead_that_waits_is_tried_again_when_a_rep_comes(ahead: Harness, behind: Harness) -> None:
    routing = Routing(ahead, FrozenClock())
    await routing.put_rules()
    await ahead.deliver(captured("one"), entered("one"))
    assert [hold["lead_id"] for hold in await routing.holds()] == [lead_id("one")]
    rep_id = await routing.hire("ann")
    await behind.run_timers()
    assert await routing.owner("one") == rep_id


async def test_f22_accounts_do_not_decay_ahead_of_time(settings: Settings) -> None:
    now = datetime.now(UTC)
    async with harness(service_code("scoring"), settings, clock=WrongClock(30 * DAY)) as service:
        world, anna = World(service, FrozenClock(now)), "anna@acme.example.com"
        await world.tell(world.account("acme", country="AT"))
        await world.tell(await world.captured(anna, account_id="acme", **GOOD_FIT))
        await world.tell(world.touch(world.lead_id(anna), "demo_requested", now))
        await service.run_timers()
        (told,) = await service.told(AccountScored)
        shown = (await service.client.get("/v1/accounts/acme")).json()
    assert abs(told.occurred_at - now) < DAY
    assert abs(shown["engagement"] - told.engagement) < 1
