"""The predictive score: learnt from the deals that there are, tried on later ones, shown with its reasons."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.scoring.parts import make_parts
from services.scoring.predictive import queries
from services.scoring.predictive.handlers import ask_when_due, train_next
from shared.events import DealChanged
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.service.runtime_world import anybody_waits
from tests.service.scoring_world import DAY, NOW, World
from throughline.services import service_code


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as service:
        yield World(service, clock)


async def sell(world: World, number: int, *, won: int) -> None:
    """Deals that ended an hour apart: most of those won were with software companies that looked around."""
    facts: list[Any] = []
    for place in range(number):
        email, closed = f"buyer{place}@company{place}.example.com", NOW - place * DAY / 24
        good = place % number < won
        industry = "software" if (place % 7 != 0) == good else "retail"
        facts.append(await world.captured(email, at=NOW - 200 * DAY, industry=industry, country="AT"))
        lead_id = world.lead_id(email)
        for visit in range(4 if good else 1):
            facts.append(world.touch(lead_id, "page_view", closed - (20 + visit) * DAY, channel="Email"))
        deal = world.deal(lead_id, f"deal{place}", "won" if good else "lost", 3)
        facts.append(deal.model_copy(update={"opened_at": closed - 10 * DAY, "closed_at": closed}))
    order = sorted(range(number), key=lambda place: (place * 31) % number)  # so that both ends come at all times
    deals = [fact for fact in facts if isinstance(fact, DealChanged)]
    times = [deal.closed_at for deal in deals]
    for deal, place in zip(deals, order, strict=True):
        facts[facts.index(deal)] = deal.model_copy(update={"closed_at": times[place]})
    await world.tell(*facts)


async def learn(world: World) -> dict[str, Any]:
    """Ask for a training and have it carried out."""
    asked = await world.scoring.client.post("/v1/predictive:train")
    assert asked.status_code == 202, asked.text
    await train_next(world.scoring.consumer_runtime.database)
    done = await world.scoring.client.get(f"/v1/predictive/trainings/{asked.json()['training_id']}")
    answer: dict[str, Any] = done.json()
    return answer


async def get(world: World, path: str) -> Any:
    answer = await world.scoring.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_with_too_few_wins_it_says_so(world: World) -> None:
    lead = world.lead_id("buyer0@company0.example.com")
    assert (await world.scoring.client.get(f"/v1/leads/{lead}/prediction")).status_code == 404
    await sell(world, 60, won=19)
    training = await learn(world)
    assert (training["state"], training["version"]) == ("not_enough_data", None)
    assert training["reason"] == "19 won deals of at least 20, 41 lost ones of at least 20"
    assert (await get(world, "/v1/predictive"))["reason"].startswith("not enough data: 19 won deals")
    prediction = await get(world, f"/v1/leads/{lead}/prediction")
    assert (prediction["probability"], prediction["reason"][:15]) == (None, "not enough data")
    advice = await get(world, "/v1/thresholds/advice")
    assert (advice["enough_data"], advice["won_deals"], advice["proposed_engagement"]) == (False, 19, None)


async def test_whoever_two_leads_turn_out_to_be_was_handed_over_once(world: World) -> None:
    first, second = [await world.captured(f"{name}@example.com") for name in ("first", "second")]
    raised = world.touch(first.lead_id, "demo_requested", NOW - DAY)
    await world.tell(first, second, raised)
    assert (await world.score(first.lead_id))["stage"] == "mql"
    await world.tell(world.deal(second.lead_id, "a deal", "open", 1))
    apart = await get(world, "/v1/thresholds/advice")
    assert (apart["opportunities"], apart["others"]) == (1, 1)
    await world.tell(world.merged(first.lead_id, second.lead_id))
    together = await get(world, "/v1/thresholds/advice")
    assert (together["opportunities"], together["others"]) == (1, 0)
    assert all(bar["value"] > 40 for bar in together["engagement"]), "as the first lead was handed over"
    await world.tell(world.unmerged(first.lead_id, second.lead_id))
    assert await get(world, "/v1/thresholds/advice") == apart


async def test_a_lead_like_those_that_bought_has_a_better_chance_and_sees_why(world: World) -> None:
    await sell(world, 120, won=50)
    training = await learn(world)
    assert (training["state"], training["version"], training["reason"]) == ("done", 1, None)
    model = await get(world, "/v1/predictive/models/1")
    quality = model["quality"]
    assert (model["active"], model["deals"], model["won"]) == (True, 120, 50)
    assert quality["brier"] < quality["brier_of_base_rate"]
    assert quality["learnt_from"]["until"] <= quality["tried_on"]["from"]
    assert sum(one["deals"] for one in quality["reliability"]) == quality["tried_on"]["deals"] == 30

    good = await world.captured("new@good.example.com", industry="software", country="AT")
    poor = await world.captured("new@poor.example.com", industry="retail", country="AT")
    visits = [world.touch(good.lead_id, "page_view", NOW - (10 + day) * DAY, channel="Email") for day in range(4)]
    robot = [world.touch(poor.lead_id, "page_view", NOW - 9 * DAY, automated=True) for _ in range(9)]
    await world.tell(good, poor, *visits, *robot)
    score = await world.score(good.lead_id)
    likely, unlikely = [await get(world, f"/v1/leads/{one.lead_id}/prediction") for one in (good, poor)]
    assert likely["probability"] > 0.6 > 0.3 > unlikely["probability"]
    assert (likely["version"], likely["base_rate"]) == (1, pytest.approx(50 / 120, abs=1e-6))
    total = likely["usual_log_odds"] + sum(one["log_odds"] for one in likely["contributions"])
    assert total == pytest.approx(likely["log_odds"])
    assert {one["feature"]: one["value"] for one in likely["contributions"]}["industry"] == "software"
    assert await get(world, "/v1/predictions?email=new@good.example.com") == likely
    assert await world.score(good.lead_id) == score  # it is no part of the score

    await world.tell(world.merged(poor.lead_id, good.lead_id))
    assert (await get(world, f"/v1/leads/{poor.lead_id}/prediction"))["lead_id"] == good.lead_id


async def test_versions_are_kept_and_a_choice_by_hand_stands(world: World) -> None:
    await sell(world, 80, won=40)
    await learn(world)
    client = world.scoring.client
    assert (await client.post("/v1/predictive:activate", json={"version": 2})).status_code == 404
    chosen = await client.post("/v1/predictive:activate", json={"version": 1})
    assert (chosen.json()["active_version"], chosen.json()["automatic"]) == (1, False)
    second = await learn(world)
    assert (second["version"], second["reason"]) == (2, "another version was chosen by hand")
    assert [one["version"] for one in (await get(world, "/v1/predictive/models"))["items"]] == [2, 1]
    assert (await get(world, "/v1/predictive"))["active_version"] == 1
    automatic = await client.post("/v1/predictive:activate", json={"version": None})
    assert (automatic.json()["active_version"], automatic.json()["automatic"]) == (2, True)


async def test_a_choice_by_hand_stands_although_a_training_ends_at_the_same_moment(world: World) -> None:
    await sell(world, 60, won=30)
    await learn(world)
    database = world.scoring.runtime.database
    async with database.transaction() as training:
        version = await queries.put_model(training.connection, "throughline", 60, 30, {}, {})
        assert await queries.active(training.connection) == (1, False)
        choosing = asyncio.create_task(world.scoring.client.post("/v1/predictive:activate", json={"version": 1}))
        await eventually(lambda: anybody_waits(database))
        await queries.activate(training.connection, version, "throughline", by_hand=False)
    assert (await choosing).status_code == 200
    async with database.reading() as connection:
        assert await queries.active(connection) == (1, True)


async def test_a_training_is_carried_out_once_and_survives_its_worker(world: World) -> None:
    await sell(world, 80, won=40)
    asked = [await world.scoring.client.post("/v1/predictive:train") for _ in range(3)]
    assert len({one.json()["training_id"] for one in asked}) == 1
    database = world.scoring.consumer_runtime.database
    async with database.transaction() as tx:  # a worker that took it and died
        await tx.connection.execute("UPDATE trainings SET state = 'running', alive_at = clock_timestamp()")
    await train_next(database)
    assert (await get(world, f"/v1/predictive/trainings/{asked[0].json()['training_id']}"))["state"] == "running"
    async with database.transaction() as tx:
        await tx.connection.execute("UPDATE trainings SET alive_at = alive_at - interval '6 minutes'")
    await asyncio.gather(train_next(database), train_next(database))
    assert (await get(world, f"/v1/predictive/trainings/{asked[0].json()['training_id']}"))["state"] == "done"
    assert len((await get(world, "/v1/predictive/models"))["items"]) == 1


class Loads:
    """Sees which threads load the module that learns."""

    NAME = "services.scoring.predictive.learning"

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Note it, and leave the finding to others."""
        if name == self.NAME:
            self.threads.append(threading.current_thread())


async def test_to_load_what_learns_holds_up_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = Loads()
    monkeypatch.delitem(sys.modules, Loads.NAME, raising=False)
    monkeypatch.setattr(sys, "meta_path", [loads, *sys.meta_path])
    await learn(world)
    assert loads.threads
    assert threading.main_thread() not in loads.threads


async def test_it_learns_anew_by_itself_when_there_is_something_new(world: World) -> None:
    database = world.scoring.consumer_runtime.database
    parts = make_parts(world.scoring.consumer_runtime)

    async def trainings() -> int:
        async with database.reading() as connection:
            number: int = await connection.fetchval("SELECT count(*) FROM trainings")
            return number

    await ask_when_due(database, parts)
    assert await trainings() == 0
    await sell(world, 60, won=30)
    await ask_when_due(database, parts)
    await ask_when_due(database, parts)
    assert await trainings() == 1
    await train_next(database)
    world.clock.move(datetime.now(NOW.tzinfo) - NOW + timedelta(days=8))
    await ask_when_due(database, parts)
    assert await trainings() == 1  # nothing ended since
