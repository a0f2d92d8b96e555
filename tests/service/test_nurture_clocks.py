"""A replica on a machine whose clock is two days off decides as the others do: all go by the database's clock."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.clock import SystemClock
from shared.events import ConsentChanged, EnrolmentEnded, EnrolmentStarted
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, SEQUENCE, Facts, World, make_sender, open_inbox
from tests.service.test_nurture_sending import unsubscribe_link
from throughline.services import service_code

ANN = "ann@example.com"
DAY = timedelta(days=1)
OFF = {"ahead": 2 * DAY, "behind": -2 * DAY}
ONE = {**SEQUENCE, "steps": [{"id": "first", "send": HELLO}]}


class WrongClock(SystemClock):
    """The clock of a machine that is set wrong."""

    def __init__(self, off: timedelta) -> None:
        self._off = off

    def now(self) -> datetime:
        return super().now() + self._off


@pytest_asyncio.fixture(params=OFF)
async def world(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = WrongClock(OFF[request.param])
    async with open_inbox() as inbox, harness(service_code("nurture"), settings, clock=clock) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        yield made


def is_now(told: datetime) -> bool:
    return abs(told - datetime.now(UTC)) < DAY


async def test_runs_begin_end_and_may_begin_again_when_the_others_say_so(world: World) -> None:
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "reentry": {"days": 2}})
    await world.arrives(ANN)
    await world.tell(world.facts.conversion(ANN))
    for hours, times in ((47, 1), (49, 2)):
        await world.execute("UPDATE enrolments SET started_at = now() - make_interval(hours => $1)", hours)
        await world.tell(world.facts.form(ANN))
        assert len(await world.nurture.told(EnrolmentStarted)) == times
    told = [*await world.nurture.told(EnrolmentStarted), *await world.nurture.told(EnrolmentEnded)]
    assert all(is_now(fact.occurred_at) for fact in told)


async def test_a_refusal_counts_from_now_on_and_until_a_later_consent(world: World) -> None:
    await world.nurture.client.put("/v1/sequences/welcome", json={**ONE, "reentry": "always"})
    await world.arrives(ANN)
    await world.send()
    await world.nurture.client.post(await unsubscribe_link(world), data={"List-Unsubscribe": "One-Click"})
    (refusal,) = await world.nurture.told(ConsentChanged)
    assert is_now(refusal.occurred_at)
    await world.tell(refusal, world.facts.form(ANN))
    await world.send()
    assert len(world.inbox.accepted) == 1
    await world.arrives(ANN)
    await world.send()
    assert len(world.inbox.accepted) == 2


async def test_what_somebody_chooses_on_their_page_counts_from_now_on(world: World) -> None:
    await world.arrives(ANN)
    client: Any = world.nurture.client
    lead = f"/v1/leads/{world.facts.lead_id(ANN)}"
    page = "/v1/preferences/" + (await client.get(f"{lead}/preferences")).json()["url"].rpartition("/")[2]
    await client.post(page, data={"do": "pause", "days": "30"})
    until = datetime.fromisoformat((await client.get(f"{lead}/preferences")).json()["paused_until"])
    assert is_now(until - 30 * DAY)
    await client.post(page, data={"do": "resume"})
    await client.post(page, data={"do": "leave", "shown": "en"})
    choices = (await client.get(f"{lead}/preferences")).json()["choices"]
    assert [choice for choice in choices if choice["on"]] == []
    await world.send()
    assert world.inbox.accepted == []


async def test_a_pause_by_hand_lasts_as_long_as_it_says(world: World) -> None:
    await world.arrives(ANN)
    client, path = world.nurture.client, f"/v1/leads/{world.facts.lead_id(ANN)}/pauses"
    for until, status in ((datetime.now(UTC) + DAY, 201), (datetime.now(UTC) - DAY, 422)):
        asked = await client.post(path, json={"reason": "on holiday", "until": until.isoformat()})
        assert asked.status_code == status, asked.text
    (pause,) = (await client.get(path)).json()["items"]
    assert is_now(datetime.fromisoformat(pause["since"]))
    await world.send()
    assert world.inbox.accepted == []
